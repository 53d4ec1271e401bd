"""What holds for all entries: unknown ones are errors, which name the nearest right one; single ones are overridden."""

import copy
import difflib
from collections.abc import Sequence
from importlib import resources
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the entry and what is allowed there."""


class Strict(BaseModel):
    """Entries of a configuration: unknown ones are refused, and values are not changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def with_preset(content: dict[str, Any]) -> dict[str, Any]:
    """The content over that of its preset, if it names one that there is."""
    file = resources.files("ase_nbody.training") / "presets" / f"{content.get('preset')}.yaml"
    return _merge(yaml.safe_load(file.read_text()), content) if file.is_file() else content


def _merge(below: Any, above: Any) -> Any:
    """``above`` over ``below``, entry by entry; lists and values are replaced as a whole."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _merge(below[key], value) if key in below else value for key, value in above.items()}}


def override(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The content with single entries replaced, its preset written out so that they find their place."""
    if not overrides:
        return content
    pairs = [one.partition("=") for one in overrides]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise ConfigError(f"an override is written as entry.of.the.config=value, got {name!r}")
    early = {name: yaml.safe_load(value) for name, _, value in pairs if name == "preset"}
    content = copy.deepcopy(with_preset(content | early))
    for name, _, value in pairs:
        *parents, last = [int(step) if step.isdigit() else step for step in name.split(".")]
        place: Any = content
        try:
            for step in parents:
                place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
            place[last] = yaml.safe_load(value)
        except (TypeError, IndexError, AttributeError, yaml.YAMLError) as error:
            raise ConfigError(f"{name}={value} cannot be set: the configuration has no such place") from error
    return content


def sentence(model: type[BaseModel], fault: dict[str, Any]) -> str:
    """One fault that pydantic found: the entry by its full path, what is wrong with it, and what would be right."""
    *parents, key = fault["loc"]
    name = ".".join(str(step) for step in fault["loc"] if "[" not in str(step))  # pydantic's names of alternatives
    if fault["type"] == "missing":
        return f"{name} is missing"
    if fault["type"] == "extra_forbidden":
        allowed = _keys(model, parents)
        near = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(allowed)}"
        return f"{name} is not an entry; {hint}"
    given = "" if isinstance(fault["input"], dict | list) else f", got {fault['input']!r}"
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}{given}"


def _keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The entries that a configuration may have at a path within ``model``."""
    if not path:
        return list(model.model_fields)
    head, *rest = path
    inner = next(kind for kind in _kinds(model.model_fields[str(head)].annotation) if isinstance(kind, type(BaseModel)))
    return _keys(inner, [step for step in rest if isinstance(step, str) and "[" not in step])


def _kinds(annotation: Any) -> list[Any]:
    """All types that occur in an annotation."""
    return [annotation, *(kind for part in get_args(annotation) for kind in _kinds(part))]
