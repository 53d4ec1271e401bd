"""The loss, and the errors in the units that people use."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_nbody.data import Batch
from ase_nbody.potential import Prediction
from ase_nbody.reduction import sum_by_structure


@dataclass(frozen=True)
class Residuals:
    """Prediction minus reference of a batch, only where there is a reference; float64.

    Attributes:
        energy: (B',) in eV.
        energy_per_atom: (B',) in eV.
        forces: (N', 3) in eV/Angstrom.
        stress: (B'', 3, 3) in eV/Angstrom^3.
        energy_weight: by how much each energy counts in the loss (B',).
        forces_weight: likewise each force (N',).
        stress_weight: likewise each stress (B'',).
    """

    energy: Tensor
    energy_per_atom: Tensor
    forces: Tensor
    stress: Tensor
    energy_weight: Tensor | float = 1.0
    forces_weight: Tensor | float = 1.0
    stress_weight: Tensor | float = 1.0

    @classmethod
    def of(cls, prediction: Prediction, batch: Batch) -> "Residuals":
        """Residuals of a batch; labels that are NaN are left out."""
        atoms = batch.atoms_per_structure
        energy = prediction.energy - batch.energy
        has_energy = torch.isfinite(batch.energy)
        has_forces = torch.isfinite(batch.forces).all(-1)
        forces = (prediction.forces - batch.forces)[has_forces]
        has_stress = torch.isfinite(batch.stress).all(-1).all(-1)
        virial = sum_by_structure(prediction.virials, batch.hierarchy.structure, len(batch.energy))
        volume = torch.linalg.det(batch.cells).abs().reshape(-1, 1, 1)
        stress = (virial / torch.where(volume > 0, volume, 1.0) - batch.stress)[has_stress]
        weights = (
            batch.weights[has_energy, 0],
            batch.weights[batch.hierarchy.structure, 1][has_forces],
            batch.weights[has_stress, 2],
        )
        return cls(energy[has_energy], (energy / atoms)[has_energy], forces, stress, *weights)


def loss(residuals: Residuals, scale: float, energy_weight: float, stress_weight: float) -> Tensor:
    """Mean length of the force errors, plus mean absolute errors of energy and stress, in units of ``scale``.

    The energy enters as |dE| / sqrt(N), which weighs small and large structures alike where errors of atoms are
    independent. First powers, not squares, keep single hard frames from ruling the fit. Each term of a mean is
    multiplied by the weight of its frame.

    Args:
        residuals: of a batch.
        scale: typical force in eV/Angstrom.
        energy_weight: weight of the energy (with 1 Angstrom as the unit of length).
        stress_weight: weight of the stress (with 1/100 eV/Angstrom^3 as its unit).
    """
    total = residuals.energy.new_zeros(())
    if len(residuals.forces):
        forces = _smooth_abs(residuals.forces.square().sum(-1) / scale**2)
        total = total + (residuals.forces_weight * forces).mean()
    if len(residuals.energy):
        per_root_atom = residuals.energy * residuals.energy_per_atom / scale**2  # dE^2 / N
        total = total + energy_weight * (residuals.energy_weight * _smooth_abs(per_root_atom)).mean()
    if len(residuals.stress) and stress_weight:
        stress = _smooth_abs((100.0 * residuals.stress).square().sum((-1, -2)) / scale**2)
        total = total + stress_weight * (residuals.stress_weight * stress).mean()
    return total


def _smooth_abs(square: Tensor) -> Tensor:
    """Square root with a finite slope at zero."""
    return (square + 1e-8).sqrt()


UNITS: Mapping[str, str] = {
    "energy": "meV",
    "energy_per_atom": "meV/atom",
    "forces": "meV/Angstrom",
    "stress": "meV/Angstrom^3",
}


def errors(residuals: list[Residuals]) -> dict[str, dict[str, float]]:
    """Mean absolute and root-mean-square error of each quantity over many batches, in the units of ``UNITS``.

    Returns:
        ``{quantity: {"mae": ..., "rmse": ...}}`` of the quantities that have references.
    """
    table = {}
    for quantity in UNITS:
        values = torch.cat([getattr(one, quantity).flatten() for one in residuals]) * 1e3
        if len(values):
            table[quantity] = {"mae": float(values.abs().mean()), "rmse": float(values.square().mean().sqrt())}
    return table
