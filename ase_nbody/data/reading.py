"""Labelled structures from any file that ASE reads. A label that a frame lacks is NaN, never zero."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import ase
import ase.io
import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from ase_nbody.structure import Structure

# Names under which files carry the labels beside ASE's own, which come first.
ENERGY_KEYS = ("energy", "REF_energy", "TotEnergy", "dft_energy")
FORCES_KEYS = ("forces", "REF_forces", "force", "dft_forces")
STRESS_KEYS = ("stress", "REF_stress", "dft_stress")
VIRIAL_KEYS = ("virial", "virials", "REF_virial", "REF_virials", "dft_virial")


class DataError(ValueError):
    """A data file that cannot be trained or tested on; the message names the file, the frame and the remedy."""


class Weights(NamedTuple):
    """By how much a frame's labels count in the loss."""

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 1.0


EQUAL = Weights()


@dataclass(frozen=True)
class LabelledStructure:
    """A structure and its reference values.

    Attributes:
        structure: the system.
        energy: total energy in eV, NaN if missing.
        forces: forces (N, 3) in eV/Angstrom, NaN where missing.
        stress: stress (3, 3) in eV/Angstrom^3 with ASE's sign, NaN if missing.
        weights: of the labels in the loss.
    """

    structure: Structure
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    weights: Weights = EQUAL


def read_labelled(
    path: str | os.PathLike[str], index: str = ":", *, keys: Mapping[str, str] | None = None, weight: float = 1.0
) -> list[LabelledStructure]:
    """Read all frames of a file (extxyz, Trajectory, ... whatever ``ase.io.read`` takes).

    Args:
        path: the file.
        index: which frames, as ASE writes slices: ``":"``, ``"-50:"``, ``"::10"``.
        keys: names in the file of ``energy``, ``forces``, ``stress`` or ``virial``, which are then the only ones looked
            for; by default all usual names are.
        weight: of the frames in the loss; those that the frames carry themselves are multiplied by it.

    Raises:
        FileNotFoundError: no such file.
        DataError: the file holds no frames, cannot be parsed, lacks a label that ``keys`` names in all frames, or a
            frame has unusable labels, weights or positions.
    """
    return list(iterate_labelled(path, index, keys=keys, weight=weight))


def iterate_labelled(
    path: str | os.PathLike[str], index: str = ":", *, keys: Mapping[str, str] | None = None, weight: float = 1.0
) -> Iterator[LabelledStructure]:
    """The frames of ``read_labelled``, with its errors, one at a time."""
    path = os.fspath(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a directory, not a data file; give the file in it")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no data file {path!r} (looked in {os.getcwd()})")
    if not re.fullmatch(r"-?\d+|(-?\d+)?(:(-?\d+)?){1,2}", index):
        raise DataError(f"the index {index!r} is not a slice; write it like ':', '5', '-50:' or '::10'")
    chosen = "" if index == ":" else f" of those chosen by {index!r}"
    count = 0
    present: set[str] = set()
    frames = iter(ase.io.iread(path, index))
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
    """The next frame, None after the last. Parsers fail with errors of every type."""
    try:
        return next(frames, None)
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        if isinstance(error, KeyError):
            reason = f"{reason} is not a chemical symbol or entry that ASE knows"
        elif "could not convert string" in reason:
            reason = f"{reason}, where a number is expected, written like -1.5"
        elif isinstance(error, RuntimeError) and "StopIteration" in reason:
            reason = "the file ends within the frame"
        if good:
            remedy = f"Good ones before it: {good}; ase.io.read(path, ':{good}') gives them, or mend the file."
            raise DataError(f"{path}: frame {good} cannot be read: {reason}. {remedy}") from error
        raise DataError(
            f"{path} cannot be read as structures: {type(error).__name__}: {reason}. "
            "Check that it is whole and that its ending tells its format (.extxyz, .traj, ...)."
        ) from error


def _labelled(atoms: ase.Atoms, where: str, keys: Mapping[str, str], weight: float) -> LabelledStructure:
    results = atoms.calc.results if atoms.calc is not None else {}
    usual = {"energy": ENERGY_KEYS, "forces": FORCES_KEYS, "stress": STRESS_KEYS, "virial": VIRIAL_KEYS}
    if "stress" in keys or "virial" in keys:
        usual["stress"] = usual["virial"] = ()
    names = usual | {label: (key,) for label, key in keys.items()}
    energy = _find(names["energy"], results, atoms.info)
    forces = _find(names["forces"], results, atoms.arrays)
    stress = _find(names["stress"], results, atoms.info)
    if len(atoms) == 0:
        raise DataError(f"{where}: there are no atoms. Remove the frame.")
    try:
        if stress is None and atoms.pbc.all() and atoms.cell.rank == 3:
            virial = _find(names["virial"], results, atoms.info)
            stress = None if virial is None else -_numbers(_full(virial), (3, 3), "virial") / atoms.get_volume()
        labelled = LabelledStructure(
            structure=Structure.from_atoms(atoms),
            energy=float(_numbers(energy, (), "energy")),
            forces=_numbers(forces, (len(atoms), 3), "forces"),
            stress=_numbers(_full(stress), (3, 3), "stress"),
            weights=_weights(atoms.info, weight),
        )
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {error}") from error
    given = {"energy": energy, "forces": forces, "stress": stress}
    for name, value in given.items():
        if value is not None and not np.isfinite(getattr(labelled, name)).all():
            raise DataError(f"{where}: {_not_finite(name, getattr(labelled, name))}. Remove the frame or its labels.")
    return labelled


def _weights(info: Mapping[str, Any], weight: float) -> Weights:
    """``config_weight`` times ``config_energy_weight``, ``config_forces_weight``, ``config_stress_weight``."""
    found = {}
    for name in ("config_weight", *(f"config_{label}_weight" for label in Weights._fields)):
        found[name] = float(_numbers(info.get(name, 1.0), (), name))
        if not 0.0 <= found[name] < np.inf:
            raise ValueError(f"{name} = {found[name]} is no weight: it must be finite and at least 0")
    common = weight * found["config_weight"]
    return Weights(*(common * found[f"config_{label}_weight"] for label in Weights._fields))


def _not_finite(name: str, value: float | NDArray[np.float64]) -> str:
    if name == "forces":
        return f"the force on atom {np.argwhere(~np.isfinite(value))[0][0]} is not finite"
    return f"the {name} is {value}" if name == "energy" else f"the {name} is not finite"


def _find(keys: tuple[str, ...], *places: dict[str, Any]) -> Any:
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
    stress = None if stress is None else np.asarray(stress)
    if stress is not None and stress.shape == (9,):
        return stress.reshape(3, 3)
    return voigt_6_to_full_3x3_stress(stress) if stress is not None and stress.shape == (6,) else stress
