"""Ctrl-C, SIGTERM (schedulers send it half a minute before they kill) and SIGHUP (a terminal or connection has closed).

The training ends and loses no batch.

The checkpoint is taken inside the epoch. Its loops stand where lightning leaves them after a training batch, so that a
resumed run goes on with the next batch. There is no such place between the last batch of an epoch and the end of its
validation. So the state before the last batch is kept until then, and the resumed run repeats this batch.
"""

import contextlib
import copy
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from ase_nbody.dynamics.signals import ENDING_SIGNALS, is_free
from ase_nbody.training.callbacks import AtomicCheckpoints
from ase_nbody.training.processes import summed

_SHELL_OFFSET = 128  # shells report the end by a signal as this plus its number


class Terminated(SystemExit):
    """The training was ended by SIGTERM, Ctrl-C or SIGHUP and can be resumed.

    The exit code is 143, 130 or 129, as shells report it.
    """


class EndOnSignals(Callback):
    """Ends the training after the batch in which SIGTERM, Ctrl-C or SIGHUP arrives, with a checkpoint.

    A second Ctrl-C ends it at once. A program that handles Ctrl-C or SIGHUP itself, or ignores it, goes on doing so.

    Args:
        path: the checkpoint from which the run is resumed.
        console: where the end is reported.
    """

    def __init__(self, path: Path, console: Console) -> None:
        self.path, self.console = path, console
        self._received = 0  # number of the signal
        self._interruptible_now = self._broken_off = False
        self._before_last_batch: dict[str, Any] | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Replace lightning's own handler, which waits for the end of the epoch. The user's is restored at the end."""
        if threading.current_thread() is threading.main_thread():
            for number in ENDING_SIGNALS:
                if number == signal.SIGTERM or is_free(number):
                    signal.signal(number, self._receive)
        if pl_module.compiled is not None:
            pl_module.compiled.around.append(self._interruptible)

    def _receive(self, number: int, frame: Any) -> None:
        self._received = number
        self._let_interrupt()
        if self._interruptible_now:
            self._break_off()

    def _let_interrupt(self) -> None:
        """Let the next Ctrl-C raise ``KeyboardInterrupt``, as it did before the training."""
        if signal.getsignal(signal.SIGINT) == self._receive:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _break_off(self) -> None:
        self._broken_off = True
        raise Terminated(_SHELL_OFFSET + self._received)

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let the signals break off the block: it takes long, and changes nothing that is saved.

        One of several processes cannot end alone, so there the block goes on.
        """
        if not _several_processes():
            self._interruptible_now = True
            if self._received:
                self._break_off()
        try:
            yield
        finally:
            self._interruptible_now = False

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the state before the last batch, and end here if a signal has arrived.

        Raises:
            Terminated: it has.
        """
        left = int(trainer.num_training_batches) - 1 - batch_idx
        if self._is_due(pl_module):
            if left:
                trainer.save_checkpoint(self.path)
            self._end(trainer)
        if left == 1:
            self._before_last_batch = copy.deepcopy(trainer._checkpoint_connector.dump_checkpoint(weights_only=False))

    def on_validation_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *batch: Any) -> None:
        """End here if a signal has arrived.

        Raises:
            Terminated: it has.
        """
        if self._is_due(pl_module):
            self._end(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Forget the state before the last batch: the checkpoint of the whole epoch comes now."""
        self._before_last_batch = None

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """End before the model is evaluated and written; a resumed run will do so.

        Raises:
            Terminated: a signal has arrived.
        """
        if self._is_due(pl_module):
            self._end(trainer)
        self._let_interrupt()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Save the state before a batch whose compilation was broken off."""
        self._let_interrupt()
        if not self._broken_off:
            return
        self._broken_off = False
        if trainer.fit_loop.epoch_loop.batch_progress.current.processed:  # otherwise the last checkpoint is of here
            trainer.save_checkpoint(self.path)
        self._say(trainer)

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Save how many batches of an unfinished epoch are done. A batch that was broken off is not counted."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        done = progress["current"]["processed"]
        checkpoint["batches_done"] = done if done < trainer.num_training_batches else 0
        if checkpoint["batches_done"]:
            progress["is_last_batch"] = False  # the batch that was broken off may have been
            for counter in (progress["total"], progress["current"]):
                # So lightning leaves them after a batch, before it counts the batch as completed.
                counter |= {"ready": counter["processed"], "started": counter["processed"]}
                counter["completed"] = counter["processed"] - 1

    def _is_due(self, module: Any) -> bool:
        """Whether a signal has arrived, in whichever process: all of them end after the same batch."""
        if not _several_processes():
            return bool(self._received)
        return bool(summed(torch.tensor(float(self._received), device=module.device)))

    def _end(self, trainer: lightning.Trainer) -> NoReturn:
        if self._before_last_batch is not None and trainer.is_global_zero:
            AtomicCheckpoints().save_checkpoint(self._before_last_batch, self.path)
        self._say(trainer)
        raise Terminated(_SHELL_OFFSET + self._number)

    @property
    def _number(self) -> int:
        """The signal that arrived; in another process it may have been a different one."""
        return self._received or signal.SIGTERM

    def _say(self, trainer: lightning.Trainer) -> None:
        if self.path.exists():
            remedy = "--resume continues from here"
        else:
            remedy = "there is no checkpoint yet, so it will begin anew"
        cause = "Ctrl-C" if self._number == signal.SIGINT else signal.Signals(self._number).name
        with contextlib.suppress(OSError):  # after SIGHUP there is no terminal
            self.console.print(f"Ended by {cause} in epoch {trainer.current_epoch + 1}: {remedy}.", highlight=False)


def _several_processes() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
