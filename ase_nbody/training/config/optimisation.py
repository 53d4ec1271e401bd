"""How the weights are found: on the data, and before that on structures of a cheap method."""

from typing import Annotated, Literal

from pydantic import Field

from ase_nbody.training.config.strict import Strict
from ase_nbody.training.loss import LossKind


class SecondStage(Strict):
    """The end of a training, with other weights in the loss.

    Attributes:
        start: fraction of the epochs after which it begins.
        energy_weight: weight of the energy from then on.
        stress_weight: likewise of the stress; default: as before.
    """

    start: float = Field(0.75, ge=0.0, lt=1.0)
    energy_weight: float = Field(ge=0.0)
    stress_weight: float | None = Field(None, ge=0.0)


class OptimisationConfig(Strict):
    """How the weights are found.

    Attributes:
        epochs: passes over the training data; default: as many as make some 9,000 steps, between 20 and 500.
        batch_size: structures per step, over all processes.
        batch_atoms: atoms per step at the most, in place of ``batch_size``: for structures of many sizes.
        optimiser: ``muon``: Muon for the mixing matrices, Adam for all other weights; ``adamw``: AdamW for all.
        muon_rate: learning rate of the mixing matrices (Muon).
        adam_rate: learning rate of all other weights (Adam), or of all weights (AdamW).
        weight_decay: decoupled decay of the mixing matrices: they lose this, times the learning rate, each step.
        gradient_clip: largest norm of the gradient of all weights together; longer ones are shortened to it.
        warmup: steps over which the rates rise.
        schedule: how they fall: ``cosine``, to zero at the end; ``plateau``, whenever the validation error of the
            forces has not fallen for a while.
        plateau_factor: by what the rates are then multiplied.
        plateau_patience: for how many epochs.
        patience: stop after so many epochs without a lower validation loss; default: never.
        loss: ``norm``, ``mse``, ``mae`` or ``huber``, see ``ase_nbody.training.loss.loss``.
        huber_delta: where Huber's function turns from squares to absolute values, in eV/Angstrom.
        energy_weight: weight of the energy in the loss, per atom, beside 1 for the forces.
        stress_weight: likewise of the stress.
        second_stage: other weights for the last epochs.
        averaging: decay per step of the exponential moving average of the weights, which is validated and saved.
        compile: compile the training step for batches of recurring shapes (half a minute once, then about twice as
            fast).
        dtype: precision of the training.
        device: where to train; ``auto`` takes a GPU if there is one.
        seed: of the initial weights and the order of the batches.
    """

    epochs: int | None = Field(None, ge=1)
    batch_size: int = Field(5, ge=1)
    batch_atoms: int | None = Field(None, ge=1)
    optimiser: Literal["muon", "adamw"] = "muon"
    muon_rate: float = Field(0.005, gt=0.0)
    adam_rate: float = Field(0.005, gt=0.0)
    weight_decay: float = Field(0.0, ge=0.0)
    gradient_clip: float | None = Field(None, gt=0.0)
    warmup: int = Field(100, ge=0)
    schedule: Literal["cosine", "plateau"] = "cosine"
    plateau_factor: float = Field(0.5, gt=0.0, lt=1.0)
    plateau_patience: int = Field(10, ge=0)
    patience: int | None = Field(None, ge=1)
    loss: LossKind = "norm"
    huber_delta: float = Field(0.01, gt=0.0)
    energy_weight: float = Field(1.0, ge=0.0)
    stress_weight: float = Field(1.0, ge=0.0)
    second_stage: SecondStage | None = None
    averaging: float = Field(0.995, ge=0.0, lt=1.0)
    compile: bool = True
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "auto"
    seed: int = 0

    @property
    def keeps_best(self) -> bool:
        """Whether the model of the best epoch is saved, not that of the last."""
        return self.schedule == "plateau" or self.patience is not None

    def first_epoch_of_second_stage(self) -> int | None:
        """Epochs before the second stage, if there is one; ``epochs`` is set."""
        return None if self.second_stage is None else round(self.second_stage.start * (self.epochs or 0))

    def loss_weights(self, epoch: int) -> tuple[float, float]:
        """Weights of energy and stress in an epoch, which counts from 0."""
        first = self.first_epoch_of_second_stage()
        if self.second_stage is None or first is None or epoch < first:
            return self.energy_weight, self.stress_weight
        later = self.second_stage.stress_weight
        return self.second_stage.energy_weight, self.stress_weight if later is None else later


class PretrainingConfig(Strict):
    """A training on structures that a cheap method labels, before that on the data; for neutral molecules.

    Attributes:
        method: of tight binding, by tblite.
        frames: how many structures.
        temperatures: in K; each of the runs of molecular dynamics that give them has one in this range.
        steps_apart: steps of 1 fs between structures.
        seed: of these runs.
        folder: where the structures are kept, so that several trainings on the same data can share them; default: in
            ``pretraining`` of the output folder.
        epochs: of the training on them.
        batch_size: of that training.
        muon_rate: likewise.
        adam_rate: likewise.
        energy_weight: likewise.
    """

    method: Literal["GFN2-xTB", "GFN1-xTB"] = "GFN2-xTB"
    frames: int = Field(6000, ge=100)
    temperatures: tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]] = (300.0, 1200.0)
    steps_apart: int = Field(5, ge=1)
    seed: int = Field(0, ge=0)
    folder: str | None = None
    epochs: int = Field(12, ge=1)
    batch_size: int = Field(10, ge=1)
    muon_rate: float = Field(0.005, gt=0.0)
    adam_rate: float = Field(0.005, gt=0.0)
    energy_weight: float = Field(0.01, ge=0.0)

    def __str__(self) -> str:
        low, high = self.temperatures
        return (
            f"up to {self.frames} structures of molecular dynamics at {low:g} to {high:g} K by {self.method}, "
            f"{self.steps_apart} fs apart, seed {self.seed}"
        )
