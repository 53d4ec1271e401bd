"""Labels that no calculation gave: tools write zeros, or one and the same energy, where they have nothing.

Such labels teach a network nonsense without a sign of it. What is refused is impossible for labels of a calculation:
forces that are zero in every frame though symmetry does not ask for it, and one energy in most frames though they are
different structures. Single frames whose forces vanish by symmetry, and energies that are rounded, are right.
``partly_zero.py`` looks for zeros in a part of the frames.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from ase_nbody.data.labels import DataError, LabelledStructure
from ase_nbody.data.lint.fingerprint import equal_structures
from ase_nbody.hierarchy.neighbours import Pairs, find_pairs
from ase_nbody.network.surroundings import BOND
from ase_nbody.structure import Structure, StructureError

_RANGE_ANGSTROM = 6.0
_LENGTHS_ANGSTROM = (0.7, 1.5, 3.0)  # of the pair forces that are tried
_ASYMMETRY = 1e-4  # a sum of forces of this fraction of the sum of their sizes is no zero by symmetry
_IMBALANCE = 1e-2  # the same for bonds: no rounding makes such a force zero
_MIN_FRAMES, _MIN_FRAMES_OF_COMPOSITION = 3, 10  # below these numbers, rounded energies may agree by chance
_MAX_ENERGIES_KEPT = 200_000
_MAX_COMPARED = 300  # structures of one energy
OVERRIDE = "Or name the right entry with data.keys or --key {}=NAME; what is named there is taken as it is."

Group = tuple[tuple[int, ...], float]  # a composition, or an empty tuple for all frames, and an energy


class Invented:
    """Looks for labels that nobody computed, while the frames of a file are read.

    Args:
        keys: names that the user gave, by label. What the user named is taken as it is.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._judges_energies = "energy" not in keys
        self._judged_arrays = [
            name for name in ("forces", "stress") if name not in keys and not (name == "stress" and "virial" in keys)
        ]
        self._zero: set[str] = set()  # labels that were zero where they need not be
        self._nonzero: set[str] = set()
        self._frames: Counter[tuple[int, ...]] = Counter()
        self._energies: Counter[Group] = Counter()

    def add(self, frame: LabelledStructure) -> None:
        """Look at a frame."""
        structure = frame.structure
        if len(structure) < 2 and not structure.pbc.any():
            return
        for name in self._judged_arrays:
            self._look_for_zeros(name, getattr(frame, name), structure)
        if self._judges_energies and np.isfinite(frame.energy):
            composition = composition_of(structure)
            for group in ((), composition):
                self._frames[group] += 1
                key = (group, frame.energy)
                if key in self._energies or len(self._energies) < _MAX_ENERGIES_KEPT:
                    self._energies[key] += 1

    def _look_for_zeros(self, name: str, values: np.ndarray, structure: Structure) -> None:
        if name in self._nonzero or not np.isfinite(values).all():
            return
        if values.any():
            self._nonzero.add(name)
        elif name not in self._zero and not (
            forces_vanish_by_symmetry(structure) if name == "forces" else is_unbound(structure)
        ):
            self._zero.add(name)

    def refuse(self, path: str, frames_again: Callable[[], Iterable[LabelledStructure]]) -> None:
        """Refuse the file if its labels are invented.

        Args:
            path: the file, for the message.
            frames_again: reads the frames again. It is called only if one energy is suspiciously frequent.

        Raises:
            DataError: they are.
        """
        for name in sorted(self._zero - self._nonzero):
            raise DataError(
                f"{path}: the {name} {'are' if name == 'forces' else 'is'} zero in every frame, though symmetry does "
                f"not ask for it: a tool wrote zeros where it had nothing. Remove them. {OVERRIDE.format(name)}"
            )
        frequent = [group for group, count in self._energies.most_common() if self._is_frequent(group, count)]
        structures = _bound_structures(frames_again(), frequent) if frequent else {}
        for composition, energy in frequent:
            count, total = self._energies[composition, energy], self._frames[composition]
            if count_distinct(structures[composition, energy], count) > max(1.0, total - count):
                raise DataError(
                    f"{path}: {count} of {total} frames{' of one composition' if composition else ''} have the same "
                    f"energy, {energy:.10g} eV, though they are different structures: a tool wrote it where it had "
                    f"none. Remove it. {OVERRIDE.format('energy')}"
                )

    def _is_frequent(self, group: Group, count: int) -> bool:
        composition, _ = group
        least = _MIN_FRAMES_OF_COMPOSITION if composition else _MIN_FRAMES
        return 2 * count > self._frames[composition] >= least


