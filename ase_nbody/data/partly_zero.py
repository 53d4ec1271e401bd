"""Labels that are exactly zero in a part of the frames, where a tool had nothing to write.

A frame may have such labels for good reasons: symmetry asks for them, the structure is at rest, or its energy is the
zero of all energies. So zeros count as invented only where none of this can be true:

- forces: symmetry does not ask for zero, and the energy is higher than that of frames of the same composition that have
  forces. Where no such frame tells, one frame of a composition is taken for one at rest, if few compositions have one.
- forces of some atoms: their bonds do not balance, other atoms are not at rest, and rounding does not explain the
  zeros. ``atoms.get_forces()`` of ASE, and some programs, write zeros for atoms that are held in place.
- stress: forces act in the frame, so that it is not at rest, or more than a few frames have it.
- energy: those of the other frames of the composition are all far away, or more than a few structures have it and
  hardly any has a small energy.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.invented import (
    OVERRIDE,
    composition_of,
    count_distinct,
    forces_vanish_by_symmetry,
    is_unbound,
    unbalanced_bonds,
)
from ase_nbody.data.labels import DataError, LabelledStructure
from ase_nbody.structure import Structure

_AT_REST = 0.05  # eV/Angstrom: a larger force does not act in a structure whose stress was relaxed to zero
_FEW, _FEW_IN_A_HUNDRED = 3, 10  # frames; whichever is more
_FAR_EV_PER_ATOM = 1.0  # above the energy of any thermal motion, which is 0.13 eV/atom at 1000 K
_NEAR = 0.03  # energies below this share of the range of all are small
_MAX_ENERGIES_KEPT, _MAX_ZEROS_KEPT = 100_000, 1000
_MOST_NAMED = 8  # frames in a message
# Of numbers that were rounded, about twice as many have the smallest size as are zero. Held atoms have zeros alone.
_ZEROS_OF_SMALLEST, _MIN_ZEROS = 3, 6  # in a frame, for each number of the smallest size; in the file

Composition = tuple[int, ...]


class _AtRest(NamedTuple):
    """A frame whose forces are zero though symmetry does not ask for it."""

    number: int
    energy: float


class PartlyZero:
    """Looks for labels that are zero in a part of the frames, while the frames of a file are read.

    Args:
        keys: names that the user gave, by label. What the user named is taken as it is.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._judged = {"energy", "forces", "stress"} - set(keys) - ({"stress"} if "virial" in keys else set())
        self._numbers = {"energy": 0, "forces": 0, "stress": 0}  # frames with this label
        self._frame = 0
        self._without_forces: defaultdict[Composition, list[_AtRest]] = defaultdict(list)
        self._energies: defaultdict[Composition, array[float]] = defaultdict(lambda: array("d"))
        self._without_stress: dict[bool, list[int]] = {True: [], False: []}  # by whether forces act
        self._has_zero_energy = False
        self._held: dict[int, int] = {}  # frames with forces that are zero where atoms are held: how many numbers
        self._rounded = 0  # frames with such zeros that rounding may explain

    def add(self, frame: LabelledStructure) -> None:
        """Look at a frame."""
        number = self._frame if frame.source is None else frame.source.frame
        self._frame += 1
        for name in self._numbers:
            self._numbers[name] += bool(np.isfinite(getattr(frame, name)).all())
        structure = frame.structure
        if len(structure) < 2 and not structure.pbc.any():
            return
        self._has_zero_energy |= frame.energy == 0.0
        if "forces" in self._judged and np.isfinite(frame.forces).all():
            composition = composition_of(structure)
            if frame.forces.any():
                self._look_for_held_atoms(number, frame.forces, structure)
                if np.isfinite(frame.energy) and len(self._energies[composition]) < _MAX_ENERGIES_KEPT:
                    self._energies[composition].append(frame.energy)
            elif len(self._without_forces[composition]) < _MAX_ZEROS_KEPT and not forces_vanish_by_symmetry(structure):
                self._without_forces[composition].append(_AtRest(number, frame.energy))
        if "stress" in self._judged and (frame.stress == 0.0).all() and not is_unbound(structure):
            moves = float(np.abs(frame.forces).max()) > _AT_REST  # false without forces
            self._without_stress[moves].append(number)

    def _look_for_held_atoms(self, number: int, forces: NDArray[np.float64], structure: Structure) -> None:
        """Look for forces that are zero, along an axis or as a whole, although the bonds of the atom do not balance."""
        sizes = np.abs(forces)
        zero = sizes == 0.0
        if not zero.any() or sizes.max() <= _AT_REST:
            return
        pulled = unbalanced_bonds(structure)
        zeros = int((zero & (pulled | (zero.all(1) & pulled.any(1))[:, None])).sum())
        smallest = sizes[~zero].min()
        if zeros >= _ZEROS_OF_SMALLEST * int((sizes == smallest).sum()):
            self._held[number] = zeros
        elif zeros:
            self._rounded += 1

    def refuse(self, path: str, frames_again: Callable[[], Iterable[LabelledStructure]]) -> None:
        """Refuse the file if labels of some of its frames are invented.

        Args:
            path: the file, for the message.
            frames_again: reads the frames again. It is called only if there are energies of zero.

        Raises:
            DataError: they are.
        """
        self._refuse_zeros(path, "forces", self._invented_forces())
        self._refuse_held_atoms(path)
        stresses = self._without_stress[True]
        if stresses or self._are_many(len(self._without_stress[False]), "stress"):
            stresses = stresses + self._without_stress[False]
        self._refuse_zeros(path, "stress", stresses)
        if "energy" in self._judged and self._has_zero_energy:
            self._refuse_zeros(path, "energy", _invented_energies(frames_again()))

    def _are_many(self, count: int, label: str) -> bool:
        return count > max(_FEW, _FEW_IN_A_HUNDRED * self._numbers[label] // 100)

    def _invented_forces(self) -> list[int]:
        """Numbers of the frames whose forces cannot be zero."""
        invented, single = [], []
        for composition, frames in self._without_forces.items():
            others = np.array(self._energies[composition])
            energies = {round(frame.energy, 6) for frame in frames if np.isfinite(frame.energy)}
            alone = len(frames) == 1 or (len(energies) == 1 and np.isfinite([frame.energy for frame in frames]).all())
            if len(others) and energies:
                highest = float(np.median(others) if alone else others.min())
                if any(frame.energy > highest for frame in frames):
                    invented += [frame.number for frame in frames]
            elif alone:
                single.append([frame.number for frame in frames])
            else:
                invented += [frame.number for frame in frames]
        if self._are_many(len(single), "forces"):
            invented += [number for numbers in single for number in numbers]
        return invented

    def _refuse_held_atoms(self, path: str) -> None:
        if sum(self._held.values()) < _MIN_ZEROS or len(self._held) <= self._rounded:
            return
        raise DataError(
            f"{path}: in {len(self._held)} of {self._numbers['forces']} frames ({_named(self._held)}) forces are "
            "exactly zero on some atoms whose bonds do not balance, while others move: zeros were written for atoms "
            "that a constraint holds. Write the forces without constraints, atoms.get_forces(apply_constraint=False), "
            f"or remove the forces of these frames. {OVERRIDE.format('forces')}"
        )

    def _refuse_zeros(self, path: str, label: str, frames: list[int]) -> None:
        if not frames:
            return
        verb, why = {
            "forces": ("are", "though symmetry does not ask for it"),
            "stress": ("is", "though the atoms are not at rest there, or not all of these structures can be"),
            "energy": ("is", "though the other energies are far from it"),
        }[label]
        raise DataError(
            f"{path}: the {label} {verb} exactly zero in {len(frames)} of {self._numbers[label]} frames "
            f"({_named(frames)}), {why}: a tool wrote zeros where it had nothing. Remove this label from these frames. "
            f"{OVERRIDE.format(label)}"
        )


def _named(frames: Collection[int]) -> str:
    """The numbers of the first frames."""
    return ", ".join(map(str, sorted(frames)[:_MOST_NAMED])) + ", ..." * (len(frames) > _MOST_NAMED)


def _invented_energies(frames: Iterable[LabelledStructure]) -> list[int]:
    """Numbers of the frames whose energies cannot be zero."""
    energies: defaultdict[Composition, array[float]] = defaultdict(lambda: array("d"))
    zeros: defaultdict[Composition, list[tuple[int, Structure]]] = defaultdict(list)
    for count, frame in enumerate(frames):
        if not np.isfinite(frame.energy):
            continue
        for composition in ((), composition_of(frame.structure)):
            if frame.energy != 0.0:
                energies[composition].append(frame.energy)
            elif len(zeros[composition]) < _MAX_ZEROS_KEPT and not is_unbound(frame.structure):
                zeros[composition].append((count if frame.source is None else frame.source.frame, frame.structure))
    found: set[int] = set()
    for composition, blank in zeros.items():
        others = np.array(energies[composition])
        if not blank or not len(others):
            continue  # one energy of all frames is judged elsewhere
        spread = np.ptp(others)
        far = composition and np.abs(others).min() > max(spread, _FAR_EV_PER_ATOM * len(blank[0][1]))
        structures = [structure for _, structure in blank]
        allowed = _FEW + int((np.abs(others) <= _NEAR * spread).sum())
        if far or (len(blank) > allowed and count_distinct(structures, len(structures)) > allowed):
            found.update(number for number, _ in blank)
    return sorted(found)
