"""Model files ``*.nbody``: weights of a network or a committee, and JSON. Files of strangers are safe to load.

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
        network: the network; weights are stored in their dtype. Or the members of a committee, all of one config.
        path: file name, by custom ending in ``.nbody``.
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
    """SHA-256 over the configuration, as the file has it, and every weight (name, dtype, shape, bytes)."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(weights):
        weight = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode(errors="backslashreplace"))
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def load_model(name: str | os.PathLike[str]) -> NBodyNetwork:
    """Read a network, in float64 whatever the file holds, from a file or a shipped one by its name (``"ethanol"``).

    Whoever made the file, it is loaded or refused in about a second, with a few times its size of memory at the most:
    all is compared and hashed before a network is built.

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


def load_members(name: str | os.PathLike[str]) -> list[NBodyNetwork]:
    """The networks of a model file, one or the members of a committee; else as ``load_model``."""
    path = find_model(name)
    with _naming(path):
        content, weights = _read(path)
        present = upgraded(content)
        config, count = config_of(present), present["members"]
        _check_members(count)
        declared = NBodyNetwork.declared_weights(config)
        _check_size(declared, count, weights)
        _check_weights(content, weights)
        _check_shapes(declared, count, weights)
        # Drawing the initial weights, which are overwritten, must not advance the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            network = NBodyNetwork(config)
        members = [network, *(copy.deepcopy(network) for _ in range(count - 1))]
        for member, own in zip(members, _unstack(weights, count), strict=True):
            member.load_state_dict(own, strict=True)
    return [member.requires_grad_(False) for member in members]


def _stack(members: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """The weights of all members as one table; those of a single network as they are."""
    if len(members) == 1:
        return members[0]
    return {name: torch.stack([weights[name] for weights in members]) for name in members[0]}


def _unstack(weights: Mapping[str, Tensor], count: int) -> list[Mapping[str, Tensor]]:
    """The inverse of ``_stack``."""
    if count == 1:
        return [weights]
    return [{name: weight[member] for name, weight in weights.items()} for member in range(count)]


def read_card(name: str | os.PathLike[str]) -> dict[str, Any]:
    """The entries of a model file as they stand in it, checksums verified: config, card, units, versions, ..."""
    path = find_model(name)
    with _naming(path):
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
def _naming(path: Path) -> Iterator[None]:
    """Whatever is wrong in here is wrong with the file at ``path``."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ModelFileError(f"{path} is not an N-body model that can be loaded: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Entries and weights of a file of a version that we know, in our units; the weights are as yet unverified."""
    content, weights = unpack(read_bounded(path))
    check_entries(content)
    return content, weights


def _check_members(count: int) -> None:
    if isinstance(count, bool) or not 1 <= count <= MAX_MEMBERS:
        raise ModelFileError(f"a committee of {count} networks; a model file holds 1 to {MAX_MEMBERS}")


def _check_size(declared: Mapping[str, Weight], members: int, weights: Mapping[str, Tensor]) -> None:
    """Refuse before it is hashed a file whose size is not that of its networks."""
    expected = sum(weight.size for weight in declared.values())
    found = sum(weight.numel() for weight in weights.values())
    if members * expected != found:
        raise ModelFileError(
            f"the configuration describes a network of {expected} weights, but the file holds {found} for {members}: "
            "the weights do not fit the configuration"
        )


def _check_shapes(declared: Mapping[str, Weight], members: int, weights: Mapping[str, Tensor]) -> None:
    """Refuse before it is built a network whose weights have other names or shapes than those of the file."""
    missing, foreign = sorted(declared.keys() - weights.keys()), sorted(weights.keys() - declared.keys())
    if missing or foreign:
        raise ModelFileError(
            f"the weights do not fit the configuration. Missing keys: {_first(missing)}; "
            f"keys that do not belong to it: {_first(foreign)}"
        )
    for name, weight in declared.items():
        shape = tuple(weights[name].shape)
        if members > 1 and shape[:1] != (members,):
            raise ModelFileError(f"the weight {name[:100]!r} is not that of a committee of {members}")
        if (shape[1:] if members > 1 else shape) != weight.shape:
            raise ModelFileError(f"size mismatch: the weight {name!r} has {list(shape)}, not {list(weight.shape)}")


def _first(names: Sequence[str]) -> str:
    """A few of the names, which may be of any number and length."""
    return ", ".join(repr(name[:100]) for name in names[:3]) + (", ..." if len(names) > 3 else "") or "none"


def _check_weights(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    if content["checksum"] != checksum(content["config"], weights):
        raise ModelFileError("it is damaged: its checksum does not match its contents. Fetch or train it anew.")
    if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise ModelFileError("a weight is NaN or infinite. The training diverged; train it anew.")
