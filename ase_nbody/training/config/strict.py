"""What all parts of the configuration share: strict entries, presets, overrides, and sentences about errors.

An unknown entry is an error, and the message suggests the entry that was probably meant.
"""

import copy
import difflib
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

from ase_nbody.text import printable
from ase_nbody.training.config.bounded_yaml import parse_yaml


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the entry and says what is allowed."""


class Strict(BaseModel):
    """Base class of the parts of a configuration: it refuses unknown entries, and its values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def with_preset(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a configuration, completed by its preset. Entries of the content take precedence.

    An unknown preset is left for the validation to refuse.
    """
    for file in (resources.files("ase_nbody.training") / "presets").iterdir():
        if file.name == f"{content.get('preset')}.yaml":
            return _merge(parse_yaml(file.read_text()), content)
    return content


def _merge(defaults: Any, given: Any) -> Any:
    """``defaults`` with the entries of ``given`` in their place; lists and values are replaced as a whole."""
    if not (isinstance(defaults, dict) and isinstance(given, dict)):
        return given
    merged = dict(defaults)
    for key, value in given.items():
        merged[key] = _merge(defaults[key], value) if key in defaults else value
    return merged


def override(content: dict[str, Any], overrides: Sequence[str], value_of: Callable[[str, str], Any]) -> dict[str, Any]:
    """The content of a configuration with single entries replaced.

    Args:
        content: the entries of the configuration.
        overrides: entries such as ``training.epochs=50`` or ``network.levels.0.radius=4``.
        value_of: the value that an entry's name and text stand for.

    Raises:
        ConfigError: an override is not written in this form, or the configuration has no place for it.
    """
    if not overrides:
        return content
    pairs = [given.partition("=") for given in overrides]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise ConfigError(f"an override is written as entry.of.the.config=value, got {printable(name, 100)!r}")
    # The preset comes first, so that the other overrides can replace its entries.
    preset = {name: value_of(name, value) for name, _, value in pairs if name == "preset"}
    content = copy.deepcopy(with_preset(content | preset))
    for name, _, text in pairs:
        value = value_of(name, text)
        *parents, last = [int(step) if step.isdecimal() else step for step in name.split(".")]
        place: Any = content
        try:
            for step in parents:
                place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
            place[last] = value
        except (TypeError, IndexError, AttributeError) as error:
            raise ConfigError(f"{printable(name, 100)} cannot be set: the configuration has no such place") from error
    return content


def sentence(model: type[BaseModel], fault: dict[str, Any]) -> str:
    """A sentence on one fault that pydantic found: the full name of the entry, what is wrong, and what is allowed."""
    *parents, key = fault["loc"]
    named = [step for step in parents if "[" not in str(step)]  # "[": pydantic's name of a type
    if fault["type"] == "extra_forbidden" or "[" not in str(key):
        named.append(key)
    name = ".".join(printable(step, 100) for step in named)
    if fault["type"] == "missing":
        return f"{name} is missing"
    if fault["type"] == "extra_forbidden":
        allowed = _keys(model, parents)
        near = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(allowed)}"
        return f"{name} is not an entry; {hint}"
    given = "" if isinstance(fault["input"], dict | list) else f", got {printable(repr(fault['input']), 100)}"
    return f"{name}: {printable(fault['msg'].removeprefix('Value error, '), 500)}{given}"


def _keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Names of the entries that are allowed at a path within ``model``."""
    if not path:
        return list(model.model_fields)
    head, *rest = path
    inner = next(kind for kind in _kinds(model.model_fields[str(head)].annotation) if isinstance(kind, type(BaseModel)))
    return _keys(inner, [step for step in rest if isinstance(step, str) and "[" not in step])


def _kinds(annotation: Any) -> list[Any]:
    """All types that occur in an annotation."""
    found = [annotation]
    for part in get_args(annotation):
        found += _kinds(part)
    return found
