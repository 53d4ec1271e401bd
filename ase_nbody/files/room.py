"""Whether networks will fit into a model file: a training that could not write its model must not begin."""

import json
from collections.abc import Mapping
from typing import Any

import torch

from ase_nbody.files.entries import check_members, config_of, entries_of
from ase_nbody.files.tensor_file import check_room, check_values
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.network import NBodyNetwork

# What a training adds to the card: an example structure, and for each member its options and the errors of a label of
# each species.
_EXAMPLE_BYTES, _CARD_BYTES, _CARD_BYTES_OF_SPECIES = 65536, 4096, 256
_NUMBER, _ENTRY = "1234567,", "entry: 1.234567890123456,"  # values in an example and in a table; few are shorter


def require_room(
    config: NBodyConfig, members: int = 1, dtype: torch.dtype = torch.float32, card: Mapping[str, Any] | None = None
) -> None:
    """Check that networks will fit into a model file. A training asks before it begins, not when it has ended.

    Args:
        config: the configuration of all members.
        members: number of networks.
        dtype: floating-point type of their weights.
        card: what is known of the card. There must be room for what a training adds to it, too.

    Raises:
        ModelFileError: they, their number, or their card are too large, or the configuration is not valid.
    """
    check_members(members)
    declared, dumped = NBodyNetwork.declared_weights(config), config.model_dump(mode="json")
    size = members * sum(weight.size for weight in declared.values()) * dtype.itemsize
    tensors = {
        name: {"dtype": "F32", "shape": [members, *weight.shape], "data_offsets": [size, size]}
        for name, weight in declared.items()
    }
    content = entries_of(dumped, members, card or {}, "0" * 64)
    config_of(content)
    texts = {key: json.dumps(value, allow_nan=False) for key, value in content.items()}
    header, added = json.dumps({"__metadata__": texts, **tensors}), members * added_by_training(config)
    example = _NUMBER * (_EXAMPLE_BYTES // len(_NUMBER))
    check_room(size, sum(map(len, (header, added, example))))
    check_values([header, added, example])


def added_by_training(config: NBodyConfig) -> str:
    """A text of at least as many bytes and values as a training adds to the card for each network, but its example."""
    labels = 1 + len(config.outputs)  # that have errors of each species
    return _ENTRY * ((_CARD_BYTES + _CARD_BYTES_OF_SPECIES * labels * len(config.species)) // len(_ENTRY))
