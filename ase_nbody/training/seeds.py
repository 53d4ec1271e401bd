"""``train_committee``: the same training from several seeds, packed into one model file; resumable like any run."""

import shutil
from pathlib import Path

from rich.console import Console

from ase_nbody.files.archive import load_model
from ase_nbody.files.committee import pack_models
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.evaluation import evaluate_model
from ase_nbody.training.folder import MODEL_NAME, checkpoint_of, claim
from ase_nbody.training.pretraining import train_in_stages
from ase_nbody.training.processes import Processes
from ase_nbody.training.run import _with_units
from ase_nbody.training.splits import read_sources, split, stored


def train_committee(config: TrainingConfig, size: int, *, resume: bool = False, console: Console | None = None) -> Path:
    """Train networks with the seeds ``training.seed``, ``training.seed + 1``, ... one after the other, and pack them.

    Args:
        config: the training; each member has a folder ``seed_0``, ``seed_1``, ... in its output folder.
        size: number of members.
        resume: keep the members that are finished, continue the one that is not.
        console: where progress is shown.

    Returns:
        Path of the model file, whose card has the errors of the committee's mean and those of its members.

    Raises:
        ConfigError: the output folder holds another committee, or none to resume; or there are several processes.
        DataError: the data cannot be trained on.
    """
    if Processes.launched().count > 1:
        raise ConfigError("a committee is trained by one process; start torchrun without --seeds, once for each seed")
    console = console or Console()
    members = [_member(config, config.training.seed + number) for number in range(size)]
    claim(Path(config.output), config, begun=any(map(_begun, members)), resume=resume)
    models = []
    for number, member in enumerate(members, start=1):
        model = Path(member.output) / MODEL_NAME
        if not model.exists():
            console.print(f"Member {number} of {size}, seed {member.training.seed}")
            train_in_stages(member, resume=_begun(member), console=console)
        models.append(model)
    networks = [load_model(model) for model in models]
    card = {"validation errors": _with_units(evaluate_model(networks, split(config)[1]))}
    if config.data.test:
        card["test errors"] = _with_units(evaluate_model(networks, read_sources(config, "test")))
    shutil.rmtree(stored(config), ignore_errors=True)
    path = pack_models(models, Path(config.output) / MODEL_NAME, card)
    console.print(f"Wrote {path}, a committee of {size}")
    return path


def _member(config: TrainingConfig, seed: int) -> TrainingConfig:
    """The training of one member, a run like every other; structures for a pretraining are made once for all."""
    output, pretraining = Path(config.output), config.pretraining
    if pretraining is not None:
        pretraining = pretraining.model_copy(update={"folder": pretraining.folder or str(output / "pretraining")})
    training = config.training.model_copy(update={"seed": seed})
    changed = {"training": training, "pretraining": pretraining, "output": str(output / f"seed_{seed}")}
    return config.model_copy(update=changed)


def _begun(member: TrainingConfig) -> bool:
    """Whether there is something of a member to go on with, in either stage."""
    output = Path(member.output)
    return checkpoint_of(output).is_file() or (output / "pretraining" / "config.yaml").is_file()
