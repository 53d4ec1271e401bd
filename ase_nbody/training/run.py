"""``train``: from a configuration to a model file. A killed run resumes; a finished one is never overwritten."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console

from ase_nbody.data import Found, LabelledStructure
from ase_nbody.files.archive import save_model
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.terminal import plain
from ase_nbody.training.callbacks import AtomicCheckpoints, Progress, StopEarly, moving_average, split_rule
from ase_nbody.training.config import ConfigError, OptimisationConfig, TrainingConfig
from ase_nbody.training.evaluation import errors_table, evaluate_model
from ase_nbody.training.folder import MODEL_NAME, claim_folder, last_checkpoint
from ase_nbody.training.initial import build_network
from ase_nbody.training.loaders import make_loader
from ase_nbody.training.loggers import make_loggers
from ase_nbody.training.model_card import model_card
from ase_nbody.training.module import NBodyTraining
from ase_nbody.training.processes import Processes
from ase_nbody.training.recovery import Recovery
from ase_nbody.training.report import write_report
from ase_nbody.training.splits import (
    file_names,
    read_sources,
    read_splits,
    remove_frames,
    require_known_species,
)
from ase_nbody.undisturbed import undisturbed

_DEFAULT_STEPS = 9_000  # steps of the optimiser, if the configuration gives no number of epochs
_MIN_DEFAULT_EPOCHS, _MAX_DEFAULT_EPOCHS = 20, 500

Frames = Mapping[str, Sequence[LabelledStructure]]  # under "training", "validation" and "test"


@undisturbed()
def train(config: TrainingConfig, *, resume: bool = False, console: Console | None = None, members: int = 1) -> Path:
    """Train a network and write ``model.nbody`` into the output folder.

    Args:
        config: the configuration of the training.
        resume: continue the run in the output folder after its last finished epoch.
        console: where progress is shown.
        members: number of networks that the model file of this network's committee will hold.

    Returns:
        Path of the model file.

    Raises:
        ConfigError: the network or the card will not fit into a model file, the output folder holds another run or
            none to resume, or a package that the configuration needs is not installed.
        DataError: the data cannot be trained on.
        CheckpointError: the checkpoint to resume from is damaged.
        TrainingDiverged: the training diverged too often.
    """
    if config.pretraining is not None:
        raise ConfigError("a configuration with 'pretraining' is for train_in_stages, or nbody train")
    processes = Processes.launched()
    console = Console(quiet=True) if processes.rank else console or Console()
    output = Path(config.output)
    loggers = make_loggers(output, config.wandb)
    checkpoint = last_checkpoint(output)
    claim_folder(output, config, begun=checkpoint.is_file(), resume=resume)

    console.print(plain(f"Reading {file_names(config.data.train)}"), soft_wrap=True)
    found: list[Found] = []
    training, validation = read_splits(config, split_rule(checkpoint), found.append)
    frames = {"training": training, "validation": validation}
    frames["test"] = read_sources(config, "test", found.append) if config.data.test else []
    for file in found:
        console.print(plain(file), soft_wrap=True)
    config = _with_epochs(config, training)
    network = build_network(config, training, members)
    require_known_species(config, network.config.species, frames)
    for ignored in filter(None, (file.ignored(uses_charge=bool(network.config.outputs)) for file in found)):
        console.print(plain(ignored), soft_wrap=True)
    console.print(plain(_summary(network, frames)), soft_wrap=True)

    with _without_hints():
        trainer = _trainer(config.training, output, console, processes, loggers)
        module = _fit(trainer, network, frames, config, processes, checkpoint if resume else None)
    if processes.rank:
        return output / MODEL_NAME  # the first process writes it
    epoch = _take_averages(
        module, output / "checkpoints" / ("best.ckpt" if config.training.keeps_best else "last.ckpt")
    )
    console.print(errors_table(module.errors, f"{len(validation)} validation frames, epoch {epoch}"))
    return _write_model(network, module.errors, frames, config, console)


def _with_epochs(config: TrainingConfig, training: Sequence[LabelledStructure]) -> TrainingConfig:
    """The configuration with a number of epochs. Without one given, it follows from the size of the data."""
    options = config.training
    if options.batch_atoms is None:
        steps_per_epoch = max(1, len(training) // options.batch_size)
    else:
        steps_per_epoch = -(-sum(len(frame.structure) for frame in training) // options.batch_atoms)  # rounded up
    default = min(max(_DEFAULT_STEPS // steps_per_epoch, _MIN_DEFAULT_EPOCHS), _MAX_DEFAULT_EPOCHS)
    return config.model_copy(update={"training": options.model_copy(update={"epochs": options.epochs or default})})


def _summary(network: NBodyNetwork, frames: Frames) -> str:
    """One line on the data and the network, printed before the first epoch."""
    size = sum(weight.numel() for weight in network.parameters())
    frozen = sum(weight.numel() for weight in network.parameters() if not weight.requires_grad)
    isolated = ", ".join(f"{name} {energy:.3f} eV" for name, energy in network.config.isolated_atom_energies.items())
    return (
        f"{len(frames['training'])} training and {len(frames['validation'])} validation structures of "
        f"{', '.join(network.config.species)}; {size:,} weights"
        f"{f', {frozen:,} of them frozen' if frozen else ''}; isolated atoms {isolated}"
    )


def _fit(
    trainer: lightning.Trainer,
    network: NBodyNetwork,
    frames: Frames,
    config: TrainingConfig,
    processes: Processes,
    checkpoint: Path | None,
) -> NBodyTraining:
    """Run the training loop, from a checkpoint if one is given, and return the module with its last weights."""
    training, validation = frames["training"], frames["validation"]
    loader = make_loader(training, network.config, config, processes, shuffle=True)
    validation_loader = make_loader(validation, network.config, config, processes, shuffle=False)
    total_steps = int(config.training.epochs or 0) * len(loader)
    with_stress = any(np.isfinite(frame.stress).all() for frame in training)
    module = NBodyTraining(network, config.training, total_steps, with_stress)
    trainer.fit(module, loader, validation_loader, ckpt_path=checkpoint, weights_only=True)
    return module


def _take_averages(module: NBodyTraining, path: Path) -> int:
    """Give the module's network the averaged weights of a checkpoint, and the module their validation errors.

    Returns:
        Number of the checkpoint's epoch, from 1.
    """
    checkpoint = AtomicCheckpoints().load_checkpoint(path)
    module.load_state_dict(checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)
    return int(checkpoint["epoch"]) + 1


def _write_model(
    network: NBodyNetwork,
    validation_errors: dict[str, dict[str, float]],
    frames: Frames,
    config: TrainingConfig,
    console: Console,
) -> Path:
    """Evaluate the test frames if there are any, write the report and the model file, and return the model's path."""
    output = Path(config.output)
    errors = {"validation": validation_errors}
    if config.data.test is not None:
        errors["test"] = evaluate_model(network, frames["test"])
        console.print(errors_table(errors["test"], f"{len(frames['test'])} test frames"))
    card = model_card(config, frames, errors)
    if config.report:
        _write_report(network, frames, output, console)
    path = save_model(network, output / MODEL_NAME, card)
    remove_frames(config)
    console.print(plain(f"Wrote {path}"), soft_wrap=True)
    return path


