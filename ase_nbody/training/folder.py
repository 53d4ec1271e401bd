"""The output folder of a training. It belongs to one run, which may be continued there but is never overwritten."""

from pathlib import Path

from ase_nbody.files.writing import write_whole
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.processes import Processes
from ase_nbody.training.splits import require_own_frames

CONFIG_NAME = "config.yaml"
MODEL_NAME = "model.nbody"


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
        ConfigError: the folder holds another run or a finished one, or there is no run to resume.
    """
    if (output / MODEL_NAME).exists():
        raise ConfigError(f"{output} holds a finished run; choose another 'output' or move it away")
    require_own_frames(config)
    if not resume:
        # A run of another kind (a committee, or a single training) must not be overwritten either.
        require_matching_resume(output, begun=begun or last_checkpoint(output).is_file(), resume=False)
        output.mkdir(parents=True, exist_ok=True)
        if not Processes.launched().rank:
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
