"""What a checkpoint must be like, so that a run can go on from it."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase_nbody.data import DataError
from ase_nbody.text import count_of, printable
from ase_nbody.training.callbacks import AtomicCheckpoints, CheckpointError
from ase_nbody.training.claim import MAY_GROW, require_same
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.config.bounded_yaml import parse_yaml
from ase_nbody.training.folder import CONFIG_NAME, MODEL_NAME, best_checkpoint
from ase_nbody.training.module import NBodyTraining

_LONGEST_REASON = 300  # characters of what a library says


def said_of_no_checksum(checkpoint: Mapping[str, Any], path: Path) -> list[str]:
    """A line for a checkpoint that has neither its format nor a checksum, else none (see ``AtomicCheckpoints``)."""
    if "format" in checkpoint:
        return []
    return [
        f"{path} has no checksum. An early release wrote none, and nobody can tell whether it is as it was written. If "
        "a later one wrote it, something changed it since: start anew in another 'output'."
    ]


def refuse_earlier_fit(config: TrainingConfig, fitted: Sequence[str], checkpoint: Mapping[str, Any]) -> None:
    """Refuse to resume a fine-tuning whose isolated-atom energies an earlier release fitted to the whole energies."""
    fits = config.network.has_start and fitted
    if fits and checkpoint and "data.train.0" not in checkpoint.get("digests", {}):
        raise ConfigError(
            f"the run in {config.output} began with a release that fitted the isolated-atom energies without the "
            "cohesive energy of the model: start anew in another 'output'"
        )


def refuse_edited(config: TrainingConfig, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to go on if somebody has edited the ``config.yaml`` of the run. Earlier releases kept no copy.

    Raises:
        ConfigError: an entry differs from the configuration in the checkpoint. The number of epochs and the patience
            may: they differ if a finished run was to be trained for longer.
    """
    if "config" in checkpoint:
        begun = TrainingConfig.model_validate(parse_yaml(checkpoint["config"]))
        require_same(config, begun, Path(config.output), MAY_GROW)


def require_epochs_to_come(config: TrainingConfig, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to resume a run beyond its last epoch, or to train a finished one for longer if it ran out of patience."""
    begun, epochs = checkpoint.get("epoch", -1) + 1, int(config.training.epochs or 0)
    if begun > epochs:
        raise ConfigError(
            f"the run in {config.output} has come to epoch {begun}, beyond training.epochs={epochs}: somebody has "
            f"changed its {CONFIG_NAME}. Give the number that it had, or choose another 'output'"
        )
    patience = config.training.patience
    waited = max((state.get("wait_count", 0) for state in checkpoint.get("callbacks", {}).values()), default=0)
    if (Path(config.output) / MODEL_NAME).exists() and patience is not None and waited >= patience:
        raise ConfigError(
            f"the run in {config.output} stopped because the validation loss had not fallen for "
            f"{count_of(waited, 'epoch')}: give a larger training.patience too, or training.patience=null"
        )


def require_best(output: Path, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to resume without the checkpoint of the best epoch so far, which the model may be written from.

    Raises:
        ConfigError: it is missing.
        CheckpointError: it is damaged.
    """
    path = best_checkpoint(output)
    if path.is_file():
        AtomicCheckpoints().load_checkpoint(path)
    elif any(Path(state.get("best_model_path", "")).name == path.name for state in checkpoint["callbacks"].values()):
        raise ConfigError(
            f"{path} is missing, which holds the weights of the best epoch: put it back, or choose another 'output'"
        )


def require_same_weights(module: NBodyTraining, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Check that the weights of a checkpoint have the names and shapes of the module's, and a state of each optimiser.

    Raises:
        CheckpointError: they have not.
    """
    own = {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
    saved = {name: tuple(weight.shape) for name, weight in checkpoint["state_dict"].items()}
    for name in sorted(own.keys() | saved.keys()):
        if own.get(name) != saved.get(name):
            raise CheckpointError(
                f"{path} holds another network: {name} is {saved.get(name, 'missing')} there and "
                f"{own.get(name, 'missing')} for these data. Resume with the data and the release of ase-nbody with "
                "which the run began, or choose another 'output'."
            )
    for name, expected in zip(("optimizer_states", "lr_schedulers"), module.configure_optimizers(), strict=True):
        if len(checkpoint[name]) != len(expected):
            raise CheckpointError(
                f"{path} is damaged: it has {len(checkpoint[name])} {name}, and this training has {len(expected)}. "
                "Put the original back, or choose another 'output'."
            )


@contextlib.contextmanager
def said_of_checkpoint(path: Path | None, module: NBodyTraining) -> Iterator[None]:
    """Let an error of the block that comes before the first step, of whatever type, name the checkpoint."""
    try:
        yield
    except (CheckpointError, ConfigError, DataError):
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if path is None or module.has_begun:
            raise
        reason = f"{type(error).__name__}: {printable(str(error), _LONGEST_REASON)}"
        raise CheckpointError(
            f"{path} cannot be resumed from ({reason}): somebody has changed it, or another release wrote it. Put the "
            "original back, or choose another 'output'."
        ) from error
