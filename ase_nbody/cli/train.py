"""``nbody train``: train a model on data and write it to a model file."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="YAML file (see docs/training.md), or just the data: mine.extxyz.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Entries that replace those of the file.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue a run that was ended, or train a finished one for more epochs."),
    ] = False,
    seeds: Annotated[
        int, typer.Option(min=1, max=64, help="Networks to train as a committee; they differ in their seed.")
    ] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Most CPU threads; small batches take one.")] = None,
) -> None:
    """Train a model on structures with energies and forces, and with stresses if the data have them."""
    import torch

    from ase_nbody.cli.keys import check_threads
    from ase_nbody.training import Terminated, TrainingConfig, train_committee, train_in_stages
    from ase_nbody.training.folder import at_its_place

    if threads is not None:
        check_threads(threads)
        torch.set_num_threads(threads)
    options = at_its_place(TrainingConfig.from_yaml(config, overrides or []), config)
    _require_device(options.training.device)
    try:
        if seeds > 1:
            train_committee(options, seeds, resume=resume)
        else:
            train_in_stages(options, resume=resume)
    except Terminated:
        raise
    except SystemExit as end:  # lightning exits on Ctrl-C with a code that is not ours
        raise KeyboardInterrupt from end


def _require_device(name: str) -> None:
    """Refuse a device that is not available, before the data are read."""
    import torch

    from ase_nbody.runtime.settings import why_missing
    from ase_nbody.training import ConfigError

    try:
        torch.empty(0, device=None if name == "auto" else name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"training.device = {name!r} is not available here ({why_missing(error)}). Use 'auto' or 'cpu'."
        ) from error
