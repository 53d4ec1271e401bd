"""Labelled structures from any file that ASE reads. A label that a frame lacks is NaN, never zero."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import ase
import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from ase_nbody.data.file_names import data_file
from ase_nbody.data.found import Found
from ase_nbody.data.frames import file_format, names_in_file, read_frames, results_of
from ase_nbody.data.invented import Invented
from ase_nbody.data.labels import BY_NAME, LABELS, DataError, Label, LabelledStructure, Source, Weights
from ase_nbody.data.names import all_usual_names, choose_names
from ase_nbody.data.partly_zero import PartlyZero
from ase_nbody.data.structures import next_frame, require_file, slice_of
from ase_nbody.data.unconverged import count_unconverged
from ase_nbody.data.xyz import require_symmetric
from ase_nbody.hierarchy.neighbours import coincident_atoms
from ase_nbody.structure import Structure
from ase_nbody.text import count_of, printable

_LONGEST_REASON = 400  # characters
LARGEST_LABEL = 1e15  # in the units of each label; the squares of larger numbers overflow in float32
_USUAL_NAMES = frozenset(all_usual_names())
SHORTEST_DISTANCE_ANGSTROM = 1e-3  # of two atoms; closer ones are one atom that a file has twice


def read_labelled(
    path: str | os.PathLike[str],
    index: str = ":",
    *,
    keys: Mapping[str, str] | None = None,
    weight: float = 1.0,
    tell: Callable[[Found], None] | None = None,
) -> list[LabelledStructure]:
    """Read the frames of a file in any format that ``ase.io.read`` takes (extxyz, Trajectory, ...).

    Args:
        path: the file; ``~`` is the home folder, and ``mine.extxyz@:50`` names a file and an index.
        index: which frames, written as a slice of ASE: ``":"``, ``"-50:"``, ``"::10"``.
        keys: names that labels (see ``data/labels.py``) or the ``virial`` have in the file, ``{"energy": "my_e"}``. A
            label that is named here is looked for under this name only, any other under its usual names (see
            ``data/names.py``).
        weight: how much the frames count in the loss. It multiplies the weights that they carry themselves.
        tell: is called once, after the last frame, with what was found: labels and their names, and what is not used.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: the path is that of a folder.
        DataError: the file holds no frames or cannot be parsed, no frame has a name that ``keys`` gives, a frame has
            unusable labels, weights, positions or charge, or nobody computed the labels (see ``data/invented.py``
            and ``data/partly_zero.py``).
    """
    return list(iterate_labelled(path, index, keys=keys, weight=weight, tell=tell))


def iterate_labelled(
    path: str | os.PathLike[str],
    index: str = ":",
    *,
    keys: Mapping[str, str] | None = None,
    weight: float = 1.0,
    tell: Callable[[Found], None] | None = None,
) -> Iterator[LabelledStructure]:
    """Yield the frames of ``read_labelled`` one at a time; the arguments and errors are the same."""
    path, index = data_file(path, index)
    keys, chosen = keys or {}, slice_of(index)
    require_file(path)
    wanted = {*_USUAL_NAMES, *keys.values()}
    names = names_in_file(path, wanted)
    found = Found(path, choose_names(names, keys))
    judges = Invented(keys), PartlyZero(keys)
    for frame in _frames(found, chosen, index, weight):
        for judge in judges:
            judge.add(frame)
        yield frame
        del frame  # a large set is never in memory as a whole
    if not found.frames:
        raise DataError(f"{printable(path)} holds no frames for the index {index!r}")
    _require_read_alike(found, wanted, names)
    _require_names(found, keys)
    for judge in judges:
        judge.refuse(printable(path), lambda: _frames(Found(path, found.names), chosen, index, weight))
    if tell is not None:
        found.unconverged, found.first_unconverged = count_unconverged(path, file_format(path))
        tell(found)


def _require_read_alike(found: Found, wanted: set[str], names: set[str]) -> None:
    """Refuse frames with names that the first reading, which chose the labels, did not come to. They would be lost."""
    if late := ", ".join(map(printable, sorted(found.present & wanted - names))):
        raise DataError(
            f"{printable(found.path)}: {late} was not found when the file was read for the names of its labels. It "
            "changed since, could not be read for a moment, or has a damaged frame before those that are chosen: wait "
            "until it is complete, or mend it, and start again"
        )


def _require_names(found: Found, keys: Mapping[str, str]) -> None:
    for name, key in keys.items():
        if key not in found.present:
            there = ", ".join(map(printable, sorted(found.present - {"numbers", "positions"}))) or "none"
            raise DataError(
                f"{printable(found.path)}: no frame has {printable(key)!r}, which is named as the key of {name}; "
                f"there are {there}"
            )


def _frames(found: Found, chosen: slice, index: str, weight: float) -> Iterator[LabelledStructure]:
    """The labelled frames of a file. They are counted in ``found``."""
    frames, of_those = read_frames(found.path, chosen), "" if index == ":" else f" of those chosen by {index!r}"
    while (atoms := next_frame(frames, found.path, found.frames)) is not None:
        source = _source(found.path, index, found.frames)
        labelled = _labelled(atoms, f"{printable(found.path)}, frame {found.frames}{of_those}", found, weight)
        yield replace(labelled, source=source)


def _source(path: str, index: str, count: int) -> Source:
    """The file and number of the frame that is the ``count``-th of those that ``index`` chooses.

    If ``index`` counts from the end, so does ASE: ``mine.extxyz@-50:`` stands for these frames, numbered from 0.
    """
    start, _, step = [*index.split(":"), "", ""][:3]
    if start.startswith("-") or step.startswith("-"):
        return Source(f"{path}@{index}", count)
    return Source(path, int(start or 0) + count * int(step or 1))


def structure_of(atoms: ase.Atoms, where: str) -> Structure:
    """The structure in a frame of a file. ``where`` names file and frame in errors.

    Raises:
        DataError: there are no atoms, two of them are at one place, or positions, cell or charge are unusable.
    """
    if len(atoms) == 0:
        raise DataError(f"{where}: there are no atoms. Remove the frame.")
    try:
        structure = Structure.from_atoms(atoms)
        _require_possible_charge(structure)
        pair = coincident_atoms(structure, SHORTEST_DISTANCE_ANGSTROM)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {printable(error, _LONGEST_REASON)}") from error
    if pair is not None:
        raise DataError(f"{where}: atoms {pair[0]} and {pair[1]} are at one place. Remove one of them, or the frame.")
    return structure


def _labelled(atoms: ase.Atoms, where: str, found: Found, weight: float) -> LabelledStructure:
    structure = structure_of(atoms, where)
    try:
        given = _given(atoms, structure, found.names.used)
        values = {
            label.name: _numbers(
                given[label.name] if label.is_defined(structure) else None, label.full_shape(len(atoms)), label.name
            )
            for label in LABELS
        }
        require_symmetric(values["stress"])
        labelled = LabelledStructure(
            structure=structure,
            weights=_weights(atoms.info, weight),
            **values | {"energy": float(values["energy"])},  # type: ignore[arg-type]
        )
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {printable(error, _LONGEST_REASON)}") from error
    for label in LABELS:
        if given[label.name] is None or not label.is_defined(structure):
            continue
        if not (abs(values[label.name]) < LARGEST_LABEL).all():
            fault = _unusable(label, values[label.name])
            raise DataError(f"{where}: {fault}. Remove the frame or its labels.")
    found.add(labelled, {**atoms.arrays, **atoms.info, **results_of(atoms)}, given)
    return labelled


def _require_possible_charge(structure: Structure) -> None:
    """Refuse a charge of more than one e for each atom, which is a mistake; single ions may have lost all electrons."""
    largest = int(structure.numbers[0]) if len(structure) == 1 else len(structure)
    if abs(structure.charge) > largest:
        raise ValueError(
            f"the total charge is {structure.charge:g} e, but a structure of {count_of(len(structure), 'atom')} cannot "
            f"have more than {largest} e. Correct the entry charge"
        )


def _given(atoms: ase.Atoms, structure: Structure, names: Mapping[str, str]) -> dict[str, Any]:
    """The value of each label as the frame has it, or None. Of equal names, the calculator's result comes first.

    Databases keep arrays of atoms beside numbers of the structure. A name that the user gave may be anywhere: what is
    there must have the right shape.
    """
    given: dict[str, Any] = dict.fromkeys([*BY_NAME, "virial"])
    for name, key in names.items():
        places = [results_of(atoms), atoms.info]
        if name in BY_NAME and BY_NAME[name].per_atom:
            places.insert(1, atoms.arrays)
        elif key not in _USUAL_NAMES:
            places.append(atoms.arrays)
        given[name] = next((place[key] for place in places if place.get(key) is not None), None)
    virial = given.pop("virial")
    if given["stress"] is None and virial is not None:
        has_volume = structure.pbc.all() and structure.volume > 0.0
        given["stress"] = -_numbers(_full(virial), (3, 3), "virial") / structure.volume if has_volume else virial
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


def _numbers(value: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    if value is None:
        return np.full(shape, np.nan)
    array = np.asarray(value)
    if array.shape == (1, *shape):  # as databases of SchNetPack have energies and stresses
        array = array.reshape(shape)
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"the {name} should be numbers, found {printable(repr(_first(array)), 60)}. Write them like -1.5"
        )
    if array.shape != shape:
        expected = "one number" if shape == () else f"labels of shape {shape}"
        there = printable(array.tolist(), 60) if shape == () else array.shape
        raise ValueError(f"{expected} expected as {name}, found {there}")
    return array.astype(np.float64)


def _first(array: NDArray[Any]) -> Any:
    return array.flat[0].item() if array.size else []


def _full(stress: Any) -> Any:
    """A stress of six or nine components as a matrix (3, 3). Anything else is returned unchanged."""
    stress = None if stress is None else np.asarray(stress)
    if stress is not None and stress.shape == (9,):
        return stress.reshape(3, 3)
    return voigt_6_to_full_3x3_stress(stress) if stress is not None and stress.shape == (6,) else stress
