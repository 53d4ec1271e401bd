"""Two zeros of energy in one set of frames, as where files of two programs or units were joined."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_nbody.data import DataError, LabelledStructure
from ase_nbody.data.invented import composition_of
from ase_nbody.text import count_of

_LEAST_FRAMES = 3  # of the smaller part
_LEAST_GAP_EV_PER_ATOM = 0.2  # smaller ones may be errors of the model
_LEAST_GAP_IN_RANGES = 3.0  # of the range of the differences within the wider part
_REFUSED_GAP_EV_PER_ATOM = 2.0  # two phases, of which the model knows one, differ by less
_IMPOSSIBLE_GAP_EV_PER_ATOM = 15.0  # no matter is bound by more; tungsten has 9
_LONGEST_RISE_ANGSTROM = 1.0  # of an atom, over the force components; molecules pressed together have up to 0.4


@dataclass(frozen=True)
class TwoZeros:
    """Energies of one composition that lie in two parts, each with another constant to the predictions.

    Attributes:
        gap: how far apart the parts are, in eV/atom.
        frames: indices of the frames of the smaller part.
        composition: the composition whose parts are the farthest from each other.
        example: where one frame of each part comes from.
    """

    gap: float
    frames: tuple[int, ...]
    composition: str
    example: tuple[str, str]

    def __str__(self) -> str:
        return (
            f"The energies of {count_of(len(self.frames), 'frame')} of {self.composition} differ from the predictions "
            f"by {self.gap:.4g} eV/atom more than those of the others, for instance {self.example[0]} and "
            f"{self.example[1]}. Were files of two programs, theories or units joined?"
        )

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {"gap_eV_per_atom": self.gap, "frames": list(self.frames), "composition": self.composition}


def find_two_zeros(data: Sequence[LabelledStructure], predicted: Sequence[LabelledStructure]) -> TwoZeros | None:
    """Find the composition whose reference energies have two zeros, compared with the predictions.

    Args:
        data: structures with reference energies in eV.
        predicted: the same structures with the model's energies.
    """
    found = None
    for group in _by_composition(data).values():
        differences = np.array([(data[i].energy - predicted[i].energy) / len(data[i].structure) for i in group])
        group = [index for index, value in zip(group, differences, strict=True) if np.isfinite(value)]
        differences = differences[np.isfinite(differences)]
        halves = _two_parts(differences)
        if halves is not None and (found is None or halves.gap > found.gap):
            parts = [[group[i] for i in part] for part in (halves.low, halves.high)]
            smaller = min(parts, key=lambda part: len(part))
            example = _shown(data[min(parts[0])]), _shown(data[min(parts[1])])
            found = TwoZeros(halves.gap, tuple(sorted(smaller)), _formula(data[group[0]]), example)
    return found


class _Parts(NamedTuple):
    """Indices of the values in the lower and in the higher part, and the gap between the parts."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    gap: float


def _two_parts(values: NDArray[np.float64]) -> _Parts | None:
    """The two parts into which values (n,) in eV/atom fall, if these are far from each other."""
    if len(values) < 2 * _LEAST_FRAMES:
        return None
    order = np.argsort(values)
    ascending = values[order]
    cut = int(np.argmax(np.diff(ascending))) + 1
    gap, widest = ascending[cut] - ascending[cut - 1], max(np.ptp(ascending[:cut]), np.ptp(ascending[cut:]))
    if min(cut, len(values) - cut) < _LEAST_FRAMES:
        return None
    if not gap > max(_LEAST_GAP_EV_PER_ATOM, _LEAST_GAP_IN_RANGES * widest):
        return None
    return _Parts(order[:cut], order[cut:], float(gap))


def refuse_two_zeros(training: Sequence[LabelledStructure], predicted: Sequence[LabelledStructure], name: str) -> None:
    """Refuse training frames with two zeros of energy, of which a fine-tuning could learn only one.

    Args:
        training: training frames.
        predicted: the same frames with the energies of the model to start from.
        name: name of this model.

    Raises:
        DataError: two parts are so far apart that no error of the model explains it.
    """
    found = find_two_zeros(training, predicted)
    if found is not None and found.gap > _REFUSED_GAP_EV_PER_ATOM:
        raise DataError(f"{found} Convert the energies of one part (see nbody lint), before {name} learns from them.")


def refuse_impossible_gap(training: Sequence[LabelledStructure]) -> None:
    """Refuse frames of one composition whose energies lie in two parts, farther apart than any matter is bound.

    Matter that is pressed together may rise by more; its forces are as large.

    Raises:
        DataError: they do; the message names a frame of each part.
    """
    for group in _by_composition(training, with_weight=True).values():
        energies = np.array([training[index].energy / len(training[index].structure) for index in group])
        parts = _two_parts(energies)
        if parts is None or parts.gap < _IMPOSSIBLE_GAP_EV_PER_ATOM:
            continue
        highest_below = float(energies[parts.low].max())
        if all(_is_pressed(training[group[i]], energies[i] - highest_below) for i in parts.high):
            continue
        low, high = (training[min(group[i] for i in part)] for part in (parts.low, parts.high))
        raise DataError(
            f"the energies of {_formula(low)} lie in two parts, more than {_IMPOSSIBLE_GAP_EV_PER_ATOM:g} eV per atom "
            f"apart, which no bond explains: {_shown(low)} has {low.energy:.4f} eV, {_shown(high)} has "
            f"{high.energy:.4f} eV. Were files of two programs, theories or units joined? Convert the energies and "
            "forces of one part (see nbody lint), or leave it out."
        )


def _is_pressed(frame: LabelledStructure, rise: float) -> bool:
    """Whether forces as large as the frame's explain that its energy is higher by ``rise`` eV/atom."""
    return bool(rise <= _LONGEST_RISE_ANGSTROM * np.sqrt(np.mean(np.square(frame.forces))))


def _by_composition(
    frames: Sequence[LabelledStructure], *, with_weight: bool = False
) -> dict[tuple[int, ...], list[int]]:
    """Indices of the frames of several atoms that have energies, by composition; only ``with_weight``, if so."""
    groups: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        counts = np.isfinite(frame.energy) and (frame.weights.energy > 0.0 or not with_weight)
        if counts and len(frame.structure) > 1:
            groups[composition_of(frame.structure)].append(index)
    return groups


def _formula(frame: LabelledStructure) -> str:
    return str(Atoms(frame.structure.numbers).get_chemical_formula())


def _shown(frame: LabelledStructure) -> str:
    return str(frame.source) if frame.source is not None else "a frame"
