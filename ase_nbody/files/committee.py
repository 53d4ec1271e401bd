"""Committees: several networks in one model file, trained on the same data. Where they disagree, trust none."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase_nbody.files.archive import checksum, load_members, read_card, save_model
from ase_nbody.network.network import NBodyNetwork


def pack_models(
    models: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str], card: dict[str, Any] | None = None
) -> Path:
    """Write the networks of several model files as one committee.

    The card of the committee holds the entries that all cards share. Its entry ``members`` lists for each file its
    checksum and its other entries.

    Args:
        models: files or names of shipped models, all with one configuration; a committee adds all of its members.
        path: the file to write.
        card: further entries of the card, which replace those of the same name.

    Raises:
        ValueError: there are fewer than two files, they differ in more than their weights, or a network occurs twice.
        FileNotFoundError, ModelFileError: see ``load_model``.
    """
    if len(models) < 2:
        raise ValueError(f"a committee needs at least two models, got {len(models)}")
    members = [load_members(model) for model in models]
    first = members[0][0].config
    for model, networks in zip(models, members, strict=True):
        differing = [name for name, value in first if getattr(networks[0].config, name) != value]
        if differing:
            raise ValueError(
                f"{os.fspath(model)} differs from {os.fspath(models[0])} in {', '.join(differing)}: one file holds "
                "networks of one configuration, trained on the same data. NBodyCalculator takes a list of any files."
            )
    refuse_repeated(members, [os.fspath(model) for model in models])
    contents = [read_card(model) for model in models]
    cards = [content["card"] for content in contents]
    shared = {key: value for key, value in cards[0].items() if all(other.get(key) == value for other in cards)}
    own = []
    for content in contents:
        others = {key: value for key, value in content["card"].items() if key not in shared}
        own.append({"checksum": content["checksum"], **others})
    networks = [network for group in members for network in group]
    return save_model(networks, path, {**shared, "members": own, **(card or {})})


def refuse_repeated(members: Sequence[Sequence[NBodyNetwork]], names: Sequence[str]) -> None:
    """Refuse a network that occurs twice, under whatever name: it agrees with itself, so the spread would be too small.

    Args:
        members: the networks of each model.
        names: what the models are called in the error.

    Raises:
        ValueError: two networks have equal configurations and weights.
    """
    owners: dict[str, str] = {}
    for name, networks in zip(names, members, strict=True):
        for network in networks:
            weights = {key: weight.double() for key, weight in network.state_dict().items()}
            digest = checksum(network.config.model_dump(mode="json"), weights)
            if digest in owners:
                raise ValueError(
                    f"{name} and {owners[digest]} are, or hold, the same network: a committee that has it twice shows "
                    "too small a spread. Give each network once, or train others with another training.seed."
                )
            owners[digest] = name
