"""The loss of a training, and the errors of a network in the units that people use."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from ase_nbody.data import LABELS, Batch
from ase_nbody.data.labels import BY_NAME, MisfitUnit
from ase_nbody.hierarchy.reduction import sum_by_structure
from ase_nbody.prediction import Prediction


def predicted_labels(prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
    """The network's predictions for the labels of a batch, by name. Labels that it does not predict are left out.

    Returns:
        Values with the shapes and units of ``batch.labels``. A structure without a volume has its virial in place of
        the stress.
    """
    virial = sum_by_structure(prediction.virials, batch.hierarchy.structure, batch.hierarchy.n_structures)
    volume = torch.linalg.det(batch.cells).abs().reshape(-1, 1, 1)
    stress = virial / torch.where(volume > 0, volume, 1.0)
    return {"energy": prediction.energy, "forces": prediction.forces, "stress": stress, **prediction.outputs}


@dataclass(frozen=True)
class Residual:
    """Errors of one label, for the n structures or atoms that have a reference value.

    Attributes:
        error: prediction minus reference (n, ...) in the label's unit, float64.
        weight: how much each of them counts in the loss (n,), float64.
        atoms: number of atoms in the structure that each of them belongs to (n,), int64.
        numbers: atomic numbers (n,), int64; 0 where the label belongs to structures.
    """

    error: Tensor
    weight: Tensor
    atoms: Tensor
    numbers: Tensor

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Residual":
        """Apply ``change`` to each tensor."""
        return Residual(change(self.error), change(self.weight), change(self.atoms), change(self.numbers))

    @classmethod
    def joined(cls, several: Iterable["Residual"]) -> "Residual":
        """Join the residuals of several batches."""
        rows = [(one.error, one.weight, one.atoms, one.numbers) for one in several]
        return cls(*(torch.cat(column) for column in zip(*rows, strict=True)))


@dataclass(frozen=True)
class Residuals:
    """Errors of a batch.

    Attributes:
        of_label: the residual of each label that the network predicts, by name.
    """

    of_label: Mapping[str, Residual]

    def __getitem__(self, name: str) -> Residual:
        return self.of_label[name]

    @classmethod
    def of(cls, prediction: Prediction, batch: Batch) -> "Residuals":
        """Compare a prediction with the labels of its batch. Labels that are NaN are left out."""
        predicted, structure = predicted_labels(prediction, batch), batch.hierarchy.structure
        sizes = batch.atoms_per_structure
        found = {}
        for label in LABELS:
            if label.name not in predicted:
                continue
            reference, weight = batch.labels[label.name], batch.weights[label.name]
            known = torch.isfinite(_as_rows(reference)).all(-1)
            found[label.name] = Residual(
                error=(predicted[label.name] - reference)[known],
                weight=(weight[structure] if label.per_atom else weight)[known],
                atoms=(sizes[structure] if label.per_atom else sizes)[known],
                numbers=(batch.hierarchy.numbers if label.per_atom else torch.zeros_like(sizes))[known],
            )
        return cls(found)

    @classmethod
    def joined(cls, several: Iterable["Residuals"]) -> "Residuals":
        """Join the residuals of several batches. All must come from one network."""
        parts = list(several)
        return cls({name: Residual.joined(part[name] for part in parts) for name in parts[0].of_label})

    def to(self, device: str | torch.device) -> "Residuals":
        """Copy the residuals to another device."""
        return Residuals({name: one.mapped(lambda tensor: tensor.to(device)) for name, one in self.of_label.items()})

    def counts(self) -> Tensor:
        """For each row of ``LABELS``, how many structures or atoms have a reference value (n_labels,), float64."""
        numbers = [len(self.of_label[label.name].error) if label.name in self.of_label else 0 for label in LABELS]
        device = next(iter(self.of_label.values())).error.device
        return torch.tensor(numbers, dtype=torch.float64, device=device)


LossKind = Literal["norm", "mse", "mae", "huber"]


def loss(
    residuals: Residuals,
    scale: float,
    weights: Mapping[str, float],
    *,
    kind: LossKind = "norm",
    huber_delta: float = 0.01,
    counts: Tensor | None = None,
) -> Tensor:
    """The sum over all labels of their mean misfits, each times its weight.

    With the typical force s = ``scale``, let e be the error of a label in units of its misfit (see ``Label.misfit``):

        forces    dF / s
        energy    dE / (s sqrt(N) 1 Angstrom)
        stress    d(stress) / (0.01 s / Angstrom^2)
        charges   dq / (0.1 e)
        dipole    d(dipole) / (0.1 e Angstrom sqrt(N))

    The misfit of e depends on the ``kind``:

        norm    |e|
        mse     the mean of the squares of its components
        mae     the mean of the absolute values of its components
        huber   the mean of their Huber functions, divided by delta so that they become absolute values far beyond it

    If errors of atoms are independent, dE / sqrt(N) gives small and large structures the same weight. Squares would let
    a few hard frames rule the fit; first powers do not. Each term of a mean is multiplied by the weight of its frame.

    Args:
        residuals: the errors of a batch.
        scale: typical force in eV/Angstrom.
        weights: weight of each label, by name. Labels that the network does not predict are left out.
        kind: the kind of misfit.
        huber_delta: force error in eV/Angstrom at which squares become absolute values: |e| = huber_delta / s.
        counts: numbers by which the sums are divided to become means; default: ``residuals.counts()``.
    """
    counts = residuals.counts() if counts is None else counts
    counts = torch.where(counts > 0.0, counts, 1.0)
    count_of = {label.name: count for label, count in zip(LABELS, counts, strict=True)}
    total = counts.new_zeros(())
    for name, weight in weights.items():
        if weight and name in residuals.of_label:
            residual = residuals[name]
            misfit = _misfit(_without_unit(residual, BY_NAME[name].misfit, scale), kind, huber_delta / scale)
            total = total + weight * (residual.weight * misfit).sum() / count_of[name]
    return total


def _without_unit(residual: Residual, unit: MisfitUnit, scale: float) -> Tensor:
    """Errors (n, components), each divided by the size that counts as 1 in the loss."""
    error = _as_rows(residual.error)
    if unit.grows:
        error = error / residual.atoms.to(error.dtype).sqrt().unsqueeze(-1)
    error = (1.0 / unit.size) * error
    return error / scale if unit.relative else error


def _as_rows(values: Tensor) -> Tensor:
    """Values (n, ...) in the shape (n, components)."""
    return values.flatten(1) if values.dim() > 1 else values.unsqueeze(-1)


def _misfit(error: Tensor, kind: LossKind, delta: float) -> Tensor:
    """The misfit (n,) of errors (n, components)."""
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
    """The square root of ``square``, with a finite slope at zero."""
    return (square + 1e-8).sqrt()


UNITS: Mapping[str, str] = {"energy": "meV", "energy_per_atom": "meV/atom"} | {
    label.name: label.error_unit for label in LABELS
}


def unit_of(quantity: str) -> str:
    """Unit of a quantity that ``errors`` returns, such as ``forces_H``."""
    return UNITS.get(quantity) or UNITS[quantity.partition("_")[0]]


def errors(residuals: Iterable[Residuals]) -> dict[str, dict[str, float]]:
    """Mean absolute and root-mean-square error of each quantity over many batches, in the units of ``unit_of``.

    Returns:
        ``{quantity: {"mae": ..., "rmse": ...}}`` for the quantities that are predicted and have reference values. If
        there are several elements, per-atom quantities also come for each element: ``forces_H``, ``forces_C``, ...
    """
    joined = Residuals.joined(residuals)
    values = {name: joined[name].error for name in joined.of_label}
    values["energy_per_atom"] = values["energy"] / joined["energy"].atoms
    values = {quantity: values[quantity] for quantity in UNITS if quantity in values}
    for label in LABELS:
        if label.per_atom and label.name in values:
            values |= _by_element(label.name, joined[label.name])
    return {
        quantity: {"mae": float(1e3 * error.abs().mean()), "rmse": float(1e3 * error.square().mean().sqrt())}
        for quantity, error in values.items()
        if len(error)
    }


def _by_element(name: str, residual: Residual) -> dict[str, Tensor]:
    """The errors of a label for each element, if there are several elements."""
    occurring = residual.numbers.unique().tolist()
    if len(occurring) < 2:
        return {}
    return {f"{name}_{chemical_symbols[number]}": residual.error[residual.numbers == number] for number in occurring}
