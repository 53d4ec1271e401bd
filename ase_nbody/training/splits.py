"""The frames of a training: read from their files, and split into training and validation frames."""

import contextlib
import hashlib
import random
import re
from collections.abc import Sequence
from pathlib import Path

from ase_nbody.data import FrameStore, LabelledStructure, iterate_labelled
from ase_nbody.training.config import ConfigError, SourceConfig, TrainingConfig
from ase_nbody.training.processes import Processes

# Files are read into memory if their size is at most this fraction of ``data.memory``. The rest of the memory is for
# the structures and neighbour tables that are made from them.
_FRACTION_OF_MEMORY_FOR_FILES = 0.25
_STORE_NAME = re.compile(r"(train|validation|test)_\d+")  # which set, and the number of the process that reads it
_LARGEST_DEFAULT_VALIDATION = 50  # frames


def read_sources(config: TrainingConfig, name: str) -> Sequence[LabelledStructure]:
    """All frames of the files in ``data.train``, ``data.validation`` or ``data.test``, one file after the other.

    Files that are large compared with ``data.memory`` are not read into memory. Their frames are copied to the folder
    ``nbody_train_frames`` in the output folder and mapped from there.

    Args:
        config: the configuration of the training.
        name: ``train``, ``validation`` or ``test``.

    Raises:
        FileNotFoundError, DataError: see ``read_labelled``.
    """
    data, sources = config.data, getattr(config.data, name)
    frames = (
        frame
        for source in sources
        for frame in iterate_labelled(source.path, source.index, keys=data.keys_of(source), weight=source.weight)
    )
    files = [Path(source.path).stat() for source in sources if Path(source.path).is_file()]
    if sum(file.st_size for file in files) <= _FRACTION_OF_MEMORY_FOR_FILES * data.memory * 2**30:
        return list(frames)
    key = {
        "sources": [source.model_dump() | {"keys": data.keys_of(source)} for source in sources],
        "files": [[file.st_size, file.st_mtime_ns] for file in files],
    }
    return FrameStore.write(frames, frames_folder(config) / f"{name}_{Processes.launched().rank}", key)


def frames_folder(config: TrainingConfig) -> Path:
    """The folder that keeps the frames of large files on disk while the training lasts."""
    return Path(config.output) / "nbody_train_frames"


def require_own_frames(config: TrainingConfig) -> None:
    """Check that the folder of frames, if there is one, holds only what a training keeps there.

    Raises:
        ConfigError: it holds something else.
    """
    folder = frames_folder(config)
    if folder.exists() and not (folder.is_dir() and all(_is_store(path) for path in folder.iterdir())):
        raise ConfigError(
            f"{folder} is where a training keeps frames, but it holds something else: move it away, or choose another "
            "'output'"
        )


def remove_frames(config: TrainingConfig) -> None:
    """Remove the frames that the training kept on disk, and nothing else."""
    folder = frames_folder(config)
    if folder.is_dir():
        for path in filter(_is_store, list(folder.iterdir())):
            FrameStore.remove(path)
        with contextlib.suppress(OSError):  # something else is in it
            folder.rmdir()


def _is_store(path: Path) -> bool:
    return bool(_STORE_NAME.fullmatch(path.name)) and FrameStore.owns(path)


def read_splits(config: TrainingConfig) -> tuple[Sequence[LabelledStructure], Sequence[LabelledStructure]]:
    """Training and validation frames.

    Validation frames come from files of their own, or they are drawn at random from the training files; then
    ``data.seed`` determines which ones.

    Raises:
        ConfigError: ``data.validation`` leaves no frames for training or none for validation.
        FileNotFoundError, DataError: see ``read_labelled``.
    """
    frames, validation = read_sources(config, "train"), config.data.validation
    if isinstance(validation, tuple):
        return frames, read_sources(config, "validation")
    a_tenth = -(-len(frames) // 10)  # rounded up
    n_validation = min(_LARGEST_DEFAULT_VALIDATION, a_tenth) if validation is None else validation
    if not 0 < n_validation < len(frames):
        raise ConfigError(
            f"data.validation = {n_validation} must be between 1 and {len(frames) - 1}: "
            f"the training files hold {len(frames)} frames"
        )
    order = list(range(len(frames)))
    random.Random(config.data.seed).shuffle(order)
    return _take(frames, order[n_validation:]), _take(frames, order[:n_validation])


def _take(frames: Sequence[LabelledStructure], indices: Sequence[int]) -> Sequence[LabelledStructure]:
    return frames.take(indices) if isinstance(frames, FrameStore) else [frames[index] for index in indices]


def file_names(sources: Sequence[SourceConfig]) -> str:
    """Names of the files without their folders, separated by commas."""
    return ", ".join(Path(source.path).name for source in sources)


def sha256_of_files(sources: Sequence[SourceConfig]) -> str:
    """SHA-256 of the contents of all files, joined in their order."""
    total = hashlib.sha256()
    for source in sources:
        with open(source.path, "rb") as file:
            while block := file.read(2**20):
                total.update(block)
    return total.hexdigest()
