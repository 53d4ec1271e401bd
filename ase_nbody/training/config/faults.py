"""Sentences about the faults that pydantic finds in a configuration.

An unknown entry is an error, and the message suggests the entry that was probably meant.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from ase_nbody.text import count_of, printable

_ALIKE, _SOMEWHAT_ALIKE = 0.75, 0.5  # of difflib: 1 for equal names, 0 for names without a common letter
_MAX_SUGGESTIONS = 3

# What an entry should be, by the kind of pydantic's error up to its first underscore.
_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping of names to values",
    "model": "a mapping of names to values",
    "finite": "a finite number",
}


def sentences(model: type[BaseModel], faults: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence on each fault: the full name of the entry, what is wrong, and what is allowed.

    Of an entry that may be one thing or another, pydantic tells a fault for each. They are joined; and if one of them
    lies deeper within the entry, only that one is told.
    """
    told: dict[str, list[str]] = {}
    givens: dict[str, str] = {}
    for fault in faults:
        name = _name(fault)
        if fault["type"] in ("missing", "extra_forbidden"):
            told[f"{name} "] = [_missing_or_unknown(model, fault, name)]
            continue
        told.setdefault(name, []).append(_reason(fault))
        given = fault["input"]
        givens[name] = "" if isinstance(given, dict | list | tuple) else f", got {printable(repr(given), 100)}"
    return [
        reasons[0] if name.endswith(" ") else f"{name}: {', or '.join(dict.fromkeys(reasons))}{givens[name]}"
        for name, reasons in told.items()
        if not (len(told) > 1 and _is_alternative(name, told, faults))
    ]


def misplaced_truth_values(annotation: Any, content: Any, name: str = "") -> Iterator[str]:
    """A sentence on each truth value in the place of a number. Pydantic would take ``epochs: true`` for one epoch.

    Args:
        annotation: the type of an entry: a model, or what holds models or values.
        content: what the configuration gives for it.
        name: full name of the entry.
    """
    kinds = [*_kinds(annotation)]
    models = [kind for kind in kinds if isinstance(kind, type(BaseModel))]
    if isinstance(content, bool) and not {bool, Any}.intersection(kinds):
        yield f"{name}: should not be true or false"
    elif isinstance(content, Mapping):
        for key, value in content.items():
            fields = [model.model_fields[key].annotation for model in models if key in model.model_fields]
            for field in fields[:1] if models else [annotation]:
                yield from misplaced_truth_values(field, value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from misplaced_truth_values(annotation, value, f"{name}.{number}")


def _is_alternative(name: str, told: Mapping[str, Any], faults: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an entry was refused in one form, and something within it in the form that was meant."""
    deeper = any(other.startswith(f"{name}.") for other in told)
    return deeper and any(_name(fault) == name and isinstance(fault["input"], dict | list | tuple) for fault in faults)


def _name(fault: Mapping[str, Any]) -> str:
    """The full name of the entry, without pydantic's names of types."""
    *parents, key = fault["loc"]
    named = [step for step in parents if "[" not in str(step)]
    is_type = "[" in str(key) or (key in _WANTED and fault["type"].startswith(str(key)))
    if fault["type"] == "extra_forbidden" or not is_type:
        named.append(key)
    return ".".join(printable(step, 100) for step in named)


def _reason(fault: Mapping[str, Any]) -> str:
    """What the entry should be."""
    kind, context = str(fault["type"]), fault.get("ctx", {})
    if kind in ("too_short", "too_long"):
        few = kind == "too_short"
        bound = count_of(context["min_length"], "item") if few else count_of(context["max_length"], "item")
        return f"should have at {'least' if few else 'most'} {bound}, and has {context['actual_length']}"
    if kind.endswith(("_type", "_parsing", "_from_float", "_attributes_type", "_number")):
        wanted = _WANTED.get(kind.partition("_")[0])
        if wanted:
            return f"should be {wanted}"
    if kind.startswith(("less_than", "greater_than")):
        (bound,) = context.values()
        relation = kind.replace("_equal", " or equal to").replace("_", " ")
        return f"should be {relation} {bound if isinstance(bound, int) else format(bound, '.15g')}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return printable(message.replace("Input should", "should", 1), 500)


def _missing_or_unknown(model: type[BaseModel], fault: Mapping[str, Any], name: str) -> str:
    if fault["type"] == "missing":
        return f"{name} is missing"
    *parents, key = fault["loc"]
    allowed, places = _keys(model, parents), list(_paths(model))
    same = [place for place in places if place.rpartition(".")[2] == key]
    near = difflib.get_close_matches(str(key), allowed, n=1, cutoff=_ALIKE)
    names = sorted({place.rpartition(".")[2] for place in places})
    far = difflib.get_close_matches(str(key), names, n=1, cutoff=_ALIKE)
    elsewhere = [place for place in places if place.rpartition(".")[2] in far]
    somewhat = difflib.get_close_matches(str(key), allowed, n=1, cutoff=_SOMEWHAT_ALIKE)
    found = (same or near or elsewhere or somewhat)[:_MAX_SUGGESTIONS]
    meant = " or ".join(repr(place) for place in found)
    hint = f"did you mean {meant}?" if found else f"allowed are {', '.join(allowed)}"
    return f"{name} is not an entry; {hint}"


def _paths(model: type[BaseModel], start: str = "") -> Iterator[str]:
    """Full names of all entries, with ``0`` for the first item of a list."""
    for name, field in model.model_fields.items():
        yield f"{start}{name}"
        kinds = _kinds(field.annotation)
        is_list = any(get_args(kind) and Ellipsis in get_args(kind) for kind in kinds)
        for kind in kinds:
            if isinstance(kind, type(BaseModel)):
                yield from _paths(kind, f"{start}{name}.{'0.' if is_list else ''}")


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
