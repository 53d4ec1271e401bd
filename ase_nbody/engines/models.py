"""What every engine takes as a model: a name, a path, a network, or several of these as a committee."""

import itertools
import os
from collections.abc import Sequence
from typing import Any

from ase_nbody.files.archive import checksum, load_members
from ase_nbody.files.committee import refuse_repeated
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.evaluator import Evaluator
from ase_nbody.undisturbed import undisturbed

Model = str | os.PathLike[str] | NBodyNetwork


@undisturbed()
def evaluator_for(model: Model | Sequence[Model], head: str | None = None, **settings: Any) -> Evaluator:
    """An evaluator of a model, or of the committee that several models form.

    Args:
        model: name of a shipped model, path of a model file, an ``NBodyNetwork``, or a list of these.
        head: which head to take of a model that has several theories; default: the model's own.
        settings: the keywords of ``Evaluator``.

    Raises:
        FileNotFoundError, ModelFileError: a model cannot be read, or has no such head (see ``load_model``).
        ValueError: there is no model, the committee has a network twice, something else than a model is given, or a
            setting is not allowed.
    """
    models = models_of(model)
    if head is not None and any(isinstance(one, NBodyNetwork) for one in models):
        raise ValueError(f"an NBodyNetwork has one head, so that head={head!r} cannot be chosen: give it to load_model")
    members = [[one] if isinstance(one, NBodyNetwork) else load_members(one, head) for one in models]
    if sum(map(len, members)) > 1:  # also those of one file, which anybody may have made
        refuse_repeated(members, [label_of(one) for one in models])
    return Evaluator([*itertools.chain(*members)], **settings)


def models_of(model: Model | Sequence[Model]) -> list[Model]:
    """The models as a list.

    Raises:
        ValueError: there is no model, or something in it is no model.
    """
    models: list[Any] = list(model) if isinstance(model, list | tuple) else [model]
    if not models:
        raise ValueError(
            "no model is given: name a shipped one, as in model='ethanol' (`nbody models` lists them), or a model file"
        )
    for member in models:
        if not isinstance(member, str | os.PathLike | NBodyNetwork):
            raise ValueError(f"a model is a name, a path or an NBodyNetwork, got {type(member).__name__}")
    return models


def label_of(model: Model) -> str:
    """The name or path of a model, or the hash of a network."""
    if isinstance(model, NBodyNetwork):
        return "sha256:" + checksum(model.config.model_dump(mode="json"), model.state_dict())
    return str(os.fspath(model))
