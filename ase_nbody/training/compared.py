"""Sets of structures with the labels of a reference and of a network, as reports and their figures compare them."""

import math
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_nbody.data import Label, LabelledStructure


class Part(NamedTuple):
    """One set of structures with the reference labels and the network's labels.

    Attributes:
        name: training, validation or test.
        frames: the frames with the reference labels.
        predicted: the same frames with the network's labels.
    """

    name: str
    frames: list[LabelledStructure]
    predicted: list[LabelledStructure]

    def pairs(self, label: Label) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """References and predictions (n, components) of a label where both are known; energies are in eV/atom."""
        reference, predicted = (
            np.concatenate([_rows(label, frame) for frame in frames]) for frames in (self.frames, self.predicted)
        )
        known = np.isfinite(reference).all(axis=1) & np.isfinite(predicted).all(axis=1)
        return reference[known], predicted[known]

    def n_frames(self, label: Label) -> int:
        """Number of frames in which both labels are known."""
        both = zip(self.frames, self.predicted, strict=True)
        return sum(all(np.isfinite(getattr(one, label.name)).all() for one in pair) for pair in both)

    def element_errors(self) -> dict[str, NDArray[np.float64]]:
        """Force errors (n, 3) in eV/Angstrom by element; without reference forces, none."""
        numbers = np.concatenate([frame.structure.numbers for frame in self.frames])
        reference, predicted = (
            np.concatenate([frame.forces for frame in labels]) for labels in (self.frames, self.predicted)
        )
        error = predicted - reference
        known = np.isfinite(error).all(axis=1)
        return {chemical_symbols[z]: error[known & (numbers == z)] for z in np.unique(numbers[known])}


def _rows(label: Label, frame: LabelledStructure) -> NDArray[np.float64]:
    """The values of a label (n, components): a row for the structure or for each atom; energies are in eV/atom."""
    values = np.asarray(getattr(frame, label.name))
    if label.name == "energy":
        values = values / len(frame.structure)
    return values.reshape(-1, math.prod(label.shape))


def per_atom(label: Label, unit: str) -> str:
    """The unit of a label in ``Part.pairs``: per atom for energies, otherwise ``unit`` itself."""
    return f"{unit}/atom" if label.name == "energy" else unit


def mean_absolute_error(reference: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """The mean over all values, in their unit; 0 if there are none."""
    return float(np.abs(predicted - reference).mean()) if reference.size else 0.0
