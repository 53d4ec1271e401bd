"""How the weights are optimised on the data, and before that on structures of a cheap method."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ase_nbody.training.config.strict import Strict
from ase_nbody.training.loss import LossKind

LEAST_RATE, LARGEST_RATE = 1e-12, 1e6  # below and beyond, float32 would learn nothing or overflow
LEAST_WEIGHT, LARGEST_WEIGHT = 1e-6, 1e6  # of a label in the loss; smaller ones underflow, larger ones swamp the rest
LARGEST_SEED = 2**62  # torch takes 64 bits, and a committee counts on from here
HOTTEST_K = 1e5


def _weight_that_counts(weight: float) -> float:
    """Refuse a weight of the loss that single precision loses."""
    if weight != 0.0 and not LEAST_WEIGHT <= weight <= LARGEST_WEIGHT:
        raise ValueError(f"should be 0, or between {LEAST_WEIGHT:g} and {LARGEST_WEIGHT:g}")
    return weight


LearningRate = Annotated[float, Field(ge=LEAST_RATE, le=LARGEST_RATE)]
LossWeight = Annotated[float, AfterValidator(_weight_that_counts)]
Temperature = Annotated[float, Field(gt=0.0, le=HOTTEST_K)]


class SecondStage(Strict):
    """The second stage of a training: its last epochs, in which the loss has other weights.

    Attributes:
        start: fraction of the epochs after which the second stage begins. It has at least the last epoch.
        energy_weight: weight of the energy in the second stage.
        stress_weight: weight of the stress in the second stage; default: the same as in the first.
        charges_weight: weight of the partial charges in the second stage; default: the same as in the first.
        dipole_weight: weight of the dipole moment in the second stage; default: the same as in the first.
    """

    start: float = Field(0.75, ge=0.0, lt=1.0)
    energy_weight: LossWeight
    stress_weight: LossWeight | None = None
    charges_weight: LossWeight | None = None
    dipole_weight: LossWeight | None = None


def _known_device(name: str) -> str:
    """Refuse names that are no device of ours, before torch lists all of its own."""
    if not re.fullmatch(r"auto|(cpu|cuda|mps)(:\d+)?", name):
        meant = "; a GPU is called 'cuda'" if name.lower().startswith(("gpu", "nvidia")) else ""
        raise ValueError(f"should be 'auto', 'cpu', 'cuda', 'mps', or one GPU such as 'cuda:1'{meant}")
    return name


class OptimisationConfig(Strict):
    """How the weights are optimised.

    Attributes:
        effort: how long a training is that gives no ``epochs``: ``thorough`` is four times as long as ``usual``.
        epochs: number of passes over the training data; default: enough for about 9,000 steps, between 20 and 500; of
            crystals and liquids enough to see about 200,000 atoms.
        batch_size: number of structures in a batch, over all processes together; default: 5, and of crystals and
            liquids as many as have 64 atoms together.
        batch_atoms: largest number of atoms in a batch. It replaces ``batch_size`` if the sizes of the structures vary
            widely.
        optimiser: ``muon`` uses Muon for the mixing matrices and Adam for all other weights; ``adamw`` uses AdamW for
            all weights.
        muon_rate: learning rate of the mixing matrices with Muon.
        adam_rate: learning rate of all other weights with Adam, or of all weights with AdamW.
        weight_decay: decoupled decay of the mixing matrices. Each step shrinks them by this fraction times the
            learning rate.
        gradient_clip: largest norm of the gradient with respect to all weights. A longer gradient is scaled down
            to this norm.
        warmup: number of steps over which the learning rates rise at the beginning.
        schedule: how the learning rates fall after that: ``cosine`` lets them fall to zero at the end; ``plateau``
            lowers them when the validation error of the forces has stopped falling.
        plateau_factor: factor by which ``plateau`` multiplies the learning rates.
        plateau_patience: number of epochs without a lower error after which ``plateau`` does so.
        patience: number of epochs without a lower validation loss after which the training stops; default: it does
            not stop early.
        loss: ``norm``, ``mse``, ``mae`` or ``huber``, see ``ase_nbody.training.loss.loss``.
        huber_delta: force error in eV/Angstrom at which Huber's function changes from a square to an absolute value;
            for the other labels, the error that corresponds to it in the loss.
        energy_weight: weight of the energy in the loss; default: 1, and 0.1 for crystals and liquids. The forces have
            the weight 1.
        stress_weight: weight of the stress in the loss; default: as for the energy.
        charges_weight: weight of the partial charges in the loss, for networks that predict them. The default is small:
            heads of their own learn the charges, and the features below these heads should serve the energy first.
        dipole_weight: weight of the dipole moment in the loss, for networks that predict it.
        second_stage: other weights for the last epochs.
        averaging: decay per step of the exponential moving average of the weights. The averaged weights are the ones
            that are validated and saved.
        solve_read_outs: whether to solve the weights of the read-outs by least squares after the last epoch (see
            ``training.read_outs``). The validation loss decides whether the model takes them.
        compile: whether to compile the training step for tensor shapes that recur. It takes half a minute for each set
            of shapes and makes the step about twice as fast.
        dtype: precision of the training.
        device: device to train on; ``auto`` takes a GPU if there is one.
        seed: seed of the initial weights and of the order of the batches.
    """

    effort: Literal["usual", "thorough"] = "usual"
    epochs: int | None = Field(None, ge=1)
    batch_size: int = Field(5, ge=1)
    batch_atoms: int | None = Field(None, ge=1)
    optimiser: Literal["muon", "adamw"] = "muon"
    muon_rate: LearningRate = 0.005
    adam_rate: LearningRate = 0.005
    weight_decay: float = Field(0.0, ge=0.0, le=LARGEST_RATE)
    gradient_clip: float | None = Field(None, ge=LEAST_RATE)
    warmup: int = Field(100, ge=0)
    schedule: Literal["cosine", "plateau"] = "cosine"
    plateau_factor: float = Field(0.5, gt=0.0, lt=1.0)
    plateau_patience: int = Field(10, ge=0)
    patience: int | None = Field(None, ge=1)
    loss: LossKind = "norm"
    huber_delta: float = Field(0.01, ge=LEAST_WEIGHT, le=LARGEST_WEIGHT)
    energy_weight: LossWeight = 1.0
    stress_weight: LossWeight = 1.0
    charges_weight: LossWeight = 0.1
    dipole_weight: LossWeight = 0.1
    second_stage: SecondStage | None = None
    averaging: float = Field(0.995, ge=0.0, lt=1.0)
    solve_read_outs: bool = False
    compile: bool = True
    dtype: Literal["float32", "float64"] = "float32"
    device: Annotated[str, AfterValidator(_known_device)] = "auto"
    seed: int = Field(0, ge=-LARGEST_SEED, le=LARGEST_SEED)

    @property
    def keeps_best(self) -> bool:
        """Whether the model of the epoch with the lowest validation loss is saved instead of the last one."""
        return self.schedule == "plateau" or self.patience is not None

    def first_epoch_of_second_stage(self) -> int | None:
        """Number of the second stage's first epoch (from 0), or None without a second stage; ``epochs`` must be set."""
        if self.second_stage is None:
            return None
        epochs = self.epochs or 0
        return min(round(self.second_stage.start * epochs), max(epochs - 1, 0))  # rounding must not leave it out

    def loss_weights(self, epoch: int) -> dict[str, float]:
        """Weights of the labels in the loss of an epoch (numbered from 0). The loss adds its terms in this order."""
        others = ("energy", "stress", "charges", "dipole")
        weights = {"forces": 1.0} | {label: getattr(self, f"{label}_weight") for label in others}
        first_epoch = self.first_epoch_of_second_stage()
        if first_epoch is None or epoch < first_epoch:
            return weights
        changed = {label: getattr(self.second_stage, f"{label}_weight") for label in others}
        return weights | {label: weight for label, weight in changed.items() if weight is not None}


