"""Files of other programs that ASE's readers take for something else: their units, axes, energies or velocities."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import ase
import numpy as np
from ase.calculators.lammps.unitconvert import UNITSETS
from ase.io.formats import open_with_compression

from ase_nbody.data.labels import DataError
from ase_nbody.data.misread_atoms import correct_gromacs, correct_residues, refuse_alternate_places, refuse_disorder
from ase_nbody.text import printable

LAMMPS_DUMP, _BINARY_DUMP = "lammps-dump-text", "lammps-dump-binary"
_LAMMPS_DATA, _GAUSSIAN, _CASTEP, _QBOX = "lammps-data", "gaussian-out", "castep-castep", "qbox"
_ORCA, _GROMACS, _PDB, _CIF, _VASP = "orca-output", "gromacs", "proteindatabank", "cif", "vasp"
_HEAD_BYTES = 2**20
_COLUMNS = re.compile(rb"^ITEM: ATOMS([^\r\n]*)", re.M)
_UNITS = re.compile(rb"^ITEM: UNITS\s+(\w+)", re.M)
_UNITS_OF_DATA = re.compile(rb"\A[^\r\n]*\bunits\s*=\s*(\w+)")  # as write_data ends the first line
_TELLS_ELEMENTS = re.compile(rb"^\s*(Masses|Atom Type Labels)\b", re.M)
_CORRECTED = "with_dispersion_correlation"  # as ASE's reader of CASTEP calls what has a dispersion correction
_AXES = re.compile(rb"^\s*(Input|Z-Matrix|Standard) orientation:", re.M)
_LACKS_ELEMENT = re.compile(rb"^(?:ATOM  |HETATM)(?:[^\r\n]{0,70}|[^\r\n]{70}[ ]*)\r?$", re.M)  # columns 77 and 78
# Total charge and spin multiplicity in outputs of programs, which ASE's readers leave out
_STATES = {
    _GAUSSIAN: re.compile(rb"^\s*Charge\s*=\s*(-?\d+)\s+Multiplicity\s*=\s*(\d+)", re.M),
    _ORCA: re.compile(rb"^\s*Total Charge\s+Charge\s+\.+\s+(-?\d+)\s*\n\s*Multiplicity\s+Mult\s+\.+\s+(\d+)", re.M),
}
_LINES_OF_LATTICE_VELOCITIES, _MOST_LINES_OF_POSCAR = 8, 24  # but for those of atoms
_LARGEST_TORQUE = 0.05  # of the sum of |r| |F|; gradients of integration grids are ten times better balanced


def options_of_reader(path: str, kind: str) -> dict[str, Any]:
    """What ASE's reader must be told about a file besides its format: the units that a file of LAMMPS names.

    Args:
        path: the file.
        kind: ASE's name for its format.

    Raises:
        DataError: the file has types of LAMMPS and no elements (ASE would take type 1 for H, 2 for He, ...), or units
            that have no value in eV and Angstrom, or is of Qbox, whose units ASE does not convert, or has atoms at
            alternate places.
    """
    if kind == _QBOX:
        raise DataError(
            f"{printable(path)} is of Qbox, in Bohr, Hartree and GPa, and ASE's reader takes them for Angstrom, eV and "
            "eV/Angstrom^3. Convert it, and write extxyz."
        )
    if kind == _PDB:
        refuse_alternate_places(path)
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
    units = (_UNITS_OF_DATA if kind == _LAMMPS_DATA else _UNITS).search(head)
    if units is None:
        return {}
    name = units[1].decode("ascii", "replace")
    if name not in UNITSETS:
        raise DataError(
            f"{printable(path)} is in the units {printable(name, 20)!r} of LAMMPS, which are no eV and Angstrom. "
            "Convert it, and write extxyz."
        )
    return {"units": name}


def judge_of_frames(path: str, kind: str) -> Callable[[ase.Atoms], None]:
    """A function that refuses, or corrects, frames with elements that nobody gave or with labels of something else.

    LAMMPS writes C as the element of every type, unless ``dump_modify`` names others. ASE gives its dumps an energy of
    0. Gaussian writes forces along the axes of the input, and dipole moments along those of the standard orientation.
    ASE takes the first orientation that it finds, and that is the standard one if the output has no other. Then the
    forces turn the molecule, which those of a free molecule never do. Otherwise the dipole moments are left out. Those
    of ions are about the origin in Gaussian's and ORCA's outputs, of which ASE does not read the charge. Of CASTEP, ASE
    takes forces with a dispersion correction and energies without it, and of VASP, velocities for Cartesian ones. For
    elements see ``misread_atoms``.

    Args:
        path: the file.
        kind: ASE's name for its format.
    """
    if kind == LAMMPS_DUMP:
        return lambda atoms: _judge_dump(atoms, path)
    if kind == _BINARY_DUMP:
        return lambda atoms: _leave_out(atoms, "energy")
    if kind == _GROMACS:
        return correct_gromacs
    if kind == _PDB and _LACKS_ELEMENT.search(_head(path)):
        return correct_residues
    if kind == _CIF:
        return lambda atoms: refuse_disorder(atoms, path)
    if kind == _VASP:
        return lambda atoms: _refuse_direct_velocities(atoms, path)
    if kind == _CASTEP:
        return _take_corrected_energies
    if kind not in _STATES:
        return lambda atoms: None
    head = _head(path)
    state, axes = _STATES[kind].search(head), set(_AXES.findall(head))

    def judge(atoms: ase.Atoms) -> None:
        if state is not None:
            _set_state(atoms, *map(int, state.groups()))
        if kind == _GAUSSIAN and not {b"Input", b"Z-Matrix"} & axes:
            _refuse_torque(atoms, path)
        elif kind == _GAUSSIAN and b"Standard" in axes:
            _leave_out(atoms, "dipole")

    return judge


def _set_state(atoms: ase.Atoms, charge: int, multiplicity: int) -> None:
    """Give atoms their total charge in e and spin multiplicity, and a dipole moment about the centre of mass."""
    atoms.info |= {"charge": charge, "spin_multiplicity": multiplicity}
    results = {} if atoms.calc is None else atoms.calc.results
    if charge and results.get("dipole") is not None:
        results["dipole"] = np.asarray(results["dipole"]) - charge * atoms.get_center_of_mass()


def _leave_out(atoms: ase.Atoms, name: str) -> None:
    if atoms.calc is not None:
        atoms.calc.results.pop(name, None)


def _take_corrected_energies(atoms: ase.Atoms) -> None:
    """Let the energies be those with a dispersion correction, if there is one; those of metals at 0 K and the free."""
    results = {} if atoms.calc is None else atoms.calc.results
    for name, places in {"energy": ("energy_zero", "energy"), "free_energy": ("free_energy", "energy")}.items():
        found = [results[key] for place in places if (key := f"{place}_{_CORRECTED}") in results]
        if found:
            results[name] = found[0]


def _judge_dump(atoms: ase.Atoms, path: str) -> None:
    _leave_out(atoms, "energy")  # ASE's reader puts 0.0 there; a dump has no energies
    types = np.unique(atoms.arrays.get("type", [0]))
    if len(types) > 1 and (atoms.numbers == 6).all():
        raise DataError(
            f"{printable(path)} has {len(types)} types of atoms and only the element C, which LAMMPS writes if nobody "
            "names others: add 'dump_modify ... element C H O'. If all atoms are carbon, leave out the column type."
        )


def _refuse_direct_velocities(atoms: ase.Atoms, path: str) -> None:
    """Refuse velocities of a CONTCAR along its lattice vectors, as its word ``Direct`` before them says."""
    if not atoms.has("momenta"):
        return
    with open_with_compression(path, "rb") as file:
        first = [line.strip()[:1].lower() for line in itertools.islice(file, _MOST_LINES_OF_POSCAR + len(atoms))]
    words = 7 if first[6].isdigit() else 6  # since VASP 5, symbols stand above the numbers of atoms
    after = words + (first[words] == b"s") + 1 + len(atoms)  # Selective dynamics, Direct or Cartesian, positions
    if first[after] == b"l":  # velocities of the lattice come first
        after += _LINES_OF_LATTICE_VELOCITIES
    if first[after] == b"d":
        raise DataError(
            f"{printable(path)} has velocities along its lattice vectors (Direct), and ASE's reader takes them for "
            "Cartesian ones in Angstrom/fs. Convert them, or leave them out."
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
