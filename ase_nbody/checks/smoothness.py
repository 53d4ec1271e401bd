"""Smoothness: no jump of the energy, its slope or its curvature as atoms come and go through the cutoffs."""

from collections.abc import Iterator

import ase
import numpy as np

from ase_nbody.checks.case import Array, Case, energy_and_forces
from ase_nbody.checks.finding import Finding, not_applicable
from ase_nbody.checks.scans import QUANTITIES, Jump, find_jumps

BOUND = 1e-4  # of how much the quantity changes within 0.25 Angstrom
SPACING = 0.02  # Angstrom


def leaving_atom(case: Case) -> Iterator[Finding]:
    """The outermost atom leaves the molecule or the surface; a crystal is opened to have one."""
    if len(case.atoms) == 1 and not case.atoms.pbc.any():
        for quantity in QUANTITIES:
            yield not_applicable("leaving atom", measured(quantity), "a single atom has nothing to leave")
        return
    atoms, leaver, way = _with_surface(case)
    start = atoms.positions[leaver].copy()

    def moved(distance: float) -> ase.Atoms:
        atoms.positions[leaver] = start + distance * way
        return atoms

    def path(places: Array) -> Array:  # one after the other, as the calculator follows moving atoms
        return np.concatenate([energy_and_forces(case.calculator, [moved(place)]) for place in places])

    grid = np.arange(0.0, case.outer, SPACING)
    found = find_jumps(path, grid, path(grid))
    yield from jump_findings("leaving atom", {f"atom {leaver} away by": found})


def _with_surface(case: Case) -> tuple[ase.Atoms, int, Array]:
    """The structure with a surface, its outermost atom and the way out."""
    atoms = case.rattled()
    if atoms.pbc.all():
        atoms.pbc = (True, True, False)
    if atoms.pbc.any():
        way = np.linalg.svd(atoms.cell.array[atoms.pbc])[2][-1]
    else:
        out = atoms.positions - atoms.positions.mean(axis=0)
        way = out[np.linalg.norm(out, axis=1).argmax()]
        way = way / np.linalg.norm(way)
    return atoms, int((atoms.positions @ way).argmax()), way


def jump_findings(check: str, found: dict[str, dict[str, Jump]]) -> Iterator[Finding]:
    """The largest jumps of value, slope and curvature of several scans, by what they are called in the note."""
    for quantity in QUANTITIES:
        scan = max(found, key=lambda name: found[name][quantity].size)
        jump = found[scan][quantity]
        note = f"{scan} {jump.place:.4g} Angstrom" if jump.size > 0.0 else "none was found"
        yield Finding(check, measured(quantity), jump.size, upper=BOUND, note=note)


def measured(quantity: str) -> str:
    """What a row of smoothness says."""
    return f"jump of the energy's {quantity}, by its change within 0.25 Angstrom"
