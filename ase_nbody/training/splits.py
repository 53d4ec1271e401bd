"""The frames of a training: read from their files, and split into training and validation frames."""

import contextlib
import hashlib
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ase_nbody.data import LABELS, DataError, Found, FrameStore, LabelledStructure, iterate_labelled
from ase_nbody.data.file_names import data_file
from ase_nbody.data.structures import require_file
from ase_nbody.text import count_of
from ase_nbody.training.config import ConfigError, SourceConfig, TrainingConfig
from ase_nbody.training.config.optimisation import LARGEST_WEIGHT, LEAST_WEIGHT
from ase_nbody.training.processes import Processes

# Files are read into memory if their size is at most this fraction of ``data.memory``. The rest of the memory is for
# the structures and neighbour tables that are made from them.
_FRACTION_OF_MEMORY_FOR_FILES = 0.25
_STORE_NAME = re.compile(r"(train|validation|test)_\d+")  # which set, and the number of the process that reads it
_LARGEST_DEFAULT_VALIDATION = 50  # frames

# How validation frames are drawn. A run keeps its rule for life: its weights belong to its training frames.
PLAIN_SPLIT = 1  # any frame may be drawn; runs of earlier releases
SPLIT_RULE = 2  # isolated atoms and the only frame of a species stay in training


