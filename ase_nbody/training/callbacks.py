"""Callbacks and plugins for lightning: averaged weights, atomic checkpoints, early stopping and progress."""

import csv
import io
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.plugins import TorchCheckpointIO
from rich.console import Console
from torch import Tensor

from ase_nbody.files.writing import write_whole
from ase_nbody.training.loss import UNITS, unit_of
from ase_nbody.training.module import NBodyTraining
from ase_nbody.training.splits import PLAIN_SPLIT, SPLIT_RULE


def moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], int | Tensor], None]:
    """Exponential moving average of the weights: average <- k average + (1 - k) weight.

    k = min(decay, (1 + n) / (10 + n)) after n steps. The smaller k of the first steps makes the average forget the
    initial weights.

    Args:
        decay: k after many steps, between 0 and 1.

    Returns:
        A function that updates the averages in place.
    """

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], n_averaged: int | Tensor) -> None:
        keep = min(decay, (1.0 + int(n_averaged)) / (10.0 + int(n_averaged)))
        torch._foreach_lerp_(averages, current, 1.0 - keep)

    return update


class CheckpointError(ValueError):
    """A checkpoint cannot be resumed from; the message says why."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint completely or not at all, and reads it without running pickled code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace the file at ``path`` by a new one."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        payload = io.BytesIO()
        try:
            torch.save(checkpoint, payload)
        except RuntimeError as error:
            # After Ctrl-C torch tries to complete its archive, fails, and hides the interrupt behind its own error.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
        write_whole(path, payload.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read tensors and plain data. Anything else is refused, whatever ``weights_only`` says.

        Raises:
            CheckpointError: the file is damaged, or holds more than tensors and plain data.
        """
        payload = Path(path).read_bytes()
        try:
            with zipfile.ZipFile(io.BytesIO(payload)) as archive:  # torch.load does not verify the checksums
                damaged = archive.testzip()
            if damaged:
                raise ValueError(f"the checksum of {damaged} does not match its contents")
            return torch.load(io.BytesIO(payload), map_location=map_location, weights_only=True)
        except Exception as error:  # zipfile and torch raise errors of almost any type for a damaged file
            reason = (str(error).splitlines() or [repr(error)])[0]
            if isinstance(error, UnpicklingError):  # torch's message is long and advises to allow the code
                reason = "it holds more than tensors and plain data"
            raise CheckpointError(
                f"{path} is not a checkpoint that can be resumed from: {reason}. "
                "Move its run away and start anew without --resume."
            ) from error


def split_rule(checkpoint: Path) -> int:
    """How the run of a checkpoint draws its validation frames; without a checkpoint, how a new run does.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    if not checkpoint.is_file():
        return SPLIT_RULE
    return int(AtomicCheckpoints().load_checkpoint(checkpoint).get("split_rule", PLAIN_SPLIT))


class StopEarly(EarlyStopping):
    """Stops when the validation loss has not fallen for ``patience`` epochs.

    A resumed run stops at the same epoch as an uninterrupted one.

    Args:
        patience: number of epochs without a lower validation loss.
        first_epoch: number of the first epoch that counts, from 0: the start of the second stage, if there is one.
    """

    def __init__(self, patience: int, first_epoch: int) -> None:
        super().__init__("validation_loss", patience=patience)
        self.first_epoch = first_epoch

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop at once if the run had already run out of patience when it was killed."""
        trainer.should_stop = self.wait_count >= self.patience

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare the validation loss with the lowest one, from ``first_epoch`` on."""
        if trainer.current_epoch >= self.first_epoch:
            super().on_train_epoch_end(trainer, pl_module)


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
        self._start_time = time.monotonic()
        self._first_epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """The rows of the table, for the checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of the run that is resumed."""
        self._rows = list(state_dict["rows"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self._start_time, self._first_epoch = time.monotonic(), trainer.current_epoch

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print the errors of the averaged weights and write them to the table."""
        if not isinstance(pl_module, NBodyTraining):
            return
        epoch, n_epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        seconds_per_epoch = (time.monotonic() - self._start_time) / (epoch - self._first_epoch)
        minutes_left = seconds_per_epoch * (n_epochs - epoch) / 60
        self.console.print(
            f"epoch {epoch:4d}/{n_epochs}  MAE  {_errors_line(pl_module.errors)}  ({minutes_left:.0f} min left)",
            highlight=False,
            soft_wrap=True,
        )
        self._rows.append({"epoch": epoch, **_columns(pl_module.errors)})
        if trainer.is_global_zero:
            write_whole(self.table, _csv(self._rows).encode())


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
