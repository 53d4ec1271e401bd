"""Recovery from a diverged training: back to the last good state, with half the learning rates."""

import copy
import math
import statistics
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, WeightAveraging
from rich.console import Console
from torch.optim.lr_scheduler import LambdaLR

_MOST = 3  # recoveries of one training
_REMEMBERED = 100  # losses
_FEWEST = 20  # losses to compare with
_IN_A_ROW = 5  # high losses: a hard batch or two must not pass for a divergence


class TrainingDiverged(ValueError):
    """A training that diverged again and again; the message says what to change."""


class LossWatch:
    """Tells a training that has diverged from a hard batch.

    It has diverged when the loss or its gradient is not finite, or when the loss is ``jump`` times the median of the
    last hundred, several times in a row.

    Attributes:
        losses: the last ones, without those that were too high.
        high: how many of the latest in a row were too high.
    """

    def __init__(self, jump: float) -> None:
        self.jump = jump
        self.losses: list[float] = []
        self.high = 0

    def has_diverged(self, loss: float, gradient: float) -> bool:
        """Look at one more loss and the norm of its gradient."""
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            return True
        if len(self.losses) >= _FEWEST and loss > self.jump * statistics.median(self.losses):
            self.high += 1
            return self.high >= _IN_A_ROW
        self.losses = [*self.losses, loss][-_REMEMBERED:]
        self.high = 0
        return False

    def state(self) -> dict[str, Any]:
        """What ``restore`` takes."""
        return {"losses": self.losses, "high": self.high}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on as the one with this state."""
        self.losses, self.high = list(state["losses"]), state["high"]


class Recovery(Callback):
    """Keeps the state at the beginning of each epoch, and returns to it when the module's step says ``diverged``.

    A state is weights, their averages and the state of the optimisers. An epoch that begins among high losses is not
    kept: the state before it is, in the checkpoints too, so that a resumed run returns to the same.

    Args:
        averaging: which has the averages.
        console: where it says so.
    """

    def __init__(self, averaging: WeightAveraging, console: Console) -> None:
        self.averaging, self.console = averaging, console
        self._recoveries = 0
        self._good: dict[str, Any] | None = None

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Keep the state if it is good."""
        if self._good is not None and pl_module.watch.high:
            return
        state: dict[str, Any] = {"state_dict": pl_module.state_dict()}
        self.averaging.on_save_checkpoint(trainer, pl_module, state)
        state["optimisers"] = [optimiser.state_dict() for optimiser in trainer.optimizers]
        self._good = copy.deepcopy(state)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Return to the state that was kept, if the step says so."""
        if not outputs["diverged"]:
            return
        loss, epoch = float(outputs["loss"]), trainer.current_epoch + 1
        if self._recoveries == _MOST:
            raise TrainingDiverged(
                f"the training diverged {_MOST + 1} times, the last time in epoch {epoch} (loss {loss:.3g}), although "
                f"its learning rates were halved each time: lower training.muon_rate and training.adam_rate, set "
                f"training.gradient_clip, and look at the data with 'nbody lint'"
            )
        self._recoveries += 1
        self._restore(trainer, pl_module)
        self.console.print(
            f"The training diverged in epoch {epoch} (loss {loss:.3g}): weights, averages and optimisers are back at "
            f"their last good state, and the learning rates are halved ({self._recoveries} of {_MOST}).",
            highlight=False,
            soft_wrap=True,
        )

    def _restore(self, trainer: lightning.Trainer, module: Any) -> None:
        good = copy.deepcopy(self._good)
        assert good is not None
        self.averaging.on_load_checkpoint(trainer, module, good)
        for optimiser, state in zip(trainer.optimizers, good["optimisers"], strict=True):
            rates = [group["lr"] for group in optimiser.param_groups]
            optimiser.load_state_dict(state)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = 0.5 * rate
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LambdaLR):  # which computes each rate anew from the first
                config.scheduler.base_lrs = [0.5 * rate for rate in config.scheduler.base_lrs]
        module.watch.high = 0

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """The number of recoveries, and the last good state where the present one is not."""
        checkpoint["recovery"] = {"count": self._recoveries, "good": self._good if pl_module.watch.high else None}

    def on_load_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Those of the run that is resumed."""
        state = checkpoint.get("recovery", {"count": 0, "good": None})
        self._recoveries, self._good = state["count"], state["good"]
