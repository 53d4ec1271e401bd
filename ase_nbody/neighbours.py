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
    positions = close_gaps(structure.positions, cell, structure.pbc, 1.5 * cutoff)
    search = NeighborList(cutoff=_search_radius(cell, structure.pbc, cutoff), full_list=True)
    first, second, shift, distance = search.compute(
        points=positions, box=cell, periodic=structure.pbc, quantities="ijSd"
    )
    first, second, shift = (array.astype(np.int64) for array in (first, second, shift))
    order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], second, first))  # one order, whatever the search did
    return Pairs(first[order], second[order], shift[order], distance[order]).within(cutoff)


def close_gaps(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], gap: float
) -> NDArray[np.float64]:
    """Positions (N, 3) with all empty stretches along the directions that are not periodic shortened to ``gap``.

    Pairs closer than ``gap`` keep their vectors, all others stay farther apart than that. So the extent of the system,
    on which the search spends its grid, is bounded however far its pieces have flown apart.
    """
    coordinates = np.linalg.solve(cell.T, positions.T)  # along a unit vector where not periodic
    wide = False
    for axis in np.flatnonzero(~pbc):
        order = np.argsort(coordinates[axis])
        steps = np.diff(coordinates[axis, order])
        wide = wide or bool((steps > gap).any())
        coordinates[axis, order[1:]] = np.cumsum(np.minimum(steps, gap))
        coordinates[axis, order[:1]] = 0.0
    return coordinates.T @ cell if wide else positions


def _search_radius(cell: NDArray[np.float64], pbc: NDArray[np.bool_], cutoff: float) -> float:
    """The cutoff, or more in flat boxes whose grid of cells vesin would coarsen to nothing in the thin direction.

    vesin 0.6 allows 1e5 grid cells, shrinks finer grids by one factor in all directions, and divides by zero where less
    than one cell is left.
    """
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)[pbc]
    while heights.size:
        counts = np.maximum(np.floor(heights / cutoff), 1.0)
        if counts.prod() < 5e4 or counts.min() > 2.0 * np.cbrt(counts.prod() / 5e4):
            break
        cutoff *= 1.25
    return cutoff


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
