"""What the loop needs of lightning's hooks: averaged weights, checkpoints that are whole, progress for people."""

import csv
import io
import time
import zipfile
from collections.abc import Callable
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


def moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], int | Tensor], None]:
    """Exponential moving average that forgets faster at the beginning, so that the initial weights leave no trace."""

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], n_averaged: int | Tensor) -> None:
        keep = min(decay, (1.0 + int(n_averaged)) / (10.0 + int(n_averaged)))
        torch._foreach_lerp_(averages, current, 1.0 - keep)

    return update


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed from; the message says why."""


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, and are read without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace the file at ``path`` by a new one."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        payload = io.BytesIO()
        try:
            torch.save(checkpoint, payload)
        except RuntimeError as error:  # interrupted, it completes its archive nevertheless, and fails over that
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
        write_whole(path, payload.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Tensors and plain data, nothing else, whatever ``weights_only`` says.

        Raises:
            CheckpointError: the file is damaged, or holds more than that.
        """
        payload = Path(path).read_bytes()
        try:
            with zipfile.ZipFile(io.BytesIO(payload)) as archive:  # torch.load does not compare its checksums
                damaged = archive.testzip()
            if damaged:
                raise ValueError(f"the checksum of {damaged} does not match its contents")
            return torch.load(io.BytesIO(payload), map_location=map_location, weights_only=True)
        except Exception as error:  # a damaged file makes zipfile and torch raise almost anything
            reason = (str(error).splitlines() or [repr(error)])[0]
            if isinstance(error, UnpicklingError):  # torch's words are a treatise, and advise to allow it
                reason = "it holds more than tensors and plain data"
            raise CheckpointError(
                f"{path} is not a checkpoint that can be resumed from: {reason}. "
                "Move its run away and start anew without --resume."
            ) from error


class StopEarly(EarlyStopping):
    """Lightning's, from the second stage on if there is one; a resumed run stops where the unbroken one does.

    Args:
        patience: epochs without a lower validation loss.
        first_epoch: from which they count.
    """

    def __init__(self, patience: int, first_epoch: int) -> None:
        super().__init__("validation_loss", patience=patience)
        self.first_epoch = first_epoch

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop at once where the run had come to its end when it was killed."""
        trainer.should_stop = self.wait_count >= self.patience

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Count and compare, unless the first stage lasts."""
        if trainer.current_epoch >= self.first_epoch:
            super().on_train_epoch_end(trainer, pl_module)


class Progress(Callback):
    """A line per validation, with the time that is left, and a table of all of them, which survives a kill."""

    def __init__(self, console: Console, table: Path) -> None:
        self.console, self.table = console, table
        self._rows: list[dict[str, float]] = []
        self._began = time.monotonic()
        self._first_epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """The table goes into the checkpoints."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The table of the run that is resumed."""
        self._rows = list(state_dict["rows"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self._began, self._first_epoch = time.monotonic(), trainer.current_epoch

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show and write the errors of the averaged weights."""
        if not isinstance(pl_module, NBodyTraining):
            return
        done, of = trainer.current_epoch + 1, trainer.max_epochs or 0
        left = (time.monotonic() - self._began) / (done - self._first_epoch) * (of - done)
        shown = "  ".join(
            f"{quantity.replace('_', ' ')} {measures['mae']:.2f} {UNITS[quantity]}"
            for quantity, measures in pl_module.errors.items()
            if quantity in UNITS
        )
        self.console.print(
            f"epoch {done:4d}/{of}  MAE  {shown}  ({left / 60:.0f} min left)", highlight=False, soft_wrap=True
        )
        columns = {
            f"{quantity} {measure} ({unit_of(quantity)})": value
            for quantity, measures in pl_module.errors.items()
            for measure, value in measures.items()
        }
        self._rows.append({"epoch": done, **columns})
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in self._rows for name in row)))
        writer.writeheader()
        writer.writerows(self._rows)
        if trainer.is_global_zero:
            write_whole(self.table, text.getvalue().encode())
