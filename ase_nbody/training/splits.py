"""The structures of a training: read from their files, and split."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

from ase_nbody.data import FrameStore, LabelledStructure, iterate_labelled
from ase_nbody.training.config import ConfigError, SourceConfig, TrainingConfig
from ase_nbody.training.processes import Processes

_SHARE = 0.25  # of the memory: the files may have that size, the rest is for what is made of them


def read_sources(config: TrainingConfig, name: str) -> Sequence[LabelledStructure]:
    """All frames of the files of ``data.train``, ``data.validation`` or ``data.test``, one file after the other.

    Files that are large against ``data.memory`` are not read into it, but copied to ``frames`` in the output folder.

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
    if sum(file.st_size for file in files) <= _SHARE * data.memory * 2**30:
        return list(frames)
    key = {
        "sources": [source.model_dump() | {"keys": data.keys_of(source)} for source in sources],
        "files": [[file.st_size, file.st_mtime_ns] for file in files],
    }
    return FrameStore.write(frames, stored(config) / f"{name}_{Processes.launched().rank}", key)


def stored(config: TrainingConfig) -> Path:
    """The folder of the frames that are kept on disk while the training lasts."""
    return Path(config.output) / "frames"


def split(config: TrainingConfig) -> tuple[Sequence[LabelledStructure], Sequence[LabelledStructure]]:
    """Training and validation structures: of different files, or of the same, split at random by the data seed."""
    frames, held_out = read_sources(config, "train"), config.data.validation
    if isinstance(held_out, tuple):
        return frames, read_sources(config, "validation")
    held_out = min(50, -(-len(frames) // 10)) if held_out is None else held_out
    if not 0 < held_out < len(frames):
        raise ConfigError(f"data.validation = {held_out} must be between 1 and {len(frames) - 1} frames of the data")
    order = list(range(len(frames)))
    random.Random(config.data.seed).shuffle(order)
    return _take(frames, order[held_out:]), _take(frames, order[:held_out])


def _take(frames: Sequence[LabelledStructure], indices: Sequence[int]) -> Sequence[LabelledStructure]:
    return frames.take(indices) if isinstance(frames, FrameStore) else [frames[index] for index in indices]


def names(sources: Sequence[SourceConfig]) -> str:
    """The files' names, for people."""
    return ", ".join(Path(source.path).name for source in sources)


def digest(sources: Sequence[SourceConfig]) -> str:
    """SHA-256 of the file, or of several one after the other."""
    total = hashlib.sha256()
    for source in sources:
        with open(source.path, "rb") as file:
            while block := file.read(2**20):
                total.update(block)
    return total.hexdigest()
