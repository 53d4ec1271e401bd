"""Another zero of energy: a constant for each atom of an element, by which two theories or programs differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_nbody.data import LabelledStructure
from ase_nbody.data.statistics import atom_counts, energies_per_atom

_LEAST_OFFSET_EV_PER_ATOM = 0.01  # smaller ones may be errors of the model
_LEAST_REDUCTION = 5.0  # of the mean absolute error


@dataclass(frozen=True)
class EnergyZero:
    """The constants that the predicted energies lack, sum_z n_z c_z for n_z atoms of element z in a structure.

    Attributes:
        constants: c_z in eV by symbol. If the compositions do not determine them, those of least norm.
        determined: whether the compositions determine the constant of each element.
        offset: mean of the whole constant in eV/atom.
        errors: ``energy`` (meV) and ``energy_per_atom`` (meV/atom) without it: ``{"mae": ..., "rmse": ...}``.
    """

    constants: dict[str, float]
    determined: bool
    offset: float
    errors: dict[str, dict[str, float]]

    def __str__(self) -> str:
        constants = ", ".join(f"{symbol} {value:+.4f} eV" for symbol, value in self.constants.items())
        one_of_many = "" if self.determined else " (other values would do as well: the compositions do not tell)"
        return (
            f"The energies of the data have another zero than the model's, by {self.offset:+.4f} eV/atom on average. "
            f"For each atom: {constants}{one_of_many}. Without these constants the energies err by "
            f"{self.errors['energy_per_atom']['mae']:.3f} meV/atom. Forces do not depend on them."
        )

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "constants_eV": self.constants,
            "determined": self.determined,
            "offset_eV_per_atom": self.offset,
            "errors_without": self.errors,
        }


def find_energy_zero(data: Sequence[LabelledStructure], predicted: Sequence[LabelledStructure]) -> EnergyZero | None:
    """Fit the constants to reference minus predicted energies (see ``energies_per_atom``).

    Args:
        data: structures with reference energies in eV.
        predicted: the same structures with the model's energies.

    Returns:
        The constants, or None if the energies have the model's zero: what the constants explain is small, or no large
        part of the error.
    """
    known = [pair for pair in zip(data, predicted, strict=True) if np.isfinite([one.energy for one in pair]).all()]
    if not known:
        return None
    elements = sorted({number for frame, _ in known for number in frame.structure.numbers.tolist()})
    counts = atom_counts([frame for frame, _ in known], elements)
    differences = np.array([frame.energy - model.energy for frame, model in known])
    constants, determined = energies_per_atom(counts, differences)
    sizes, rest = counts.sum(1), differences - counts @ constants
    offset = float(np.mean(counts @ constants / sizes))
    before, after = np.abs(differences / sizes).mean(), np.abs(rest / sizes).mean()
    if abs(offset) < _LEAST_OFFSET_EV_PER_ATOM or before < _LEAST_REDUCTION * after:
        return None
    named = {chemical_symbols[number]: float(value) for number, value in zip(elements, constants, strict=True)}
    errors = {"energy": _measures(rest), "energy_per_atom": _measures(rest / sizes)}
    return EnergyZero(named, determined, offset, errors)


def _measures(error: NDArray[np.float64]) -> dict[str, float]:
    """Mean absolute and root-mean-square error, in thousandths of the unit."""
    return {"mae": float(1e3 * np.abs(error).mean()), "rmse": float(1e3 * np.sqrt(np.mean(error**2)))}
