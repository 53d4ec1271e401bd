"""Committees: several networks that learnt the same, in one model file. Where they differ, none can be trusted."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase_nbody.files.archive import load_members, read_card, save_model


def pack_models(
    models: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str], card: dict[str, Any] | None = None
) -> Path:
    """Write the networks of several model files as one committee.

    Its card has what the cards of all agree on, and under ``members`` what each says beside that, and its checksum.

    Args:
        models: files or names of shipped models, of one configuration; committees among them are joined.
        path: the file to write.
        card: entries beside or in place of those.

    Raises:
        ValueError: fewer than two files, or they differ in more than their weights.
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
    contents = [read_card(model) for model in models]
    cards = [content["card"] for content in contents]
    shared = {key: value for key, value in cards[0].items() if all(other.get(key) == value for other in cards)}
    own = [
        {"checksum": content["checksum"], **{key: value for key, value in content["card"].items() if key not in shared}}
        for content in contents
    ]
    networks = [network for group in members for network in group]
    return save_model(networks, path, {**shared, "members": own, **(card or {})})
