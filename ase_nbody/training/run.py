"""``train``: from a configuration to a model file. A killed run resumes; a finished one is never overwritten."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from rich.console import Console

from ase_nbody.data import Found, LabelledStructure, require_parts
from ase_nbody.files.archive import Stored, read_stored_and_card, require_head, save_model, with_head
from ase_nbody.files.room import added_by_training
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.threads import fitting_threads
from ase_nbody.terminal import plain
from ase_nbody.text import count_of
from ase_nbody.training.callbacks import AtomicCheckpoints, StayInPlace, split_rule
from ase_nbody.training.claim import (
    claim_folder,
    examine_folder,
    is_finished,
    said_of_finished,
    set_model_aside,
    with_epochs,
    write_config,
)
from ase_nbody.training.config import ArchitectureConfig, ConfigError, TrainingConfig
from ase_nbody.training.crystals import ATOMS_TO_SEE, are_periodic, with_defaults_by_data
from ase_nbody.training.electronic_states import require_learnt_states
from ase_nbody.training.evaluation import errors_table, evaluate_model
from ase_nbody.training.folder import (
    MODEL_NAME,
    best_checkpoint,
    last_checkpoint,
    only_run_in,
)
from ase_nbody.training.initial import build_network, species_with_fitted_energies, without_foreign_atoms
from ase_nbody.training.loaders import Done, make_loader, typical_batch
from ase_nbody.training.loggers import make_loggers
from ase_nbody.training.model_card import model_card, with_test_errors
from ase_nbody.training.module import NBodyTraining
from ase_nbody.training.origin import Origin, Stamp, require_unchanged, stamps, stamps_of_start
from ase_nbody.training.processes import Processes
from ase_nbody.training.read_outs import Solution, require_solvable, solve_read_outs
from ase_nbody.training.recovery import TrainingDiverged
from ase_nbody.training.replay import Together, read_replay, replayed, said_of_replay
from ase_nbody.training.report import write_report
from ase_nbody.training.resuming import (
    refuse_earlier_fit,
    refuse_edited,
    require_best,
    require_epochs_to_come,
    require_same_weights,
    said_of_checkpoint,
    said_of_no_checksum,
)
from ase_nbody.training.said import (
    said_of_bonds,
    said_of_fitted_energies,
    said_of_parts,
    said_of_shared_frames,
    said_of_stresses,
)
from ase_nbody.training.splits import (
    SPLIT_RULE,
    file_names,
    read_sources,
    remove_frames,
    require_known_species,
    split,
)
from ase_nbody.training.start import starts_from_pretraining
from ase_nbody.training.trainer import make_trainer, without_hints
from ase_nbody.undisturbed import torch_threads, undisturbed

# The length of a training whose configuration gives no number of epochs
_DEFAULT_STEPS, _SHARE_WITH_START = 9_000, 4 / 9  # of the optimiser, for a new network; the share where one has a start
_MIN_DEFAULT_EPOCHS, _MAX_DEFAULT_EPOCHS = 20, 500
_MIN_EPOCHS_OF_CRYSTALS = 2
_EFFORTS = {"usual": 1.0, "thorough": 4.0}
# What to do where something fails after the model is written
TRY_AGAIN = "Try again with --resume."
WITHOUT_REPORT = "Try again with --resume, or do without it: report=false."

Frames = Mapping[str, Sequence[LabelledStructure]]  # mostly under "training", "validation" and "test"
Below = tuple[Stored, Mapping[str, Any]]  # the model that a head stands on, as it was when the training began


@undisturbed()
def train(config: TrainingConfig, *, resume: bool = False, console: Console | None = None, members: int = 1) -> Path:
    """Train a network and write ``model.nbody`` into the output folder.

    Args:
        config: the configuration of the training.
        resume: continue the run in the output folder, or train a finished one for more epochs. If it was trained for
            as many as are asked for, nothing is done. Without a run there, a new one is started.
        console: where progress is shown.
        members: number of networks that the model file of this network's committee will hold.

    Returns:
        Path of the model file.

    Raises:
        ConfigError: the network or the card will not fit into a model file; the output folder holds another run, or
            another training uses it; the run that is resumed had other data or settings; or a package that the
            configuration needs is not installed.
        DataError: the data cannot be trained on.
        CheckpointError: the checkpoint to resume from is damaged.
        TrainingDiverged: the training diverged too often.
        Terminated: SIGTERM or Ctrl-C arrived; the run can be resumed.
    """
    output = Path(config.output)
    make_loggers(output, config.wandb)  # fails if a package is missing
    examine_folder(output, config, begun=last_checkpoint(output).is_file(), resume=resume)
    with only_run_in(output) as require_place:
        return train_in_own_folder(config, require_place, resume=resume, console=console, members=members)


def train_in_own_folder(
    config: TrainingConfig,
    require_place: Callable[[], None],
    *,
    resume: bool = False,
    console: Console | None = None,
    own: Sequence[str] = ("training",),
    members: int = 1,
) -> Path:
    """``train`` for a caller that keeps other runs out of the output folder (see ``only_run_in``).

    Further arguments:
        require_place: what ``only_run_in`` yields.
        own: the kinds of runs in the folder that belong to this one, see ``runs_in``.
    """
    if config.pretraining is not None:
        raise ConfigError("a configuration with 'pretraining' is for train_in_stages, or nbody train")
    processes = Processes.launched()
    console = Console(quiet=True) if processes.rank else console or Console()
    output = Path(config.output)
    begun = last_checkpoint(output).is_file()
    config = claim_folder(output, config, begun=begun, resume=resume, own=own)
    checkpoint = AtomicCheckpoints().load_checkpoint(last_checkpoint(output)) if begun else {}
    if begun:
        _say(console, *said_of_no_checksum(checkpoint, last_checkpoint(output)))
        refuse_edited(config, checkpoint)
    if begun and is_finished(config):
        Origin.of(config).require_same(checkpoint.get("digests", {}), config)
        _say(console, said_of_finished(config))
        return output / MODEL_NAME

    _say(console, f"Reading {file_names(config.data.train)}")
    found: list[Found] = []
    read, before = _read(config, found.append)
    for file in found:
        _say(console, str(file))
    frames = _split(config, read, split_rule(last_checkpoint(output)))
    if not begun:
        given = config.network.levels
        config, said = with_defaults_by_data(config, frames)
        if config.network.levels != given:  # the radii tell which atoms in boxes are isolated, for a resumed run too
            frames = _split(config, read)
        _say(console, *said)
    frames, said_of_atoms = without_foreign_atoms(config, frames)
    _say(console, *said_of_atoms)
    others = read_replay(config)  # before the digests: only readers refuse what is too large or no file
    start = stamps_of_start(config)
    origin = Origin.of(config)
    require_unchanged(before, stamps(config))
    origin.require_same(checkpoint.get("digests", {}), config)
    if not begun:
        _say(console, *said_of_shared_frames(frames, one_file=origin.in_training_and_validation()))
        _say(console, *said_of_bonds(frames))
    fitted = species_with_fitted_energies(config, frames["training"])
    refuse_earlier_fit(config, fitted, checkpoint)
    config = _with_default_epochs(config, frames["training"])
    require_epochs_to_come(config, checkpoint)
    if checkpoint and config.training.keeps_best:
        require_best(output, checkpoint)
    network = build_network(config, frames["training"], members)
    below = None if config.network.head is None else read_stored_and_card(str(config.network.start_from))
    if below is not None:
        _require_head(config, network, below)
    require_unchanged(start, stamps_of_start(config))
    if config.training.solve_read_outs:
        require_solvable(network)
    replay = replayed(config, others, network, len(frames["training"]))
    require_known_species(config, network.config.species, frames)
    require_learnt_states(network.config, frames)
    for name in ("validation", "test"):
        require_parts(frames[name], network.config.layout, f"{name} data")
    if network.config.is_labelled and not begun:
        _say(console, *said_of_parts(frames))
    for ignored in filter(None, (file.ignored(network.config) for file in found)):
        _say(console, ignored)
    _say(console, _summary(network, frames, fitted))
    _say(console, *said_of_replay(config, replay, len(frames["training"])))
    corrected = (
        fitted if config.network.has_start else network.config.species
    )  # those of the model stay energies of atoms
    _say(console, *said_of_fitted_energies(fitted, corrected, frames))
    require_place()
    if not processes.rank:
        if (aside := set_model_aside(output, config.training.epochs)) is not None:
            _say(console, f"The model of the finished run is {aside.name} now")
        write_config(config)

    with without_hints(), _in_its_place(require_place):
        trainer = make_trainer(config, console, processes, make_loggers(output, config.wandb), origin)
        trainer.callbacks.insert(0, StayInPlace(require_place))  # type: ignore[attr-defined]  # before what writes
        learnt = {**frames, "training": Together(frames["training"], replay)} if replay else frames
        module = _fit(trainer, network, learnt, config, processes, checkpoint)
    if processes.rank:
        return output / MODEL_NAME  # the first process writes it
    path = best_checkpoint(output) if config.training.keeps_best else last_checkpoint(output)
    if not path.is_file():
        raise TrainingDiverged(
            f"the run in {output} ended without a checkpoint: the validation loss was not finite in any epoch. Lower "
            "training.muon_rate and training.adam_rate, and look at the data with 'nbody lint'"
        )
    epoch = _take_averages(module, path)
    n_validation = len(frames["validation"])
    console.print(errors_table(module.errors, f"{count_of(n_validation, 'validation frame')}, epoch {epoch}"))
    errors, solution = module.errors, None
    if config.training.solve_read_outs:
        _say(console, "Solving the weights of the read-outs by least squares")
        solution = solve_read_outs(network, learnt["training"], learnt["validation"], config.training)
        errors = solution.after[1]
        _say(console, str(solution))
    require_place()
    return _write_model(network, below, errors, frames, origin, config, console, solution, epoch)


def _require_head(config: TrainingConfig, network: NBodyNetwork, below: Below) -> None:
    """Refuse a head that could not be written beside those of the model below, before it is trained."""
    room = {**config.card, "room": added_by_training(network.config)}
    try:
        require_head(below, str(config.network.start_from), str(config.network.head), network, room)
    except ValueError as error:
        raise ConfigError(f"the model of this training could not be written: {error}") from error


def _read(config: TrainingConfig, tell: Callable[[Found], None]) -> tuple[Frames, list[Stamp]]:
    """The frames of all files, by their entry of ``data``, and the stamps of the files before they were read."""
    before = stamps(config)
    named = [name for name in ("train", "validation", "test") if isinstance(getattr(config.data, name), tuple)]
    return {name: read_sources(config, name, tell) for name in named}, before


def _split(config: TrainingConfig, read: Frames, rule: int = SPLIT_RULE) -> Frames:
    """The frames that ``_read`` gave, as training, validation and test frames."""
    training, validation = split(config, read["train"], read.get("validation"), rule)
    return {"training": training, "validation": validation, "test": read.get("test", [])}


def _with_default_epochs(config: TrainingConfig, training: Sequence[LabelledStructure]) -> TrainingConfig:
    """The configuration with a number of epochs. Without one given, it follows from the size of the data."""
    options = config.training
    n_atoms = sum(len(frame.structure) for frame in training)
    if options.batch_atoms is None:
        steps_per_epoch = max(1, len(training) // options.batch_size)
    else:
        steps_per_epoch = -(-n_atoms // options.batch_atoms)  # rounded up
    share = _EFFORTS[options.effort]
    if config.network.has_start and not starts_from_pretraining(config):
        share *= _SHARE_WITH_START
    if are_periodic(training):
        default = max(round(share * ATOMS_TO_SEE / n_atoms), _MIN_EPOCHS_OF_CRYSTALS)
    else:
        default = max(int(share * _DEFAULT_STEPS) // steps_per_epoch, _MIN_DEFAULT_EPOCHS)
    return with_epochs(config, options.epochs or min(default, int(_MAX_DEFAULT_EPOCHS * _EFFORTS[options.effort])))


def _summary(network: NBodyNetwork, frames: Frames, fitted: Sequence[str]) -> str:
    """One line on the data and the network, printed before the first epoch; ``fitted`` isolated energies are marked."""
    size = sum(weight.numel() for weight in network.parameters())
    frozen = sum(weight.numel() for weight in network.parameters() if not weight.requires_grad)
    isolated = ", ".join(
        f"{name} {energy:.3f} eV{' (fitted)' if name in fitted else ''}"
        for name, energy in network.config.isolated_atom_energies.items()
    )
    return (
        f"{count_of(len(frames['training']), 'training structure')} and "
        f"{count_of(len(frames['validation']), 'validation structure')} of "
        f"{', '.join(network.config.species)}; {size:,} weights"
        f"{f', {frozen:,} of them frozen' if frozen else ''}; isolated atoms {isolated}"
    )


def _fit(
    trainer: lightning.Trainer,
    network: NBodyNetwork,
    frames: Frames,
    config: TrainingConfig,
    processes: Processes,
    checkpoint: Mapping[str, Any],
) -> NBodyTraining:
    """Run the training loop, from a checkpoint if there is one, and return the module with its last weights."""
    training, validation = frames["training"], frames["validation"]
    batches = checkpoint.get("batches_done", 0)
    done = Done(checkpoint["epoch"] + (0 if batches else 1), batches) if checkpoint else Done()
    loader = make_loader(training, network.config, config, processes, shuffle=True, done=done)
    validation_loader = make_loader(validation, network.config, config, processes, shuffle=False)
    total_steps = int(config.training.epochs or 0) * len(loader)
    with_stress = any(np.isfinite(frame.stress).all() for frame in training)
    module = NBodyTraining(network, config.training, total_steps, with_stress)
    path = last_checkpoint(Path(config.output)) if checkpoint else None
    if path is not None:
        require_same_weights(module, checkpoint, path)
    with torch_threads(fitting_threads(typical_batch(loader).hierarchy)), said_of_checkpoint(path, module):
        trainer.fit(module, loader, validation_loader, ckpt_path=path, weights_only=True)
    return module


def _take_averages(module: NBodyTraining, path: Path) -> int:
    """Give the module's network the averaged weights of a checkpoint, and the module their validation errors.

    Returns:
        Number of the checkpoint's epoch, from 1.
    """
    checkpoint = AtomicCheckpoints().load_checkpoint(path)
    module.load_state_dict(checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)
    return int(checkpoint["epoch"]) + 1


def _write_model(
    network: NBodyNetwork,
    below: Below | None,
    validation_errors: dict[str, dict[str, float]],
    frames: Frames,
    origin: Origin,
    config: TrainingConfig,
    console: Console,
    solution: Solution | None,
    epoch: int,
) -> Path:
    """Write the model file, then what may fail: the test errors in its card, and the report. Return its path."""
    output = Path(config.output)
    card = model_card(config, frames, origin, validation_errors)
    if config.training.keeps_best:
        card["weights of epoch"] = epoch
    if solution is not None:
        card["read-outs solved"] = solution.as_card()
    path = _save(network, below, output / MODEL_NAME, card, config.network)
    _say(console, f"Wrote {path}")
    if frames["test"]:
        with said_if_it_fails("are no errors on the test frames", console, TRY_AGAIN):
            test_errors = evaluate_model(network, frames["test"])
            console.print(errors_table(test_errors, count_of(len(frames["test"]), "test frame")))
            card = with_test_errors(card, config, len(frames["test"]), test_errors)
            _save(network, below, path, card, config.network)
    with said_if_it_fails("is no comparison of its stresses with the labels", console):
        _say(console, *said_of_stresses(network, frames))
    if config.report:
        with said_if_it_fails("is no report", console, WITHOUT_REPORT):
            remarks = [] if solution is None else [str(solution)]
            report = write_report(network, frames, output / "metrics.csv", output, remarks)
            _say(console, f"Wrote {report}")
    remove_frames(config)
    return path


def _save(
    network: NBodyNetwork, below: Below | None, path: Path, card: Mapping[str, Any], config: ArchitectureConfig
) -> Path:
    """Write the network and its card, or the model that it started from with this head beside its own."""
    if below is None:
        return save_model(network, path, card)
    return with_head(below, str(config.start_from), str(config.head), network, path, card)


@contextlib.contextmanager
def _in_its_place(require_place: Callable[[], None]) -> Iterator[None]:
    """If the block fails because the folder was moved or removed, let the error say so: others hide it."""
    try:
        yield
    except Exception:
        require_place()
        raise


@contextlib.contextmanager
def said_if_it_fails(what: str, console: Console, remedy: str = "") -> Iterator[None]:
    """Let no error of the block, whatever it is, end a training whose model is written."""
    try:
        yield
    except Exception as error:
        why = (str(error) or type(error).__name__).removesuffix(".")
        _say(console, f"The model is complete, but there {what}: {why}. {remedy}".rstrip())


def _say(console: Console, *texts: str) -> None:
    """Print lines as they are: paths may hold brackets."""
    for text in texts:
        console.print(plain(text), soft_wrap=True)
