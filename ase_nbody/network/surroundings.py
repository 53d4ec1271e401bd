"""What surrounds each atom: which atoms are bonded to it, and how densely its neighbours are packed.

Two atoms count as bonded if their distance is below a factor times the sum of their covalent radii. The density is a
smooth number of neighbours, in which close ones count more:

    rho_i = sum_j (1 - (r_ij / R)^2)^3,   r_ij < R

Training records both for its data (``Coverage``), and evaluation compares a structure with that record.
"""

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from ase_nbody.hierarchy.neighbours import Pairs

BOND = 1.3  # times the sum of the covalent radii. Bonds of hot molecules are shorter, hydrogen bonds are longer.


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
    near = pairs.distance < factor * (radii[pairs.first] + radii[pairs.second])
    return Pairs(pairs.first[near], pairs.second[near], pairs.shift[near], pairs.distance[near])


def bond_reach(species: NDArray[np.int64], factor: float = BOND) -> float:
    """The longest bond in Angstrom between atoms of the given atomic numbers."""
    return float(2.0 * factor * covalent_radii[species].max(initial=0.0))


def densities(n_atoms: int, pairs: Pairs, radius: float) -> NDArray[np.float64]:
    """The density of neighbours rho_i of each atom (N,), within ``radius`` Angstrom."""
    closeness = np.maximum(1.0 - np.square(pairs.distance / radius), 0.0)
    cubes = closeness * closeness * closeness
    return np.bincount(pairs.first, cubes, minlength=n_atoms).astype(np.float64)
