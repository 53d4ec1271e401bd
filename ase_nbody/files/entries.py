"""The entries of a model file: what they mean, which versions there are, and what is refused.

Entries, each JSON in the metadata of one safetensors file (``tensor_file.py``):

    format             version of the format, an integer
    config             ``NBodyConfig``
    card               what the model is: data, theory, errors, licence, ...
    units              ``UNITS``
    versions           packages that wrote the file
    checksum           SHA-256 of config and weights: the identity of the model
    members            number of networks; since version 3. The networks of a committee share the config, and each
                       weight has an additional first dimension that counts them.
    features           sorted names of the optional features that the file uses; since version 4
    member_energies    isolated-atom energies of each network in eV, by chemical symbol, where those of a committee
                       differ; a feature
    heads              names and isolated-atom energies of the heads, where a model has several (see ``heads.py``); a
                       feature
    metadata_checksum  SHA-256 of all entries above; since version 2

A file that uses no optional feature is written as version 3. A later release that adds a feature adds a row to
``FEATURES`` and needs no new version: a release that does not know the feature refuses the file and names the feature.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from pydantic import ValidationError

from ase_nbody.files.tensor_file import ModelFileError
from ase_nbody.network.config import MAX_LEVELS, NBodyConfig

Energies = Mapping[str, float]  # of isolated atoms in eV, by chemical symbol

FORMAT_VERSION = 4  # the newest that is read
UNITS = {"energy": "eV", "length": "Angstrom"}
MAX_MEMBERS = 64
LARGEST_ENERGY_EV = 1e30  # of an isolated atom; beyond it, no evaluation gives a result
MAX_CONFIG_BYTES = 3 * 2**20  # as JSON: all elements with all pairs of them, and as many surroundings as may be
_MAX_LISTED_FAULTS = 1000  # an error for each would take a hundred megabytes if a file has more
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
    """An optional part of the format. A file that uses it holds all of the keys and entries below, any other none.

    Attributes:
        config: keys that it adds to the entry ``config``, or to the ``coverage`` there.
        levels: keys that it adds to the levels that use it, in the entry ``config``; at least one level does.
        entries: entries that it adds to the file, with their types.
    """

    config: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    entries: Mapping[str, type] = field(default_factory=dict)


FEATURES = {
    "channel_pairs": Feature(levels=("channel_pairs",)),
    "children_gate": Feature(levels=("children_gate",)),
    "contacts": Feature(config=("contacts",)),
    "coverage": Feature(config=("coverage",)),
    "embedded_atom": Feature(config=("embedded_atom",)),
    "fading": Feature(config=("densest",)),
    "heads": Feature(entries={"heads": dict}),
    "intermolecular": Feature(config=("intermolecular",)),
    "labels": Feature(levels=("member_weights",)),
    "member_energies": Feature(entries={"member_energies": list}),
    "multiplicities": Feature(config=("multiplicities",)),
    "outputs": Feature(config=("outputs",)),
    "parity": Feature(levels=("parity",)),
    "products": Feature(levels=("product",)),
    "species_gains": Feature(levels=("species_gains",)),
    "total_charges": Feature(config=("total_charges",)),
    "types": Feature(levels=("tau",)),
}


def features_of(config: Mapping[str, Any]) -> list[str]:
    """Names of the features that a configuration uses, in the form that the file holds."""
    present = _option_keys(config)
    return sorted(name for name, feature in FEATURES.items() if present & {*feature.config, *feature.levels})


def _option_keys(config: Mapping[str, Any]) -> set[str]:
    """The keys of a configuration, of its coverage and of all its levels."""
    levels = config.get("levels")
    within = [config.get("coverage"), *(levels if isinstance(levels, list | tuple) else ())]
    return set(config).union(*(part for part in within if isinstance(part, Mapping)))


def metadata_checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of the entries. ``content`` must not hold the entry ``metadata_checksum`` itself."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def entries_of(
    config: Mapping[str, Any],
    members: int,
    card: Mapping[str, Any],
    digest: str,
    energies: Sequence[Energies] = (),
    heads: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The entries of a model file.

    Args:
        config: the configuration.
        members: number of networks.
        card: what the model is.
        digest: the checksum of configuration and weights.
        energies: isolated-atom energies of each network, if they differ.
        heads: the entry ``heads``, if the model has several.
    """
    own: dict[str, Any] = {"member_energies": [dict(one) for one in energies]} if energies else {}
    own |= {"heads": dict(heads)} if heads else {}
    features = sorted([*features_of(config), *own])
    content = {
        "format": 4 if features else 3,
        "config": config,
        "card": dict(card),
        "units": UNITS,
        "versions": {package: metadata.version(package) for package in ("torch", "e3nn", "ase", "numpy")},
        "checksum": digest,
        "members": members,
        **({"features": features} if features else {}),
        **own,
    }
    return {**content, "metadata_checksum": metadata_checksum(content)}


def check_members(count: int) -> None:
    """Refuse a number of networks that a file cannot have."""
    if isinstance(count, bool) or not 1 <= count <= MAX_MEMBERS:
        raise ModelFileError(f"a committee of {count} networks; a model file holds 1 to {MAX_MEMBERS}")