class PretrainingConfig(Strict):
    """A training on structures that a cheap method labels, before the training on the data. Only for molecules.

    The structures come from short runs of molecular dynamics that start from the data. An ion has the charge of its
    frame, ``atoms.info["charge"]``. A molecule with an odd number of electrons is a doublet and any other a singlet.

    Attributes:
        method: the tight-binding method, which tblite computes.
        frames: number of structures. There are fewer if a molecule comes apart, because that ends its run early.
        temperatures: lowest and highest temperature in K. Each run draws its temperature from this range.
        steps_apart: number of time steps, of 1 fs each, between two structures of a run.
        seed: seed of the runs.
        folder: folder that keeps the structures, so that several trainings on the same data can share them; default:
            ``pretraining`` in the output folder.
        epochs: number of epochs of the pretraining.
        batch_size: number of structures in a batch of the pretraining.
        muon_rate: learning rate of the mixing matrices in the pretraining.
        adam_rate: learning rate of the other weights in the pretraining.
        energy_weight: weight of the energy in the loss of the pretraining.
    """

    method: Literal["GFN2-xTB", "GFN1-xTB"] = "GFN2-xTB"
    frames: int = Field(6000, ge=100)
    temperatures: tuple[Temperature, Temperature] = (300.0, 1200.0)
    steps_apart: int = Field(5, ge=1)
    seed: int = Field(0, ge=0)
    folder: str | None = None
    epochs: int = Field(12, ge=1)
    batch_size: int = Field(10, ge=1)
    muon_rate: LearningRate = 0.005
    adam_rate: LearningRate = 0.005
    energy_weight: LossWeight = 0.01

    def __str__(self) -> str:
        low, high = self.temperatures
        return (
            f"up to {self.frames} structures of molecular dynamics at {low:g} to {high:g} K by {self.method}, "
            f"{self.steps_apart} fs apart, seed {self.seed}"
        )