def _write_report(network: NBodyNetwork, frames: Frames, output: Path, console: Console) -> None:
    """Write the report, or say why not if matplotlib is missing. The model is written in either case."""
    try:
        report = write_report(network, frames, output / "metrics.csv", output)
    except ImportError as error:
        console.print(plain(f"No report: {error}"), soft_wrap=True)
    else:
        console.print(plain(f"Wrote {report}"), soft_wrap=True)


def _trainer(
    options: OptimisationConfig, output: Path, console: Console, processes: Processes, loggers: list[Logger]
) -> lightning.Trainer:
    """Lightning's trainer with our callbacks and checkpoints."""
    accelerator, _, index = options.device.partition(":")
    if index and processes.count > 1:
        raise ConfigError(
            f"training.device = {options.device!r} is one device, but {processes.count} processes were started; "
            f"give {accelerator!r}, so that each process takes its own"
        )
    folder, same_file = str(output / "checkpoints"), {"enable_version_counter": False}  # a Path could not be kept
    averaging = WeightAveraging(use_buffers=False, multi_avg_fn=moving_average(options.averaging))
    callbacks: list[Callback] = [averaging, Recovery(averaging, console)]
    if options.patience:
        callbacks.append(StopEarly(options.patience, options.first_epoch_of_second_stage() or 0))
    if options.keeps_best:
        callbacks.append(ModelCheckpoint(folder, filename="best", monitor="validation_loss", **same_file))
    callbacks.append(ModelCheckpoint(folder, filename="last", **same_file))
    callbacks.append(Progress(console, output / "metrics.csv"))
    # Buffers never change, so they need no broadcast. Every weight has a gradient from any batch, as DDP requires.
    several_processes = DDPStrategy(broadcast_buffers=False)
    return lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="gpu" if accelerator == "cuda" else accelerator,
        devices=[int(index)] if index else processes.on_this_machine,
        num_nodes=processes.count // processes.on_this_machine,
        strategy=several_processes if processes.count > 1 else "auto",
        use_distributed_sampler=False,
        callbacks=callbacks,
        logger=loggers,
        plugins=[AtomicCheckpoints()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
    )


@contextlib.contextmanager
def _without_hints() -> Iterator[None]:
    """Silence lightning's advice to authors of training loops, which is of no use to someone who runs ours."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Samples are usually prepared once and kept in memory, so the loader needs no workers. The other messages
            # are about settings that we chose on purpose, or about deprecated functions that lightning itself calls.
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