def check_entries(content: Mapping[str, Any]) -> None:
    """Refuse a file whose entries this release cannot read.

    Raises:
        ModelFileError: an entry is missing, unknown, damaged or of the wrong type; the units are not ours; or the file
            needs a newer release.
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
    present = _option_keys(content["config"])
    for name, feature in FEATURES.items():
        for key in (*feature.config, *feature.levels):
            if (key in present) != (name in features):
                raise ModelFileError(
                    f"its configuration {'has' if key in present else 'lacks'} {key!r}, and "
                    f"{name!r} is {'' if name in features else 'not '}among the features that the file says it uses"
                )


def _features(content: Mapping[str, Any]) -> list[str]:
    """Names of the features that a file says it uses. A feature that this release does not know is refused."""
    if content["format"] < 4 or "features" not in content:
        return []  # if version 4 lacks the entry, ``_check_types`` refuses the file
    names = content["features"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ModelFileError("its entry 'features' is not a list of names; a file that uses none is of version 3")
    if names != sorted(set(names)):
        raise ModelFileError("the names in its entry 'features' are not sorted, or one occurs twice")
    if unknown := [name for name in names if name not in FEATURES]:
        raise ModelFileError(
            f"it uses {unknown[0][:100]!r}, which this release does not know; it knows {', '.join(sorted(FEATURES))}. "
            "Update ase-nbody."
        )
    return names


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """The entries in the form of the newest version. What older versions lack is added here, and nowhere else."""
    config = content["config"]
    if content["format"] < 2:
        config = {"closest_distances": {}, **config}
    if isinstance(levels := config.get("levels"), list):
        decays = {"product_decay": 1.0, "radial_decay": 1.0}  # the values of all networks before they could be chosen
        config = {**config, "levels": [{**decays, **level} if isinstance(level, dict) else level for level in levels]}
    return {"members": 1, **content, "config": config, "format": FORMAT_VERSION}


def config_of(content: Mapping[str, Any]) -> NBodyConfig:
    """The configuration of the network, from entries in the form of the newest version.

    Raises:
        ModelFileError: it is not valid, its species are in another order than the network's, or it does not use a
            feature that the file says it uses.
    """
    levels, text = content["config"].get("levels"), json.dumps(content["config"])
    if isinstance(levels, list) and len(levels) > MAX_LEVELS:
        raise ModelFileError(f"a network of {len(levels)} levels; a model file holds at most {MAX_LEVELS}")
    if len(text) > MAX_CONFIG_BYTES:  # comes first, because validating takes time
        raise ModelFileError(f"its configuration has {len(text):,} bytes; at most {MAX_CONFIG_BYTES:,} are allowed")
    try:
        config = NBodyConfig.model_validate_json(text, strict=True)
    except ValidationError as error:
        if error.error_count() > _MAX_LISTED_FAULTS:
            raise ModelFileError(f"its configuration is not valid: it has {error.error_count():,} faults") from error
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, ("config", *first["loc"])))
        raise ModelFileError(f"its configuration is not valid: {place[:100]!r}: {first['msg'][:300]}") from error
    _check_species(content["config"]["species"], config)
    if not are_energies(config.isolated_atom_energies):
        raise ModelFileError(f"its isolated-atom energies are not numbers below {LARGEST_ENERGY_EV:g} eV")
    content_again = config.model_dump()  # options that are not used are left out
    used = _option_keys(content_again)
    if unnamed := [name for name in features_of(content_again) if name not in content.get("features", ())]:
        raise ModelFileError(f"its configuration uses {unnamed[0]!r}, which is not among the features that it names")
    for name in content.get("features", ()):
        if not used >= {*FEATURES[name].config, *FEATURES[name].levels}:
            raise ModelFileError(f"it names the feature {name!r} but does not use it")
    return config


def are_energies(table: Energies) -> bool:
    """Whether all energies of a table are numbers that isolated atoms can have."""
    return all(type(energy) is float and abs(energy) < LARGEST_ENERGY_EV for energy in table.values())  # false for NaN


def energies_of(content: Mapping[str, Any], config: NBodyConfig) -> tuple[Energies, ...]:
    """The isolated-atom energies of each network in eV, if those of a committee differ; otherwise none.

    Raises:
        ModelFileError: they are not one table of possible energies for each network, of the species that have one.
    """
    if "member_energies" not in content:
        return ()
    tables, named = content["member_energies"], config.isolated_atom_energies.keys()
    if len(tables) != content["members"] or not all(
        isinstance(table, dict) and table.keys() == named and are_energies(table) for table in tables
    ):
        raise ModelFileError(
            f"its entry 'member_energies' does not give {content['members']} networks the energies of "
            f"{', '.join(named)[:100]} in eV"
        )
    if tables[0] != config.isolated_atom_energies:
        raise ModelFileError("its entry 'member_energies' and its configuration give the first network other energies")
    return tuple(tables)


def _check_species(listed: Sequence[str], config: NBodyConfig) -> None:
    """Refuse species in another order than the network's: rows of weights would go to other elements."""
    if list(listed) != list(config.species):
        raise ModelFileError(
            f"its species are not in the order of their atomic numbers, each once: {', '.join(listed[:10])} instead of "
            f"{', '.join(config.species[:10])}. Rows of its weights would go to other elements. Write it anew with "
            "the species and the rows in this order."
        )
