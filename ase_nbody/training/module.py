"""The training step, for lightning: loss, two optimisers, validation in the units that people use."""

import math

import lightning
import torch
from torch import Tensor

from ase_nbody.data import Batch
from ase_nbody.loss import Residuals, errors, loss
from ase_nbody.network import NBodyNetwork
from ase_nbody.potential import CompiledPotential, Prediction, evaluate
from ase_nbody.training.config import OptimisationConfig
from ase_nbody.training.muon import Muon


class NBodyTraining(lightning.LightningModule):
    """Trains a network: Muon for the mixing matrices, Adam for the rest, both on one warm-up and cosine schedule.

    Args:
        network: the network to train, in the dtype of the training.
        config: the optimisation.
        total_steps: steps of the whole training, for the schedule.
        with_stress: whether the data have stresses.
    """

    def __init__(self, network: NBodyNetwork, config: OptimisationConfig, total_steps: int, with_stress: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.config = network, config
        self.total_steps, self.with_stress = total_steps, with_stress
        self._compiled = CompiledPotential(network, virials=with_stress) if config.compile else None
        self._residuals: list[Residuals] = []
        self.errors: dict[str, dict[str, float]] = {}

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.LRScheduler]]:
        """Muon and Adam, each with the schedule."""
        matrices = [weight for name, weight in self.network.named_parameters() if is_matrix(name)]
        others = [weight for name, weight in self.network.named_parameters() if not is_matrix(name)]
        optimisers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=self.config.muon_rate),
            torch.optim.Adam(others, lr=self.config.adam_rate, betas=(0.9, 0.99)),
        ]
        return optimisers, [torch.optim.lr_scheduler.LambdaLR(optimiser, self.schedule) for optimiser in optimisers]

    def schedule(self, step: int) -> float:
        """Fraction of the full learning rate: linear warm-up times a cosine to zero."""
        warm = min(1.0, (step + 1) / (self.config.warmup + 1))
        return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self.total_steps)))

    def predict(self, batch: Batch) -> Prediction:
        """Energies and forces with a graph to the weights."""
        if self._compiled is not None:
            return self._compiled(batch.hierarchy, batch.positions, batch.cells)
        return evaluate(
            self.network, batch.hierarchy, batch.positions, batch.cells, create_graph=True, virials=self.with_stress
        )

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One step of both optimisers."""
        residuals = Residuals.of(self.predict(batch), batch)
        scale = self.network.config.energy_scale
        value = loss(residuals, scale, self.config.energy_weight, self.config.stress_weight)
        optimisers, schedulers = self.optimizers(), self.lr_schedulers()
        for optimiser in optimisers:
            optimiser.zero_grad()
        self.manual_backward(value)
        for optimiser, scheduler in zip(optimisers, schedulers, strict=True):
            optimiser.step()
            scheduler.step()
        self.log("loss", value.detach(), on_step=False, on_epoch=True, batch_size=len(batch.energy))
        return value.detach()

    def validation_step(self, batch: Batch, index: int) -> None:
        """Collect residuals of the validation frames."""
        prediction = evaluate(self.network, batch.hierarchy, batch.positions, batch.cells, virials=self.with_stress)
        self._residuals.append(Residuals.of(prediction, batch))

    def on_validation_epoch_end(self) -> None:
        """Log the validation errors."""
        self.errors = errors(self._residuals)
        self._residuals = []
        for quantity, measures in self.errors.items():
            for measure, value in measures.items():
                self.log(f"{quantity}_{measure}", value)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Batches are ours, so we move them."""
        return batch.to(device)


def is_matrix(name: str) -> bool:
    """Whether Muon updates the weight of this name: mixings, learned radial functions and hidden layers."""
    return name.endswith((".radial", ".hidden")) or any(
        f".{mixing}.weight" in name for mixing in ("message", "aggregate", "inherit", "hand_up")
    )
