"""``train_in_stages``: a training that first learns from structures of a cheap method, if the configuration says so.

A data set of density-functional theory is small because each structure takes minutes. A network can learn most of what
the data teach from thousands of structures that tight binding labels in milliseconds each. The training on the data
then begins with the weights that this first stage has found. The model file is like any other: it can be used
without tight binding.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ase_nbody.data import LabelledStructure
from ase_nbody.files.writing import write_whole
from ase_nbody.terminal import plain
from ase_nbody.training.claim import require_free, require_same
from ase_nbody.training.config import (
    ArchitectureConfig,
    ConfigError,
    PretrainingConfig,
    TrainingConfig,
    with_shape_of_start,
)
from ase_nbody.training.folder import (
    CONFIG_NAME,
    DIGESTS_NAME,
    MODEL_NAME,
    last_checkpoint,
    only_run_in,
    pretraining_folder,
    require_own_files,
    runs_in,
)
from ase_nbody.training.loggers import make_loggers
from ase_nbody.training.molecules import count_radicals, describe_ions, find_molecules
from ase_nbody.training.origin import Origin
from ase_nbody.training.processes import Processes
from ase_nbody.training.run import train, train_in_own_folder
from ase_nbody.training.splits import read_sources, read_splits, require_known_species, species_of, take
from ase_nbody.training.tight_binding import FRAMES_NAME, require_own_structures, write_frames
from ase_nbody.undisturbed import undisturbed

_N_VALIDATION = 50  # structures of the cheap method that are held out for validation


@undisturbed()
def train_in_stages(
    config: TrainingConfig, *, resume: bool = False, console: Console | None = None, members: int = 1
) -> Path:
    """Train as ``train`` does, after the pretraining if the configuration has one.

    Args:
        config: the configuration of the whole training. The pretraining goes to ``pretraining`` in its output folder.
        resume: continue the run in the output folder, in the stage in which it was killed.
        console: where progress is shown.
        members: see ``train``.

    Returns:
        Path of the model file.

    Raises:
        ConfigError: as in ``train``; or tblite is not installed, or several processes were started for a pretraining.
        DataError: the data cannot be trained on, or there is a pretraining and they are periodic.
    """
    if config.pretraining is None:
        return train(config, resume=resume, console=console, members=members)
    console = Console(quiet=True) if Processes.launched().rank else console or Console()
    output = Path(config.output)
    make_loggers(output, config.wandb)  # fails if a package is missing
    if not runs_in(output):
        require_own_files(output)
        require_own_structures(_structures_folder(config, config.pretraining))
    with only_run_in(output) as require_place:
        if not (output / MODEL_NAME).exists():  # otherwise the finished run is refused, or trained for longer, below
            pretrain(config, config.pretraining, resume, console)
        stage = _main_stage(config, config.pretraining)
        resume = resume and last_checkpoint(output).is_file()
        own = ("training", "pretraining")
        return train_in_own_folder(stage, require_place, resume=resume, console=console, own=own, members=members)


def pretrain(config: TrainingConfig, options: PretrainingConfig, resume: bool, console: Console) -> None:
    """Generate the structures of the cheap method and train on them. Finished steps are not repeated.

    Args:
        config: the configuration of the whole training.
        options: its entry ``pretraining``.
        resume: whether the user asked to continue the run in the output folder.
        console: where progress is shown.

    Raises:
        ConfigError: the output folder holds another run or none to resume, tblite is not installed, or several
            processes were started.
        DataError: the data hold what tight binding cannot do (see ``find_molecules``), validation or test files have
            species that training files lack, or no structure could be generated.
    """
    folder = pretraining_folder(Path(config.output))
    begun = (folder / CONFIG_NAME).is_file()
    own = ("training", "pretraining") if begun else ()
    require_free(Path(config.output), begun=begun, resume=resume, own=own)
    stage = _first_stage(config, options)
    if begun:
        require_same(stage, TrainingConfig.as_written(folder / CONFIG_NAME), folder)
        _require_same_data(config, folder)
    if (folder / MODEL_NAME).exists():
        if not begun:  # a run writes its configuration first
            raise ConfigError(
                f"{folder / MODEL_NAME} was not written by a pretraining in this folder, which has no {CONFIG_NAME}: "
                "move it away, or choose another 'output'. To start from a model, name it in network.start_from."
            )
        return
    if Processes.launched().count > 1:
        raise ConfigError("a pretraining runs in one process; start it without torchrun")
    require_own_files(Path(config.output))
    require_own_files(folder)
    require_own_structures(_structures_folder(config, options))
    data, reach = read_sources(config, "train"), sum(level.radius for level in config.network.levels)
    molecules = take(data, find_molecules(data, reach))
    _require_trainable(config)
    folder.mkdir(parents=True, exist_ok=True)
    if not begun:
        write_whole(folder / DIGESTS_NAME, json.dumps(Origin.of(config).digests).encode())
    write_whole(folder / CONFIG_NAME, stage.to_yaml().encode())
    console.print(plain(f"Pretraining on {options}{_said_of(molecules)}"), soft_wrap=True)
    structures = _structures_folder(config, options)
    if structures == folder:
        write_frames(data, options, structures, reach=reach)
    else:
        say = f"Another run writes the structures in {structures}; waiting for it"
        with only_run_in(structures, wait=lambda: console.print(plain(say), soft_wrap=True)):
            write_frames(data, options, structures, reach=reach)
    train(stage, resume=last_checkpoint(folder).is_file(), console=console)


def _require_same_data(config: TrainingConfig, folder: Path) -> None:
    """Refuse to go on with other data than those of which the pretraining learnt. Earlier releases kept no digests."""
    path = folder / DIGESTS_NAME
    if not path.is_file():
        return
    try:
        digests = {str(entry): str(digest) for entry, digest in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged, so the run cannot be resumed: choose another 'output'") from error
    Origin.of(config).require_same(digests, config)


def _require_trainable(config: TrainingConfig) -> None:
    """Refuse now what the training on the data would refuse hours later."""
    training, validation = read_splits(config)
    test = read_sources(config, "test") if config.data.test else []
    require_known_species(config, species_of(training), {"validation": validation, "test": test})


def _said_of(molecules: Sequence[LabelledStructure]) -> str:
    """What the user should know of the charges and spins that tight binding assumes."""
    ions, radicals = describe_ions(molecules), count_radicals(molecules)
    said = f" The {len(molecules)} molecules of the data include ions: {ions}." if ions else ""
    if radicals:
        spins = f"{radicals} with an odd number of electrons as doublets and all others as singlets"
        said += f" Tight binding treats the {spins}."
    return f".{said}" if said else ""


def _structures_folder(config: TrainingConfig, options: PretrainingConfig) -> Path:
    """The folder that holds the structures of the cheap method."""
    return Path(options.folder) if options.folder else pretraining_folder(Path(config.output))


def _first_stage(config: TrainingConfig, options: PretrainingConfig) -> TrainingConfig:
    """The training on the structures of the cheap method. Its model card says how they were generated."""
    overridden = ("epochs", "batch_size", "muon_rate", "adam_rate", "energy_weight")
    training = {name: getattr(options, name) for name in overridden}
    content = {
        "data": {
            "train": str(_structures_folder(config, options) / FRAMES_NAME),
            "validation": _N_VALIDATION,
            "isolated_atom_energies": config.data.isolated_atom_energies,
            "memory": config.data.memory,
            "workers": config.data.workers,
        },
        "network": config.network.model_dump() | {"start_from": None, "freeze": {}},
        "training": config.training.model_dump() | training | {"batch_atoms": None, "second_stage": None},
        "card": {"source": str(options), "theory": options.method},
        "report": False,
        "output": str(pretraining_folder(Path(config.output))),
    }
    return TrainingConfig.from_dict(content, Path(config.output) / CONFIG_NAME)


def _main_stage(config: TrainingConfig, options: PretrainingConfig) -> TrainingConfig:
    """The training on the data, which starts from the model of the pretraining."""
    model = pretraining_folder(Path(config.output)) / MODEL_NAME
    kept = {name: getattr(config.network, name) for name in ("freeze", "total_charges", "multiplicities")}
    start = ArchitectureConfig(start_from=str(model), **kept)
    network = with_shape_of_start(start, model.parent) if model.is_file() else start
    card = config.card | {"pretrained on": str(options)}
    return config.model_copy(update={"network": network, "card": card, "pretraining": None})
