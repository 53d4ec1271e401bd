"""The structures of a training: read from their files, and split."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

from ase_nbody.data import LabelledStructure, read_labelled
from ase_nbody.training.config import ConfigError, DataConfig, SourceConfig, TrainingConfig


def read_sources(sources: Sequence[SourceConfig], data: DataConfig) -> list[LabelledStructure]:
    """All frames of several files, one after the other.

    Raises:
        FileNotFoundError, DataError: see ``read_labelled``.
    """
    return [
        frame
        for source in sources
        for frame in read_labelled(source.path, keys=data.keys_of(source), weight=source.weight)
    ]


def split(config: TrainingConfig) -> tuple[list[LabelledStructure], list[LabelledStructure]]:
    """Training and validation structures: of different files, or of the same, split at random by the data seed."""
    frames, held_out = read_sources(config.data.train, config.data), config.data.validation
    if isinstance(held_out, tuple):
        return frames, read_sources(held_out, config.data)
    held_out = min(50, -(-len(frames) // 10)) if held_out is None else held_out
    if not 0 < held_out < len(frames):
        raise ConfigError(f"data.validation = {held_out} must be between 1 and {len(frames) - 1} frames of the data")
    order = list(range(len(frames)))
    random.Random(config.data.seed).shuffle(order)
    return [frames[i] for i in order[held_out:]], [frames[i] for i in order[:held_out]]


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
