"""Model files ``*.nbody`` hold the weights of a network or a committee, and JSON. A stranger's file is safe to load.

What the entries of a file mean and how they are checked is in ``entries.py``.
"""

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ase_nbody.files.entries import (
    UNITS,
    check_entries,
    check_levels,
    config_of,
    features_of,
    metadata_checksum,
    upgraded,
)
from ase_nbody.files.tensor_file import ModelFileError, pack, read_bounded, unpack
from ase_nbody.files.writing import write_whole
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.nn.weights import Weight
from ase_nbody.undisturbed import undisturbed

__all__ = ["ModelFileError", "load_members", "load_model", "read_card", "save_model", "shipped_models", "write_whole"]

SUFFIX = ".nbody"
MAX_MEMBERS = 64


def save_model(
    network: NBodyNetwork | Sequence[NBodyNetwork],
    path: str | os.PathLike[str],
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a network and its card to ``path``. The file appears whole or not at all.

    Args:
        network: a network, or the members of a committee, which must have one configuration. The weights keep their
            dtype.
        path: file name, which usually ends in ``.nbody``.
        card: JSON-able description: data, theory level, errors, licence, command, ...

    Raises:
        TypeError, ValueError: the card is not JSON (an object, NaN), the network is too large for a model file, or the
            members of a committee differ in more than their weights.
    """
    path = Path(path)
    networks = [network] if isinstance(network, NBodyNetwork) else list(network)
    _check_members(len(networks))
    check_levels(networks[0].config.levels)
    if any(member.config != networks[0].config for member in networks):
        raise ValueError("the members of a committee in one file must have one configuration; save them one by one")
    weights = _stack([member.state_dict() for member in networks])
    config = networks[0].config.model_dump(mode="json")
    features = features_of(config)
    content = {
        "format": 4 if features else 3,
        "config": config,
        "card": dict(card or {}),
        "units": UNITS,
        "versions": {package: metadata.version(package) for package in ("torch", "e3nn", "ase", "numpy")},
        "checksum": checksum(config, weights),
        "members": len(networks),
        **({"features": features} if features else {}),
    }
    write_whole(path, pack(weights, {**content, "metadata_checksum": metadata_checksum(content)}))
    return path


def checksum(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the configuration, in the form that the file holds, and every weight (name, dtype, shape, bytes)."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(weights):
        weight = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode(errors="backslashreplace"))
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def load_model(name: str | os.PathLike[str]) -> NBodyNetwork:
    """Read a network from a file, or a shipped network by its name (``"ethanol"``). It has float64 weights in any case.

    Whoever made the file, this function loads or refuses it in about a second and needs at most a few times the file's
    size in memory, because it compares and hashes everything before it builds a network.

    Raises:
        FileNotFoundError: no such file or shipped model; the message lists the shipped ones.
        PermissionError: the file may not be read.
        ModelFileError: the file is foreign, damaged, tampered with, too large, of a newer format, or a committee.
    """
    members = load_members(name)
    if len(members) > 1:
        raise ModelFileError(
            f"{name} holds a committee of {len(members)} networks where one is expected; load_members and "
            "NBodyCalculator take it"
        )
    return members[0]


@undisturbed()
def load_members(name: str | os.PathLike[str]) -> list[NBodyNetwork]:
    """Read all networks of a model file: one, or the members of a committee. Otherwise the same as ``load_model``."""
    path = find_model(name)
    with _errors_name(path):
        content, weights = _read(path)
        present = upgraded(content)
        config, count = config_of(present), present["members"]
        _check_members(count)
        declared = NBodyNetwork.declared_weights(config)
        _check_size(declared, count, weights)
        _check_weights(content, weights)
        _check_shapes(declared, count, weights)
        # The initial weights are overwritten, so drawing them must not advance the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            network = NBodyNetwork(config)
        members = [network, *(copy.deepcopy(network) for _ in range(count - 1))]
        for member, own in zip(members, _unstack(weights, count), strict=True):
            member.load_state_dict(own, strict=True)
    return [member.requires_grad_(False) for member in members]


def _stack(members: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Stack the weights of all members, name by name. The weights of a single network stay as they are."""
    if len(members) == 1:
        return members[0]
    return {name: torch.stack([weights[name] for weights in members]) for name in members[0]}


def _unstack(weights: Mapping[str, Tensor], count: int) -> list[Mapping[str, Tensor]]:
    """The inverse of ``_stack``."""
    if count == 1:
        return [weights]
    return [{name: weight[member] for name, weight in weights.items()} for member in range(count)]


def read_card(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the entries of a model file (config, card, units, versions, ...) unchanged, and verify its checksums."""
    path = find_model(name)
    with _errors_name(path):
        content, weights = _read(path)
        _check_weights(content, weights)
    return content


def shipped_models() -> dict[str, Path]:
    """The models that come with the package, by name."""
    folder = Path(str(resources.files("ase_nbody") / "models"))
    if not folder.is_dir():  # a source checkout installed in editable mode keeps them at its top
        folder = Path(__file__).resolve().parents[2] / "models"
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def find_model(name: str | os.PathLike[str]) -> Path:
    """The path of a model file, or of a shipped model given by name."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_models()
    if str(name) in shipped:
        return shipped[str(name)]
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a directory, not a model file; give the {SUFFIX} file in it")
    if path.exists():
        raise ModelFileError(f"{path} is a pipe or a device, not a model file")
    raise FileNotFoundError(f"no model file {str(name)!r}; shipped models are {', '.join(shipped) or 'none'}")


@contextlib.contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Turn the errors of the block into errors that name the file at ``path``."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ModelFileError(f"{path} is not an N-body model that can be loaded: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read entries and weights, and check the entries. The weights are not verified yet."""
    content, weights = unpack(read_bounded(path))
    check_entries(content)
    return content, weights


def _check_members(count: int) -> None:
    if isinstance(count, bool) or not 1 <= count <= MAX_MEMBERS:
        raise ModelFileError(f"a committee of {count} networks; a model file holds 1 to {MAX_MEMBERS}")


def _check_size(declared: Mapping[str, Weight], members: int, weights: Mapping[str, Tensor]) -> None:
    """Refuse a file whose number of weights is not that of its networks, before the weights are hashed."""
    expected = sum(weight.size for weight in declared.values())
    found = sum(weight.numel() for weight in weights.values())
    if members * expected != found:
        raise ModelFileError(
            f"the configuration describes a network of {expected} weights, but the file holds {found} weights for "
            f"{members} network(s): the weights do not fit the configuration"
        )


def _check_shapes(declared: Mapping[str, Weight], members: int, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights whose names or shapes are not those of the network, before it is built."""
    missing, foreign = sorted(declared.keys() - weights.keys()), sorted(weights.keys() - declared.keys())
    if missing or foreign:
        raise ModelFileError(
            f"the weights do not fit the configuration. Missing keys: {_first_names(missing)}; "
            f"keys that do not belong to it: {_first_names(foreign)}"
        )
    for name, weight in declared.items():
        shape = tuple(weights[name].shape)
        if members > 1 and shape[:1] != (members,):
            raise ModelFileError(f"the weight {name[:100]!r} is not that of a committee of {members}")
        if (shape[1:] if members > 1 else shape) != weight.shape:
            raise ModelFileError(f"size mismatch: the weight {name!r} has {list(shape)}, not {list(weight.shape)}")


def _first_names(names: Sequence[str]) -> str:
    """The first three names, each cut to 100 characters: a file may hold any number of names of any length."""
    return ", ".join(repr(name[:100]) for name in names[:3]) + (", ..." if len(names) > 3 else "") or "none"


def _check_weights(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    if content["checksum"] != checksum(content["config"], weights):
        raise ModelFileError("it is damaged: its checksum does not match its contents. Fetch or train it anew.")
    if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise ModelFileError("a weight is NaN or infinite. The training diverged; train it anew.")
