"""Replay: general structures among those of a fine-tuning, so that the network forgets less of what it knew.

Their labels are what the model that the training starts from says of them, at the zero of energy of the data. So any
structures serve, with labels or without.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ase_nbody.data import DataError, LabelledStructure, require_parts
from ase_nbody.data.file_names import data_file
from ase_nbody.data.labels import Source, Weights
from ase_nbody.data.reading import LARGEST_LABEL, structure_of
from ase_nbody.data.store import ByIndex
from ase_nbody.data.structures import read_structures
from ase_nbody.files.archive import load_members
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.network.outputs import outputs_of
from ase_nbody.text import printable
from ase_nbody.training.config import ConfigError, SourceConfig, TrainingConfig
from ase_nbody.training.electronic_states import require_learnt_states
from ase_nbody.training.evaluation import predict
from ase_nbody.training.splits import file_names, require_usable_weights, species_of

_LONGEST_NAME = 300  # characters


def read_replay(config: TrainingConfig) -> list[LabelledStructure]:
    """The structures in the files of ``data.replay``, without labels.

    Raises:
        ConfigError: the network starts from nothing, or learns a head alone.
        DataError: a file cannot be read, or a frame is none that could be learnt from.
        FileNotFoundError: there is no such file.
    """
    if config.data.replay is None:
        return []
    if not config.network.has_start or config.network.head is not None:
        why = "a head leaves the model as it is" if config.network.head else "this one starts from nothing"
        raise ConfigError(
            f"data.replay is for a training that changes what a model knows, and {why}: leave out data.replay, or name "
            "a model in network.start_from"
        )
    return [frame for source in config.data.replay for frame in _frames_of(source)]


def _frames_of(source: SourceConfig) -> Iterator[LabelledStructure]:
    path, index = data_file(source.path, source.index)
    for number, atoms in enumerate(read_structures(path, index)):
        origin = Source(path if index == ":" else f"{path}@{index}", number)
        one = structure_of(atoms, printable(f"{origin} of data.replay", _LONGEST_NAME))
        weights, stress = Weights(*[source.weight] * len(Weights._fields)), np.full((3, 3), np.nan)
        yield LabelledStructure(one, np.nan, np.full((len(one), 3), np.nan), stress, weights, source=origin)


def drawn(config: TrainingConfig, structures: Sequence[LabelledStructure], n_training: int) -> list[LabelledStructure]:
    """Those of the structures that are replayed beside ``n_training`` training frames."""
    wanted = min(len(structures), _wanted(config, n_training))
    return random.Random(config.data.seed).sample(structures, wanted)


def replayed(
    config: TrainingConfig, structures: Sequence[LabelledStructure], network: NBodyNetwork, n_training: int
) -> list[LabelledStructure]:
    """The structures that a fine-tuning adds to its own, labelled by the network.

    Args:
        config: the configuration of the training.
        structures: those of ``data.replay`` (see ``read_replay``), some of which are taken.
        network: the network before its training, at the zero of energy of the data.
        n_training: number of training frames, beside which they are to have the share ``data.replay_share``.

    Raises:
        DataError: the structures have species, charges or spins that the model does not know, the model's values for
            one of them are too large or not finite, or single precision would lose the weight of their file.
    """
    if not structures or config.data.replay is None:
        return []
    frames = drawn(config, structures, n_training)
    name = f"{file_names(config.data.replay)} in data.replay"
    if unknown := ", ".join(sorted(species_of(frames) - {*network.config.species})):
        raise DataError(f"{name} has structures with {unknown}, which the model does not know: remove them")
    require_learnt_states(network.config, {"replay": frames})
    require_parts(frames, network.config.layout, name)
    before = load_members(str(config.network.start_from))[0].config.outputs
    added = [entry for entry in config.network.outputs if entry not in before]
    new: dict[str, Any] = dict.fromkeys(output.name for output in outputs_of(added))
    labelled = [  # new heads have random weights, which say nothing
        replace(found, weights=frame.weights, source=frame.source, **new)
        for frame, found in zip(frames, predict(network, frames), strict=True)
    ]
    require_usable_weights(labelled)
    for frame, found in zip(frames, labelled, strict=True):
        if not (abs(found.energy) < LARGEST_LABEL and (abs(found.forces) < LARGEST_LABEL).all()):  # false for NaN too
            raise DataError(
                f"the model's energy or forces are above {LARGEST_LABEL:g}, or not finite, for "
                f"{printable(str(frame.source), _LONGEST_NAME)} of data.replay: atoms overlap there. Remove the frame."
            )
    return labelled


class Together(ByIndex):
    """The training frames and the structures that are replayed. Frames on disk stay there.

    Args:
        training: the training frames.
        replay: the structures.
    """

    def __init__(self, training: Sequence[LabelledStructure], replay: Sequence[LabelledStructure]) -> None:
        self._training, self._replay = training, replay

    def __len__(self) -> int:
        return len(self._training) + len(self._replay)

    def frame(self, index: int) -> LabelledStructure:
        """A training frame, or after them a structure that is replayed."""
        own = len(self._training)
        return self._training[index] if index < own else self._replay[index - own]


def said_of_replay(config: TrainingConfig, frames: Sequence[LabelledStructure], n_training: int) -> list[str]:
    """One line on the structures that are replayed, and whether they are fewer than asked for; none if there are none.

    Args:
        config: the configuration of the training.
        frames: the structures that are replayed.
        n_training: number of training frames.
    """
    if not (frames and config.data.replay):
        return []
    files, wanted = file_names(config.data.replay), _wanted(config, n_training)
    fewer = (
        f". {files} has no more: a share of {len(frames) / (len(frames) + n_training):.2g} instead of "
        f"{config.data.replay_share:g} (data.replay_share), which would take {wanted}"
        if len(frames) < wanted
        else ""
    )
    return [
        f"Each epoch has {len(frames)} structures of {files}, labelled by {config.network.start_from}, beside the "
        f"training data{fewer}"
    ]


def _wanted(config: TrainingConfig, n_training: int) -> int:
    """How many structures have the share ``data.replay_share`` of them and the training frames together."""
    share = config.data.replay_share
    return max(1, round(share / (1.0 - share) * n_training))
