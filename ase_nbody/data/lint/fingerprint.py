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

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

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
_MOST_BESIDE_TREE = 200  # structures that are searched one by one before a tree is made of them
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
    and i < j. Each j is compared with the ten nearest i by their fingerprints, and with the ten nearest of its own
    charge. Of many equal structures, i is one of the first ten: each of them has its pairs, but there are not as many
    as the square of their number.

    Args:
        first: structures.
        second: structures to compare them with; default: the same structures.
        tolerance: largest difference between components of the fingerprints of equal structures. Rounding the
            positions to about 1e-3 Angstrom changes them by 1e-3; two successive steps of molecular dynamics differ by
            more.
    """
    surroundings = _Surroundings(_DISTANCE_TOLERANCE * tolerance)
    groups: defaultdict[tuple[object, ...], _Known] = defaultdict(lambda: _Known(tolerance))

    def equal_to(described: _Described, *, add: int | None) -> set[int]:
        """The structures of ``first`` so far that equal this one, to which it is then added as this number."""
        equal: set[int] = set()
        for group in (groups[described.composition], groups[*described.composition, described.charge]):
            found = [number for number, other in group.nearest(described) if surroundings.same(described, other)]
            if add is not None and len(found) < _MOST_COPIES:
                group.add(add, described)
            equal |= {*found}
        return equal

    within = [equal_to(_Described.of(one), add=number) for number, one in enumerate(first)]
    found = within if second is None else [equal_to(_Described.of(one), add=None) for one in second]
    return sorted((i, j) for j, equal in enumerate(found) for i in equal)


class _Described(NamedTuple):
    """A structure and what it is compared by.

    Attributes:
        structure: the structure.
        fingerprint: see ``fingerprint``.
        composition: species, their shares and the number of periodic directions. A supercell has those of its cell.
        charge: total charge in e.
        content: a digest of the structure, which exact copies share.
    """

    structure: Structure
    fingerprint: NDArray[np.float64]
    composition: tuple[object, ...]
    charge: float
    content: bytes

    @classmethod
    def of(cls, structure: Structure) -> "_Described":
        species, counts = np.unique(structure.numbers, return_counts=True)
        composition = (*species, *(counts / len(structure)).round(9), int(structure.pbc.sum()))
        arrays = (structure.numbers, structure.positions, structure.cell, structure.pbc)
        content = sha256(b"".join(array.tobytes() for array in arrays)).digest()
        return cls(structure, fingerprint(structure), composition, structure.charge, content)


class _Known:
    """Structures of one composition, which others are compared with."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._members: list[tuple[int, _Described]] = []
        self._tree: cKDTree | None = None  # of the first members; the others are few

    def add(self, number: int, described: _Described) -> None:
        """Add a structure under a number."""
        self._members.append((number, described))
        in_tree = 0 if self._tree is None else self._tree.n
        if len(self._members) > in_tree + max(_MOST_BESIDE_TREE, in_tree // 4):
            self._tree = cKDTree(self._fingerprints(0))

    def nearest(self, described: _Described) -> list[tuple[int, _Described]]:
        """At most ten structures whose fingerprints are within the tolerance, the nearest ones first."""
        in_tree, near = 0, []
        if self._tree is not None:
            in_tree, bound = self._tree.n, self._tolerance
            hits = self._tree.query(described.fingerprint, _MOST_COPIES, p=np.inf, distance_upper_bound=bound)
            near = [(distance, int(place)) for distance, place in zip(*hits, strict=True) if place < in_tree]
        if len(self._members) > in_tree:
            distances = np.abs(self._fingerprints(in_tree) - described.fingerprint).max(axis=1)
            near += [(distances[place], in_tree + int(place)) for place in np.flatnonzero(distances < self._tolerance)]
        return [self._members[place] for _, place in sorted(near)[:_MOST_COPIES]]

    def _fingerprints(self, start: int) -> NDArray[np.float64]:
        return np.stack([described.fingerprint for _, described in self._members[start:]])


class _Surroundings:
    """Compares structures atom by atom. Neighbours are searched once for each, not for each of its many pairs."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._near: dict[bytes, NDArray[np.float64]] = {}

    def same(self, first: _Described, second: _Described) -> bool:
        """Whether the atoms of two structures can be matched so that all distances to near neighbours are equal.

        A supercell matches its cell.
        """
        if first.content == second.content:
            return True
        (small, rows), (large, columns) = sorted(
            ((one.structure, self._distances(one)) for one in (first, second)), key=lambda pair: len(pair[0])
        )
        repeats, rest = divmod(len(large), len(small))
        if rest:
            return True  # two supercells of one cell, as their fingerprints say
        difference = cdist(np.tile(rows, (repeats, 1)), columns, metric="chebyshev")
        difference[np.tile(small.numbers, repeats)[:, None] != large.numbers] = CUTOFF
        # The assignment with the smallest largest difference: differences within the tolerance cost nothing.
        cost = (difference > self._tolerance).astype(np.float64)
        if cost.all(axis=0).any() or cost.all(axis=1).any():  # an atom that is like none
            return False
        return not bool(cost[linear_sum_assignment(cost)].any())

    def _distances(self, described: _Described) -> NDArray[np.float64]:
        if described.content not in self._near:
            self._near[described.content] = _near_distances(described.structure)
        return self._near[described.content]


def _near_distances(structure: Structure) -> NDArray[np.float64]:
    """Distances of each atom to its nearest neighbours (N, _NEAREST) in ascending order, at most CUTOFF."""
    pairs = find_pairs(structure, CUTOFF)
    order = np.lexsort((pairs.distance, pairs.first))
    first, distance = pairs.first[order], pairs.distance[order]
    rank = np.arange(len(first)) - np.searchsorted(first, first)
    near = np.full((len(structure), _NEAREST), CUTOFF)
    near[first[rank < _NEAREST], rank[rank < _NEAREST]] = distance[rank < _NEAREST]
    return near
