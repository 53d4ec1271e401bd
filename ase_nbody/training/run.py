"""``train``: from a configuration to a model file. A killed run resumes; a finished one is never overwritten."""

import contextlib
import csv
import hashlib
import io
import logging
import os
import platform
import random
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import TorchCheckpointIO
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from ase_nbody.archive import save_model, write_whole
from ase_nbody.data import Batch, LabelledStructure, Sample, collate, measure, prepare, read_labelled
from ase_nbody.evaluation import evaluate_model
from ase_nbody.loss import UNITS
from ase_nbody.network import NBodyConfig, NBodyNetwork
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.module import NBodyTraining

MODEL_NAME = "model.nbody"
_ROUND_SHAPES = 4  # widths of neighbour tables are padded to multiples, so that compiled steps serve many batches


def train(config: TrainingConfig, *, resume: bool = False, console: Console | None = None) -> Path:
    """Train a network and write ``model.nbody`` into the output folder.

    Args:
        config: the whole training.
        resume: continue the run in the output folder after its last finished epoch.
        console: where progress is shown.

    Returns:
        Path of the model file.

    Raises:
        ConfigError: the output folder holds another run, or none to resume.
        DataError: the data cannot be trained on.
    """
    console = console or Console()
    output = Path(config.output)
    checkpoint = _claim(output, config, resume)
    options = config.training

    console.print(f"Reading {config.data.train}")
    training, validation = split(config)
    test = read_labelled(config.data.test) if config.data.test else None
    statistics = measure(training, config.network.levels, config.data.isolated_atom_energies)
    levels = tuple(
        level.model_copy(update={"mean_children": mean})
        for level, mean in zip(config.network.levels, statistics.mean_children, strict=True)
    )
    architecture = NBodyConfig(
        species=statistics.species,
        levels=levels,
        embedding=config.network.embedding,
        isolated_atom_energies=statistics.isolated_atom_energies,
        energy_scale=statistics.force_scale,
        repulsion=config.network.repulsion,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = NBodyNetwork(architecture).to(getattr(torch, options.dtype))
    loaders = [
        _loader(prepare(training, architecture), options.batch_size, options.seed, shuffle=True),
        _loader(prepare(validation, architecture), 2 * options.batch_size, options.seed, shuffle=False),
    ]
    with_stress = any(bool((frame.stress == frame.stress).all()) for frame in training)
    module = NBodyTraining(network, options, options.epochs * len(loaders[0]), with_stress)
    size = sum(weight.numel() for weight in network.parameters())
    console.print(
        f"{len(training)} training and {len(validation)} validation structures of {', '.join(statistics.species)}; "
        f"{size:,} weights; isolated atoms "
        + ", ".join(f"{symbol} {energy:.3f} eV" for symbol, energy in statistics.isolated_atom_energies.items()),
        highlight=False,
        soft_wrap=True,
    )
    with _without_hints():
        _trainer(config, output, console).fit(module, *loaders, ckpt_path=checkpoint, weights_only=True)
    card = {
        **config.card,
        "training data": f"{len(training)} frames of {Path(config.data.train).name}",
        "training data sha256": _hash_file(config.data.train),
        "validation errors": _with_units(module.errors),
        "trained with": f"ase-nbody {metadata.version('ase-nbody')}, torch {torch.__version__}, {platform.machine()}",
        "training": config.training.model_dump(mode="json"),
    }
    if test is not None:
        card["test errors"] = _with_units(evaluate_model(module.network, test))
        card["test data"] = f"{len(test)} frames of {Path(str(config.data.test)).name}"
    path = save_model(module.network, output / MODEL_NAME, card)
    console.print(f"Wrote {path}")
    return path


def split(config: TrainingConfig) -> tuple[list[LabelledStructure], list[LabelledStructure]]:
    """Training and validation structures: two files, or one split at random by the data seed."""
    frames = read_labelled(config.data.train)
    if isinstance(config.data.validation, str):
        return frames, read_labelled(config.data.validation)
    held_out = config.data.validation
    if not 0 < held_out < len(frames):
        raise ConfigError(f"data.validation = {held_out} must be between 1 and {len(frames) - 1} frames of the file")
    order = list(range(len(frames)))
    random.Random(config.data.seed).shuffle(order)
    return [frames[i] for i in order[held_out:]], [frames[i] for i in order[:held_out]]


def _claim(output: Path, config: TrainingConfig, resume: bool) -> Path | None:
    """Make the output folder ours; the checkpoint to continue from, if any."""
    checkpoint = output / "checkpoints" / "last.ckpt"
    if (output / MODEL_NAME).exists():
        raise ConfigError(f"{output} holds a finished run; choose another 'output' or move it away")
    if resume:
        if not checkpoint.is_file():
            raise ConfigError(f"{output} holds no checkpoint to resume from; start without --resume")
        if TrainingConfig.from_yaml(output / "config.yaml") != config:
            raise ConfigError(f"the configuration differs from that of the run in {output}; resume with the same one")
        return checkpoint
    if checkpoint.exists():
        raise ConfigError(f"{output} holds an unfinished run: continue it with --resume, or choose another 'output'")
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "config.yaml", config.to_yaml().encode())
    return None


