"""The weights in a model file: their checksum, and whether they are those of the networks that the file describes."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ase_nbody.files.tensor_file import ModelFileError, TensorFile
from ase_nbody.nn.weights import Weight


def checksum(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], energies: Sequence[Mapping[str, float]] = ()
) -> str:
    """SHA-256 of what makes the networks: the identity of a model.

    Args:
        config: the configuration, in the form that the file holds.
        weights: every weight; its name, dtype, shape and bytes count.
        energies: isolated-atom energies of each network, if those of a committee differ.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    if energies:
        digest.update(json.dumps(list(energies), sort_keys=True).encode())
    for name in sorted(weights):
        weight = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode(errors="backslashreplace"))
        digest.update(weight.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def verified_weights(file: TensorFile) -> dict[str, Tensor]:
    """The weights of a file whose checksum is right. They are finite.

    Raises:
        ModelFileError: they are damaged, NaN or infinite.
    """
    weights = file.tensors()
    if file.content["checksum"] != checksum(file.content["config"], weights, file.content.get("member_energies", ())):
        raise ModelFileError("it is damaged: its checksum does not match its contents. Fetch or train it anew.")
    require_finite(weights)
    return weights


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no numbers.

    Raises:
        ModelFileError: a weight is NaN or infinite.
    """
    if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise ModelFileError("a weight is NaN or infinite. The training diverged; train it anew.")


def check_declared(declared: Mapping[str, Weight], members: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a file whose header does not have the weights of its networks, before these or the weights take memory.

    Args:
        declared: the weights of one network (see ``NBodyNetwork.declared_weights``).
        members: number of networks. In a file of several, each weight has a first axis that counts them.
        shapes: shapes of the weights in the file.

    Raises:
        ModelFileError: their number, a name or a shape differs.
    """
    expected = sum(weight.size for weight in declared.values())
    found = sum(map(math.prod, shapes.values()))
    if members * expected != found:
        raise ModelFileError(
            f"the configuration describes a network of {expected} weights, but the file holds {found} weights for "
            f"{members} network(s): the weights do not fit the configuration"
        )
    missing, foreign = sorted(declared.keys() - shapes.keys()), sorted(shapes.keys() - declared.keys())
    if missing or foreign:
        raise ModelFileError(
            f"the weights do not fit the configuration. Missing keys: {_first_names(missing)}; "
            f"keys that do not belong to it: {_first_names(foreign)}"
        )
    for name, weight in declared.items():
        shape = shapes[name]
        if members > 1 and shape[:1] != (members,):
            raise ModelFileError(f"the weight {name[:100]!r} is not that of a committee of {members}")
        if (shape[1:] if members > 1 else shape) != weight.shape:
            raise ModelFileError(f"size mismatch: the weight {name!r} has {list(shape)}, not {list(weight.shape)}")


def stack(members: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """The weights of all members, name by name. The weights of a single network stay as they are."""
    if len(members) == 1:
        return members[0]
    return {name: torch.stack([weights[name] for weights in members]) for name in members[0]}


def of_member(weights: Mapping[str, Tensor], number: int, count: int) -> dict[str, Tensor]:
    """The weights of one of ``count`` members, in the same memory: the inverse of ``stack``."""
    return {name: weight if count == 1 else weight[number] for name, weight in weights.items()}


def _first_names(names: Sequence[str]) -> str:
    """The first three names, each cut to 100 characters: a file may hold any number of names of any length."""
    return ", ".join(repr(name[:100]) for name in names[:3]) + (", ..." if len(names) > 3 else "") or "none"
