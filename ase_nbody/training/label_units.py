"""Labels in another unit, or with another sign, than the model's: they are a known multiple of its predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_nbody.data import LabelledStructure
from ase_nbody.data.labels import BY_NAME
from ase_nbody.data.lint.units import ENERGY_UNITS, FORCE_UNITS, STRESS_UNITS
from ase_nbody.data.statistics import atom_counts

# The number that stands in a file for 1 eV, 1 eV/Angstrom or 1 eV/Angstrom^3, by the unit of the file.
_NUMBERS: Mapping[str, Mapping[str, float]] = {
    "energy": {unit: 1.0 / size for unit, size in ENERGY_UNITS.items()},
    "forces": {unit: 1.0 / size for unit, size in FORCE_UNITS.items()},
    "stress": STRESS_UNITS,
}
_SIGN = {"energy": "", "forces": " (gradients, not forces)", "stress": " (positive under pressure)"}
_LEAST_FRAMES = 5  # of fewer, a factor may be chance
_LEAST_COSINE = 0.9  # between labels and predictions: below it, the model does not know these structures
# A model that is right about the directions, if only roughly, is not wrong about the size by a factor of ten.
_OTHER_SIZE, _LEAST_COSINE_OF_OTHER_SIZE = 10.0, 0.6
_LEAST_NUMBERS_OF_OTHER_SIZE = 30  # of fewer, such a cosine may be chance
_FACTOR_TOLERANCE = 0.15  # of the logarithm


@dataclass(frozen=True)
class LabelUnit:
    """The unit that would explain why labels are a multiple of the predictions.

    Attributes:
        label: name of the label.
        unit: the unit, with a remark if the sign is the opposite one.
        factor: the labels divided by the predictions.
    """

    label: str
    unit: str
    factor: float

    def __str__(self) -> str:
        what = {"energy": "Differences of the energies", "forces": "The forces", "stress": "The stresses"}[self.label]
        return (
            f"{what} in the data are {self.factor:.4g} times the predicted ones, as if they were in "
            f"{self.unit}. Convert them to {BY_NAME[self.label].unit}: until then their errors mean nothing."
        )


def find_label_units(data: Sequence[LabelledStructure], predicted: Sequence[LabelledStructure]) -> list[LabelUnit]:
    """Find the labels that are a multiple of the predictions by the factor of a usual unit, or of the opposite sign.

    Args:
        data: structures with reference labels in any units.
        predicted: the same structures with the model's labels in eV and Angstrom.
    """
    found = []
    for name, numbers in _NUMBERS.items():
        known = [
            pair
            for pair in zip(data, predicted, strict=True)
            if all(np.isfinite(getattr(one, name)).all() for one in pair)
        ]
        if len(known) < _LEAST_FRAMES:
            continue
        labels, predictions = _relative_energies(known) if name == "energy" else _flat(known, name)
        factor = _factor(labels, predictions)
        if factor is not None and (unit := _unit(factor, numbers, _SIGN[name])):
            found.append(LabelUnit(name, unit, factor))
    return found


_Pairs = Sequence[tuple[LabelledStructure, LabelledStructure]]
_Both = tuple[NDArray[np.float64], NDArray[np.float64]]


def _flat(known: _Pairs, name: str) -> _Both:
    labels, predictions = (np.concatenate([np.ravel(getattr(pair[which], name)) for pair in known]) for which in (0, 1))
    return labels, predictions


def _relative_energies(known: _Pairs) -> _Both:
    """Energies of labels and predictions in eV (n,), without what follows from the composition alone."""
    counts = atom_counts([frame for frame, _ in known], range(len(chemical_symbols)))
    energies = np.array([(frame.energy, model.energy) for frame, model in known])
    rest = energies - counts @ np.linalg.lstsq(counts, energies, rcond=None)[0]
    if len(known) - np.linalg.matrix_rank(counts) < _LEAST_FRAMES - 1:
        return np.zeros(0), np.zeros(0)  # the compositions leave too little to compare
    return rest[:, 0], rest[:, 1]


def _factor(labels: NDArray[np.float64], predictions: NDArray[np.float64]) -> float | None:
    """The labels divided by the predictions, if they are about a multiple; negative if their signs are opposite."""
    lengths = np.linalg.norm(labels), np.linalg.norm(predictions)
    if not min(lengths, default=0.0) > 0.0:
        return None
    cosine = float(labels @ predictions / (lengths[0] * lengths[1]))
    size = float(lengths[0] / lengths[1])
    is_other = not 1.0 / _OTHER_SIZE < size < _OTHER_SIZE and len(labels) >= _LEAST_NUMBERS_OF_OTHER_SIZE
    least = _LEAST_COSINE_OF_OTHER_SIZE if is_other else _LEAST_COSINE
    return float(np.sign(cosine) * size) if abs(cosine) > least else None


def _unit(factor: float, numbers: Mapping[str, float], sign: str) -> str:
    """The units within the tolerance, the nearest first; empty if the model's own unit and sign are among them."""
    misfits = {unit: abs(np.log(abs(factor) / number)) for unit, number in numbers.items()}
    fitting = sorted((unit for unit in misfits if misfits[unit] < _FACTOR_TOLERANCE), key=misfits.__getitem__)
    own = misfits[next(iter(numbers))] < _FACTOR_TOLERANCE
    if factor > 0.0:
        return "" if own else " or ".join(fitting)
    return f"{' or '.join(fitting)} with the opposite sign{sign}" if fitting else ""
