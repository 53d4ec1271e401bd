"""Which structures are the same, however they are turned, shifted, permuted or wrapped.

The fingerprint of a structure is its radial distribution, per pair of species and atom, smeared to a few numbers:

    rho_ab(R) = 1/N sum_{i in a, j in b} exp(-(r_ij - R)^2 / 2 w^2) f_c(r_ij),   R = w, 2w, ... up to the cutoff.

and for molecules the root mean square distance of each pair of species, which sees beyond the cutoff. It is smooth, so
that structures which differ by rounding have fingerprints that differ by rounding. Mirror images share one, which is
as it should be: they have the same energy.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.structure import Structure

CUTOFF, WIDTH = 6.0, 0.25  # Angstrom
_GRID = np.arange(WIDTH, CUTOFF, WIDTH)


def fingerprint(structure: Structure) -> NDArray[np.float64]:
    """Fingerprint of one structure (species pairs * (grid + 1),), species in ascending order."""
    pairs = find_pairs(structure, CUTOFF)
    species, index = np.unique(structure.numbers, return_inverse=True)
    kind = index[pairs.first] * len(species) + index[pairs.second]
    fade = (1.0 - (pairs.distance / CUTOFF) ** 2) ** 3
    smeared = np.exp(-0.5 * ((pairs.distance[:, None] - _GRID) / WIDTH) ** 2) * fade[:, None]
    density = np.zeros((len(species) ** 2, len(_GRID)))
    np.add.at(density, kind, smeared)
    spread = np.zeros((len(species), len(species)))
    if not structure.pbc.any():
        for row, one in enumerate(species):
            for column, other in enumerate(species):
                between = cdist(*(structure.positions[structure.numbers == number] for number in (one, other)))
                spread[row, column] = np.sqrt(np.mean(between**2))
    return np.append(density / len(structure), spread)


def equal_structures(
    first: Sequence[Structure], second: Sequence[Structure] | None = None, tolerance: float = 1e-3
) -> list[tuple[int, int]]:
    """Pairs (i, j) of structures that are the same: of ``first`` and ``second``, or i < j within ``first``.

    Args:
        first: structures.
        second: others to compare with; default: each other.
        tolerance: largest difference of any component of the fingerprints. 1e-3 is what positions rounded to about
            1e-3 Angstrom make of it; frames of molecular dynamics one step apart differ by more.
    """
    within = second is None
    left, right = _by_composition(first), _by_composition(first if second is None else second)
    found = []
    for composition in left.keys() & right.keys():
        (rows, points), (columns, others) = left[composition], right[composition]
        near = cKDTree(points).query_ball_tree(cKDTree(others), tolerance, p=np.inf)
        found += [(rows[i], columns[j]) for i, hits in enumerate(near) for j in hits]
    return sorted(pair for pair in found if not within or pair[0] < pair[1])


def _by_composition(structures: Sequence[Structure]) -> dict[tuple[object, ...], tuple[list[int], NDArray[np.float64]]]:
    """Positions in the list and fingerprints (structures, components), grouped by species counts and periodicity."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, structure in enumerate(structures):
        species, counts = np.unique(structure.numbers, return_counts=True)
        shares = counts / len(structure)  # a supercell is the same structure
        groups.setdefault((*species, *shares.round(9), int(structure.pbc.sum())), []).append(index)
    return {
        key: (indices, np.stack([fingerprint(structures[index]) for index in indices]))
        for key, indices in groups.items()
    }
