"""What surrounds each atom: which atoms are bonded to it, which are in contact, how densely its neighbours are packed.

Two atoms count as bonded if their distance is below a factor times the sum of their covalent radii. They are in contact
if they are not much farther apart than the sum of their van der Waals radii (Alvarez, Dalton Trans. 42, 8617, 2013) and
neither bonded to each other nor to one atom in common. Atoms that bonds link, directly or through others, are of one
molecule. The density is a smooth number of neighbours; close ones count
more:

    rho_i = sum_j (1 - (r_ij / R)^2)^3,   r_ij < R

Training records all of this for its data (``Coverage``), and evaluation compares a structure with that record.
"""

from collections.abc import Iterator

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.vdw_alvarez import vdw_radii
from numpy.typing import NDArray

from ase_nbody.hierarchy.connected import connected_groups
from ase_nbody.hierarchy.neighbours import Pairs, find_pairs
from ase_nbody.structure import Structure

BOND = 1.3  # times the sum of the covalent radii. Bonds of hot molecules are shorter, hydrogen bonds are longer.
CONTACT = 1.1  # times the sum of the van der Waals radii
_CANDIDATES_AT_ONCE = 2000  # pairs that may be contacts; those of one chunk are compared together


def bonded_counts(numbers: NDArray[np.int64], bonds: Pairs, species: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many atoms of each species are bonded to each atom (N, species).

    Args:
        numbers: atomic numbers (N,).
        bonds: the bonds (see ``closer_than_bonds``).
        species: atomic numbers to count, ascending; those of all atoms are among them.
    """
    column = np.searchsorted(species, numbers[bonds.second])
    counts = np.bincount(bonds.first * len(species) + column, minlength=len(numbers) * len(species))
    return counts.reshape(len(numbers), len(species))


def closer_than_bonds(numbers: NDArray[np.int64], pairs: Pairs, factor: float = BOND) -> Pairs:
    """The pairs whose distance is below ``factor`` times the sum of their covalent radii."""
    radii = covalent_radii[numbers]
    return _chosen(pairs, pairs.distance < factor * (radii[pairs.first] + radii[pairs.second]))


def closer_than_contacts(numbers: NDArray[np.int64], pairs: Pairs, factor: float = CONTACT) -> Pairs:
    """The pairs whose distance is below ``factor`` times the sum of their van der Waals radii, bonded or not."""
    radii = vdw_radii[numbers]  # NaN if it is unknown: such an element is in contact with nothing
    return _chosen(pairs, pairs.distance < factor * (radii[pairs.first] + radii[pairs.second]))


def contacts(numbers: NDArray[np.int64], near: Pairs, bonds: Pairs, wanted: NDArray[np.bool_]) -> Iterator[int]:
    """Which of some near pairs are contacts: their indices, one by one.

    Args:
        numbers: atomic numbers (N,).
        near: pairs that are close enough (see ``closer_than_contacts``), sorted by their first atom.
        bonds: the bonds, sorted by their first atom.
        wanted: whether a contact of two atomic numbers is looked for (elements, elements). The caller may change it.
    """
    begin = np.searchsorted(bonds.first, np.arange(len(numbers) + 1))
    candidates = np.flatnonzero(wanted[numbers[near.first], numbers[near.second]])
    for some in np.array_split(candidates, max(1, -(-len(candidates) // _CANDIDATES_AT_ONCE))):
        some = some[wanted[numbers[near.first[some]], numbers[near.second[some]]]]
        if not len(some):
            continue
        around = _bonds_of(np.unique(near.first[some]), bonds, begin)
        middle, second = around[:, 1], _bonds_of(around[:, 1], bonds, begin)
        times = begin[middle + 1] - begin[middle]
        beyond = np.column_stack(
            [np.repeat(around[:, 0], times), second[:, 1], np.repeat(around[:, 2:], times, axis=0) + second[:, 2:]]
        )
        rows = np.column_stack([near.first[some], near.second[some], near.shift[some]]).astype(np.int64)
        linked = np.concatenate([around, beyond])
        keys = np.unique(np.concatenate([rows, linked]), axis=0, return_inverse=True)[1].ravel()
        yield from some[~np.isin(keys[: len(rows)], keys[len(rows) :])].tolist()


def _bonds_of(atoms: NDArray[np.int64], bonds: Pairs, begin: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bonds of each atom, one atom after another: first and second atom, and the shift of its cell (bonds, 5)."""
    times = begin[atoms + 1] - begin[atoms]
    within_one = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    index = np.repeat(begin[atoms], times) + within_one
    return np.column_stack([bonds.first[index], bonds.second[index], bonds.shift[index]]).astype(np.int64)


def between_molecules(n_atoms: int, pairs: Pairs, bonds: Pairs) -> NDArray[np.int64]:
    """Indices of the pairs whose atoms are of two molecules. An image of a molecule counts as the molecule itself."""
    molecule = connected_groups(n_atoms, bonds.first, bonds.second)
    return np.flatnonzero(molecule[pairs.first] != molecule[pairs.second])


def bonds_of(structure: Structure, bond: float = BOND) -> Pairs:
    """The bonds of a structure: pairs closer than ``bond`` times the sum of their covalent radii."""
    numbers = structure.numbers
    return closer_than_bonds(numbers, find_pairs(structure, max(bond_reach(np.unique(numbers), bond), 1e-3)), bond)


def of_several_molecules(structure: Structure) -> tuple[int, int, int] | None:
    """The label of the first part with atoms of several molecules, and two of these atoms; None if there is none."""
    labels = structure.labels
    if labels is None:
        return None
    bonds = bonds_of(structure)
    molecule = connected_groups(len(labels), bonds.first, bonds.second)
    order = np.argsort(labels, kind="stable")
    before, after = order[:-1], order[1:]
    several = (labels[before] == labels[after]) & (labels[before] >= 0) & (molecule[before] != molecule[after])
    if not several.any():
        return None
    place = int(np.argmax(several))
    return int(labels[before[place]]), int(before[place]), int(after[place])


def within(pairs: Pairs, radius: float) -> Pairs:
    """The pairs at most ``radius`` Angstrom apart."""
    return _chosen(pairs, pairs.distance <= radius)


def pair_of(first: int, second: int) -> str:
    """The name of a pair of atomic numbers, the lighter element first: ``H-O``."""
    return f"{chemical_symbols[min(first, second)]}-{chemical_symbols[max(first, second)]}"


def _chosen(pairs: Pairs, which: NDArray[np.bool_]) -> Pairs:
    return Pairs(pairs.first[which], pairs.second[which], pairs.shift[which], pairs.distance[which])


def bond_reach(species: NDArray[np.int64], factor: float = BOND) -> float:
    """The longest bond in Angstrom between atoms of the given atomic numbers."""
    return float(2.0 * factor * covalent_radii[species].max(initial=0.0))


def densities(n_atoms: int, pairs: Pairs, radius: float) -> NDArray[np.float64]:
    """The density of neighbours rho_i of each atom (N,), within ``radius`` Angstrom."""
    closeness = np.maximum(1.0 - np.square(pairs.distance / radius), 0.0)
    cubes = closeness * closeness * closeness
    return np.bincount(pairs.first, cubes, minlength=n_atoms).astype(np.float64)
