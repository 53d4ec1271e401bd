"""The example structure in the card of a model: what the model is for, checked as if a stranger had written it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ase_nbody.files.tensor_file import ModelFileError
from ase_nbody.structure import Structure, StructureError

MAX_ATOMS = 1000
MAX_TEMPERATURE_K = 1e5
_KEYS = ("numbers", "positions", "cell", "pbc")
_OPTIONAL = ("charge", "labels", "multiplicity")


def example_structure(card: Mapping[str, Any]) -> Structure | None:
    """The structure under ``example`` in a card, or None if there is none.

    Args:
        card: the entry ``card`` of a model file. Its ``example`` has ``numbers`` (atomic numbers), ``positions`` and
            ``cell`` (rows of three numbers, in Angstrom), ``pbc`` (three booleans), for an ion ``charge`` (in e), for a
            spin ``multiplicity`` (an integer), and for a network with labelled parts ``labels`` (integers).

    Raises:
        ModelFileError: the example has another form, no atoms or more than 1000, or cannot be evaluated; the message
            names the entry.
    """
    example = card.get("example")
    if example is None:
        return None
    if not isinstance(example, Mapping) or set(example) - set(_OPTIONAL) != set(_KEYS):
        found = sorted(map(repr, example))[:10] if isinstance(example, Mapping) else type(example).__name__
        raise _refusal("example", f"a table of {', '.join(_KEYS)}, not {str(found)[:200]}")
    numbers, pbc = example["numbers"], example["pbc"]
    if not isinstance(numbers, list) or not 1 <= len(numbers) <= MAX_ATOMS:
        raise _refusal("example.numbers", f"a list of 1 to {MAX_ATOMS} atomic numbers")
    if not all(type(number) is int and 1 <= number < len(chemical_symbols) for number in numbers):
        raise _refusal("example.numbers", f"atomic numbers, from 1 to {len(chemical_symbols) - 1}")
    if not isinstance(pbc, list) or len(pbc) != 3 or not all(type(periodic) is bool for periodic in pbc):
        raise _refusal("example.pbc", "a list of three values, each true or false")
    charge = example.get("charge", 0.0)
    if type(charge) not in (int, float) or not abs(charge) <= len(numbers):
        raise _refusal("example.charge", "a number, and no more than one e for each atom")
    multiplicity = example.get("multiplicity")
    if multiplicity is not None and not (type(multiplicity) is int and 1 <= multiplicity <= 1000):
        raise _refusal("example.multiplicity", "an integer from 1 to 1000")
    labels = example.get("labels")
    if labels is not None:
        well_formed = isinstance(labels, list) and len(labels) == len(numbers)
        if not well_formed or not all(type(label) is int and -1 <= label < 2**63 for label in labels):
            raise _refusal("example.labels", f"a list of {len(numbers)} integers of at least -1")
    positions = _vectors("example.positions", example["positions"], len(numbers))
    cell = _vectors("example.cell", example["cell"], 3)
    try:
        return Structure(
            numbers=np.array(numbers, dtype=np.int64),
            positions=positions,
            cell=cell,
            pbc=np.array(pbc, dtype=np.bool_),
            charge=float(charge),
            labels=None if labels is None else np.array(labels, dtype=np.int64),
            multiplicity=multiplicity,
        )
    except StructureError as error:
        raise ModelFileError(f"the model's card has an 'example' that cannot be evaluated: {error}") from error


def example_temperature(card: Mapping[str, Any], default: float = 300.0) -> float:
    """The temperature in K under ``temperature`` in a card, at which the model is meant to be used.

    Raises:
        ModelFileError: it is not a number from 0 to ``MAX_TEMPERATURE_K``.
    """
    kelvin = card.get("temperature", default)
    try:
        value = float(kelvin) if type(kelvin) in (int, float, str) else math.nan  # a training writes text
    except (ValueError, OverflowError):
        value = math.nan
    if not 0.0 <= value <= MAX_TEMPERATURE_K:
        raise _refusal("temperature", f"a temperature in K, from 0 to {MAX_TEMPERATURE_K:g}")
    return value


def _vectors(entry: str, rows: Any, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The rows of an entry as an array (count, 3) in float64. All numbers must be finite."""
    well_formed = isinstance(rows, list) and len(rows) == count and all(isinstance(row, list) for row in rows)
    if not well_formed or not all(len(row) == 3 and all(type(x) in (int, float) for x in row) for row in rows):
        raise _refusal(entry, f"a list of {count} rows of three numbers")
    try:
        vectors = np.array(rows, dtype=np.float64)
    except OverflowError:  # an integer beyond float64
        vectors = np.full((count, 3), np.inf)
    if not np.isfinite(vectors).all():
        raise _refusal(entry, "finite numbers only")
    return vectors


def _refusal(entry: str, expected: str) -> ModelFileError:
    return ModelFileError(f"the model's card has an entry {entry!r} that is wrong: expected {expected}")
