"""What all parts of the configuration share: strict entries, presets and overrides."""

import copy
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict

from ase_nbody.text import printable
from ase_nbody.training.config.bounded_yaml import parse_yaml

_MOST_DIGITS = 9  # of the number of an item in a list


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the entry and says what is allowed."""


class Strict(BaseModel):
    """Base class of the parts of a configuration: it refuses unknown entries, and its values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def with_preset(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a configuration, completed by its preset. Entries of the content take precedence.

    An unknown preset is left for the validation to refuse.
    """
    return _merge(preset_entries(content.get("preset")), content)


def preset_entries(name: Any) -> dict[str, Any]:
    """The entries of a preset; none if there is no such preset."""
    for file in (resources.files("ase_nbody.training") / "presets").iterdir():
        if file.name == f"{name}.yaml":
            return dict(parse_yaml(file.read_text()))
    return {}


def _merge(defaults: Any, given: Any) -> Any:
    """``defaults`` with the entries of ``given`` in their place; lists and values are replaced as a whole."""
    if not (isinstance(defaults, dict) and isinstance(given, dict)):
        return given
    merged = dict(defaults)
    for key, value in given.items():
        merged[key] = _merge(defaults[key], value) if key in defaults else value
    return merged


def _is_index(step: str) -> bool:
    """Whether a step of an entry's name is the number of an item. Python converts no number of thousands of digits."""
    return step.isdecimal() and len(step) <= _MOST_DIGITS


def override(
    content: dict[str, Any],
    overrides: Sequence[str],
    value_of: Callable[[str, str], Any],
    default_levels: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The content of a configuration with single entries replaced.

    Args:
        content: the entries of the configuration.
        overrides: entries such as ``training.epochs=50`` or ``network.levels.0.radius=4``.
        value_of: the value that an entry's name and text stand for.
        default_levels: what ``network.levels`` holds if the configuration does not say it.

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
    network = content.get("network") or {}
    if any(name.startswith("network.levels.") for name, _, _ in pairs) and isinstance(network, dict):
        content["network"] = {"levels": copy.deepcopy([*default_levels]), **network}
    for name, _, text in pairs:
        value = value_of(name, text)
        *parents, last = [int(step) if _is_index(step) else step for step in name.split(".")]
        place: Any = content
        try:
            for step in parents:
                place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
            place[last] = value
        except (TypeError, IndexError, AttributeError) as error:
            raise ConfigError(f"{printable(name, 100)} cannot be set: the configuration has no such place") from error
    return content
