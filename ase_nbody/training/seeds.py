"""``train_committee``: the same training from several seeds, packed into one model file.

Each member is a training of its own in a folder of its own, so a committee resumes as any single run does.
"""

from pathlib import Path

from rich.console import Console

from ase_nbody.files.archive import load_model
from ase_nbody.files.committee import pack_models
from ase_nbody.terminal import plain
from ase_nbody.training.callbacks import split_rule
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.evaluation import evaluate_model
from ase_nbody.training.folder import CONFIG_NAME, MODEL_NAME, claim_folder, last_checkpoint, pretraining_folder
from ase_nbody.training.model_card import with_units
from ase_nbody.training.pretraining import train_in_stages
from ase_nbody.training.processes import Processes
from ase_nbody.training.splits import read_sources, read_splits, remove_frames
from ase_nbody.undisturbed import undisturbed


@undisturbed()
def train_committee(config: TrainingConfig, size: int, *, resume: bool = False, console: Console | None = None) -> Path:
    """Train one network for each of the seeds ``training.seed``, ``training.seed + 1``, ..., and pack them into a file.

    Args:
        config: the configuration of the training. The member of seed 0 is trained in the folder ``seed_0`` of the
            output folder, and so on.
        size: number of members.
        resume: keep the members that are finished, continue the one that is not, and train the others.
        console: where progress is shown.

    Returns:
        Path of the model file. Its card has the errors of the committee's mean and those of each member.

    Raises:
        ConfigError: the output folder holds another committee or there is none to resume, or several processes run.
        DataError: the data cannot be trained on.
    """
    if Processes.launched().count > 1:
        raise ConfigError("a committee is trained by one process; start torchrun without --seeds, once for each seed")
    console = console or Console()
    output = Path(config.output)
    members = [_member_config(config, config.training.seed + number) for number in range(size)]
    claim_folder(output, config, begun=any(_has_begun(member) for member in members), resume=resume)
    models = []
    for number, member in enumerate(members, start=1):
        model = Path(member.output) / MODEL_NAME
        if not model.exists():
            console.print(plain(f"Member {number} of {size}, seed {member.training.seed}"))
            train_in_stages(member, resume=_has_begun(member), console=console, members=size)
        models.append(model)
    networks = [load_model(model) for model in models]
    _, validation = read_splits(config, split_rule(last_checkpoint(models[0].parent)))
    card = {"validation errors": with_units(evaluate_model(networks, validation))}
    if config.data.test:
        card["test errors"] = with_units(evaluate_model(networks, read_sources(config, "test")))
    remove_frames(config)
    path = pack_models(models, output / MODEL_NAME, card)
    console.print(plain(f"Wrote {path}, a committee of {size}"), soft_wrap=True)
    return path


def _member_config(config: TrainingConfig, seed: int) -> TrainingConfig:
    """The configuration of the member with this seed. All members share the structures of a pretraining."""
    output, pretraining = Path(config.output), config.pretraining
    if pretraining is not None:
        folder = pretraining.folder or str(pretraining_folder(output))
        pretraining = pretraining.model_copy(update={"folder": folder})
    training = config.training.model_copy(update={"seed": seed})
    changed = {"training": training, "pretraining": pretraining, "output": str(output / f"seed_{seed}")}
    return config.model_copy(update=changed)


def _has_begun(member: TrainingConfig) -> bool:
    """Whether the pretraining or the training of a member has begun."""
    output = Path(member.output)
    return last_checkpoint(output).is_file() or (pretraining_folder(output) / CONFIG_NAME).is_file()
