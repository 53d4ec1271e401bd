"""Files of other programs that ASE's readers would take for something else: their elements, units or axes."""

import re
from collections.abc import Callable
from typing import Any

import ase
import numpy as np
from ase.calculators.lammps.unitconvert import UNITSETS
from ase.io.formats import open_with_compression

from ase_nbody.data.labels import DataError
from ase_nbody.text import printable

LAMMPS_DUMP = "lammps-dump-text"
_LAMMPS_DATA, _GAUSSIAN = "lammps-data", "gaussian-out"
_HEAD_BYTES = 2**20
_COLUMNS = re.compile(rb"^ITEM: ATOMS([^\r\n]*)", re.M)
_UNITS = re.compile(rb"^ITEM: UNITS\s+(\w+)", re.M)
_TELLS_ELEMENTS = re.compile(rb"^\s*(Masses|Atom Type Labels)\b", re.M)
_AXES = re.compile(rb"^\s*(Input|Z-Matrix|Standard) orientation:", re.M)
_LARGEST_TORQUE = 0.05  # of the sum of |r| |F|; gradients of integration grids are ten times better balanced


def options_of_reader(path: str, kind: str) -> dict[str, Any]:
    """What ASE's reader must be told about a file besides its format: the units of a dump of LAMMPS that names them.

    Args:
        path: the file.
        kind: ASE's name for its format.

    Raises:
        DataError: the file has types of LAMMPS and no elements (ASE would take type 1 for H, 2 for He, ...), or units
            that have no value in eV and Angstrom.
    """
    if kind not in (LAMMPS_DUMP, _LAMMPS_DATA):
        return {}
    head = _head(path)
    columns = _COLUMNS.search(head)
    named = columns is not None and {b"element", b"mass"} & set(columns[1].split())
    if kind == LAMMPS_DUMP and columns is not None and b"type" in columns[1].split() and not named:
        raise DataError(
            f"{printable(path)} has types of atoms and no elements: type 1 would be read as H, 2 as He. Write the "
            "elements, with 'dump ... custom ... id element x y z fx fy fz' and 'dump_modify ... element C H O'. Or "
            "read it with ase.io.read(file, ':', format='lammps-dump-text', specorder=['C', 'H', 'O']), and write "
            "extxyz."
        )
    if kind == _LAMMPS_DATA and not _TELLS_ELEMENTS.search(head):
        raise DataError(
            f"{printable(path)} has types of atoms and no section Masses: type 1 would be read as H, 2 as He. Add the "
            "masses, or read it with ase.io.read(file, format='lammps-data', Z_of_type={1: 6, 2: 1}) and write extxyz."
        )
    units = _UNITS.search(head)
    if kind == _LAMMPS_DATA or units is None:
        return {}
    name = units[1].decode("ascii", "replace")
    if name not in UNITSETS:
        raise DataError(
            f"{printable(path)} is in the units {printable(name, 20)!r} of LAMMPS, which are no eV and Angstrom. "
            "Convert it, and write extxyz."
        )
    return {"units": name}


def judge_of_frames(path: str, kind: str) -> Callable[[ase.Atoms], None]:
    """A function that refuses frames with elements that nobody gave, or with forces along other axes than positions.

    LAMMPS writes C as the element of every type, unless ``dump_modify`` names others. Gaussian writes forces along the
    axes of the input. ASE takes the first orientation that it finds, and that is the standard one if the output has no
    other. Then the forces turn the molecule, which those of a free molecule never do.

    Args:
        path: the file.
        kind: ASE's name for its format.
    """
    if kind == LAMMPS_DUMP:
        return lambda atoms: _refuse_default_elements(atoms, path)
    if kind == _GAUSSIAN and not {b"Input", b"Z-Matrix"} & set(_AXES.findall(_head(path))):
        return lambda atoms: _refuse_torque(atoms, path)
    return lambda atoms: None


def _refuse_default_elements(atoms: ase.Atoms, path: str) -> None:
    types = np.unique(atoms.arrays.get("type", [0]))
    if len(types) > 1 and (atoms.numbers == 6).all():
        raise DataError(
            f"{printable(path)} has {len(types)} types of atoms and only the element C, which LAMMPS writes if nobody "
            "names others: add 'dump_modify ... element C H O'. If all atoms are carbon, leave out the column type."
        )


def _refuse_torque(atoms: ase.Atoms, path: str) -> None:
    forces = None if atoms.calc is None else atoms.calc.results.get("forces")
    if forces is None or len(forces) != len(atoms) or atoms.pbc.any():
        return
    arms = atoms.positions - atoms.positions.mean(axis=0)
    forces = forces - forces.mean(axis=0)
    torque = np.linalg.norm(np.cross(arms, forces).sum(axis=0))
    if torque > _LARGEST_TORQUE * (np.linalg.norm(arms, axis=1) * np.linalg.norm(forces, axis=1)).sum():
        raise DataError(
            f"{printable(path)}: the positions are in Gaussian's standard orientation, and the forces along the "
            "axes of the input. Run Gaussian with NoSymm, which keeps the axes of the input for both."
        )


def _head(path: str) -> bytes:
    with open_with_compression(path, "rb") as file:
        head: bytes = file.read(_HEAD_BYTES)
    return head
