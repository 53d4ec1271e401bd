"""The output folder of a training: one run's alone, which may go on in it but is never overwritten."""

from pathlib import Path

from ase_nbody.files.writing import write_whole
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.processes import Processes

MODEL_NAME = "model.nbody"


def checkpoint_of(output: Path) -> Path:
    """Where a run keeps what it goes on from."""
    return output / "checkpoints" / "last.ckpt"


def claim(output: Path, config: TrainingConfig, *, begun: bool, resume: bool) -> None:
    """Make the output folder that of this training, and write its configuration there.

    Args:
        output: the folder.
        config: the training.
        begun: whether there is a run of this kind in it, which can go on.
        resume: whether it is to go on.

    Raises:
        ConfigError: there is another run in it, or a finished one, or none to resume.
    """
    if (output / MODEL_NAME).exists():
        raise ConfigError(f"{output} holds a finished run; choose another 'output' or move it away")
    if not resume and (begun or checkpoint_of(output).is_file()):
        raise ConfigError(f"{output} holds an unfinished run: continue it with --resume, or choose another 'output'")
    if resume and not begun:
        raise ConfigError(f"{output} holds no run to resume; start without --resume")
    if resume and not config.continues(TrainingConfig.from_yaml(output / "config.yaml")):
        raise ConfigError(f"the configuration differs from that of the run in {output}; resume with the same one")
    if resume:
        return
    output.mkdir(parents=True, exist_ok=True)
    if not Processes.launched().rank:
        write_whole(output / "config.yaml", config.to_yaml().encode())
