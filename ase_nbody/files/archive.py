"""Model files ``*.nbody``: weights of a network or a committee, and JSON. Files of strangers are safe to load.

Entries, each JSON in the metadata of one safetensors file (``tensor_file.py``):

    format             version of the format, an integer
    config             ``NBodyConfig``
    card               what the model is: data, theory, errors, licence, ...
    units              ``UNITS``
    versions           packages that wrote the file
    checksum           SHA-256 of config and weights: the identity of the model
    members            number of networks; since version 3. Several, a committee, share the config, and each weight has
                       them along an additional first dimension.
    features           names of the optional things that the file uses, sorted; since version 4
    metadata_checksum  SHA-256 of all entries above; since version 2

A file that uses no optional thing is written as version 3. What later releases add is a row of ``FEATURES`` and needs
no further version: older releases refuse such a file by the name of what they do not know.
"""

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ase_nbody.files.tensor_file import ModelFileError, pack, read_bounded, unpack
from ase_nbody.files.writing import write_whole
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.nn.weights import Weight

__all__ = ["ModelFileError", "load_members", "load_model", "read_card", "save_model", "shipped_models", "write_whole"]

FORMAT_VERSION = 4  # the newest that is read
UNITS = {"energy": "eV", "length": "Angstrom"}
SUFFIX = ".nbody"
MAX_MEMBERS = 64
MAX_LEVELS = 8  # building a level takes some hundredths of a second, however few weights it has
_ENTRIES: dict[str, type] = {
    "format": int,
    "config": dict,
    "card": dict,
    "units": dict,
    "versions": dict,
    "checksum": str,
}
_SINCE_2: dict[str, type] = {"metadata_checksum": str}
_SINCE_3: dict[str, type] = {"members": int}
_SINCE_4: dict[str, type] = {"features": list}


@dataclass(frozen=True)
class Feature:
    """An optional thing that a file may use, and how one sees that it does: all that it brings is there.

    Attributes:
        config: the keys that it brings to the entry ``config``.
        entries: the entries that it brings, with their types.
    """

    config: tuple[str, ...] = ()
    entries: Mapping[str, type] = field(default_factory=dict)


FEATURES = {"outputs": Feature(config=("outputs",))}


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
    _check_levels(networks[0].config.levels)
    if any(member.config != networks[0].config for member in networks):
        raise ValueError("the members of a committee in one file must have one configuration; save them one by one")
    weights = _stack([member.state_dict() for member in networks])
    config = networks[0].config.model_dump(mode="json")
    features = sorted(name for name, feature in FEATURES.items() if set(feature.config) & config.keys())
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
    write_whole(path, pack(weights, {**content, "metadata_checksum": _hash(content)}))
    return path


def checksum(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over the configuration, as the file has it, and every weight (name, dtype, shape, bytes)."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(weights):
        weight = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode(errors="backslashreplace"))
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
        upgraded = _upgraded(content)
        config, count = _config(upgraded), upgraded["members"]
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
    version = content.get("format")
    if type(version) is not int or version < 1:  # True is an int, but not a version
        raise ModelFileError("it has no entry 'format' with the version of the format: a file of another program")
    if version > FORMAT_VERSION:
        raise ModelFileError(f"format version {version}; this release reads up to {FORMAT_VERSION}. Update ase-nbody.")
    _check_entries(content)
    if content["units"] != UNITS:
        raise ModelFileError(f"it has the units {content['units']}; this release reads {UNITS}")
    return content, weights


def _check_entries(content: dict[str, Any]) -> None:
    features = _features(content)
    expected = _ENTRIES | (_SINCE_2 if content["format"] > 1 else {}) | (_SINCE_3 if content["format"] > 2 else {})
    expected |= _SINCE_4 if content["format"] > 3 else {}
    for name in features:
        expected = expected | dict(FEATURES[name].entries)
    if content.keys() != expected.keys():
        raise ModelFileError(f"it has the entries {sorted(content)} instead of {sorted(expected)}")
    for key, kind in expected.items():
        if not isinstance(content[key], kind):
            raise ModelFileError(f"its entry {key!r} is a {type(content[key]).__name__}, not a {kind.__name__}")
    others = {key: value for key, value in content.items() if key != "metadata_checksum"}
    if "metadata_checksum" in content and content["metadata_checksum"] != _hash(others):
        raise ModelFileError("it is damaged: its checksum does not match its entries. Fetch or train it anew.")
    for name, feature in FEATURES.items():
        for key in feature.config:
            if (key in content["config"]) != (name in features):
                raise ModelFileError(
                    f"its configuration {'has' if key in content['config'] else 'lacks'} {key!r}, and "
                    f"{name!r} is {'' if name in features else 'not '}among the features that the file says it uses"
                )


def _features(content: Mapping[str, Any]) -> list[str]:
    """The names of the optional things that a file says it uses, all of which we know."""
    if content["format"] < 4 or "features" not in content:
        return []  # that version 4 lacks them is found with the other entries
    names = content["features"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ModelFileError("its entry 'features' is not a list of names; a file that uses none is of version 3")
    if names != sorted(set(names)):
        raise ModelFileError("the names in its entry 'features' are not sorted, each once")
    if unknown := [name for name in names if name not in FEATURES]:
        raise ModelFileError(
            f"it uses {unknown[0][:100]!r}, which this release does not know; it knows {', '.join(sorted(FEATURES))}. "
            "Update ase-nbody."
        )
    return names


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """The entries as the present version has them. What an older one lacks is added here, and nowhere else."""
    config = content["config"]
    if content["format"] < 2:
        config = {"closest_distances": {}, **config}
    if isinstance(levels := config.get("levels"), list):
        decays = {"product_decay": 1.0, "radial_decay": 1.0}  # what networks had before these could be chosen
        config = {**config, "levels": [{**decays, **level} if isinstance(level, dict) else level for level in levels]}
    return {"members": 1, **content, "config": config, "format": FORMAT_VERSION}


def _config(content: Mapping[str, Any]) -> NBodyConfig:
    levels = content["config"].get("levels")
    _check_levels(levels if isinstance(levels, list) else ())  # first of all, for each takes its time to validate
    try:
        config = NBodyConfig.model_validate_json(json.dumps(content["config"]), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, ("config", *first["loc"])))
        raise ModelFileError(f"its configuration is not valid: {place[:100]!r}: {first['msg'][:300]}") from error
    used = config.model_dump().keys()  # without the options that are empty
    for name in content.get("features", ()):
        if not used >= set(FEATURES[name].config):
            raise ModelFileError(f"it names the feature {name!r} but does not use it")
    return config


def _check_members(count: int) -> None:
    if isinstance(count, bool) or not 1 <= count <= MAX_MEMBERS:
        raise ModelFileError(f"a committee of {count} networks; a model file holds 1 to {MAX_MEMBERS}")


def _check_levels(levels: Sequence[Any]) -> None:
    if len(levels) > MAX_LEVELS:
        raise ModelFileError(f"a network of {len(levels)} levels; a model file holds at most {MAX_LEVELS}")


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
