"""The output folder of a training. It belongs to one run, which may be continued there but is never overwritten."""

from pathlib import Path

from ase_nbody.files.writing import write_whole
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.processes import Processes
from ase_nbody.training.splits import require_own_frames

CONFIG_NAME = "config.yaml"
MODEL_NAME = "model.nbody"
_REPLACED = ("metrics.csv", "report.html", "figures", "checkpoints")  # what else a run overwrites


def last_checkpoint(output: Path) -> Path:
    """Path of the checkpoint from which a run in this folder continues."""
    return output / "checkpoints" / "last.ckpt"


def pretraining_folder(output: Path) -> Path:
    """The folder within the output folder that holds the pretraining."""
    return output / "pretraining"


def claim_folder(output: Path, config: TrainingConfig, *, begun: bool, resume: bool) -> None:
    """Check that the output folder is free for this training or holds it already, and write the configuration there.

    Args:
        output: the output folder.
        config: the configuration of the training.
        begun: whether the folder holds a run of this kind that can be continued.
        resume: whether the user asked to continue it.

    Raises:
        ConfigError: the folder holds another run or a finished one, files of the user under names that a run writes, or
            no run to resume.
    """
    if (output / MODEL_NAME).exists():
        raise ConfigError(f"{output} holds a finished run; choose another 'output' or move it away")
    require_own_frames(config)
    if not resume:
        # A run of another kind (a committee, or a single training) must not be overwritten either.
        require_matching_resume(output, begun=begun or last_checkpoint(output).is_file(), resume=False)
        output.mkdir(parents=True, exist_ok=True)
        if not Processes.launched().rank:
            require_own_files(output)
            write_whole(output / CONFIG_NAME, config.to_yaml().encode())
        return
    require_matching_resume(output, begun=begun, resume=True)
    if not config.continues(TrainingConfig.from_yaml(output / CONFIG_NAME)):
        raise ConfigError(f"the configuration differs from that of the run in {output}; resume with the same one")


def require_matching_resume(output: Path, *, begun: bool, resume: bool) -> None:
    """Check that ``--resume`` is given exactly when the output folder holds a run that has begun.

    Raises:
        ConfigError: it is given without such a run, or missing with one.
    """
    if begun and not resume:
        raise ConfigError(f"{output} holds an unfinished run: continue it with --resume, or choose another 'output'")
    if resume and not begun:
        raise ConfigError(f"{output} holds no run to resume; start without --resume")


def require_own_files(output: Path) -> None:
    """Check that a new run overwrites no files of the user.

    A run that was killed before its first checkpoint has left a ``config.yaml``, and may be started anew.

    Raises:
        ConfigError: the folder holds a ``config.yaml`` that no run in it has written, or no ``config.yaml`` but other
            files under names that a run writes.
    """
    config = output / CONFIG_NAME
    names = (CONFIG_NAME,) if config.exists() else _REPLACED
    for path in (output / name for name in names):
        if path.exists() and not _is_of_a_run(config):
            raise ConfigError(
                f"{path} was not written by a run in this folder, and a run would overwrite it: "
                "choose another 'output' or move it away"
            )


def _is_of_a_run(config: Path) -> bool:
    """Whether a run in the folder wrote this file: it is to the letter what ``claim_folder`` writes."""
    try:
        found = TrainingConfig.from_yaml(config)
        return Path(found.output) == config.parent.resolve() and found.to_yaml() == config.read_text(encoding="utf-8")
    except (ValueError, OSError):  # the user's file may hold anything
        return False
