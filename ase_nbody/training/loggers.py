"""The loggers that record the curves of a training: always TensorBoard, and Weights & Biases on request."""

import importlib.util
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from ase_nbody.training.config import ConfigError


def make_loggers(output: Path, wandb: bool) -> list[Logger]:
    """Make the loggers of the run in an output folder.

    Args:
        output: the output folder. Weights & Biases shows the run under its name.
        wandb: whether to send the curves to Weights & Biases too.

    Raises:
        ConfigError: ``wandb`` is true, but the package is not installed.
    """
    loggers: list[Logger] = [TensorBoardLogger(output, name="", version="tensorboard")]
    if wandb:
        if importlib.util.find_spec("wandb") is None:
            raise ConfigError(
                "wandb: true needs the package wandb: install it (pip install wandb), or leave the entry out"
            )
        loggers.append(WandbLogger(name=output.name, project="ase-nbody", save_dir=output))
    return loggers
