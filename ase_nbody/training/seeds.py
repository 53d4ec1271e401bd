"""``train_committee``: the same training from several seeds, packed into one model file.

Each member is a training of its own in a folder of its own, so a committee resumes as any single run does.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from ase_nbody.data import LabelledStructure
from ase_nbody.files.archive import load_members, load_model, read_card
from ase_nbody.files.committee import pack_models
from ase_nbody.terminal import plain
from ase_nbody.text import count_of
from ase_nbody.training.callbacks import split_rule
from ase_nbody.training.claim import (
    claim_folder,
    examine_folder,
    is_finished,
    said_of_finished,
    set_model_aside,
    what_is_missing,
    with_epochs,
    write_config,
)
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.crystals import with_defaults_by_data
from ase_nbody.training.evaluation import evaluate_model
from ase_nbody.training.folder import (
    CONFIG_NAME,
    MODEL_NAME,
    last_checkpoint,
    only_run_in,
    pretraining_folder,
    runs_in,
)
from ase_nbody.training.model_card import with_units
from ase_nbody.training.origin import Origin, digests_of_run
from ase_nbody.training.pretraining import train_in_stages
from ase_nbody.training.processes import Processes
from ase_nbody.training.replay import Together, drawn, read_replay
from ase_nbody.training.report import write_report
from ase_nbody.training.run import TRY_AGAIN, WITHOUT_REPORT, said_if_it_fails
from ase_nbody.training.splits import SPLIT_RULE, read_sources, read_splits, remove_frames, species_of
from ase_nbody.training.spread import members_table, spread_calibration, spread_table
from ase_nbody.undisturbed import undisturbed


@undisturbed()
def train_committee(config: TrainingConfig, size: int, *, resume: bool = False, console: Console | None = None) -> Path:
    """Train one network for each of the seeds ``training.seed``, ``training.seed + 1``, ..., and pack them into a file.

    Args:
        config: the configuration of the training. The member of seed 0 is trained in the folder ``seed_0`` of the
            output folder, and so on.
        size: number of members.
        resume: keep the members that are finished, continue the one that is not, and train the others. Of a finished
            committee of this size nothing is done.
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
    begun = "committee" in runs_in(output)
    config = examine_folder(output, config, begun=begun, resume=resume, own=("committee",))
    if begun and is_finished(config) and not what_is_missing(output, config):
        _require_whole(config, size)
        console.print(plain(said_of_finished(config)), soft_wrap=True)
        return output / MODEL_NAME
    with only_run_in(output) as require_place:
        return _train_members(config, size, resume, console, require_place)


def _train_members(
    config: TrainingConfig, size: int, resume: bool, console: Console, require_place: Callable[[], None]
) -> Path:
    """Train the members, pack them, and write the table and the report of the whole."""
    output, begun = Path(config.output), "committee" in runs_in(Path(config.output))
    if not begun:
        config, said = with_defaults_by_data(config, _frames(config))
        for sentence in said:
            console.print(plain(sentence), soft_wrap=True)
    planned = [_member_config(config, config.training.seed + number) for number in range(size)]
    _require_same_data(config, planned)
    _require_different_members(config, planned)
    config = claim_folder(output, config, begun=begun, resume=resume, own=("committee",))
    members = [_member_config(config, config.training.seed + number) for number in range(size)]
    for number, member in enumerate(members, start=1):
        require_place()
        if not is_finished(member):
            _require_same_data(config, members)
            console.print(f"Member {number} of {size}, seed {member.training.seed}")
            train_in_stages(member, resume=bool(runs_in(Path(member.output))), console=console, members=size)
    _require_one_origin(members)
    require_place()
    folders = [Path(member.output) for member in members]
    epochs = TrainingConfig.as_written(folders[0] / CONFIG_NAME).training.epochs
    set_model_aside(output, epochs)
    write_config(with_epochs(config, epochs))
    files = [folder / MODEL_NAME for folder in folders]
    path = pack_models(files, output / MODEL_NAME)
    console.print(plain(f"Wrote {path}, a committee of {size}"), soft_wrap=True)
    with said_if_it_fails("are no errors of the committee and no report", console, TRY_AGAIN):
        networks = [load_model(file) for file in files]
        frames = _frames(config, split_rule(last_checkpoint(folders[0])))
        judged = [name for name in ("validation", "test") if frames[name]]
        errors = {name: evaluate_model(networks, frames[name]) for name in judged}
        pack_models(files, path, {f"{name} errors": with_units(errors[name]) for name in judged})
        for name in judged:
            title = count_of(len(frames[name]), f"{name} frame")
            console.print(members_table([evaluate_model(one, frames[name]) for one in networks], errors[name], title))
            console.print(spread_table(spread_calibration(networks, frames[name]), title))
        if config.report:
            with said_if_it_fails("is no report", console, WITHOUT_REPORT):
                metrics = [folder / "metrics.csv" for folder in folders]
                report = write_report(networks, frames, metrics, output)
                console.print(plain(f"Wrote {report}"), soft_wrap=True)
    remove_frames(config)
    return path


