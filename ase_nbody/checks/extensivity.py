"""Extensivity and locality: energies add up over copies, over atoms and over the parts of the hierarchy."""

from collections.abc import Iterator

import ase
import numpy as np

from ase_nbody.checks.case import Case, deviation, evaluate
from ase_nbody.checks.finding import Finding, not_applicable
from ase_nbody.checks.symmetry import ROUND_OFF
from ase_nbody.engines.calculator import NBodyCalculator
from ase_nbody.hierarchy.labelled import Membership
from ase_nbody.structure import LABEL_ARRAYS, Structure, labels_of

FAR_ANGSTROM = 50.0  # distance between copies if the cutoff is unknown


def far_copies(case: Case) -> Iterator[Finding]:
    """A structure and a distorted copy just beyond the cutoff do not influence each other."""
    name, measured = "far copies", "energy and forces of two structures side by side"
    if case.atoms.pbc.all():
        yield not_applicable(name, measured, "periodic in all directions: there is no place for a copy")
        return
    one, other = case.rattled(seed=0), case.rattled(seed=1)
    gap = max(case.radii) + 0.01 if case.radii else FAR_ANGSTROM
    both = evaluate(case.calculator, _beside(one, other, gap))
    parts = [evaluate(case.calculator, atoms) for atoms in (one, other)]
    forces = np.concatenate([part.forces for part in parts])
    scale = max(1.0, np.abs(forces).max())
    energy = abs(both.energy - 0.5 * (parts[0].energy + parts[1].energy)) / scale
    value = np.max([energy, np.abs(both.forces - forces).max() / scale])  # unlike max, it keeps NaN
    yield Finding(name, measured, value, upper=ROUND_OFF, note=f"with {gap:.4g} Angstrom between them")


def _beside(one: ase.Atoms, other: ase.Atoms, gap: float) -> ase.Atoms:
    """Both structures, ``gap`` Angstrom apart along a direction that is not periodic."""
    direction = np.linalg.svd(one.cell.array[one.pbc])[2][-1] if one.pbc.any() else np.array([0.0, 0.0, 1.0])
    moved = other.copy()
    moved.positions += (gap + (one.positions @ direction).max() - (other.positions @ direction).min()) * direction
    return _labelled_apart(one + moved, 2)


def _labelled_apart(atoms: ase.Atoms, copies: int) -> ase.Atoms:
    """Copies of a structure that stand one after the other, whose parts get labels of their own in each copy."""
    labels = labels_of(atoms)
    if labels is not None and len(labels):
        copy = np.repeat(np.arange(copies), len(labels) // copies)
        atoms.set_array(LABEL_ARRAYS[0], np.where(labels < 0, -1, labels + copy * (labels.max() + 1)))
    return atoms


def supercell(case: Case) -> Iterator[Finding]:
    """A repeated cell has the energy and the forces of its copies."""
    name, measured = "supercell", "energy and forces of a repeated cell"
    if not case.atoms.pbc.any():
        yield not_applicable(name, measured, "not periodic")
        return
    atoms = case.rattled()
    if getattr(case.calculator, "is_labelled", False):
        atoms.positions += Membership.of(Structure.from_atoms(atoms)).shift @ atoms.cell.array  # pieces are repeated
    axis = np.flatnonzero(atoms.pbc)[atoms.cell.lengths()[atoms.pbc].argmin()]
    repeat = [2 if direction == axis else 1 for direction in range(3)]
    expected = evaluate(case.calculator, atoms).of_atoms(np.tile(np.arange(len(atoms)), 2))
    value, where = deviation(evaluate(case.calculator, _labelled_apart(atoms.repeat(repeat), 2)), expected)
    note = ", ".join(filter(None, (" x ".join(map(str, repeat)), where)))
    yield Finding(name, measured, value, upper=ROUND_OFF, note=note)


def parts(case: Case) -> Iterator[Finding]:
    """The per-atom energies sum to the energy, and so do the energies of all parts plus those of the isolated atoms."""
    atoms = case.rattled()
    whole = evaluate(case.calculator, atoms)
    scale, size = max(1.0, np.abs(whole.forces).max()), len(atoms)
    measured = "per-atom energies and the energy, per atom"
    if whole.energies is None:
        yield not_applicable("parts", measured, "the calculator gives no per-atom energies")
    else:
        yield Finding("parts", measured, abs(whole.energies.sum() / size - whole.energy) / scale, upper=ROUND_OFF)
    measured = "energies of the hierarchy's parts and the energy, per atom"
    calculator = case.calculator
    if not isinstance(calculator, NBodyCalculator):
        yield not_applicable("parts", measured, "the calculator has no hierarchy of parts")
    elif len({network.config.layout for network in calculator.networks}) > 1:
        yield not_applicable("parts", measured, "the committee's members have different hierarchies")
    else:
        calculator.get_potential_energy(atoms)
        summed = sum(level.energies.sum() for level in calculator.part_energies) + _isolated(calculator, atoms)
        yield Finding("parts", measured, abs(summed / size - whole.energy) / scale, upper=ROUND_OFF)


def _isolated(calculator: NBodyCalculator, atoms: ase.Atoms) -> float:
    """The energy in eV of all atoms when they are far apart; for a committee, the mean of its members."""
    tables = [network.config.isolated_atom_energies for network in calculator.networks]
    return sum(table.get(symbol, 0.0) for table in tables for symbol in atoms.symbols) / len(tables)
