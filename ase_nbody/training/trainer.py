"""Lightning's trainer as a training uses it: our callbacks and checkpoints, and no cluster but torchrun's processes."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import lightning
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console

from ase_nbody.training.callbacks import AtomicCheckpoints, KeepOrigin, StopEarly, moving_average
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.folder import last_checkpoint
from ase_nbody.training.origin import Origin
from ase_nbody.training.processes import Processes
from ase_nbody.training.progress import Progress
from ase_nbody.training.recovery import Recovery
from ase_nbody.training.termination import EndOnSignals


def make_trainer(
    config: TrainingConfig,
    console: Console,
    processes: Processes,
    loggers: list[Logger],
    origin: Origin,
) -> lightning.Trainer:
    """Lightning's trainer with our callbacks and checkpoints.

    Args:
        config: the configuration of the training; the number of epochs must be set. It goes into the checkpoints.
        console: where progress is shown.
        processes: the processes of the training.
        loggers: what else records the curves.
        origin: what the training learns from; its digests go into the checkpoints.

    Raises:
        ConfigError: there are several processes for one device.
    """
    options, output = config.training, Path(config.output)
    accelerator, _, index = options.device.partition(":")
    if index and processes.count > 1:
        raise ConfigError(
            f"training.device = {options.device!r} is one device, but {processes.count} processes were started; "
            f"give {accelerator!r}, so that each process takes its own"
        )
    folder, same_file = str(output / "checkpoints"), {"enable_version_counter": False}  # some paths spoil a Path
    averaging = WeightAveraging(use_buffers=False, multi_avg_fn=moving_average(options.averaging))
    callbacks: list[Callback] = [averaging, Recovery(averaging, console), KeepOrigin(origin.digests, config.to_yaml())]
    if options.patience:
        callbacks.append(StopEarly(options.patience, options.first_epoch_of_second_stage() or 0))
    if options.keeps_best:
        callbacks.append(ModelCheckpoint(folder, filename="best", monitor="validation_loss", **same_file))
    callbacks.append(ModelCheckpoint(folder, filename="last", **same_file))
    callbacks.append(Progress(console, output / "metrics.csv"))
    callbacks.append(EndOnSignals(last_checkpoint(output), console))
    alone = LightningEnvironment()
    if processes.count == 1:  # lightning has asked variables that may be left over, and other ranks record no curves
        alone.set_global_rank(0)
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
        # Without this, lightning takes the variables of SLURM, LSF and MPI for processes of this training.
        plugins=[AtomicCheckpoints(), TorchElasticEnvironment() if processes.count > 1 else alone],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
    )


@contextlib.contextmanager
def without_hints() -> Iterator[None]:
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
                "your dataloader is not resumable",  # ours is: see ``loaders.Done``
                "srun",
            ):
                warnings.filterwarnings("ignore", message=f".*{hint}")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