def _frames(config: TrainingConfig, rule: int = SPLIT_RULE) -> dict[str, Sequence[LabelledStructure]]:
    """All frames under ``training``, ``validation`` and ``test``, split by this rule."""
    training, validation = read_splits(config, rule)
    test = read_sources(config, "test") if config.data.test else []
    return {"training": training, "validation": validation, "test": test}


def _require_same_data(config: TrainingConfig, members: Sequence[TrainingConfig]) -> None:
    """Refuse to go on with other data than those of a member that is finished or has begun.

    Raises:
        ConfigError: the contents of a file differ.
    """
    begun = [(member, digests) for member in members if (digests := digests_of_run(Path(member.output)))]
    if begun:
        origin = Origin.of(config)
        for member, digests in begun:
            origin.require_same(digests, member)


def _require_whole(config: TrainingConfig, size: int) -> None:
    """Refuse to continue a finished committee with more or fewer members, or with other data than it learnt from.

    Raises:
        ConfigError: the number of members, or the contents of a file differ.
    """
    n_members = len(read_card(Path(config.output) / MODEL_NAME)["card"].get("members", [{}]))
    if n_members != size:
        raise ConfigError(
            f"{config.output} holds a finished run of {count_of(n_members, 'member')}, and --seeds says {size}. "
            "Train the others in another 'output' with another training.seed, and join them with 'nbody pack'."
        )
    _require_same_data(config, [_member_config(config, config.training.seed + number) for number in range(size)])


def _require_one_origin(members: Sequence[TrainingConfig]) -> None:
    """Refuse members that did not learn from the same files, because one was replaced while they were trained.

    Raises:
        ConfigError: the contents of a file differ.
    """
    first, *others = (digests_of_run(Path(member.output)) for member in members)
    alone = members[0].pretraining is not None  # then each member starts from a model of its own
    shared = Origin({entry: digest for entry, digest in first.items() if not (alone and entry.startswith("network."))})
    for member, digests in zip(members[1:], others, strict=True):
        shared.require_same(digests, member)


def _require_different_members(config: TrainingConfig, members: Sequence[TrainingConfig]) -> None:
    """Refuse a committee whose members would come out equal: one start, and one batch that holds all frames.

    Raises:
        ConfigError: two members would be equal; the message says what makes them differ.
    """
    if not config.network.has_start:
        return
    start = str(config.network.start_from)
    networks = load_members(start)
    if len(members) <= len(networks):
        return
    frames = read_splits(config)[0]
    if not _are_one_batch(frames, config):
        return
    frames = Together(frames, drawn(config, read_replay(config), len(frames)))
    random = species_of(frames) - {*networks[0].config.species}
    random |= {*config.network.outputs} - {*networks[0].config.outputs}
    if _are_one_batch(frames, config) and not random:
        raise ConfigError(
            f"the members of this committee would be equal: {start} has {count_of(len(networks), 'member')} to start "
            f"from, and one batch holds all {len(frames)} frames. Lower training.batch_size, add frames, or "
            f"train {'one network without --seeds' if len(networks) == 1 else f'at most {len(networks)} members'}."
        )


def _are_one_batch(frames: Sequence[LabelledStructure], config: TrainingConfig) -> bool:
    """Whether a batch holds all frames."""
    if config.training.batch_atoms is None:
        return len(frames) <= config.training.batch_size
    return sum(len(frame.structure) for frame in frames) <= config.training.batch_atoms


def _member_config(config: TrainingConfig, seed: int) -> TrainingConfig:
    """The configuration of the member with this seed. All members share the structures of a pretraining."""
    output, pretraining = Path(config.output), config.pretraining
    if pretraining is not None:
        folder = pretraining.folder or str(pretraining_folder(output))
        pretraining = pretraining.model_copy(update={"folder": folder})
    training = config.training.model_copy(update={"seed": seed})
    changed = {"training": training, "pretraining": pretraining, "output": str(output / f"seed_{seed}")}
    return config.model_copy(update=changed)
