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


def bonded_counts(
    numbers: NDArray[np.int64], pairs: Pairs, species: NDArray[np.int64], factor: float = BOND
) -> NDArray[np.int64]:
    """How many atoms of each species are bonded to each atom (N, species).

    Args:
        numbers: atomic numbers (N,).
        pairs: all pairs within at least ``bond_reach(species, factor)``.
        species: atomic numbers to count, ascending; all ``numbers`` are among them.
        factor: a bond is shorter than this, times the sum of the covalent radii.
    """
    near = pairs.distance < factor * (covalent_radii[numbers[pairs.first]] + covalent_radii[numbers[pairs.second]])
    column = np.searchsorted(species, numbers[pairs.second[near]])
    flat = pairs.first[near] * len(species) + column
    return np.bincount(flat, minlength=len(numbers) * len(species)).reshape(len(numbers), len(species))


def bond_reach(species: NDArray[np.int64], factor: float = BOND) -> float:
    """The longest bond in Angstrom between atoms of the given atomic numbers."""
    return float(2.0 * factor * covalent_radii[species].max(initial=0.0))


def densities(n_atoms: int, pairs: Pairs, radius: float) -> NDArray[np.float64]:
    """The density of neighbours rho_i of each atom (N,), within ``radius`` Angstrom."""
    closeness = np.maximum(1.0 - np.square(pairs.distance / radius), 0.0)
    found: NDArray[np.float64] = np.bincount(pairs.first, closeness * closeness * closeness, minlength=n_atoms).astype(np.float64)
    return found
