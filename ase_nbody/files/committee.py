"""Committees: several networks in one model file, trained on the same data. Where they disagree, trust none."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ase_nbody.files.archive import Stored, differing_entries, read_stored_and_card, write_model
from ase_nbody.files.room import require_room
from ase_nbody.files.weights import checksum, of_member, stack
from ase_nbody.files.writing import require_writable
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.network import NBodyNetwork


def pack_models(
    models: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    card: dict[str, Any] | None = None,
    *,
    replace: bool = True,
) -> Path:
    """Write the networks of several model files as one committee. Their weights keep their dtype if all have one.

    The card of the committee holds the entries that all cards share. Its entry ``members`` lists for each file its
    checksum and its other entries.

    Args:
        models: files or names of shipped models, all with one configuration; a committee adds all of its members.
        path: the file to write.
        card: further entries of the card, which replace those of the same name.
        replace: whether the file may be there already.

    Raises:
        ValueError: there are fewer than two files, they differ in more than their weights and isolated-atom energies,
            or a network occurs twice, or their cards name different theories, or a file has several heads.
        ModelFileError: together they are too large for a file, or have more than 64 members.
        FileNotFoundError, ModelFileError: see ``load_model``.
        FileNotFoundError, PermissionError: the folder of ``path`` does not exist, or this user may not write to it.
        FileExistsError: see ``write_whole``.
    """
    require_writable(Path(path))
    if len(models) < 2:
        raise ValueError(f"a committee needs at least two models, got {len(models)}")
    names = [os.fspath(model) for model in models]
    stored: list[Stored] = []
    contents: list[dict[str, Any]] = []
    for model, name in zip(models, names, strict=True):
        one, content = read_stored_and_card(model)
        if one.heads is not None:
            raise ValueError(
                f"{name} has the heads {', '.join(one.heads.names)}, and the members of a committee have one each: "
                "pack models that were trained without network.head"
            )
        stored.append(one)
        contents.append(content)
        _require_one_configuration(stored[0].config, stored[-1].config, names[0], name)
        dtype = functools.reduce(torch.promote_types, (one.dtype for one in stored))
        require_room(stored[0].config, sum(one.members for one in stored), dtype)  # before the next one is read
    networks = [[of_member(one.weights, number, one.members) for number in range(one.members)] for one in stored]
    species = stored[0].config.species
    _refuse_equal([[_identity(species, weights) for weights in group] for group in networks], names)
    cards = [content["card"] for content in contents]
    _require_one_theory(cards, names)
    shared = {key: value for key, value in cards[0].items() if all(other.get(key) == value for other in cards)}
    own = []
    for content in contents:
        others = {key: value for key, value in content["card"].items() if key not in shared}
        own.append({"checksum": content["checksum"], **others})
    members = [{name: weight.to(dtype) for name, weight in one.items()} for group in networks for one in group]
    energies = [energies for one in stored for energies in one.energies]
    committee = Stored(stored[0].config, len(members), stack(members), energies)
    return write_model(committee, path, {**shared, "members": own, **(card or {})}, replace=replace)


def _require_one_configuration(first: NBodyConfig, other: NBodyConfig, first_name: str, name: str) -> None:
    if differing := differing_entries(first, other):
        raise ValueError(
            f"{name} differs from {first_name} in {', '.join(differing)}: one file holds networks of one "
            "configuration, trained on the same data. NBodyCalculator takes a list of any files."
        )


def _require_one_theory(cards: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Refuse members that learnt different theories: what they disagree about would not be their uncertainty."""
    known = [(str(card["theory"]), name) for card, name in zip(cards, names, strict=True) if card.get("theory")]
    for theory, name in known[1:]:
        if theory != known[0][0]:
            raise ValueError(
                f"{name} learnt {theory}, but {known[0][1]} learnt {known[0][0]}: the spread of a committee would be "
                "the difference of the theories. Pack models of one theory. NBodyCalculator takes a list of any files."
            )


def refuse_repeated(members: Sequence[Sequence[NBodyNetwork]], names: Sequence[str]) -> None:
    """Refuse a network that occurs twice, under whatever name: it agrees with itself, so the spread would be too small.

    Args:
        members: the networks of each model.
        names: what the models are called in the error.

    Raises:
        ValueError: two networks have equal species and weights.
    """
    _refuse_equal([[_identity(one.config.species, one.state_dict()) for one in group] for group in members], names)


def _identity(species: Sequence[str], weights: Mapping[str, Tensor]) -> str:
    """A checksum of species and weights that does not depend on their dtype, nor on their rounding to float32.

    Nor does it on the rest of the configuration: a release may have added to it what the training data covered, for
    example.
    """
    return checksum({"species": list(species)}, {name: weight.float() for name, weight in weights.items()})


def _refuse_equal(identities: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    owners: dict[str, int] = {}
    for number, (name, group) in enumerate(zip(names, identities, strict=True)):
        for identity in group:
            owner = owners.setdefault(identity, number)
            if group.count(identity) > 1 or owner != number:
                twice = f"{name} holds the same network twice"
                both = f"{name} and {names[owner]} are, or hold, the same network"
                raise ValueError(
                    f"{twice if owner == number else both}: a committee that has it twice "
                    "shows too small a spread. Give each network once, or train others with another training.seed."
                )
