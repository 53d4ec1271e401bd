"""Solve the weights of the read-outs by least squares, after the last epoch.

The energy is linear in the weights a and b of all read-outs (``nn.heads.ReadOut``), and so are forces and stresses.
Descent finds a common level of all kinds of structures late: surfaces beside bulk, say. Least squares find it at once.
With r what the trained network lacks, and J the derivatives of its predictions by these weights, the change x of the
weights minimises

    sum_labels  c / n  sum_rows |r - J x|^2  +  strength * sum_k D_k x_k^2

    c     weight of the label in the loss, by the square of its misfit's unit and by the present mean misfit, in a loss
          of first powers: |e| is nearly e^2 / (2 e_0) + e_0 / 2 where errors have the size e_0
    n     number of structures with the label
    D_k   the diagonal of the normal equations, so that the unit of a feature does not matter

so what the data do not tell stays as it is. Descent follows forces well, and r of the forces is known along few
directions only. So there is a second way: the forces keep their trained values as far as they can, which sets their r
to zero. The validation loss chooses one of the two and a strength, or the trained weights.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ase_nbody.data import Batch, LabelledStructure, collate, prepare
from ase_nbody.data.labels import BY_NAME
from ase_nbody.data.statistics import evenly_spaced
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.training.config import ConfigError, OptimisationConfig
from ase_nbody.training.evaluation import predictions
from ase_nbody.training.linear_rows import Rows, rows_of, set_weights, weights_of
from ase_nbody.training.loss import Residuals, errors, loss, unit_of
from ase_nbody.training.splits import take
from ase_nbody.undisturbed import undisturbed

ROWS_PER_UNKNOWN = 10  # along random directions of forces
MAX_UNKNOWNS = 4096  # their normal equations take 128 MiB for each label
STRENGTHS = tuple(10.0**-power for power in range(8))
_WORSE_IN_A_ROW = 2  # after so many strengths that make it worse, weaker ones are not tried
_ATOMS_PER_BATCH = 500

Errors = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Solution:
    """What a solution of the read-outs gave.

    Attributes:
        strength: the strength of the ridge; None if the validation frames wanted the trained weights.
        kept_forces: whether the forces kept their trained values as far as they could.
        unknowns: number of weights.
        before: validation loss and errors (see ``loss.errors``) of the trained weights.
        after: the same with the weights that the network has now.
    """

    strength: float | None
    kept_forces: bool
    unknowns: int
    before: tuple[float, Errors]
    after: tuple[float, Errors]

    def __str__(self) -> str:
        what = f"Least squares for {self.unknowns} weights of the read-outs"
        if self.strength is None:
            return f"{what} do not lower the validation loss ({self.before[0]:.4g}): the trained weights stay"
        what += " with forces kept" if self.kept_forces else ""
        return f"{what} lower the validation loss from {self.before[0]:.4g} to {self.after[0]:.4g}: {self.changes}"

    @property
    def changes(self) -> str:
        """The changes of the validation errors."""
        (_, before), (_, after) = self.before, self.after
        shown = [name for name in ("energy_per_atom", "forces", "stress") if name in before]
        return ", ".join(
            f"{name.replace('_', ' ')} {before[name]['rmse']:.3g} -> {after[name]['rmse']:.3g} {unit_of(name)}"
            for name in shown
        )

    def as_card(self) -> dict[str, Any]:
        """What the card of the model says of it."""
        loss_before, loss_after = self.before[0], self.after[0]
        return {
            "weights": self.unknowns,
            "ridge": self.strength,
            "forces kept": self.kept_forces,
            "validation loss": {"trained": loss_before, "solved": loss_after},
        }


def require_solvable(network: NBodyNetwork) -> None:
    """Refuse, before the training, a network whose read-outs could not be solved after it.

    Raises:
        ConfigError: it has too many weights in its read-outs, or none that are free.
    """
    size = len(weights_of(network))
    if not 0 < size <= MAX_UNKNOWNS:
        raise ConfigError(
            f"training.solve_read_outs solves at most {MAX_UNKNOWNS:,} weights, and the read-outs of this network have "
            f"{size:,} that are free ({len(network.config.species)} species): leave it out"
        )


@undisturbed()
def solve_read_outs(
    network: NBodyNetwork,
    training: Sequence[LabelledStructure],
    validation: Sequence[LabelledStructure],
    options: OptimisationConfig,
) -> Solution:
    """Give the read-outs of a trained network the weights that least squares find, where validation says so.

    Args:
        network: the network; its read-outs change in place. Frozen ones stay.
        training: the frames that it was trained on. Of very many, evenly spaced ones are taken.
        validation: frames whose loss is to fall.
        options: the loss, with the weights of the last epoch, and the seed.
    """
    trained = chosen = weights_of(network)
    best = before = _validated(network, validation, options)
    kept, strength = False, None
    sums = _sums(network, training, options)
    for keep in (False, True):
        ridge, worse = _Ridge.of(sums, network.config.energy_scale, options, keep_forces=keep), 0
        for tried in STRENGTHS:
            weights = trained + ridge.change(tried)
            set_weights(network, weights)
            found = _validated(network, validation, options)
            if found[0] < best[0]:
                best, kept, strength, chosen, worse = found, keep, tried, weights, 0
            elif (worse := worse + 1) == _WORSE_IN_A_ROW:
                break
    set_weights(network, chosen)
    return Solution(strength, kept, len(trained), before, best)


def _validated(
    network: NBodyNetwork, frames: Sequence[LabelledStructure], options: OptimisationConfig
) -> tuple[float, Errors]:
    """The loss, with the weights of the last epoch, and the errors."""
    residuals = Residuals.joined(
        Residuals.of(found, batch) for batch, found in predictions(network, frames, network.dtype)
    )
    scale, weights = network.config.energy_scale, options.loss_weights((options.epochs or 1) - 1)
    value = loss(residuals, scale, weights, kind=options.loss, huber_delta=options.huber_delta)
    return float(value), errors([residuals])


@dataclass
class _Sums:
    """The normal equations of one label, in its unit: sums over all rows, which carry the weights of their frames.

    Attributes:
        matrix: J^T J (K, K).
        right: J^T r (K,).
        lacking: r^T r.
        count: number of structures or atoms that have the label.
    """

    matrix: Tensor
    right: Tensor
    lacking: float = 0.0
    count: int = 0

    @classmethod
    def zeros(cls, size: int) -> "_Sums":
        """Without any rows, for K = ``size``."""
        return cls(torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))

    def add(self, rows: Rows, batch: Batch) -> None:
        """Add rows of a batch."""
        weight = batch.weights[rows.label]
        if BY_NAME[rows.label].misfit.grows:
            weight = weight / batch.atoms_per_structure
        weighted = weight[rows.structure].unsqueeze(1) * rows.features
        self.matrix += weighted.T @ rows.features
        self.right += weighted.T @ rows.lacking
        self.lacking += float(weight[rows.structure] @ rows.lacking.square())


@dataclass(frozen=True)
class _Ridge:
    """The normal equations of all labels together, with the diagonal scaled to 1, by their eigenvectors."""

    inverse_scale: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor
    right: Tensor

    @classmethod
    def of(
        cls, sums: Mapping[str, _Sums], energy_scale: float, options: OptimisationConfig, *, keep_forces: bool
    ) -> "_Ridge":
        """The equations of all labels together, with their weights in the loss."""
        weights = options.loss_weights((options.epochs or 1) - 1)
        total = _Sums.zeros(len(sums["energy"].right))
        for name, one in sums.items():
            unit = BY_NAME[name].misfit.size * (energy_scale if BY_NAME[name].misfit.relative else 1.0)
            mean_square = one.lacking / max(1, one.count) / unit**2
            if mean_square > 0.0:
                factor = _slope(options.loss, weights[name], mean_square, BY_NAME[name].shape) / one.count / unit**2
                total.matrix += factor * one.matrix
                total.right += 0.0 if keep_forces and name == "forces" else factor * one.right
        diagonal = total.matrix.diagonal()
        inverse_scale = torch.where(diagonal > 0.0, diagonal, torch.inf).rsqrt()
        scaled = inverse_scale.unsqueeze(1) * total.matrix * inverse_scale
        eigenvalues, eigenvectors = torch.linalg.eigh(scaled)
        return cls(inverse_scale, eigenvalues, eigenvectors, inverse_scale * total.right)

    def change(self, strength: float) -> Tensor:
        """The change of the weights (K,)."""
        by_vector = self.eigenvectors.T @ self.right / (self.eigenvalues.clamp(min=0.0) + strength)
        return self.inverse_scale * (self.eigenvectors @ by_vector)


def _slope(kind: str, weight: float, mean_square: float, shape: tuple[int, ...]) -> float:
    """c: by what the loss grows with the mean square of a label's misfit, whose present value is given."""
    components = torch.Size(shape).numel()
    if kind == "mse":
        return weight / components
    return weight / mean_square**0.5 / (1.0 if kind == "norm" else components**0.5)


def _sums(network: NBodyNetwork, frames: Sequence[LabelledStructure], options: OptimisationConfig) -> dict[str, _Sums]:
    """The sums of each label over the frames."""
    precise = for_eager(copy.deepcopy(network).double())
    size = len(weights_of(network))
    chosen = take(frames, evenly_spaced(frames, max(1, len(frames) // (ROWS_PER_UNKNOWN * size))))
    n_directions = -(-ROWS_PER_UNKNOWN * size // len(chosen))  # rounded up
    generator = torch.Generator().manual_seed(options.seed % 2**63)
    sums = {name: _Sums.zeros(size) for name in ("energy", "forces", "stress")}
    step = max(1, _ATOMS_PER_BATCH // max(len(frame.structure) for frame in chosen))
    for start in range(0, len(chosen), step):
        batch = collate(prepare(chosen[start : start + step], network.config))
        with torch.no_grad():
            for rows in rows_of(precise, batch, n_directions, generator):
                sums[rows.label].add(rows, batch)
        for name, one in sums.items():
            values = batch.labels[name]
            one.count += int(torch.isfinite(values.reshape(len(values), -1)).all(-1).sum())
    return sums
