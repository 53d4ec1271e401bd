"""``NBodyTraining``, the module that lightning trains: training step, optimisers, schedules and validation."""

import contextlib
import math
import time
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import lr_scheduler

from ase_nbody.data import Batch
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import evaluate
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.runtime.threads import warm_up_vector_functions
from ase_nbody.training.compiled_step import CompiledPotential
from ase_nbody.training.config import OptimisationConfig
from ase_nbody.training.loss import Residuals, errors, loss
from ase_nbody.training.muon import Muon
from ase_nbody.training.processes import gathered, summed
from ase_nbody.training.recovery import LossWatch
from ase_nbody.training.splits import PLAIN_SPLIT, SPLIT_RULE


class NBodyTraining(lightning.LightningModule):
    """Trains a network with Muon for the mixing matrices and Adam for the other weights, or with AdamW for all.

    All optimisers follow the same schedule of the learning rate.

    Args:
        network: the network to train, in the dtype of the training.
        config: how to train; the number of epochs must be set.
        total_steps: number of steps of the whole training, which the cosine schedule needs.
        with_stress: whether the data have stresses.

    Attributes:
        watch: notices when the training diverges.
        compiled: the compiled step, if there is to be one.
        errors: the validation errors of the last epoch, as ``evaluate_model`` gives them.
        split_rule: how the validation frames of this run were drawn, see ``splits.py``.
        has_begun: whether this process has begun a step, so that a checkpoint, if there is one, was taken over.
    """

    def __init__(self, network: NBodyNetwork, config: OptimisationConfig, total_steps: int, with_stress: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.config = network, config
        self.total_steps, self.with_stress = total_steps, with_stress
        self.compiled = CompiledPotential(network, virials=with_stress) if config.compile else None
        self._residuals: list[Residuals] = []
        self.watch = LossWatch(jump=100.0 if config.loss == "mse" else 10.0)
        self.errors: dict[str, dict[str, float]] = {}
        self.split_rule = SPLIT_RULE
        self.has_begun = False

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimisers and their schedules of the learning rate."""
        config = self.config
        weights = [(name, weight) for name, weight in self.network.named_parameters() if weight.requires_grad]
        declared = NBodyNetwork.declared_weights(self.network.config)
        matrices = [weight for name, weight in weights if declared[name].matrix]
        others = [weight for name, weight in weights if not declared[name].matrix]
        optimisers: list[torch.optim.Optimizer]
        if config.optimiser == "muon":
            optimisers = [
                *([Muon(matrices, lr=config.muon_rate, weight_decay=config.weight_decay)] if matrices else []),
                *([torch.optim.Adam(others, lr=config.adam_rate, betas=(0.9, 0.99))] if others else []),
            ]
        else:
            groups: list[dict[str, Any]] = [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": others},
            ]
            optimisers = [torch.optim.AdamW(groups, lr=config.adam_rate, betas=(0.9, 0.99), weight_decay=0.0)]
        schedules: list[Any]
        if config.schedule == "cosine":
            schedules = [lr_scheduler.LambdaLR(optimiser, self.cosine) for optimiser in optimisers]
        else:
            first, length = 1.0 / (config.warmup + 1), config.warmup
            schedules = [lr_scheduler.LinearLR(optimiser, first, total_iters=length) for optimiser in optimisers]
            plateau: dict[str, Any] = {"factor": config.plateau_factor, "patience": config.plateau_patience}
            schedules += [lr_scheduler.ReduceLROnPlateau(optimiser, **plateau) for optimiser in optimisers]
        return optimisers, schedules

    def cosine(self, step: int) -> float:
        """Fraction of the full learning rate at a step: a linear warm-up times a cosine that ends at zero."""
        warm = min(1.0, (step + 1) / (self.config.warmup + 1))
        return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self.total_steps)))

    def predict(self, batch: Batch) -> Prediction:
        """Energies, forces and, if needed, virials and charges. They can be differentiated by the weights."""
        warm_up_vector_functions()
        system = (batch.hierarchy, batch.positions, batch.cells, batch.total_charges)
        if self.compiled is not None:
            return self.compiled(*system)
        return evaluate(for_eager(self.network), *system, create_graph=True, virials=self.with_stress)

    def loss(self, residuals: Residuals, epoch: int, counts: Tensor) -> Tensor:
        """The loss with the weights of an epoch (numbered from 0). ``counts``: see ``ase_nbody.training.loss.loss``."""
        weights, scale = self.config.loss_weights(epoch), self.network.config.energy_scale
        kind, delta = self.config.loss, self.config.huber_delta
        return loss(residuals, scale, weights, kind=kind, huber_delta=delta, counts=counts)

    def on_train_epoch_start(self) -> None:
        """Forget the losses of the first stage when the second begins, because its losses are defined differently."""
        if self.current_epoch == self.config.first_epoch_of_second_stage():
            self.watch.restore({"losses": [], "high": 0})

    def training_step(self, batch: Batch, index: int) -> dict[str, Any]:
        """Make one step of all optimisers, unless the training has diverged.

        Each of the P processes has its share of the batch, and lightning averages their gradients. So each process
        divides its sums by 1/P times the counts of the whole batch: then the average of the processes' losses is the
        loss of the whole batch.
        """
        self.has_begun = True
        residuals = Residuals.of(self.predict(batch), batch)
        processes = self.trainer.world_size
        value = self.loss(residuals, self.current_epoch, summed(residuals.counts()) / processes)
        for optimiser in self.trainer.optimizers:
            optimiser.zero_grad()
        with contextlib.nullcontext() if self.compiled is None else self.compiled.backward_guard():
            self.manual_backward(value)
        value = summed(value.detach()) / processes
        gradient = torch.nn.utils.clip_grad_norm_(self.parameters(), self.config.gradient_clip or math.inf)
        diverged = self.watch.has_diverged(float(value), float(gradient))
        for optimiser in [] if diverged else _as_list(self.optimizers()):
            optimiser.step()
        for schedule in _as_list(self.lr_schedulers()):
            if not isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
                schedule.step()
        if not diverged:
            self.log("loss", value, on_step=False, on_epoch=True, batch_size=batch.hierarchy.n_structures)
        return {"loss": value, "diverged": diverged}

    def validation_step(self, batch: Batch, index: int) -> None:
        """Collect the residuals of a batch of validation frames."""
        warm_up_vector_functions()
        system = (batch.hierarchy, batch.positions, batch.cells, batch.total_charges)
        prediction = evaluate(for_eager(self.network), *system)
        self._residuals.append(Residuals.of(prediction, batch))

    def on_validation_epoch_end(self) -> None:
        """Log the validation errors and the validation loss.

        The loss has the weights of the last epoch, so that the losses of all epochs can be compared.
        """
        residuals = Residuals.joined(gathered(self._residuals))
        self._residuals = []
        self.errors = errors([residuals])
        value = self.loss(residuals, (self.config.epochs or 1) - 1, residuals.counts())
        self.log("validation_loss", value)
        self.log("process_cpu_seconds", time.process_time())  # curves of error against cost; begins anew on resuming
        for quantity, measures in self.errors.items():
            for measure, error in measures.items():
                self.log(f"{quantity}_{measure}", error)
        followed = self.errors["forces"]["mae"] if "forces" in self.errors else float(value)
        for schedule in _as_list(self.lr_schedulers()):
            if isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
                schedule.step(followed)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save errors, latest losses, the rule of the split and what the compiled step has seen."""
        checkpoint |= {"errors": self.errors, "watch": self.watch.state(), "split_rule": self.split_rule}
        if self.compiled is not None:
            checkpoint["compiled"] = self.compiled.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what ``on_save_checkpoint`` saved of the run that is resumed."""
        self.errors = checkpoint.get("errors", {})
        self.watch.restore(checkpoint.get("watch", self.watch.state()))
        self.split_rule = checkpoint.get("split_rule", PLAIN_SPLIT)
        if self.compiled is not None:
            self.compiled.restore(checkpoint.get("compiled", ()))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to a device; lightning does not know our ``Batch``."""
        return batch.to(device)


def _as_list(given: Any) -> list[Any]:
    """What lightning returns, as a list: it returns a list, a single item or None."""
    return given if isinstance(given, list) else [] if given is None else [given]
