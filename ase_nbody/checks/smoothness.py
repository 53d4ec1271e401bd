"""Smoothness: energy, slope and curvature do not jump when atoms cross the cutoffs."""

from collections.abc import Iterator

import ase
import numpy as np

from ase_nbody.checks.case import Array, Case, energy_and_forces
from ase_nbody.checks.finding import Finding, not_applicable
from ase_nbody.checks.scans import QUANTITIES, Jump, find_jumps
from ase_nbody.structure import LABEL_ARRAYS, labels_of

MAX_JUMP = 1e-4  # as a fraction of how much the quantity changes within 0.25 Angstrom
SPACING_ANGSTROM = 0.02


def leaving_atom(case: Case) -> Iterator[Finding]:
    """Pull the outermost atom out of the molecule or surface; a crystal is cut open to have a surface."""
    if len(case.atoms) == 1 and not case.atoms.pbc.any():
        for quantity in QUANTITIES:
            yield not_applicable("leaving atom", measured(quantity), "a single atom has nothing to leave")
        return
    atoms, leaver, direction = _with_surface(case)
    start = atoms.positions[leaver].copy()

    def moved(distance: float) -> ase.Atoms:
        atoms.positions[leaver] = start + distance * direction
        return atoms

    def path(places: Array) -> Array:  # one by one, so that the calculator follows a moving atom as in dynamics
        return np.concatenate([energy_and_forces(case.calculator, [moved(place)]) for place in places])

    grid = np.arange(0.0, case.outer, SPACING_ANGSTROM)
    found = find_jumps(path, grid, path(grid))
    yield from jump_findings("leaving atom", {f"atom {leaver} away by": found})


def _with_surface(case: Case) -> tuple[ase.Atoms, int, Array]:
    """The structure with a surface, the index of its outermost atom and the direction out (3,)."""
    atoms = case.rattled()
    if atoms.pbc.all():
        atoms.pbc = (True, True, False)
    if atoms.pbc.any():
        direction = np.linalg.svd(atoms.cell.array[atoms.pbc])[2][-1]
    else:
        from_middle = atoms.positions - atoms.positions.mean(axis=0)
        direction = from_middle[np.linalg.norm(from_middle, axis=1).argmax()]
        direction = direction / np.linalg.norm(direction)
    leaver = int((atoms.positions @ direction).argmax())
    labels = labels_of(atoms)
    if labels is not None and atoms.pbc.any():  # a labelled part must not grow beyond the cell
        labels[leaver] = labels.max() + 1
        atoms.set_array(LABEL_ARRAYS[0], labels)
    return atoms, leaver, direction


def jump_findings(check: str, found: dict[str, dict[str, Jump]]) -> Iterator[Finding]:
    """The largest jumps of value, slope and curvature in several scans; the keys of ``found`` name them in the note."""
    for quantity in QUANTITIES:
        scan = max(found, key=lambda name: found[name][quantity].size)
        jump = found[scan][quantity]
        note = f"{scan} {jump.place:.4g} Angstrom" if jump.size > 0.0 else "none was found"
        yield Finding(check, measured(quantity), jump.size, upper=MAX_JUMP, note=note)


def measured(quantity: str) -> str:
    """The words for the jump of a quantity in the table."""
    return f"jump of the energy's {quantity}, divided by its change within 0.25 Angstrom"
