"""Labelled structures from any file that ASE reads. A label that a frame lacks is NaN, never zero."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import ase
import ase.io
import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from ase_nbody.data.file_names import data_file
from ase_nbody.data.labels import LABELS, USUAL_KEYS, Label, LabelledStructure, Weights
from ase_nbody.hierarchy.neighbours import coincident_atoms
from ase_nbody.structure import Structure

LARGEST_LABEL = 1e15  # in the units of each label; the squares of larger numbers overflow in float32
SHORTEST_DISTANCE_ANGSTROM = 1e-3  # of two atoms; closer ones are one atom that a file has twice


class DataError(ValueError):
    """Data that a network cannot be trained or tested on; the message names the file, the frame and the remedy."""


def read_labelled(
    path: str | os.PathLike[str], index: str = ":", *, keys: Mapping[str, str] | None = None, weight: float = 1.0
) -> list[LabelledStructure]:
    """Read the frames of a file in any format that ``ase.io.read`` takes (extxyz, Trajectory, ...).

    Args:
        path: the file; ``~`` is the home folder, and ``mine.extxyz@:50`` names a file and an index.
        index: which frames, written as a slice of ASE: ``":"``, ``"-50:"``, ``"::10"``.
        keys: names that labels (see ``data/labels.py``) or the ``virial`` have in the file, ``{"energy": "my_e"}``. A
            label that is named here is looked for under this name only, any other under its usual names.
        weight: how much the frames count in the loss. It multiplies the weights that they carry themselves.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: the path is that of a folder.
        DataError: the file holds no frames or cannot be parsed, no frame has a name that ``keys`` gives, or a frame
            has unusable labels, weights, positions or charge.
    """
    return list(iterate_labelled(path, index, keys=keys, weight=weight))


def iterate_labelled(
    path: str | os.PathLike[str], index: str = ":", *, keys: Mapping[str, str] | None = None, weight: float = 1.0
) -> Iterator[LabelledStructure]:
    """Yield the frames of ``read_labelled`` one at a time; the arguments and errors are the same."""
    path, index = data_file(path, index)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a directory, not a data file; give the file in it")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no data file {path!r} (looked in {os.getcwd()})")
    if not re.fullmatch(r"-?\d+|(-?\d+)?(:(-?\d+)?){1,2}", index):
        raise DataError(f"the index {index!r} is not a slice; write it like ':', '5', '-50:' or '::10'")
    chosen = "" if index == ":" else f" of those chosen by {index!r}"
    count = 0
    present: set[str] = set()
    frames = iter(ase.io.iread(os.path.abspath(path), index, do_not_split_by_at_sign=True))
    while (atoms := _next_frame(frames, path, count)) is not None:
        present.update(atoms.info, atoms.arrays, atoms.calc.results if atoms.calc is not None else ())
        yield _labelled(atoms, f"{path}, frame {count}{chosen}", keys or {}, weight)
        count += 1
    if not count:
        raise DataError(f"{path} holds no frames for the index {index!r}")
    for name, key in (keys or {}).items():
        if key not in present:
            there = ", ".join(sorted(present - {"numbers", "positions"})) or "none"
            raise DataError(f"{path}: no frame has {key!r}, which is named as the key of {name}; there are {there}")


def _next_frame(frames: Iterator[ase.Atoms], path: str, good: int) -> ase.Atoms | None:
    """The next frame, or None after the last. ``good`` counts the frames that were read before it."""
    try:
        return next(frames, None)
    except MemoryError:
        raise
    except Exception as error:  # parsers fail with errors of every type
        reason = " ".join(str(error).split()).rstrip(".")
        if isinstance(error, KeyError):
            reason = f"{reason} is not a chemical symbol or entry that ASE knows"
        elif "could not convert string" in reason:
            reason = f"{reason}, where a number is expected, written like -1.5"
        elif isinstance(error, RuntimeError) and "StopIteration" in reason:
            reason = "the file ends within the frame"
        if good:
            remedy = f"Good frames before it: {good}; ase.io.read(path, ':{good}') reads them. Or mend the file."
            raise DataError(f"{path}: frame {good} cannot be read: {reason}. {remedy}") from error
        raise DataError(
            f"{path} cannot be read as structures: {type(error).__name__}: {reason}. "
            "Check that it is whole and that its ending tells its format (.extxyz, .traj, ...)."
        ) from error


def _labelled(atoms: ase.Atoms, where: str, keys: Mapping[str, str], weight: float) -> LabelledStructure:
    if len(atoms) == 0:
        raise DataError(f"{where}: there are no atoms. Remove the frame.")
    try:
        given = _given(atoms, keys)
        values: dict[str, Any] = {
            label.name: _numbers(given[label.name], label.full_shape(len(atoms)), label.name) for label in LABELS
        }
        labelled = LabelledStructure(
            structure=Structure.from_atoms(atoms),
            weights=_weights(atoms.info, weight),
            **values | {"energy": float(values["energy"])},
        )
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {error}") from error
    for label in LABELS:
        if given[label.name] is not None and not (abs(values[label.name]) < LARGEST_LABEL).all():
            fault = _unusable(label, values[label.name])
            raise DataError(f"{where}: {fault}. Remove the frame or its labels.")
    if (pair := coincident_atoms(labelled.structure, SHORTEST_DISTANCE_ANGSTROM)) is not None:
        raise DataError(f"{where}: atoms {pair[0]} and {pair[1]} are at one place. Remove one of them, or the frame.")
    return labelled


def _given(atoms: ase.Atoms, keys: Mapping[str, str]) -> dict[str, Any]:
    """The value of each label as the frame has it, or None. Of equal names, the calculator's result comes first."""
    results = atoms.calc.results if atoms.calc is not None else {}
    names: dict[str, tuple[str, ...]] = {**USUAL_KEYS}
    if "stress" in keys or "virial" in keys:
        names["stress"] = names["virial"] = ()
    names |= {label: (key,) for label, key in keys.items()}
    given = {}
    for label in LABELS:
        omitted = label.molecular and atoms.pbc.any()
        own = atoms.arrays if label.per_atom else atoms.info
        given[label.name] = None if omitted else _find(names[label.name], results, own)
    if given["stress"] is None and atoms.pbc.all() and atoms.cell.rank == 3:
        virial = _find(names["virial"], results, atoms.info)
        given["stress"] = None if virial is None else -_numbers(_full(virial), (3, 3), "virial") / atoms.get_volume()
    return given | {"stress": _full(given["stress"])}


