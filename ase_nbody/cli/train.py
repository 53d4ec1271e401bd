"""``nbody train``: from data to a model file."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="YAML file (see docs/training.md), or just the data: mine.extxyz.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Entries in place of those of the file.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a killed run after its last epoch.")] = False,
    seeds: Annotated[
        int, typer.Option(min=1, max=64, help="Train so many networks, which differ in their seed, as a committee.")
    ] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's.")] = None,
) -> None:
    """Train a model on structures with energies and forces, and stresses where there are any."""
    import torch

    from ase_nbody.training.config import TrainingConfig
    from ase_nbody.training.pretraining import train_in_stages
    from ase_nbody.training.seeds import train_committee

    if threads is not None:
        torch.set_num_threads(threads)
    options = TrainingConfig.from_yaml(config, overrides or [])
    _require_device(options.training.device)
    try:
        if seeds > 1:
            train_committee(options, seeds, resume=resume)
        else:
            train_in_stages(options, resume=resume)
    except SystemExit as end:  # lightning's answer to Ctrl-C, where ours is another exit code
        raise KeyboardInterrupt from end


def _require_device(name: str) -> None:
    """Refuse a device that is not there before the data are read."""
    import torch

    from ase_nbody.training.config import ConfigError

    try:
        torch.empty(0, device=None if name == "auto" else name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"training.device = {name!r} is not available here ({reason}). Use 'auto' or 'cpu'."
        ) from error
