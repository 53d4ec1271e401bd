"""``train``: from a configuration to a model file. A killed run resumes; a finished one is never overwritten."""

import contextlib
import logging
import platform
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from ase_nbody.data import AtomBatches, Batch, LabelledStructure, LazySamples, Sample, collate, prepare
from ase_nbody.files.archive import read_card, save_model
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.training.callbacks import Progress, StopEarly, WholeCheckpoints, moving_average
from ase_nbody.training.config import ConfigError, OptimisationConfig, TrainingConfig
from ase_nbody.training.evaluation import errors_table, evaluate_model
from ase_nbody.training.folder import MODEL_NAME, checkpoint_of, claim
from ase_nbody.training.initial import build_network
from ase_nbody.training.loggers import make_loggers
from ase_nbody.training.loss import unit_of
from ase_nbody.training.module import NBodyTraining
from ase_nbody.training.processes import Processes, Share, without_labels
from ase_nbody.training.recovery import Recovery
from ase_nbody.training.report import write_report
from ase_nbody.training.splits import digest, names, read_sources, split, stored

_USUAL_STEPS = 9_000  # of the optimiser, for data sets of usual sizes
_LARGEST_EXAMPLE = 500  # atoms: a card is no place for more
_ROUND_SHAPES = 8  # widths of neighbour tables are padded to multiples, so that compiled steps serve many batches


def train(config: TrainingConfig, *, resume: bool = False, console: Console | None = None) -> Path:
    """Train a network and write ``model.nbody`` into the output folder.

    Args:
        config: the whole training.
        resume: continue the run in the output folder after its last finished epoch.
        console: where progress is shown.

    Returns:
        Path of the model file.

    Raises:
        ConfigError: the output folder holds another run, or none to resume; or what is asked for is not installed.
        DataError: the data cannot be trained on.
    """
    if config.pretraining is not None:
        raise ConfigError("a configuration with 'pretraining' is for train_in_stages, or nbody train")
    processes = Processes.launched()
    console = Console(quiet=True) if processes.rank else console or Console()
    output = Path(config.output)
    loggers = make_loggers(output, config.wandb)
    checkpoint = checkpoint_of(output)
    claim(output, config, begun=checkpoint.is_file(), resume=resume)

    console.print(f"Reading {names(config.data.train)}")
    training, validation = split(config)
    options = _with_epochs(config.training, training)
    test = read_sources(config, "test") if config.data.test else None
    network = build_network(config, training)
    console.print(_summary(network, training, validation), highlight=False, soft_wrap=True)
    loaders = [
        _loader(frames, network.config, config, options, processes, shuffle)
        for frames, shuffle in ((training, True), (validation, False))
    ]
    with_stress = any(np.isfinite(frame.stress).all() for frame in training)
    module = NBodyTraining(network, options, int(options.epochs or 0) * len(loaders[0]), with_stress)
    with _without_hints():
        trainer = _trainer(options, output, console, processes, loggers)
        trainer.fit(module, *loaders, ckpt_path=checkpoint if resume else None, weights_only=True)
    if processes.rank:
        return output / MODEL_NAME  # the first process writes it
    epoch = _take_averages(module, output / "checkpoints" / ("best.ckpt" if options.keeps_best else "last.ckpt"))

    console.print(errors_table(module.errors, f"{len(validation)} validation frames, epoch {epoch}"))
    card: dict[str, Any] = {
        **config.card,
        "training data": f"{len(training)} frames of {names(config.data.train)}",
        "training data sha256": digest(config.data.train),
        "validation errors": _with_units(module.errors),
        "trained with": f"ase-nbody {metadata.version('ase-nbody')}, torch {torch.__version__}, {platform.machine()}",
        "training": options.model_dump(mode="json"),
        "example": _example(training),
    }
    if config.network.start_from is not None:
        card["started from"] = (
            f"{Path(config.network.start_from).name}, {read_card(config.network.start_from)['checksum']}"
        )
    if test is not None and config.data.test is not None:
        card["test data"] = f"{len(test)} frames of {names(config.data.test)}"
        measured = evaluate_model(network, test)
        card["test errors"] = _with_units(measured)
        console.print(errors_table(measured, f"{len(test)} test frames"))
    if config.report:
        _report(network, {"training": training, "validation": validation, "test": test or []}, output, console)
    path = save_model(network, output / MODEL_NAME, card)
    shutil.rmtree(stored(config), ignore_errors=True)
    console.print(f"Wrote {path}")
    return path


def _take_averages(module: NBodyTraining, path: Path) -> int:
    """Give the network the averaged weights of a checkpoint, and the module their errors; the epoch, from 1."""
    checkpoint = WholeCheckpoints().load_checkpoint(path)
    module.load_state_dict(checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)
    return int(checkpoint["epoch"]) + 1


def _report(
    network: NBodyNetwork, sets: Mapping[str, Sequence[LabelledStructure]], output: Path, console: Console
) -> None:
    """The report, if it can be drawn; the model does not depend on it."""
    try:
        console.print(f"Wrote {write_report(network, sets, output / 'metrics.csv', output)}")
    except ImportError as error:
        console.print(f"No report: {error}", highlight=False, soft_wrap=True)


