"""Whether a training may begin or go on in its output folder: it belongs to one run, which is never overwritten."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from ase_nbody.files.archive import ModelFileError, read_card
from ase_nbody.files.heads import in_card
from ase_nbody.files.writing import write_whole
from ase_nbody.training.config import ConfigError, TrainingConfig, as_begun, differences
from ase_nbody.training.folder import (
    CONFIG_NAME,
    MODEL_NAME,
    REPORT_NAME,
    WORST_NAME,
    last_checkpoint,
    require_folders,
    require_own_files,
    runs_in,
)
from ase_nbody.training.processes import Processes
from ase_nbody.training.splits import require_own_frames

MAY_GROW = ("training.epochs", "training.patience")  # entries that may differ when a finished run is continued


def require_free(output: Path, *, begun: bool, resume: bool, own: Sequence[str]) -> None:
    """Check that no run is started over another one, or anew by mistake.

    Args:
        output: the output folder.
        begun: whether the folder holds a run of this kind that can be continued.
        resume: whether the user asked to continue it.
        own: the kinds of runs (see ``runs_in``) that belong to this one.

    Raises:
        ConfigError: the folder holds a run of another kind, or one that is to be continued with ``--resume``.
    """
    others = sorted(runs_in(output) - {*own})
    if others:
        raise ConfigError(
            f"{output} holds an unfinished run of another kind ({', '.join(others)}): continue it with --resume and "
            "as it was started, or choose another 'output'"
        )
    if begun and not resume:
        raise ConfigError(f"{output} holds an unfinished run: continue it with --resume, or choose another 'output'")


def examine_folder(
    output: Path, config: TrainingConfig, *, begun: bool, resume: bool, own: Sequence[str] = ("training",)
) -> TrainingConfig:
    """Check that the output folder is free for this training or holds it already.

    With ``resume``, a folder without a run is free for a new one.

    Args:
        output: the output folder.
        config: the configuration of the training.
        begun: whether the folder holds a run of this kind that can be continued.
        resume: whether the user asked to continue it.
        own: the kinds of runs in the folder (see ``runs_in``) that belong to this one.

    Returns:
        The configuration, with the number of epochs of the run that is continued if it gives none, and with what else
        it leaves open (see ``as_begun``).

    Raises:
        ConfigError: the folder holds another run, or a finished one that was not to be continued, or files of the user
            under names that a run writes.
    """
    require_folders(output)
    finished = (output / MODEL_NAME).exists()
    missing = what_is_missing(output, config) if finished and begun else []
    require_own_frames(config)
    if resume and begun:
        before = TrainingConfig.as_written(output / CONFIG_NAME)
        config = as_begun(config, before)
        epochs = _epochs_of(output, before)
        if config.training.epochs is None:
            config = with_epochs(config, epochs)
        was_finished = finished or _aside(output / MODEL_NAME, epochs, 1).exists()  # then a kill has come at once
        longer = was_finished and (config.training.epochs or 0) > (epochs or 0) > 0
        require_same(config, with_epochs(before, epochs), output, MAY_GROW if longer else ())
        return config
    if missing:
        raise ConfigError(
            f"{output} holds a run without {' and '.join(missing)}: make up for it with --resume (report=false does "
            "without a report), or choose another 'output'"
        )
    if finished:
        raise ConfigError(
            f"{output} holds a finished run. To train it for longer, give --resume and more training.epochs than it "
            "had; otherwise choose another 'output' or move it away."
        )
    require_free(output, begun=begun, resume=resume, own=own)
    require_own_files(output)
    return config


def claim_folder(
    output: Path, config: TrainingConfig, *, begun: bool, resume: bool, own: Sequence[str] = ("training",)
) -> TrainingConfig:
    """Write the configuration of a new run into its folder. Arguments, errors and result: see ``examine_folder``."""
    config = examine_folder(output, config, begun=begun, resume=resume, own=own)
    if not (begun or Processes.launched().rank):
        output.mkdir(parents=True, exist_ok=True)
        write_config(config)
    return config


def what_is_missing(output: Path, config: TrainingConfig) -> list[str]:
    """What a run whose model is written has not written after it: it was ended there, had no room, or failed."""
    missing = []
    with contextlib.suppress(OSError, ModelFileError):
        card = read_card(output / MODEL_NAME)["card"]
        own = card if config.network.head is None else in_card(card).get(config.network.head, {})
        judged = ["validation", *(["test"] if config.data.test else [])]  # a committee is written before either
        missing = [f"the errors on the {name} frames" for name in judged if f"{name} errors" not in own]
    if config.report and not (output / REPORT_NAME).exists():
        missing.append("its report")
    return missing


def is_finished(config: TrainingConfig) -> bool:
    """Whether a run has its model and what follows it, and was trained for as many epochs as are asked for."""
    output = Path(config.output)
    if not (output / MODEL_NAME).exists():
        return False
    epochs = _epochs_of(output, TrainingConfig.as_written(output / CONFIG_NAME))
    unfinished = last_checkpoint(output).is_file() and what_is_missing(output, config)
    return config.training.epochs in (None, epochs) and not unfinished


def said_of_finished(config: TrainingConfig) -> str:
    """The sentence for a run that was to be continued, but is finished."""
    return (
        f"The run in {config.output} is finished, and nothing is left to do. To train it for longer, give more "
        "training.epochs than it had."
    )


def with_epochs(config: TrainingConfig, epochs: int | None) -> TrainingConfig:
    """The configuration with another number of epochs."""
    return config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs})})


def _epochs_of(output: Path, begun: TrainingConfig) -> int | None:
    """For how many epochs a run was to be trained: as its configuration says, or the card of its finished model."""
    if begun.training.epochs is not None:
        return begun.training.epochs
    try:
        card = read_card(output / MODEL_NAME)["card"]
        return int({**card, **card.get("members", [{}])[0]}["training"]["epochs"])
    except (OSError, ModelFileError, KeyError, TypeError, IndexError, ValueError):
        return None


def require_same(config: TrainingConfig, begun: TrainingConfig, output: Path, apart_from: tuple[str, ...] = ()) -> None:
    """Check that a run in ``output`` that began with the configuration ``begun`` may continue with this one.

    Raises:
        ConfigError: an entry differs that the result depends on; the message names it.
    """
    different = [one for one in differences(config, begun) if one.entry not in apart_from]
    if different:
        raise ConfigError(
            f"the configuration differs from that of the run in {output}: {'; '.join(map(str, different[:5]))}. "
            "Resume with the same one, or choose another 'output'."
        )


def write_config(config: TrainingConfig) -> None:
    """Write the configuration of the run into its output folder."""
    write_whole(Path(config.output) / CONFIG_NAME, config.to_yaml().encode())


def set_model_aside(output: Path, epochs: int | None) -> Path | None:
    """Rename the model of a finished run that is to be trained for longer, and the report on it.

    Neither is ever overwritten, and the old report does not pass for that on the new model if the run is killed.

    Args:
        output: the output folder.
        epochs: for how many epochs the run is trained.

    Returns:
        The new path of the model, or None if there is no model, or it is of as many epochs.
    """
    if not (output / MODEL_NAME).exists():
        return None
    before = _epochs_of(output, TrainingConfig.as_written(output / CONFIG_NAME))
    if before == epochs:
        return None
    # The model comes last: if a kill comes before it, all is repeated.
    here = [path for name in (WORST_NAME, REPORT_NAME, MODEL_NAME) if (path := output / name).exists()]
    number = 1
    while any(_aside(path, before, number).exists() for path in here):
        number += 1
    for path in here:
        os.replace(path, _aside(path, before, number))
    return _aside(output / MODEL_NAME, before, number)


def _aside(path: Path, epochs: int | None, number: int) -> Path:
    """The name of a file of a run that is trained for longer; ``number`` tells those of several such runs apart."""
    after = f"_after_{epochs}_epoch{'' if epochs == 1 else 's'}"
    return path.with_name(f"{path.stem}{after}{'' if number == 1 else f'_{number}'}{path.suffix}")