def read_sources(
    config: TrainingConfig, name: str, tell: Callable[[Found], None] | None = None
) -> Sequence[LabelledStructure]:
    """All frames of the files in ``data.train``, ``data.validation`` or ``data.test``, one file after the other.

    Files that are large compared with ``data.memory`` are not read into memory. Their frames are copied to the folder
    ``nbody_train_frames`` in the output folder and mapped from there.

    Args:
        config: the configuration of the training.
        name: ``train``, ``validation`` or ``test``.
        tell: is called for each file with what was found in it, unless its frames are on disk already.

    Raises:
        FileNotFoundError, DataError: see ``read_labelled``.
    """
    data, sources = config.data, getattr(config.data, name)
    frames = (
        frame
        for source in sources
        for frame in iterate_labelled(
            source.path, source.index, keys=data.keys_of(source), weight=source.weight, tell=tell
        )
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


def read_splits(
    config: TrainingConfig, rule: int = SPLIT_RULE, tell: Callable[[Found], None] | None = None
) -> tuple[Sequence[LabelledStructure], Sequence[LabelledStructure]]:
    """Training and validation frames.

    Validation frames come from files of their own, or they are drawn at random from the training files; then
    ``data.seed`` determines which ones. Isolated atoms are not drawn, and neither is the last frame of a species among
    the other frames: the training needs them, whatever the seed.

    Args:
        config: the configuration of the training.
        rule: ``SPLIT_RULE``, or ``PLAIN_SPLIT`` for a run that began without it.
        tell: see ``read_sources``.

    Raises:
        ConfigError: the files hold too few frames, or ``data.validation`` leaves none for training or for validation.
        DataError: all forces have the weight 0; or see ``read_labelled``.
        FileNotFoundError: see ``read_labelled``.
    """
    frames = read_sources(config, "train", tell)
    of_files = read_sources(config, "validation", tell) if isinstance(config.data.validation, tuple) else None
    return split(config, frames, of_files, rule)


def split(
    config: TrainingConfig,
    frames: Sequence[LabelledStructure],
    of_files: Sequence[LabelledStructure] | None = None,
    rule: int = SPLIT_RULE,
) -> tuple[Sequence[LabelledStructure], Sequence[LabelledStructure]]:
    """Training and validation frames, of frames that have been read.

    Args:
        config: the configuration of the training. The radii of its levels tell which atoms in boxes are isolated.
        frames: those of ``data.train``.
        of_files: those of the files in ``data.validation``, if it names any.
        rule: see ``read_splits``.

    Raises:
        ConfigError, DataError: see ``read_splits``.
    """
    if of_files is not None:
        training, held_out = frames, of_files
    else:
        order = list(range(len(frames)))
        random.Random(config.data.seed).shuffle(order)
        n_validation = _n_validation(config, len(frames))
        drawn = order[:n_validation] if rule == PLAIN_SPLIT else _draw(config, frames, order, n_validation)
        held_out, drawn_set = take(frames, drawn), set(drawn)
        training = take(frames, [index for index in order if index not in drawn_set])
    _require_weights(training, held_out)
    return training, held_out


def _n_validation(config: TrainingConfig, n_frames: int) -> int:
    """Number of frames that are held out of ``n_frames``."""
    if n_frames < 2:
        raise ConfigError(
            f"{file_names(config.data.train)}: there is 1 frame, but a training needs at least 2, one to learn from "
            "and one for validation. Add frames, or name a file in data.validation."
        )
    validation = config.data.validation
    if validation is None:
        return min(_LARGEST_DEFAULT_VALIDATION, -(-n_frames // 10))  # a tenth, rounded up
    assert isinstance(validation, int)
    if not 0 < validation < n_frames:
        raise ConfigError(
            f"data.validation = {validation} must be between 1 and {n_frames - 1}: "
            f"the training files hold {n_frames} frames"
        )
    return validation


def _draw(
    config: TrainingConfig, frames: Sequence[LabelledStructure], order: Sequence[int], n_validation: int
) -> list[int]:
    """The first ``n_validation`` frames in this order that the training can do without."""
    reach = sum(level.radius for level in config.network.levels)
    species = [species_of([frame]) if not frame.structure.is_isolated_atom(reach) else None for frame in frames]
    left = Counter(symbol for symbols in species for symbol in symbols or ())
    drawn: list[int] = []
    for index in order:
        symbols = species[index]
        if len(drawn) < n_validation and symbols and all(left[symbol] > 1 for symbol in symbols):
            drawn.append(index)
            left.subtract(symbols)
    if len(drawn) < (n_validation if config.data.validation else 1):
        last = sorted({symbol for index in order if index not in drawn for symbol in species[index] or ()})
        fewer = f"set data.validation = {len(drawn)}, " if drawn else ""
        raise ConfigError(
            f"{file_names(config.data.train)}: {count_of(n_validation, 'frame')} should be held out for validation, "
            f"but only {len(drawn)} of {len(frames)} can be: isolated atoms and the last frame with {', '.join(last)} "
            f"stay in training. Add frames, {fewer}or name a file in data.validation."
        )
    return drawn


def species_of(frames: Iterable[LabelledStructure]) -> set[str]:
    """Chemical symbols that occur in the frames."""
    return {chemical_symbols[number] for frame in frames for number in set(frame.structure.numbers.tolist())}


def _require_weights(training: Sequence[LabelledStructure], validation: Sequence[LabelledStructure]) -> None:
    """Refuse weights that single precision loses, frames that teach nothing, and a validation loss that is always 0.

    Frames without labels are not refused here.
    """
    require_usable_weights(itertools.chain(training, validation))
    forces = [weights["forces"] for weights in map(_weights_of_labels, training) if "forces" in weights]
    if forces and not any(forces):
        raise DataError(
            "all forces of the training frames have the weight 0, so there is nothing to learn from: set 'weight' in "
            "data.train, and config_weight and config_forces_weight in the files, above 0"
        )
    labels = [weight for frame in validation for weight in _weights_of_labels(frame).values()]
    if labels and not any(labels):
        raise DataError(
            "all labels of the validation frames have the weight 0, so the validation loss would always be 0: set "
            "'weight' in data.validation, and config_weight in the files, above 0"
        )


def require_usable_weights(frames: Iterable[LabelledStructure]) -> None:
    """Refuse weights that single precision loses.

    Raises:
        DataError: a label of a frame has one.
    """
    for frame in frames:
        for name, weight in _weights_of_labels(frame).items():
            if 0.0 < weight < LEAST_WEIGHT or weight > LARGEST_WEIGHT:
                raise DataError(
                    f"a frame of {_formula(frame)} has the weight {weight:g} for {name}: it must be 0, or between "
                    f"{LEAST_WEIGHT:g} and {LARGEST_WEIGHT:g}. It is the product of 'weight' in the configuration "
                    "and of config_weight and the like in the file."
                )


def _formula(frame: LabelledStructure) -> str:
    return str(Atoms(frame.structure.numbers).get_chemical_formula())


def _weights_of_labels(frame: LabelledStructure) -> dict[str, float]:
    """The weights of the labels that the frame has."""
    names = [label.name for label in LABELS if np.isfinite(getattr(frame, label.name)).any()]
    return {name: getattr(frame.weights, name) for name in names}


def require_known_species(
    config: TrainingConfig, species: Collection[str], frames: Mapping[str, Sequence[LabelledStructure]]
) -> None:
    """Refuse frames of validation or test files with species that the network will not know.

    Args:
        config: the configuration of the training.
        species: chemical symbols of the training frames, and of the model that the network starts from.
        frames: frames under ``validation`` and ``test``. Others are not looked at.

    Raises:
        DataError: a species is not known; the message names it and the files.
    """
    for name in ("validation", "test"):
        sources = getattr(config.data, name)
        if not isinstance(sources, tuple):
            continue
        if unknown := ", ".join(sorted(species_of(frames[name]) - set(species))):
            raise DataError(
                f"{file_names(sources)} in data.{name}: there are frames with {unknown}, which no frame of data.train "
                f"has, so the network will not know {unknown}. Add such frames to data.train, or remove them from "
                f"data.{name}."
            )


def take(frames: Sequence[LabelledStructure], indices: Sequence[int]) -> Sequence[LabelledStructure]:
    """Some of the frames in the order of the indices. Frames on disk stay there."""
    return frames.take(indices) if isinstance(frames, FrameStore) else [frames[index] for index in indices]


def file_names(sources: Sequence[SourceConfig]) -> str:
    """Names of the files without their folders, separated by commas."""
    return ", ".join(Path(source.path).name for source in sources)


def sha256_of_files(sources: Sequence[SourceConfig]) -> tuple[str, list[str]]:
    """SHA-256 of the contents of all files, joined in their order, and that of each file."""
    total, single = hashlib.sha256(), []
    for source in sources:
        one, path = hashlib.sha256(), data_file(source.path, source.index)[0]
        require_file(path)  # opening a pipe would wait for a writer
        with open(path, "rb") as file:
            while block := file.read(2**20):
                total.update(block)
                one.update(block)
        single.append(one.hexdigest())
    return total.hexdigest(), single
