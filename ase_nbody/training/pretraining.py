"""``train_in_stages``: a training that first learns from structures of a cheap method, if its configuration says so.

Data of density-functional theory are few because each costs minutes; most of what they teach, a network can learn from
thousands of structures that tight binding labels in milliseconds. The weights that it has then are those that the
training on the data begins with. The model file is like any other: tight binding is not needed to use it.
"""

from pathlib import Path

from rich.console import Console

from ase_nbody.files.writing import write_whole
from ase_nbody.training.config import (
    ArchitectureConfig,
    ConfigError,
    PretrainingConfig,
    TrainingConfig,
    with_shape_of_start,
)
from ase_nbody.training.folder import MODEL_NAME, checkpoint_of
from ase_nbody.training.processes import Processes
from ase_nbody.training.run import train
from ase_nbody.training.splits import read_sources
from ase_nbody.training.tight_binding import write_frames

_FOLDER = "pretraining"
_HELD_OUT = 50  # structures for validation


def train_in_stages(config: TrainingConfig, *, resume: bool = False, console: Console | None = None) -> Path:
    """``train``, after the pretraining that the configuration asks for.

    Args:
        config: the whole training; the first stage goes to ``pretraining`` in the output folder.
        resume: continue the run in the output folder where it was killed, in whichever stage that was.
        console: where progress is shown.

    Returns:
        Path of the model file.

    Raises:
        ConfigError: see ``train``; or tblite is not installed, or several processes were to pretrain.
        DataError: the data cannot be trained on, or are periodic.
    """
    if config.pretraining is None:
        return train(config, resume=resume, console=console)
    console = Console(quiet=True) if Processes.launched().rank else console or Console()
    output = Path(config.output)
    model = output / _FOLDER / MODEL_NAME
    if not (output / MODEL_NAME).exists():  # else ``train`` refuses
        pretrain(config, config.pretraining, resume, console)
    later = _second_stage(config, config.pretraining, model)
    return train(later, resume=resume and checkpoint_of(output).is_file(), console=console)


def pretrain(config: TrainingConfig, options: PretrainingConfig, resume: bool, console: Console) -> None:
    """Make the structures and train on them, going on with what is there."""
    folder = Path(config.output) / _FOLDER
    begun = (folder / "config.yaml").is_file()
    if begun and not resume:
        raise ConfigError(
            f"{config.output} holds an unfinished run: continue it with --resume, or choose another 'output'"
        )
    if resume and not begun:
        raise ConfigError(f"{config.output} holds no run to resume; start without --resume")
    first = _first_stage(config, options)
    if begun and not first.continues(TrainingConfig.from_yaml(folder / "config.yaml")):
        raise ConfigError(f"the pretraining differs from that of the run in {config.output}; resume with the same one")
    if (folder / MODEL_NAME).is_file():
        return
    if Processes.launched().count > 1:
        raise ConfigError("a pretraining is made by one process; start without torchrun")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.yaml", first.to_yaml().encode())
    console.print(f"Pretraining on {options}", highlight=False, soft_wrap=True)
    write_frames(read_sources(config, "train"), options, _structures(config, options))
    train(first, resume=checkpoint_of(folder).is_file(), console=console)


def _structures(config: TrainingConfig, options: PretrainingConfig) -> Path:
    """The folder of the structures."""
    return Path(options.folder or f"{config.output}/{_FOLDER}")


def _first_stage(config: TrainingConfig, options: PretrainingConfig) -> TrainingConfig:
    """The training on structures of the cheap method; its card tells how these were made."""
    own = ("epochs", "batch_size", "muon_rate", "adam_rate", "energy_weight")
    training = {name: getattr(options, name) for name in own}
    content = {
        "data": {
            "train": str(_structures(config, options) / "frames.extxyz"),
            "validation": _HELD_OUT,
            "isolated_atom_energies": config.data.isolated_atom_energies,
            "memory": config.data.memory,
            "workers": config.data.workers,
        },
        "network": config.network.model_dump(),
        "training": config.training.model_dump() | training | {"batch_atoms": None, "second_stage": None},
        "card": {"source": str(options), "theory": options.method},
        "report": False,
        "output": str(Path(config.output) / _FOLDER),
    }
    return TrainingConfig.from_dict(content, Path(config.output) / "config.yaml")


def _second_stage(config: TrainingConfig, options: PretrainingConfig, model: Path) -> TrainingConfig:
    """The training on the data, which starts from the model of the first stage."""
    start = ArchitectureConfig(start_from=str(model), freeze=config.network.freeze)
    network = with_shape_of_start(start, model.parent) if model.is_file() else start
    card = config.card | {"pretrained on": str(options)}
    return config.model_copy(update={"network": network, "card": card, "pretraining": None})
