"""Pairs of atoms within a cutoff, found by vesin, and the criterion by which a list with a skin stays valid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from vesin import NeighborList

from ase_nbody.structure import Structure


@dataclass(frozen=True)
class Pairs:
    """All ordered pairs (i, j) closer than a cutoff, periodic images included, sorted by i.

    The pair vector is ``positions[second] + shift @ cell - positions[first]``.

    Attributes:
        first: index of the centre i (E,), ascending.
        second: index of the neighbour j (E,).
        shift: lattice translation of j in whole lattice vectors (E, 3).
        distance: length of the pair vector in Angstrom (E,), when the pairs were found.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    shift: NDArray[np.int64]
    distance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)

    def within(self, cutoff: float) -> "Pairs":
        """The pairs that were closer than ``cutoff`` Angstrom."""
        if not len(self) or self.distance.max() <= cutoff:
            return self
        near = self.distance <= cutoff
        return Pairs(self.first[near], self.second[near], self.shift[near], self.distance[near])


def find_pairs(structure: Structure, cutoff: float) -> Pairs:
    """All ordered pairs within ``cutoff`` Angstrom, several images of a neighbour where the cell is small."""
    if len(structure) == 0 or (len(structure) == 1 and not structure.pbc.any()):
        none = np.zeros(0, dtype=np.int64)
        return Pairs(none, none, np.zeros((0, 3), dtype=np.int64), np.zeros(0))
    cell = complete_cell(structure)
    positions, wraps, extents = compact(structure, cell, 1.5 * cutoff)
    # With mixed boundaries vesin compares every cell with every other; a periodic box with a gap has the same pairs.
    extents = np.where(structure.pbc, extents, extents + 1.5 * cutoff)
    cell[~structure.pbc] *= extents[~structure.pbc, None]
    search = NeighborList(cutoff=_search_radius(extents, cutoff), full_list=True)
    first, second, shift, distance = search.compute(points=positions, box=cell, periodic=True, quantities="ijSd")
    first, second, shift = (array.astype(np.int64) for array in (first, second, shift))
    shift += wraps[first] - wraps[second]
    order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], second, first))  # one order, whatever the search did
    return Pairs(first[order], second[order], shift[order], distance[order]).within(cutoff)


def compact(
    structure: Structure, cell: NDArray[np.float64], gap: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """An equivalent of the structure, no larger than it must be, for a search that spends a grid on its extent.

    Along periodic directions atoms are wrapped into the cell. Along the others empty stretches are cut to ``gap``:
    pairs closer than that keep their vectors, all others stay farther apart, however far pieces have flown apart.

    Args:
        structure: the system.
        cell: its completed cell (3, 3).
        gap: longest empty stretch in Angstrom that is left.

    Returns:
        Positions (N, 3); how many lattice vectors each atom was moved back (N, 3); extents (3,) in Angstrom.
    """
    coordinates = np.linalg.solve(cell.T, structure.positions.T)  # in lattice vectors; along a unit vector if aperiodic
    wraps = np.where(structure.pbc[:, None], np.floor(coordinates), 0.0)
    extents = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)  # distances between the faces of the cell
    moved = bool(wraps.any())
    coordinates -= wraps
    for axis in np.flatnonzero(~structure.pbc):
        order = np.argsort(coordinates[axis])
        steps = np.diff(coordinates[axis, order])
        moved = moved or bool((steps > gap).any())
        coordinates[axis, order] = np.concatenate([[0.0], np.cumsum(np.minimum(steps, gap))])
        extents[axis] = coordinates[axis].max()
    positions = coordinates.T @ cell if moved else structure.positions
    return positions, wraps.T.astype(np.int64), extents


def _search_radius(extents: NDArray[np.float64], cutoff: float) -> float:
    """The cutoff, or more for flat systems whose grid of cells vesin would coarsen to nothing in the thin direction.

    vesin 0.6 allows 1e5 grid cells, shrinks finer grids by one factor in all directions, and divides by zero where less
    than one cell is left.
    """
    radius = cutoff
    while True:
        counts = np.maximum(np.floor(extents / radius), 1.0)
        if counts.prod() < 5e4 or counts.min() > 2.0 * np.cbrt(counts.prod() / 5e4):
            return radius
        radius *= 1.25


def complete_cell(structure: Structure) -> NDArray[np.float64]:
    """The cell, with unit vectors across the periodic ones in the directions that are not periodic (3, 3).

    Their length does not matter: no pair is shifted along them.
    """
    cell = np.where(structure.pbc[:, None], structure.cell, 0.0)
    if structure.pbc.all():
        return cell
    _, _, across = np.linalg.svd(cell)  # the last rows span what the periodic vectors do not
    cell[~structure.pbc] = across[int(structure.pbc.sum()) :]
    return cell


def still_valid(before: Structure, after: Structure, cutoff: float, skin: float) -> bool:
    """Whether pairs found for ``before`` within ``cutoff + skin`` hold all pairs of ``after`` within ``cutoff``.

    With the strain F between the cells and displacements d_i beyond it, a pair that was not listed is now at least
    sigma_min(F) (cutoff + skin) - 2 max|d_i| apart. For an unchanged cell this is Verlet's 2 max|d_i| < skin.
    """
    if not (np.array_equal(before.numbers, after.numbers) and np.array_equal(before.pbc, after.pbc)):
        return False
    if np.array_equal(before.cell, after.cell):
        stretch, moved = 1.0, after.positions - before.positions
    else:
        strain = np.linalg.solve(complete_cell(before), complete_cell(after))  # r_after = r_before @ strain
        stretch = np.linalg.svd(strain, compute_uv=False)[-1]
        moved = after.positions - before.positions @ strain
    farthest = np.sqrt((moved * moved).sum(axis=1).max(initial=0.0))
    return bool(2.0 * farthest < stretch * (cutoff + skin) - cutoff)