def forces_vanish_by_symmetry(structure: Structure) -> bool:
    """Whether all forces are zero for any pair potential, as they are in a perfect crystal.

    A force on atom i is sum_j f(r_ij) r_ij/|r_ij|. Some functions f of different range are tried, with weights by
    species. If all these sums vanish, the neighbours of each atom are arranged so that no force is left.
    """
    if is_unbound(structure):
        return True
    pairs = find_pairs(structure, _RANGE_ANGSTROM)
    fade = (1.0 - (pairs.distance / _RANGE_ANGSTROM) ** 2) ** 3
    return not any(
        (np.linalg.norm(force, axis=1) > _ASYMMETRY * sizes).any() for force, sizes in _pulls(structure, pairs, fade)
    )


def unbalanced_bonds(structure: Structure) -> NDArray[np.bool_]:
    """Along which axes the bonds of each atom pull it to one side, for some pair potential (N, 3).

    Only bonds count, because no potential is so short that it lacks them.
    """
    unbalanced = np.zeros((len(structure), 3), dtype=bool)
    if is_unbound(structure):
        return unbalanced
    pairs = find_pairs(structure, _RANGE_ANGSTROM)
    radii = covalent_radii[structure.numbers]
    longest = BOND * (radii[pairs.first] + radii[pairs.second])
    fade = np.clip(1.0 - (pairs.distance / longest) ** 2, 0.0, None)
    for force, sizes in _pulls(structure, pairs, fade):
        unbalanced |= np.abs(force) > _IMBALANCE * sizes[:, None]
    return unbalanced


def _pulls(
    structure: Structure, pairs: Pairs, weight: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.float64], ...]]:
    """For some pair potentials, the sum of forces on each atom (N, 3), and the sum of their sizes (N,).

    Args:
        structure: the structure.
        pairs: its pairs.
        weight: how much each pair counts.
    """
    positions, numbers = structure.positions, structure.numbers
    vectors = positions[pairs.second] + pairs.shift @ structure.cell - positions[pairs.first]
    for length in _LENGTHS_ANGSTROM:
        size = numbers[pairs.second] ** 0.5 * np.exp(-pairs.distance / length) * weight
        force, sizes = np.zeros((len(structure), 3)), np.zeros(len(structure))
        np.add.at(force, pairs.first, vectors * (size / pairs.distance)[:, None])
        np.add.at(sizes, pairs.first, size)
        yield force, sizes


def is_unbound(structure: Structure) -> bool:
    """Whether no atom has a neighbour. A structure that is too crowded to look for them is not judged either."""
    try:
        return not len(find_pairs(structure, _RANGE_ANGSTROM))
    except StructureError:
        return True


def composition_of(structure: Structure) -> tuple[int, ...]:
    """The atomic numbers of a structure in ascending order, then how many atoms each has."""
    numbers, counts = np.unique(structure.numbers, return_counts=True)
    return (*numbers.tolist(), *counts.tolist())


def _bound_structures(frames: Iterable[LabelledStructure], groups: Sequence[Group]) -> dict[Group, list[Structure]]:
    """The first structures of each group that have any bond."""
    found: dict[Group, list[Structure]] = {group: [] for group in groups}
    for frame in frames:
        for composition in ((), composition_of(frame.structure)):
            structures = found.get((composition, frame.energy))
            if structures is not None and len(structures) < _MAX_COMPARED and not is_unbound(frame.structure):
                structures.append(frame.structure)
    return found


def count_distinct(structures: Sequence[Structure], count: int) -> float:
    """How many different structures there are among ``count``, of which the first ones are given.

    If most of these differ, so do most of the others. Otherwise the others may all be copies.
    """
    distinct = len(structures) - len({j for _, j in equal_structures(structures)})
    return distinct * max(1.0, count / _MAX_COMPARED) if 2 * distinct > _MAX_COMPARED else distinct
