"""Density functional theory by PySCF, with density fitting, of neutral molecules with closed shells.

It needs pyscf and pyscf-dispersion.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import ase.io
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody.files.writing import write_whole


def calculated(atoms: Atoms, functional: str, basis: str, *, forces: bool) -> Atoms | None:
    """The structure with its energy in eV, and its forces in eV/Angstrom if they are wanted; None if not converged."""
    from pyscf import dft, gto

    cell = gto.M(atom=list(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)), basis=basis, verbose=0)
    field = dft.RKS(cell, xc=functional).density_fit()
    results = {"energy": float(field.kernel()) * units.Hartree}
    if not field.converged:
        return None
    if forces:
        results["forces"] = -field.nuc_grad_method().kernel() * units.Hartree / units.Bohr
    found = Atoms(atoms.numbers, atoms.positions)
    found.calc = SinglePointCalculator(found, **results)
    return found


def keep(path: Path, frames: Sequence[Atoms]) -> None:
    """Add frames to a file of extended XYZ, which is written anew: a kill leaves no half of a frame."""
    text = io.StringIO()
    ase.io.write(text, frames, format="extxyz")
    before = path.read_bytes() if path.is_file() else b""
    write_whole(path, before + text.getvalue().encode())
