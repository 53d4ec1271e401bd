"""Symmetries: turning, mirroring, renumbering or moving a structure changes only the frame of reference."""

from collections.abc import Iterator

import numpy as np

from ase_nbody.checks.case import Array, Case, Evaluation, deviation, evaluate
from ase_nbody.checks.finding import Finding
from ase_nbody.testing import random_rotation

ROUND_OFF = 1e-10  # as a fraction of the largest force


def rotation(case: Case) -> Iterator[Finding]:
    """A rotation leaves energies as they are, and turns forces and stresses: R(E, F, sigma) = (E, R F, R sigma R^T)."""
    for seed in (0, 1):
        yield _turned(case, "rotation", f"random rotation {seed + 1}", random_rotation(seed).numpy())


def inversion(case: Case) -> Iterator[Finding]:
    """The same law as for rotations holds for the inversion, and for a rotation times the inversion."""
    yield _turned(case, "inversion", "inversion", -np.eye(3))
    yield _turned(case, "inversion", "random improper rotation", random_rotation(1, improper=True).numpy())


def permutation(case: Case) -> Iterator[Finding]:
    """Another order of the atoms changes neither the energy nor the force on each atom."""
    atoms = case.rattled()
    order = np.random.default_rng(0).permutation(len(atoms))
    expected = evaluate(case.calculator, atoms).of_atoms(order)
    yield _same("permutation", "random order of the atoms", evaluate(case.calculator, atoms[order]), expected)


def translation(case: Case) -> Iterator[Finding]:
    """Moving all atoms together changes nothing, and moving one atom by lattice vectors does not either."""
    atoms = case.rattled()
    expected = evaluate(case.calculator, atoms)
    moved = atoms.copy()
    moved.positions += [0.3, -7.1, 2.9]
    yield _same("translation", "moved by 7.7 Angstrom", evaluate(case.calculator, moved), expected)
    if atoms.pbc.any():
        images = np.random.default_rng(0).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
        atoms.positions += images @ atoms.cell.array
        yield _same("translation", "atoms replaced by images", evaluate(case.calculator, atoms), expected)


def _turned(case: Case, check: str, measured: str, matrix: Array) -> Finding:
    atoms = case.rattled()
    expected = evaluate(case.calculator, atoms).turned(matrix)
    atoms.set_cell(atoms.cell.array @ matrix.T)
    atoms.positions = atoms.positions @ matrix.T
    return _same(check, measured, evaluate(case.calculator, atoms), expected)


def _same(check: str, measured: str, actual: Evaluation, expected: Evaluation) -> Finding:
    value, where = deviation(actual, expected)
    return Finding(check, measured, value, upper=ROUND_OFF, note=where)
