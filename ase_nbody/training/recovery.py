"""Recovery from divergence: a training returns to its last good state and continues with half the learning rates."""

import copy
import math
import statistics
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, WeightAveraging
from rich.console import Console
from torch.optim.lr_scheduler import LambdaLR

_MAX_RECOVERIES = 3
_N_LOSSES_KEPT = 100  # the median is taken over these
_MIN_LOSSES_TO_COMPARE = 20  # with fewer, the median says too little
_HIGH_LOSSES_IN_A_ROW = 5  # one or two hard batches must not be taken for a divergence


class TrainingDiverged(ValueError):
    """A training diverged again and again; the message says what to change."""


class LossWatch:
    """Tells a training that has diverged from one that met a hard batch.

    A training has diverged when the loss or the norm of its gradient is not finite, or when the loss is more than
    ``jump`` times the median of the last hundred losses, five times in a row.

    Attributes:
        losses: the last hundred losses, without those that were too high.
        high: number of losses in a row, up to the latest one, that were too high.
    """

    def __init__(self, jump: float) -> None:
        self.jump = jump
        self.losses: list[float] = []
        self.high = 0

    def has_diverged(self, loss: float, gradient: float) -> bool:
        """Take note of one more loss and the norm of its gradient, and say whether the training has diverged."""
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            return True
        if len(self.losses) >= _MIN_LOSSES_TO_COMPARE and loss > self.jump * statistics.median(self.losses):
            self.high += 1
            return self.high >= _HIGH_LOSSES_IN_A_ROW
        self.losses = [*self.losses, loss][-_N_LOSSES_KEPT:]
        self.high = 0
        return False

    def state(self) -> dict[str, Any]:
        """The state, for ``restore``."""
        return {"losses": self.losses, "high": self.high}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state that ``state`` returned."""
        self.losses, self.high = list(state["losses"]), state["high"]


class Recovery(Callback):
    """Keeps the state at the beginning of each epoch, and returns to it when a training step reports ``diverged``.

    A state consists of the weights, their moving averages and the state of the optimisers. It is not kept when the
    latest losses are too high: then the older state stays. The older state is saved in the checkpoints too, so that a
    resumed run returns to the same state as an uninterrupted one.

    Args:
        averaging: the callback that holds the averaged weights.
        console: where a recovery is reported.
    """

    def __init__(self, averaging: WeightAveraging, console: Console) -> None:
        self.averaging, self.console = averaging, console
        self._n_recoveries = 0
        self._good_state: dict[str, Any] | None = None

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Keep the present state, unless the latest losses are too high."""
        if self._good_state is not None and pl_module.watch.high:
            return
        state: dict[str, Any] = {"state_dict": pl_module.state_dict()}
        self.averaging.on_save_checkpoint(trainer, pl_module, state)
        state["optimisers"] = [optimiser.state_dict() for optimiser in trainer.optimizers]
        self._good_state = copy.deepcopy(state)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Return to the last good state if the step has diverged.

        Raises:
            TrainingDiverged: there have been too many recoveries already.
        """
        if not outputs["diverged"]:
            return
        loss, epoch = float(outputs["loss"]), trainer.current_epoch + 1
        if self._n_recoveries == _MAX_RECOVERIES:
            raise TrainingDiverged(
                f"the training diverged {_MAX_RECOVERIES + 1} times, the last time in epoch {epoch} (loss {loss:.3g}), "
                f"although its learning rates were halved each time: lower training.muon_rate and training.adam_rate, "
                f"set training.gradient_clip, and look at the data with 'nbody lint'"
            )
        self._n_recoveries += 1
        self._restore(trainer, pl_module)
        self.console.print(
            f"The training diverged in epoch {epoch} (loss {loss:.3g}): weights, averages and optimisers are back at "
            f"their last good state, and the learning rates are halved ({self._n_recoveries} of {_MAX_RECOVERIES}).",
            highlight=False,
            soft_wrap=True,
        )

    def _restore(self, trainer: lightning.Trainer, module: Any) -> None:
        """Bring back the last good state, but with half of the present learning rates."""
        good = copy.deepcopy(self._good_state)
        assert good is not None
        self.averaging.on_load_checkpoint(trainer, module, good)
        for optimiser, state in zip(trainer.optimizers, good["optimisers"], strict=True):
            rates = [group["lr"] for group in optimiser.param_groups]
            optimiser.load_state_dict(state)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = 0.5 * rate
        for config in trainer.lr_scheduler_configs:
            schedule = config.scheduler
            if isinstance(schedule, LambdaLR):  # it computes each rate from the initial one, not from the present one
                schedule.base_lrs = [0.5 * rate for rate in schedule.base_lrs]
        module.watch.high = 0

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Save the number of recoveries, and the last good state unless the resumed run begins with it."""
        inside_an_epoch = trainer.fit_loop.epoch_loop.batch_progress.current.processed < trainer.num_training_batches
        good = self._good_state if pl_module.watch.high or inside_an_epoch else None
        checkpoint["recovery"] = {"count": self._n_recoveries, "good": good}

    def on_load_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Take over the number of recoveries and the good state from the run that is resumed."""
        state = checkpoint.get("recovery", {"count": 0, "good": None})
        self._n_recoveries, self._good_state = state["count"], state["good"]
