"""What a training says while it runs: a line for each epoch, one for each compilation, and a table of all errors."""

import contextlib
import csv
import io
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from ase_nbody.files.writing import write_whole
from ase_nbody.terminal import plain
from ase_nbody.training.loss import UNITS, unit_of
from ase_nbody.training.module import NBodyTraining

_LONGEST_SILENCE_S = 60.0
_LEAST_EPOCHS_MEASURED = 0.5  # with fewer, the time of the validation counts too much


class Progress(Callback):
    """Prints a line after each validation, and writes the errors of all validations to a table.

    The rows of the table are kept in the checkpoints, so a resumed run writes the complete table.

    Args:
        console: where the lines are printed.
        table: path of the CSV file.
    """

    def __init__(self, console: Console, table: Path) -> None:
        self.console, self.table = console, table
        self._rows: list[dict[str, float]] = []
        self._clock_start = self._last_words = time.monotonic()
        self._epochs_at_start = 0.0  # epochs that were done when the clock was started

    def state_dict(self) -> dict[str, Any]:
        """The rows of the table, for the checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of the run that is resumed."""
        self._rows = list(state_dict["rows"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Start the clock, and ask to be told of compilations."""
        self._start_clock(trainer)
        if pl_module.compiled is not None:
            pl_module.compiled.around.append(lambda: self._compiling(trainer))

    @contextlib.contextmanager
    def _compiling(self, trainer: lightning.Trainer) -> Iterator[None]:
        """Announce a compilation. The clock starts anew after it, because later steps are faster."""
        self._print("Compiling the training step for batches of this shape (half a minute to some minutes) ...")
        start = time.monotonic()
        yield
        self._print(f"Compiled in {time.monotonic() - start:.0f} s; such batches are faster now.")
        self._start_clock(trainer)

    def _start_clock(self, trainer: lightning.Trainer) -> None:
        self._clock_start, self._epochs_at_start = time.monotonic(), _epochs_done(trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line if the epoch is long."""
        if time.monotonic() - self._last_words > _LONGEST_SILENCE_S:
            epoch, batches = trainer.current_epoch, trainer.num_training_batches
            left = self._time_left(trainer, pl_module, epoch + (batch_idx + 1) / batches)
            self._print(f"epoch {epoch + 1:4d}  batch {batch_idx + 1}/{batches}{left}")

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print the errors of the averaged weights and write them to the table."""
        if not isinstance(pl_module, NBodyTraining):
            return
        epoch = trainer.current_epoch + 1
        left = self._time_left(trainer, pl_module, float(epoch))
        self._print(f"epoch {epoch:4d}/{trainer.max_epochs}  MAE  {_errors_line(pl_module.errors)}{left}")
        self._rows.append({"epoch": epoch, **_columns(pl_module.errors)})
        if trainer.is_global_zero:
            write_whole(self.table, _csv(self._rows).encode())

    def _time_left(self, trainer: lightning.Trainer, module: NBodyTraining, done: float) -> str:
        """The time left, in words, at the speed since the last compilation; nothing as long as that is unknown."""
        measured = done - self._epochs_at_start
        if measured < _LEAST_EPOCHS_MEASURED:
            return ""
        minutes = (time.monotonic() - self._clock_start) / measured * ((trainer.max_epochs or 0) - done) / 60
        eager = module.compiled is not None and module.compiled.may_speed_up
        return f"  ({'at most ' if eager else ''}{minutes:.0f} min left)"

    def _print(self, text: str) -> None:
        self._last_words = time.monotonic()
        self.console.print(plain(text), soft_wrap=True)


def _epochs_done(trainer: lightning.Trainer) -> float:
    """Number of epochs before a batch, with the finished part of the present one."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.processed
    return trainer.current_epoch + batches % trainer.num_training_batches / trainer.num_training_batches


def _errors_line(errors: Mapping[str, Mapping[str, float]]) -> str:
    """Mean absolute errors of all labels with their units. Errors by element are left out."""
    shown = []
    for quantity, measures in errors.items():
        if quantity in UNITS:
            shown.append(f"{quantity.replace('_', ' ')} {measures['mae']:.2f} {UNITS[quantity]}")
    return "  ".join(shown)


def _columns(errors: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """One row of the table: errors by the names of their columns, which include the unit."""
    return {
        f"{quantity} {measure} ({unit_of(quantity)})": value
        for quantity, measures in errors.items()
        for measure, value in measures.items()
    }


def _csv(rows: list[dict[str, float]]) -> str:
    """The rows as CSV. The header has every column that occurs in any of them, in order of appearance."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
