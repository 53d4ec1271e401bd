"""Labelled structures from any file that ASE reads. A label that a frame lacks is NaN, never zero."""

import os
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
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no data file {path!r} (looked in {os.getcwd()})")
    try:
        frames = ase.io.read(path, index)
    except Exception as error:
        raise DataError(f"{path} cannot be read as structures: {type(error).__name__}: {error}") from error
    if not frames:
        raise DataError(f"{path} holds no frames for the index {index!r}")
    return [_labelled(atoms, f"{path}, frame {number}") for number, atoms in enumerate(frames)]


def _labelled(atoms: ase.Atoms, where: str) -> LabelledStructure:
    results = atoms.calc.results if atoms.calc is not None else {}
    energy = _find(ENERGY_KEYS, results, atoms.info)
    forces = _find(FORCES_KEYS, results, atoms.arrays)
    stress = _find(STRESS_KEYS, results, atoms.info)
    try:
        labelled = LabelledStructure(
            structure=Structure.from_atoms(atoms),
            energy=float("nan") if energy is None else float(energy),
            forces=_numbers(forces, (len(atoms), 3)),
            stress=_numbers(_full_stress(stress), (3, 3)),
        )
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {error}") from error
    if energy is not None and not np.isfinite(labelled.energy):
        raise DataError(f"{where}: the energy is {energy}. Remove the frame or its label.")
    if forces is not None and not np.isfinite(labelled.forces).all():
        atom = int(np.argwhere(~np.isfinite(labelled.forces))[0][0])
        raise DataError(f"{where}: the force on atom {atom} is not finite. Remove the frame or its labels.")
    return labelled


def _find(keys: tuple[str, ...], *places: dict[str, Any]) -> Any:
    return next((place[key] for key in keys for place in places if place.get(key) is not None), None)


def _numbers(value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if value is None:
        return np.full(shape, np.nan)
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"labels of shape {shape} expected, found {array.shape}")
    return array


def _full_stress(stress: Any) -> Any:
    if stress is None:
        return None
    stress = np.asarray(stress, dtype=np.float64)
    return voigt_6_to_full_3x3_stress(stress) if stress.shape == (6,) else stress.reshape(3, 3)
