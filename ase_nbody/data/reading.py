"""Labelled structures from any file that ASE reads. A label that a frame lacks is NaN, never zero."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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


class DataError(ValueError):
    """A data file that cannot be trained or tested on; the message names the file, the frame and the remedy."""


@dataclass(frozen=True)
class LabelledStructure:
    """A structure and its reference values.

    Attributes:
        structure: the system.
        energy: total energy in eV, NaN if missing.
        forces: forces (N, 3) in eV/Angstrom, NaN where missing.
        stress: stress (3, 3) in eV/Angstrom^3 with ASE's sign, NaN if missing.
    """

    structure: Structure
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]


def read_labelled(path: str | os.PathLike[str], index: str = ":") -> list[LabelledStructure]:
    """Read all frames of a file (extxyz, Trajectory, ... whatever ``ase.io.read`` takes).

    Args:
        path: the file.
        index: which frames, as ASE writes slices: ``":"``, ``"-50:"``, ``"::10"``.

    Raises:
        FileNotFoundError: no such file.
        DataError: the file holds no frames, cannot be parsed, or a frame has unusable labels or positions.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a directory, not a data file; give the file in it")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no data file {path!r} (looked in {os.getcwd()})")
    if not re.fullmatch(r"-?\d+|(-?\d+)?(:(-?\d+)?){1,2}", index):
        raise DataError(f"the index {index!r} is not a slice; write it like ':', '5', '-50:' or '::10'")
    chosen = "" if index == ":" else f" of those chosen by {index!r}"
    labelled: list[LabelledStructure] = []
    frames = iter(ase.io.iread(path, index))
    while (atoms := _next_frame(frames, path, len(labelled))) is not None:
        labelled.append(_labelled(atoms, f"{path}, frame {len(labelled)}{chosen}"))
    if not labelled:
        raise DataError(f"{path} holds no frames for the index {index!r}")
    return labelled


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


def _labelled(atoms: ase.Atoms, where: str) -> LabelledStructure:
    results = atoms.calc.results if atoms.calc is not None else {}
    energy = _find(ENERGY_KEYS, results, atoms.info)
    forces = _find(FORCES_KEYS, results, atoms.arrays)
    stress = _find(STRESS_KEYS, results, atoms.info)
    if len(atoms) == 0:
        raise DataError(f"{where}: there are no atoms. Remove the frame.")
    try:
        labelled = LabelledStructure(
            structure=Structure.from_atoms(atoms),
            energy=float(_numbers(energy, (), "energy")),
            forces=_numbers(forces, (len(atoms), 3), "forces"),
            stress=_numbers(_full_stress(stress), (3, 3), "stress"),
        )
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {error}") from error
    given = {"energy": energy, "forces": forces, "stress": stress}
    for name, value in given.items():
        if value is not None and not np.isfinite(getattr(labelled, name)).all():
            raise DataError(f"{where}: {_not_finite(name, getattr(labelled, name))}. Remove the frame or its labels.")
    return labelled


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


def _full_stress(stress: Any) -> Any:
    stress = None if stress is None else np.asarray(stress)
    return voigt_6_to_full_3x3_stress(stress) if stress is not None and stress.shape == (6,) else stress