def _with_epochs(options: OptimisationConfig, training: Sequence[LabelledStructure]) -> OptimisationConfig:
    """The options with the number of epochs, which follows from the size of the data where it is not given."""
    if options.batch_atoms is None:
        steps_per_epoch = max(1, len(training) // options.batch_size)
    else:
        steps_per_epoch = -(-sum(len(frame.structure) for frame in training) // options.batch_atoms)
    chosen = options.epochs or min(max(_USUAL_STEPS // steps_per_epoch, 20), 500)
    return options.model_copy(update={"epochs": chosen})


def _example(training: Sequence[LabelledStructure]) -> dict[str, Any] | None:
    """The training structure of most species and, among these, lowest force: what the model is for, as JSON."""

    def rank(frame: LabelledStructure) -> tuple[int, float]:
        force = float(np.abs(frame.forces).max(initial=0.0))
        return -len(set(frame.structure.numbers)), force if np.isfinite(force) else np.inf

    small = (frame for frame in training if len(frame.structure) <= _LARGEST_EXAMPLE)
    chosen = min(small, key=rank, default=None)
    if chosen is None:
        return None
    structure = chosen.structure
    return {
        "numbers": structure.numbers.tolist(),
        "positions": structure.positions.round(6).tolist(),
        "cell": structure.cell.tolist(),
        "pbc": structure.pbc.tolist(),
    }


def _summary(network: NBodyNetwork, training: Sequence[Any], validation: Sequence[Any]) -> str:
    size = sum(weight.numel() for weight in network.parameters())
    frozen = sum(weight.numel() for weight in network.parameters() if not weight.requires_grad)
    isolated = ", ".join(f"{name} {energy:.3f} eV" for name, energy in network.config.isolated_atom_energies.items())
    return (
        f"{len(training)} training and {len(validation)} validation structures of "
        f"{', '.join(network.config.species)}; {size:,} weights"
        f"{f', {frozen:,} of them frozen' if frozen else ''}; isolated atoms {isolated}"
    )


def _loader(
    frames: Sequence[LabelledStructure],
    network: NBodyConfig,
    config: TrainingConfig,
    options: OptimisationConfig,
    processes: Processes,
    shuffle: bool,
) -> DataLoader[Batch]:
    lazy = LazySamples(frames, network)
    on_demand = lazy.memory > config.data.memory * 2**30
    samples: Any = lazy if on_demand else prepare(frames, network, config.data.workers)
    # The sampler's order follows from seed and epoch, so a resumed run sees the batches of an unbroken one.
    sampler: Any = DistributedSampler(samples, num_replicas=1, rank=0, shuffle=shuffle, seed=options.seed)
    batches: Any
    if options.batch_atoms is None:
        size = options.batch_size if shuffle else 2 * options.batch_size
        batches = BatchSampler(sampler, min(size, len(samples)), drop_last=shuffle)
    else:
        sizes = [len(frame.structure) for frame in frames]
        batches = AtomBatches(sampler, sizes, options.batch_atoms, int(options.epochs or 0) if shuffle else 0)
    workers = config.data.workers if on_demand else 0
    return DataLoader(
        samples,
        batch_sampler=Share(batches, processes),
        collate_fn=partial(_collate, filler=samples[0]),
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _collate(members: list[Sample], filler: Sample) -> Batch:
    return collate(members or [without_labels(filler)], multiple=_ROUND_SHAPES)


def _trainer(
    options: OptimisationConfig, output: Path, console: Console, processes: Processes, loggers: list[Logger]
) -> lightning.Trainer:
    accelerator, _, index = options.device.partition(":")
    if index and processes.count > 1:
        raise ConfigError(
            f"training.device = {options.device!r} is one device, but {processes.count} processes were started; "
            f"give {accelerator!r}: each process takes its own"
        )
    folder, one = output / "checkpoints", {"enable_version_counter": False}
    best = [ModelCheckpoint(folder, filename="best", monitor="validation_loss", **one)] if options.keeps_best else []
    stop = [StopEarly(options.patience, options.first_epoch_of_second_stage() or 0)] if options.patience else []
    averaging = WeightAveraging(use_buffers=False, multi_avg_fn=moving_average(options.averaging))
    several = DDPStrategy(broadcast_buffers=False)  # which never change; every weight has a gradient from any batch
    return lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="gpu" if accelerator == "cuda" else accelerator,
        devices=[int(index)] if index else processes.on_this_machine,
        num_nodes=processes.count // processes.on_this_machine,
        strategy=several if processes.count > 1 else "auto",
        use_distributed_sampler=False,
        callbacks=[
            averaging,
            Recovery(averaging, console),
            *stop,
            *best,
            ModelCheckpoint(folder, filename="last", **one),
            Progress(console, output / "metrics.csv"),
        ],
        logger=loggers,
        plugins=[WholeCheckpoints()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
    )


@contextlib.contextmanager
def _without_hints() -> Iterator[None]:
    """Silence what lightning says to those who write a training loop, not to those who run ours."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Samples are prepared once and lie in memory: no workers. The rest are lightning's own deprecations.
            for hint in (
                "many workers",
                "log_every_n_steps",
                "Checkpoint directory",
                "treespec",
                "LeafSpec",
                "broadcast_buffers",
                "sync_dist",
            ):
                warnings.filterwarnings("ignore", message=f".*{hint}")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _with_units(table: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    return {quantity: {"unit": unit_of(quantity), **measures} for quantity, measures in table.items()}
