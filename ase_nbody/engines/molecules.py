"""Label the molecules of a structure by its bonds, for networks that have molecules as parts."""

import math
from collections.abc import Collection

import ase
import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_nbody.hierarchy.connected import connected_groups
from ase_nbody.network.surroundings import BOND, bonds_of
from ase_nbody.structure import Structure

# Their ions are as close to the molecules around them as a bond would be.
IONS = ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba")


def label_molecules(atoms: ase.Atoms, *, bond: float = BOND, ions: Collection[str] = IONS) -> NDArray[np.int64]:
    """Labels of molecules (N,): atoms that bonds connect have the same one, counted from 0 in the order of the atoms.

    >>> atoms.set_array("parts", label_molecules(atoms))  # doctest: +SKIP

    Label one structure and keep the labels while it moves: a molecule that comes apart, or two that meet, would change
    them, and with them the energy.

    Args:
        atoms: a structure whose molecules are apart.
        bond: two atoms are bonded if their distance is below this factor times the sum of their covalent radii.
        ions: chemical symbols of elements whose atoms are bonded to nothing.

    Raises:
        StructureError: the structure cannot be evaluated at all (see ``Structure.from_atoms``).
        ValueError: ``bond`` is not a number above 0, or ``ions`` names something other than an element.
    """
    if not 0.0 < bond < math.inf:
        raise ValueError(f"bond must be a finite factor above 0, such as {BOND}, got {bond}")
    ions = tuple(ions)  # an iterator would be empty when it is needed
    if unknown := [symbol for symbol in ions if symbol not in atomic_numbers]:
        raise ValueError(f"{unknown[0]!r} in ions is not a chemical symbol (write them as 'Na', 'K', ...)")
    structure = Structure.from_atoms(atoms)
    numbers = structure.numbers
    pairs = bonds_of(structure, bond)
    alone = np.isin(numbers, [atomic_numbers[symbol] for symbol in ions])
    bonded = ~(alone[pairs.first] | alone[pairs.second])
    first, second = pairs.first[bonded], pairs.second[bonded]
    found = connected_groups(len(numbers), first, second)
    _, firsts, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[inverse].astype(np.int64)
