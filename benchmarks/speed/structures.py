"""The structures that are timed, made with ASE alone."""

import ase
import numpy as np
from ase.build import bulk, molecule


def structure(name: str) -> ase.Atoms:
    """Make the structure of a name: ``"3BPA"``, or kind and number of atoms, as in ``"water 192"``."""
    if name == "3BPA":
        return benzyloxypyridinamine()
    kind, _, number = name.partition(" ")
    unit = {
        "water": molecule("H2O", cell=[3.105] * 3, pbc=True),  # at the density of the liquid
        "silicon": bulk("Si", cubic=True),
        "molybdenum": bulk("Mo", cubic=True),
    }[kind]
    box = unit.repeat(round((int(number) / len(unit)) ** (1 / 3)))
    if len(box) != int(number):
        raise ValueError(f"{name}: the nearest cube of unit cells has {len(box)} atoms")
    box.rattle(0.05, seed=0)
    return box


def benzyloxypyridinamine() -> ase.Atoms:
    """3-(benzyloxy)pyridin-2-amine (3BPA, C12H12N2O), joined from small molecules and not relaxed."""
    atoms = join(molecule("C5H5N"), 10, molecule("H2O"), 1.36, turn=270.0)
    atoms = join(atoms, 7, molecule("NH3"), 1.36, turn=0.0)
    atoms = join(atoms, 10, molecule("CH4"), 1.43, turn=300.0)
    return join(atoms, len(atoms) - 1, molecule("C6H6"), 1.51, turn=90.0)


def join(atoms: ase.Atoms, hydrogen: int, other: ase.Atoms, length: float, turn: float) -> ase.Atoms:
    """Replace a hydrogen atom of a molecule by another molecule, which loses its last atom, a hydrogen.

    Args:
        atoms: the molecule that stays where it is.
        hydrogen: index of its atom that is replaced.
        other: the molecule that is moved.
        length: length of the new bond in Angstrom.
        turn: angle in degrees by which the other molecule is turned around the bond.
    """
    here, there = (_bonded(one, index) for one, index in ((atoms, hydrogen), (other, len(other) - 1)))
    bond = atoms.positions[hydrogen] - atoms.positions[here]
    bond /= np.linalg.norm(bond)
    other = other.copy()
    other.rotate(other.positions[-1] - other.positions[there], -bond)
    other.rotate(turn, bond)
    other.translate(atoms.positions[here] + length * bond - other.positions[there])
    return atoms[np.arange(len(atoms)) != hydrogen] + other[:-1]


def _bonded(atoms: ase.Atoms, index: int) -> int:
    """The index of the atom nearest to a given one."""
    return int(np.argsort(atoms.get_distances(index, range(len(atoms))))[1])