def _weights(info: Mapping[str, Any], weight: float) -> Weights:
    """For each label, ``weight`` times ``config_weight`` times the label's own, such as ``config_energy_weight``."""
    found = {}
    for name in ("config_weight", *(f"config_{label}_weight" for label in Weights._fields)):
        found[name] = float(_numbers(info.get(name, 1.0), (), name))
        if not 0.0 <= found[name] < np.inf:
            raise ValueError(f"{name} = {found[name]} is no weight: it must be finite and at least 0")
    common = weight * found["config_weight"]
    return Weights(*(common * found[f"config_{label}_weight"] for label in Weights._fields))


def _unusable(label: Label, value: NDArray[np.float64]) -> str:
    """What is wrong with a label that is not finite or absurdly large."""
    where = np.argwhere(~(abs(value) < LARGEST_LABEL))[0]
    bad = value[tuple(where)]
    what = f"{bad:.3g} (allowed: below {LARGEST_LABEL:g})" if np.isfinite(bad) else "not finite"
    if label.per_atom:
        return f"the {label.name.removesuffix('s')} on atom {where[0]} is {what}"
    return f"the {label.name} is {what if label.shape or np.isfinite(bad) else bad}"


def _find(keys: tuple[str, ...], *places: Mapping[str, Any]) -> Any:
    """The first value under one of the keys, or None. The first key is looked up in all places, then the next key."""
    return next((place[key] for key in keys for place in places if place.get(key) is not None), None)


def _numbers(value: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    if value is None:
        return np.full(shape, np.nan)
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"the {name} should be numbers, found {array.flat[0].item()!r}. Write them like -1.5")
    if array.shape != shape:
        expected = "one number" if shape == () else f"labels of shape {shape}"
        raise ValueError(f"{expected} expected as {name}, found {array.tolist() if shape == () else array.shape}")
    return array.astype(np.float64)


def _full(stress: Any) -> Any:
    """A stress of six or nine components as a matrix (3, 3). Anything else is returned unchanged."""
    stress = None if stress is None else np.asarray(stress)
    if stress is not None and stress.shape == (9,):
        return stress.reshape(3, 3)
    return voigt_6_to_full_3x3_stress(stress) if stress is not None and stress.shape == (6,) else stress