def _loader(samples: list[Sample], batch_size: int, seed: int, shuffle: bool) -> DataLoader[Batch]:
    # The sampler's order follows from seed and epoch, so a resumed run sees the batches of an unbroken one.
    source: Any = samples
    sampler: Any = DistributedSampler(source, num_replicas=1, rank=0, shuffle=shuffle, seed=seed)
    return DataLoader(
        source,
        batch_size=min(batch_size, len(samples)),
        sampler=sampler,
        drop_last=shuffle,
        collate_fn=lambda members: collate(members, multiple=_ROUND_SHAPES),
    )


def _trainer(config: TrainingConfig, output: Path, console: Console) -> lightning.Trainer:
    options = config.training
    accelerator, _, index = options.device.partition(":")
    return lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="gpu" if accelerator == "cuda" else accelerator,
        devices=[int(index)] if index else 1,
        callbacks=[
            WeightAveraging(use_buffers=False, multi_avg_fn=_moving_average(options.averaging)),
            ModelCheckpoint(output / "checkpoints", filename="last", enable_version_counter=False),
            Progress(console, output / "metrics.csv"),
        ],
        logger=TensorBoardLogger(output, name="", version="tensorboard"),
        plugins=[WholeCheckpoints()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
    )


@contextlib.contextmanager
def _without_hints() -> Iterator[None]:
    """Silence what lightning says to those who write a training loop, not to those who run ours."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Samples are prepared once and lie in memory: no workers. The rest are lightning's own deprecations.
            for hint in ("many workers", "log_every_n_steps", "Checkpoint directory", "treespec", "LeafSpec"):
                warnings.filterwarnings("ignore", message=f".*{hint}")
            yield
    finally:
        logger.setLevel(level)


def _moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], int | Tensor], None]:
    """Exponential moving average that forgets faster at the beginning, so that the initial weights leave no trace."""

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], n_averaged: int | Tensor) -> None:
        keep = min(decay, (1.0 + int(n_averaged)) / (10.0 + int(n_averaged)))
        torch._foreach_lerp_(averages, current, 1.0 - keep)

    return update


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, and are read without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the target, then replace it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(checkpoint, temporary)
        os.replace(temporary, path)


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
        )
        self.console.print(
            f"epoch {done:4d}/{of}  MAE  {shown}  ({left / 60:.0f} min left)", highlight=False, soft_wrap=True
        )
        columns = {
            f"{quantity} {measure} ({UNITS[quantity]})": value
            for quantity, measures in pl_module.errors.items()
            for measure, value in measures.items()
        }
        self._rows.append({"epoch": done, **columns})
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self._rows[0]))
        writer.writeheader()
        writer.writerows(self._rows)
        write_whole(self.table, text.getvalue().encode())


def _with_units(table: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    return {quantity: {"unit": UNITS[quantity], **measures} for quantity, measures in table.items()}


def _hash_file(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
