"""The output folder of a training: what lies in it, who uses it now, and which of its files are the user's."""

import contextlib
import multiprocessing.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ase_nbody.dynamics.files import FolderInUse, FolderLock, ResumeError, remove_leftovers
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.processes import Processes

CONFIG_NAME = "config.yaml"
MODEL_NAME = "model.nbody"
DIGESTS_NAME = "data_sha256.json"  # in the folder of a pretraining
# What else a run writes.
REPORT_NAME = "report.html"
WORST_NAME = "worst.extxyz"
_FOLDERS = ("figures", "checkpoints", "tensorboard")
_REPLACED = ("metrics.csv", REPORT_NAME, WORST_NAME, *_FOLDERS)
_WRITTEN_WHOLE = (CONFIG_NAME, MODEL_NAME, "metrics.csv", REPORT_NAME, WORST_NAME, "last.ckpt", "best.ckpt")
_OF_PRETRAINING = (DIGESTS_NAME, "frames.txt", "frames.extxyz")
_SECONDS_BETWEEN_TRIALS = 1.0  # of a run that waits for another one


def last_checkpoint(output: Path) -> Path:
    """Path of the checkpoint from which a run in this folder continues."""
    return output / "checkpoints" / "last.ckpt"


def best_checkpoint(output: Path) -> Path:
    """Path of the checkpoint of the epoch with the lowest validation loss, where a run keeps it."""
    return output / "checkpoints" / "best.ckpt"


def pretraining_folder(output: Path) -> Path:
    """The folder within the output folder that holds the pretraining."""
    return output / "pretraining"


@contextlib.contextmanager
def only_run_in(folder: Path, wait: Callable[[], None] | None = None) -> Iterator[Callable[[], None]]:
    """Keep other trainings out of a folder while the block lasts, and sweep what killed ones left of unfinished files.

    Under torchrun the first process holds the lock for all of them.

    Args:
        folder: the folder; it is made if necessary.
        wait: called once if another run uses the folder, which is then waited for; default: an error.

    Yields:
        A function that raises ConfigError if the folder was moved or removed since. Call it before files are written:
        another run may be in its place.

    Raises:
        ConfigError: another run uses the folder.
    """
    if Processes.launched().rank:
        yield lambda: None
        return
    lock: FolderLock | None = None
    while lock is None:
        try:
            lock = FolderLock(folder)
        except FolderInUse as error:
            if wait is None:
                raise ConfigError(
                    f"another training is running in {folder}: wait until it ends, or choose another 'output'"
                ) from error
            wait, _ = (lambda: None), wait()
            time.sleep(_SECONDS_BETWEEN_TRIALS)
        except ResumeError as error:
            raise ConfigError(str(error)) from error
    multiprocessing.util.register_after_fork(lock, FolderLock.release)  # workers that outlive a kill must not hold it
    held = lock

    def require_place() -> None:
        try:
            held.require_place()
        except ResumeError as error:
            raise ConfigError(str(error)) from error

    try:
        _sweep(folder)
        yield require_place
    finally:
        lock.release()


def _sweep(folder: Path) -> None:
    """Remove the temporary files that killed runs left while they wrote files of ours."""
    for place in (folder, folder / "checkpoints"):
        for name in (*_WRITTEN_WHOLE, *_OF_PRETRAINING):
            remove_leftovers(place / name)
    for unfinished in (folder / "figures").glob(".*.png.*"):  # .NAME.png.0123abcd
        remove_leftovers(unfinished.with_name(unfinished.name[1:].rpartition(".")[0]))


def runs_in(output: Path) -> set[str]:
    """Which kinds of runs have begun in an output folder: training, pretraining, committee."""
    kinds = {
        "training": last_checkpoint(output).is_file(),
        "pretraining": (pretraining_folder(output) / CONFIG_NAME).is_file(),
        "committee": any(runs_in(member) for member in output.glob("seed_*")),
    }
    return {kind for kind, begun in kinds.items() if begun}


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


def require_folders(output: Path) -> None:
    """Raise ConfigError if a file has the name of a folder that a run fills, which would end the run after an epoch."""
    for path in (output / name for name in _FOLDERS):
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file, and a run needs a folder of that name: move it away")


def at_its_place(config: TrainingConfig, path: Path) -> TrainingConfig:
    """The configuration of a run that was moved, with the folder that it lies in now as ``output``.

    Args:
        config: what was read from ``path``.
        path: a configuration file; only the ``config.yaml`` of a run is treated specially.
    """
    here = path.parent.resolve()
    if path.name != CONFIG_NAME or config.output == str(here) or not _is_of_a_run(path):
        return config
    return config.model_copy(update={"output": str(here)})


def _is_of_a_run(config: Path) -> bool:
    """Whether a run wrote this file into its folder: it is to the letter what ``write_config`` writes.

    The run may have been moved since, and killed before its first checkpoint. Its lock, which stays in the folder,
    then tells its configuration from a copy that the user made.
    """
    if not config.is_file():  # a pipe would wait for a writer
        return False
    try:
        found, folder = TrainingConfig.as_written(config), config.parent.resolve()
        if found.to_yaml() != config.read_text(encoding="utf-8"):
            return False
        return Path(found.output) == folder or bool(runs_in(folder)) or (folder / ".lock").is_file()
    except (ValueError, OSError):  # the user's file may hold anything
        return False
