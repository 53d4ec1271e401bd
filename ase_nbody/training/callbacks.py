"""Callbacks and plugins for lightning: averaged weights, atomic checkpoints and early stopping."""

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from ase_nbody.files.writing import write_whole
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


_FORMAT = 2  # of a checkpoint; those of format 1 have neither this number nor a checksum, and are read
# Entries of a checkpoint of a training and their types. Earlier releases wrote none of the second kind.
_ENTRIES: dict[str, type] = {
    "epoch": int,
    "global_step": int,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
_NEWER_ENTRIES: dict[str, type] = {
    "averaging_state": dict,
    "recovery": dict,
    "digests": dict,
    "config": str,
    "batches_done": int,
    "errors": dict,
    "watch": dict,
    "split_rule": int,
    "format": int,
}


class CheckpointError(ValueError):
    """A checkpoint cannot be resumed from; the message says why."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint completely or not at all, and reads it without running pickled code.

    The comment of its archive is the SHA-256 checksum of everything in it, so that a changed checkpoint does not go on
    as another training.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace the file at ``path`` by a new one."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        payload = io.BytesIO()
        try:
            torch.save({**checkpoint, "format": _FORMAT}, payload)
            with zipfile.ZipFile(payload, "a") as archive:
                archive.comment = _checksum(archive)
        except RuntimeError as error:
            # After Ctrl-C torch tries to complete its archive, fails, and hides the interrupt behind its own error.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
        write_whole(path, payload.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read tensors and plain data. Anything else is refused, whatever ``weights_only`` says.

        Raises:
            CheckpointError: the file is damaged or was changed, holds more than tensors and plain data, or is no
                checkpoint of a training.
        """
        payload = Path(path).read_bytes()
        try:
            with zipfile.ZipFile(io.BytesIO(payload)) as archive:  # torch.load verifies no checksums
                _require_uncompressed(archive, len(payload))
                written, found = archive.comment, _checksum(archive)
            checkpoint = torch.load(io.BytesIO(payload), map_location=map_location, weights_only=True)
            _require_entries(checkpoint)
            if (written or checkpoint.get("format", 1) > 1) and written != found:
                raise ValueError("it does not have the checksum that it was written with: something changed it since")
        except Exception as error:  # zipfile and torch raise errors of almost any type for a damaged file
            reason = (str(error).splitlines() or [repr(error)])[0]
            if isinstance(error, UnpicklingError):  # torch's message is long and advises to allow the code
                reason = "it holds more than tensors and plain data"
            raise CheckpointError(
                f"{path} is not a checkpoint that can be resumed from: {reason}. "
                "Move its run away and start anew without --resume."
            ) from error
        _move_paths(checkpoint, Path(path).parent)
        return checkpoint


def _checksum(archive: zipfile.ZipFile) -> bytes:
    """SHA-256 of the names and contents of all files in an archive, in hexadecimal digits.

    Raises:
        BadZipFile: the contents of a file do not match its own checksum.
    """
    digest = hashlib.sha256()
    for file in archive.infolist():
        digest.update(f"{file.filename} {file.file_size}\n".encode() + archive.read(file))
    return digest.hexdigest().encode()


def _require_uncompressed(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive that holds more than its size: torch compresses nothing.

    Raises:
        ValueError: a file in it is compressed, or several stand in the same place.
    """
    files = archive.infolist()
    if any(one.compress_type != zipfile.ZIP_STORED for one in files) or sum(one.file_size for one in files) > size:
        raise ValueError(f"it unpacks to more than its {size} bytes, so torch has not written it")


def _require_entries(checkpoint: Any) -> None:
    """Refuse tensors and plain data that are no checkpoint of a training, or not one that was written as it is.

    Raises:
        ValueError: an entry is missing, has another type, or does not go with another one.
    """
    if not isinstance(checkpoint, dict):
        raise ValueError(f"it holds a {type(checkpoint).__name__} and no checkpoint of a training")
    for name, kind in (_ENTRIES | _NEWER_ENTRIES).items():
        if name in _ENTRIES and name not in checkpoint:
            raise ValueError(f"the entry {name!r} is missing, so it is no checkpoint of a training")
        if not isinstance(checkpoint.get(name, kind()), kind):
            raise ValueError(f"the entry {name!r} has the type {type(checkpoint[name]).__name__}, not {kind.__name__}")
    if checkpoint.get("format", 1) > _FORMAT:
        raise ValueError(f"it has format {checkpoint['format']}, which a later release wrote")
    if not all(isinstance(state, dict) for state in checkpoint["callbacks"].values()):
        raise ValueError("the states of its callbacks are no mappings")
    progress = checkpoint["loops"].get("fit_loop", {})
    if not isinstance(progress, dict) or not all(isinstance(state, dict) for state in progress.values()):
        raise ValueError("the states of its loops are no mappings")
    epochs = progress.get("epoch_progress", {}).get("current", {}).get("ready")
    batches = progress.get("epoch_loop.batch_progress", {}).get("current", {}).get("ready")
    if epochs is not None and checkpoint["epoch"] not in (epochs - 1, epochs):
        raise ValueError(f"it is of epoch {checkpoint['epoch']}, but its loops have begun {epochs}")
    if batches is not None and not 0 <= checkpoint.get("batches_done", 0) <= batches:
        raise ValueError(f"{checkpoint['batches_done']} batches of its epoch are done, but {batches} have begun")


def _move_paths(checkpoint: Mapping[str, Any], folder: Path) -> None:
    """Let the paths of checkpoints in a checkpoint name the folder that it lies in now: the run may have been moved."""
    folder = folder.resolve()

    def moved(path: str) -> str:
        return str(folder / Path(path).name) if path else path

    for state in checkpoint.get("callbacks", {}).values():
        if "dirpath" in state:
            state |= {name: moved(path) for name, path in state.items() if name.endswith("_model_path")}
            state["dirpath"] = str(folder)
            state["best_k_models"] = {moved(path): score for path, score in state.get("best_k_models", {}).items()}


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
        # A loss that is not finite is no lower one. Lightning would end the training at once, though it may recover.
        super().__init__("validation_loss", patience=patience, check_finite=False)
        self.first_epoch = first_epoch

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of the run that is resumed, which may have had another patience."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop at once if the run had already run out of patience when it was killed."""
        trainer.should_stop = self.wait_count >= self.patience

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare the validation loss with the lowest one, from ``first_epoch`` on."""
        if trainer.current_epoch >= self.first_epoch:
            super().on_train_epoch_end(trainer, pl_module)


class StayInPlace(Callback):
    """Ends the training before it writes into a folder that has taken the place of its own.

    Args:
        require_place: raises if the output folder was moved or removed.
    """

    def __init__(self, require_place: Callable[[], None]) -> None:
        self.require_place = require_place

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Look before the table of errors is written."""
        self.require_place()

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Look before a checkpoint is written."""
        self.require_place()


class KeepOrigin(Callback):
    """Saves in each checkpoint what the training learns from, and how: files beside it may change.

    Args:
        digests: see ``Origin``.
        config: the whole configuration as YAML.
    """

    def __init__(self, digests: Mapping[str, str], config: str) -> None:
        self.digests, self.config = digests, config

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Save both."""
        checkpoint |= {"digests": dict(self.digests), "config": self.config}
