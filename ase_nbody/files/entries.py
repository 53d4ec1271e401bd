"""The entries of a model file: what they mean, which versions there are, and what is refused.

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

A file that uses no optional thing is written as version 3. A later release that adds one adds a row to ``FEATURES``
and needs no further version: a release that does not know the feature refuses the file and names it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ase_nbody.files.tensor_file import ModelFileError
from ase_nbody.network.config import NBodyConfig

FORMAT_VERSION = 4  # the newest that is read
UNITS = {"energy": "eV", "length": "Angstrom"}
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
    """An optional thing that a file may use. A file uses it if and only if all that it brings is there.

    Attributes:
        config: the keys that it brings to the entry ``config``.
        entries: the entries that it brings, with their types.
    """

    config: tuple[str, ...] = ()
    entries: Mapping[str, type] = field(default_factory=dict)


FEATURES = {"outputs": Feature(config=("outputs",))}


def features_of(config: Mapping[str, Any]) -> list[str]:
    """Names of the features that a configuration, as it stands in a file, uses."""
    return sorted(name for name, feature in FEATURES.items() if set(feature.config) & config.keys())


def metadata_checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of all entries but itself."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_levels(levels: Sequence[Any]) -> None:
    """Refuse more levels than a file may have."""
    if len(levels) > MAX_LEVELS:
        raise ModelFileError(f"a network of {len(levels)} levels; a model file holds at most {MAX_LEVELS}")


def check_entries(content: Mapping[str, Any]) -> None:
    """Refuse entries that are not those of a file of a version that we know, in our units.

    Raises:
        ModelFileError: an entry is missing, too many, of another type or damaged, or asks for a newer release.
    """
    version = content.get("format")
    if type(version) is not int or version < 1:  # True is an int, but not a version
        raise ModelFileError("it has no entry 'format' with the version of the format: a file of another program")
    if version > FORMAT_VERSION:
        raise ModelFileError(f"format version {version}; this release reads up to {FORMAT_VERSION}. Update ase-nbody.")
    features = _features(content)
    _check_types(content, features)
    _check_features(content, features)
    if content["units"] != UNITS:
        raise ModelFileError(f"it has the units {content['units']}; this release reads {UNITS}")


def _check_types(content: Mapping[str, Any], features: Sequence[str]) -> None:
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
    if "metadata_checksum" in content and content["metadata_checksum"] != metadata_checksum(others):
        raise ModelFileError("it is damaged: its checksum does not match its entries. Fetch or train it anew.")


def _check_features(content: Mapping[str, Any], features: Sequence[str]) -> None:
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


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """The entries as the present version has them. What an older one lacks is added here, and nowhere else."""
    config = content["config"]
    if content["format"] < 2:
        config = {"closest_distances": {}, **config}
    if isinstance(levels := config.get("levels"), list):
        decays = {"product_decay": 1.0, "radial_decay": 1.0}  # what networks had before these could be chosen
        config = {**config, "levels": [{**decays, **level} if isinstance(level, dict) else level for level in levels]}
    return {"members": 1, **content, "config": config, "format": FORMAT_VERSION}


def config_of(content: Mapping[str, Any]) -> NBodyConfig:
    """The configuration in the entries of the present version.

    Raises:
        ModelFileError: it is not valid, or does not use what the file says it uses.
    """
    levels = content["config"].get("levels")
    check_levels(levels if isinstance(levels, list) else ())  # first of all, for each takes its time to validate
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
