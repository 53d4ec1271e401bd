"""Finds structures that are the same up to rotation, translation, order of the atoms and choice of the cell.

It compares fingerprints. The fingerprint of a structure of N atoms has, for each pair of species a and b, the radial
distribution per atom, smeared with the width w:

    rho_ab(R) = 1/N sum_{i in a, j in b} exp(-(r_ij - R)^2 / 2 w^2) f_c(r_ij),   R = w, 2w, ... up to the cutoff,

where f_c falls smoothly to zero at the cutoff. For molecules it also has the root mean square distance between atoms of
a and b, which includes distances beyond the cutoff. The fingerprint is a smooth function of the positions, so rounding
the positions changes it only a little. Mirror images have the same fingerprint, as they have the same energy.

Small random displacements in a large crystal average out in rho. So structures of equal fingerprints are compared atom
by atom too: each atom of one must have an atom in the other with the same distances to its nearest neighbours.
"""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.structure import Structure

CUTOFF = 6.0  # Angstrom
WIDTH = 0.25  # Angstrom: w above
_GRID = np.arange(WIDTH, CUTOFF, WIDTH)
_NEAREST = 16  # neighbours whose distances are compared for each atom
_MOST_COPIES = 10  # with which each structure is compared; a thousand copies have half a million pairs
_DISTANCE_TOLERANCE = 5.0  # largest difference of these distances in Angstrom, in units of ``tolerance``


def fingerprint(structure: Structure) -> NDArray[np.float64]:
    """Fingerprint of one structure (species pairs * (grid + 1),). The species are in ascending order."""
    pairs = find_pairs(structure, CUTOFF)
    species, index = np.unique(structure.numbers, return_inverse=True)
    species_pair = index[pairs.first] * len(species) + index[pairs.second]
    fade = (1.0 - (pairs.distance / CUTOFF) ** 2) ** 3
    smeared = np.exp(-0.5 * ((pairs.distance[:, None] - _GRID) / WIDTH) ** 2) * fade[:, None]
    density = np.zeros((len(species) ** 2, len(_GRID)))
    np.add.at(density, species_pair, smeared)
    rms_distance = np.zeros((len(species), len(species)))
    if not structure.pbc.any():
        positions = [structure.positions[structure.numbers == number] for number in species]
        for a in range(len(species)):
            for b in range(len(species)):
                rms_distance[a, b] = np.sqrt(np.mean(cdist(positions[a], positions[b]) ** 2))
    return np.append(density / len(structure), rms_distance)


def equal_structures(
    first: Sequence[Structure], second: Sequence[Structure] | None = None, tolerance: float = 1e-3
) -> list[tuple[int, int]]:
    """Pairs (i, j) of equal structures, in ascending order.

    i counts the structures of ``first`` and j those of ``second``. Without ``second``, both count those of ``first``,
    and i < j. Of many exact copies of one structure, of one charge, i is one of the first ten: each copy has its pairs,
    but there are not as many as the square of the copies.

    Args:
        first: structures.
        second: structures to compare them with; default: the same structures.
        tolerance: largest difference between components of the fingerprints of equal structures. Rounding the
            positions to about 1e-3 Angstrom changes them by 1e-3; two successive steps of molecular dynamics differ by
            more.
    """
    within = second is None
    left = _by_composition(first)
    right = left if second is None else _by_composition(second)
    found = []
    for composition in left.keys() & right.keys():
        copies, places = _copies(first, *left[composition])
        other_copies, other_places = _copies(first if second is None else second, *right[composition])
        near = cKDTree(places).query_ball_tree(cKDTree(other_places), tolerance, p=np.inf)
        for own, hits in zip(copies, near, strict=True):
            found += [(i, j) for hit in hits for j in other_copies[hit] for i in own[:_MOST_COPIES]]
    one, other = map(_with_contents, (first, first if second is None else second))
    found = sorted(pair for pair in found if not within or pair[0] < pair[1])
    surroundings = _Surroundings(_DISTANCE_TOLERANCE * tolerance)
    return [(i, j) for i, j in found if surroundings.same(*one[i], *other[j])]


def _copies(
    structures: Sequence[Structure], indices: list[int], points: NDArray[np.float64]
) -> tuple[list[list[int]], NDArray[np.float64]]:
    """The indices of structures of one charge and fingerprint, in ascending order; and each fingerprint once."""
    charges = [structures[index].charge for index in indices]
    rows, which = np.unique(np.column_stack([points, charges]), axis=0, return_inverse=True)
    copies: list[list[int]] = [[] for _ in rows]
    for index, row in zip(indices, which.ravel(), strict=True):
        copies[row].append(index)
    return copies, rows[:, :-1]


def _with_contents(structures: Sequence[Structure]) -> list[tuple[bytes, Structure]]:
    """Each structure behind a digest of it, which copies share."""
    return [
        (sha256(b"".join(a.tobytes() for a in (one.numbers, one.positions, one.cell, one.pbc))).digest(), one)
        for one in structures
    ]


class _Surroundings:
    """Compares structures atom by atom. Neighbours are searched once for each, not for each of its many pairs."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._near: dict[bytes, NDArray[np.float64]] = {}

    def same(self, content: bytes, first: Structure, other_content: bytes, second: Structure) -> bool:
        """Whether the atoms of two structures can be matched so that all distances to near neighbours are equal.

        A supercell matches its cell.
        """
        if content == other_content:
            return True
        (small, rows), (large, columns) = sorted(
            [(first, self._distances(content, first)), (second, self._distances(other_content, second))],
            key=lambda pair: len(pair[0]),
        )
        repeats, rest = divmod(len(large), len(small))
        if rest:
            return True  # two supercells of one cell, as their fingerprints say
        difference = cdist(np.tile(rows, (repeats, 1)), columns, metric="chebyshev")
        difference[np.tile(small.numbers, repeats)[:, None] != large.numbers] = CUTOFF
        # The assignment with the smallest largest difference: differences within the tolerance cost nothing.
        cost = (difference > self._tolerance).astype(np.float64)
        return not bool(cost[linear_sum_assignment(cost)].any())

    def _distances(self, content: bytes, structure: Structure) -> NDArray[np.float64]:
        if content not in self._near:
            self._near[content] = _near_distances(structure)
        return self._near[content]


def _near_distances(structure: Structure) -> NDArray[np.float64]:
    """Distances of each atom to its nearest neighbours (N, _NEAREST) in ascending order, at most CUTOFF."""
    pairs = find_pairs(structure, CUTOFF)
    order = np.lexsort((pairs.distance, pairs.first))
    first, distance = pairs.first[order], pairs.distance[order]
    rank = np.arange(len(first)) - np.searchsorted(first, first)
    near = np.full((len(structure), _NEAREST), CUTOFF)
    near[first[rank < _NEAREST], rank[rank < _NEAREST]] = distance[rank < _NEAREST]
    return near


def _by_composition(structures: Sequence[Structure]) -> dict[tuple[object, ...], tuple[list[int], NDArray[np.float64]]]:
    """The structures grouped by composition and number of periodic directions.

    Returns:
        For each group the indices of its structures in the list and their fingerprints (structures, components).
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, structure in enumerate(structures):
        species, counts = np.unique(structure.numbers, return_counts=True)
        shares = counts / len(structure)  # shares, not counts: a supercell is the same structure
        groups.setdefault((*species, *shares.round(9), int(structure.pbc.sum())), []).append(index)
    return {
        key: (indices, np.stack([fingerprint(structures[index]) for index in indices]))
        for key, indices in groups.items()
    }
