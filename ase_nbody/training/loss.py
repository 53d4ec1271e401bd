"""The loss, and the errors in the units that people use."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from ase_nbody.data import Batch
from ase_nbody.hierarchy.reduction import sum_by_structure
from ase_nbody.potential import Prediction


@dataclass(frozen=True)
class Residuals:
    """Prediction minus reference of a batch, only where there is a reference; float64.

    Attributes:
        energy: (B',) in eV.
        atoms: number of atoms of these structures (B',), int64.
        forces: (N', 3) in eV/Angstrom.
        numbers: atomic numbers of these atoms (N',), int64.
        stress: (B'', 3, 3) in eV/Angstrom^3.
        energy_weight: by how much each energy counts in the loss (B',).
        forces_weight: likewise each force (N',).
        stress_weight: likewise each stress (B'',).
    """

    energy: Tensor
    atoms: Tensor
    forces: Tensor
    numbers: Tensor
    stress: Tensor
    energy_weight: Tensor
    forces_weight: Tensor
    stress_weight: Tensor

    @classmethod
    def of(cls, prediction: Prediction, batch: Batch) -> "Residuals":
        """Residuals of a batch; labels that are NaN are left out."""
        has_energy = torch.isfinite(batch.energy)
        has_forces = torch.isfinite(batch.forces).all(-1)
        has_stress = torch.isfinite(batch.stress).all(-1).all(-1)
        virial = sum_by_structure(prediction.virials, batch.hierarchy.structure, len(batch.energy))
        volume = torch.linalg.det(batch.cells).abs().reshape(-1, 1, 1)
        return cls(
            energy=(prediction.energy - batch.energy)[has_energy],
            atoms=batch.atoms_per_structure[has_energy],
            forces=(prediction.forces - batch.forces)[has_forces],
            numbers=batch.hierarchy.numbers[has_forces],
            stress=(virial / torch.where(volume > 0, volume, 1.0) - batch.stress)[has_stress],
            energy_weight=batch.weights[has_energy, 0],
            forces_weight=batch.weights[batch.hierarchy.structure, 1][has_forces],
            stress_weight=batch.weights[has_stress, 2],
        )

    @classmethod
    def joined(cls, several: Iterable["Residuals"]) -> "Residuals":
        """Those of several batches as one."""
        parts = list(several)
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def energy_per_atom(self) -> Tensor:
        """(B',) in eV."""
        return self.energy / self.atoms

    def to(self, device: str | torch.device) -> "Residuals":
        """The same on another device."""
        return Residuals(*(getattr(self, field.name).to(device) for field in fields(self)))

    def counts(self) -> Tensor:
        """How many atoms have forces, and structures energies and stresses: (3,), float64."""
        quantities = (self.forces, self.energy, self.stress)
        return self.energy.new_tensor([float(len(quantity)) for quantity in quantities])


LossKind = Literal["norm", "mse", "mae", "huber"]


def loss(
    residuals: Residuals,
    scale: float,
    energy_weight: float,
    stress_weight: float,
    *,
    kind: LossKind = "norm",
    huber_delta: float = 0.01,
    counts: Tensor | None = None,
) -> Tensor:
    """Mean misfit of the forces, plus weighted mean misfits of energy and stress, in units of ``scale``.

    With e the error of an atom's force, of dE / sqrt(N), or of a stress, the misfit of one e is
    ``norm``: |e|; ``mse``: the mean of its components' squares; ``mae``: of their absolute values; ``huber``: of
    their Huber functions, divided by delta so that they become the absolute values far beyond it.
    dE / sqrt(N) weighs small and large structures alike where errors of atoms are independent. First powers, not
    squares, keep single hard frames from ruling the fit. Each term of a mean is multiplied by the weight of its frame.

    Args:
        residuals: of a batch.
        scale: typical force in eV/Angstrom.
        energy_weight: weight of the energy (with 1 Angstrom as the unit of length).
        stress_weight: weight of the stress (with 1/100 eV/Angstrom^3 as its unit).
        kind: of the misfit.
        huber_delta: where squares become absolute values, in eV/Angstrom (eV for energies).
        counts: (3,) what the sums over forces, energies and stresses are divided by; default: how many there are.
    """
    energy = (residuals.energy / residuals.atoms.to(residuals.energy.dtype).sqrt()).unsqueeze(-1)
    stress = 100.0 * residuals.stress.flatten(1)
    counts = residuals.counts() if counts is None else counts
    counts = torch.where(counts > 0.0, counts, 1.0)
    total = residuals.energy.new_zeros(())
    terms = (
        (1.0, residuals.forces, residuals.forces_weight),
        (energy_weight, energy, residuals.energy_weight),
        (stress_weight, stress, residuals.stress_weight),
    )
    for (weight, error, weights), count in zip(terms, counts, strict=True):
        if weight:
            total = total + weight * (weights * _misfit(error / scale, kind, huber_delta / scale)).sum() / count
    return total


def _misfit(error: Tensor, kind: LossKind, delta: float) -> Tensor:
    """The misfit of each row of (n, components): (n,)."""
    match kind:
        case "norm":
            return _smooth_abs(error.square().sum(-1))
        case "mse":
            return error.square().mean(-1)
        case "mae":
            return error.abs().mean(-1)
        case "huber":
            return smooth_l1_loss(error, torch.zeros_like(error), beta=delta, reduction="none").mean(-1)


def _smooth_abs(square: Tensor) -> Tensor:
    """Square root with a finite slope at zero."""
    return (square + 1e-8).sqrt()


UNITS: Mapping[str, str] = {
    "energy": "meV",
    "energy_per_atom": "meV/atom",
    "forces": "meV/Angstrom",
    "stress": "meV/Angstrom^3",
}


def unit_of(quantity: str) -> str:
    """Unit of a quantity of ``errors``, such as ``forces_H``."""
    return UNITS.get(quantity) or UNITS[quantity.partition("_")[0]]


def errors(residuals: Iterable[Residuals]) -> dict[str, dict[str, float]]:
    """Mean absolute and root-mean-square error of each quantity over many batches, in the units of ``unit_of``.

    Returns:
        ``{quantity: {"mae": ..., "rmse": ...}}`` of the quantities that have references; where there are several
        elements, the forces on each too: ``forces_H``, ``forces_C``, ...
    """
    joined = Residuals.joined(residuals)
    values = {quantity: getattr(joined, quantity) for quantity in UNITS}
    occurring = joined.numbers.unique().tolist()
    if len(occurring) > 1:
        values |= {
            f"forces_{chemical_symbols[number]}": joined.forces[joined.numbers == number] for number in occurring
        }
    return {
        quantity: {"mae": float(1e3 * error.abs().mean()), "rmse": float(1e3 * error.square().mean().sqrt())}
        for quantity, error in values.items()
        if len(error)
    }
