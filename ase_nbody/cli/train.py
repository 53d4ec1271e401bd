"""``nbody train``: from data to a model file."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="YAML file that describes the training (see docs/training.md).")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue a killed run after its last epoch.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: torch's.")] = None,
) -> None:
    """Train a model on structures with energies and forces, and stresses where there are any."""
    import torch

    from ase_nbody.training.config import TrainingConfig
    from ase_nbody.training.run import train as run

    if threads is not None:
        torch.set_num_threads(threads)
    run(TrainingConfig.from_yaml(config), resume=resume)
