"""Find pairs of atoms within a cutoff (with vesin), and decide whether a list with a skin is still valid."""

import contextlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from vesin import NeighborList

from ase_nbody.hierarchy.crowds import cell_heights, refuse_clumps, refuse_crowds
from ase_nbody.structure import Structure

MAX_SKEW = 1000.0  # volume of a cell over the product of its heights; an orthogonal cell has 1
_MAX_SKEW_OF_TORUS = 10.0  # the same where only atoms at one place are looked for
_MAX_EXTENT_IN_CUTOFFS = 10.0  # a molecule up to this long is searched as it is, without ``compact``
_FEW_ATOMS = 100  # up to this number of atoms, all distances take less time than a grid
_DTYPES = (np.int64, np.int64, np.float64)  # of pairs, shifts and distances


@dataclass(frozen=True)
class Pairs:
    """All ordered pairs (i, j) closer than a cutoff, with periodic images, sorted by i, j and shift.

    The pair vector is ``positions[second] + shift @ cell - positions[first]``.

    Attributes:
        first: index of the atom i (E,), ascending.
        second: index of its neighbour j (E,).
        shift: lattice translation of j in whole lattice vectors (E, 3).
        distance: length of the pair vector in Angstrom (E,) in the structure that was searched.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    shift: NDArray[np.int64]
    distance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Edges:
    """The same as ``Pairs``, with tensors on any device."""

    first: Tensor
    second: Tensor
    shift: Tensor
    distance: Tensor

    def within(self, cutoff: float) -> "Edges":
        """The pairs whose distance is at most ``cutoff`` Angstrom."""
        near = self.distance <= cutoff
        return self if near.all() else self.select(near.nonzero().squeeze(1))

    def select(self, which: Tensor) -> "Edges":
        """The pairs with the given indices."""
        return Edges(*(tensor.index_select(0, which) for tensor in self.tensors()))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All attributes in their order."""
        return self.first, self.second, self.shift, self.distance


def find_pairs(structure: Structure, cutoff: float) -> Pairs:
    """All ordered pairs within ``cutoff`` Angstrom. In a small cell, a neighbour may occur as several images.

    Raises:
        StructureError: the atoms have far more neighbours than in any material, or share a place. It is raised
            before memory is spent.
    """
    return Pairs(*(tensor.numpy() for tensor in find_edges(structure, cutoff).tensors()))


def find_edges(structure: Structure, cutoff: float, device: torch.device | str = "cpu") -> Edges:
    """Same as ``find_pairs``, with tensors on a device. If the search fails on a GPU, the CPU does it."""
    if len(structure) == 0 or (len(structure) == 1 and not structure.pbc.any()):
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return Edges(none, none, none.new_zeros(0, 3), none.double())
    if (reduced := _less_skewed(structure)) is not None:
        simpler, combinations = reduced
        edges = find_edges(simpler, cutoff, device)
        shift = edges.shift @ torch.from_numpy(combinations).to(device)
        return _sorted(torch.stack([edges.first, edges.second], 1), shift, edges.distance, len(structure))
    spread = np.ptp(structure.positions, axis=0)
    if not structure.pbc.any() and (spread < _MAX_EXTENT_IN_CUTOFFS * cutoff).all():
        if len(structure) <= _FEW_ATOMS and torch.device(device).type == "cpu":
            return _among_few(structure.positions, cutoff)
        refuse_clumps(structure.positions, cutoff)
        refuse_crowds(structure, np.diag(spread + 1.5 * cutoff), cutoff)
        found = _search(structure.positions, np.zeros((3, 3)), cutoff, torch.device(device), periodic=False)
        return _sorted(*found, len(structure)).within(cutoff)
    positions, wraps, box = compact(structure, 1.5 * cutoff)
    extents = cell_heights(box)
    refuse_clumps(positions, cutoff)  # of the atoms wrapped into the cell: far outside, they may share a place there
    refuse_crowds(structure, box, cutoff)
    found = _search(positions, box, _search_radius(extents, cutoff), torch.device(device), periodic=True)
    edges = _sorted(*found, len(structure))
    wrap = torch.from_numpy(wraps).to(device)
    shift = edges.shift + (wrap.index_select(0, edges.first) - wrap.index_select(0, edges.second))
    return replace(edges, shift=shift).within(cutoff)


def _among_few(positions: NDArray[np.float64], cutoff: float) -> Edges:
    """The pairs of a small molecule, from all distances: a grid would take many times as long."""
    vectors = positions - positions[:, None]
    distance = np.sqrt(np.einsum("ijx,ijx->ij", vectors, vectors))
    np.fill_diagonal(distance, np.inf)
    first, second = np.nonzero(distance <= cutoff)
    found = map(torch.from_numpy, (first, second, np.zeros((len(first), 3), np.int64), distance[first, second]))
    return Edges(*found)


def coincident_atoms(structure: Structure, distance: float) -> tuple[int, int] | None:
    """The first two atoms, images included, closer than ``distance`` Angstrom; None if there are none.

    For distances far below the lattice vectors this is much quicker than ``find_pairs``: a k-d tree in the coordinates
    along the lattice vectors, where the cell is a torus.
    """
    if not structure.pbc.any() and len(structure) <= _FEW_ATOMS:
        near = _among_few(structure.positions, np.nextafter(distance, 0.0))
        return (int(near.first[0]), int(near.second[0])) if len(near.first) else None
    if (reduced := _less_skewed(structure, _MAX_SKEW_OF_TORUS)) is not None:
        structure, _ = reduced
    box = complete_cell(structure)
    coordinates = np.linalg.solve(box.T, structure.positions.T).T
    on_torus = np.where(structure.pbc, coordinates % 1.0 % 1.0, coordinates)  # once more: -1e-17 % 1.0 is 1.0
    if (pair := _in_one_cube(on_torus @ box, distance)) is not None:
        return pair
    # In units of the heights, no coordinate of two close atoms differs by more than their distance.
    heights = cell_heights(box)
    scaled, ends = on_torus * heights, np.where(structure.pbc, heights, np.inf)
    tree = cKDTree(np.minimum(scaled, np.nextafter(ends, 0.0)), boxsize=np.where(structure.pbc, heights, 0.0))
    pairs = tree.query_pairs(1.001 * distance, p=np.inf, output_type="ndarray")
    apart = coordinates[pairs[:, 1]] - coordinates[pairs[:, 0]]
    apart -= np.where(structure.pbc, np.round(apart), 0.0)
    close = pairs[np.linalg.norm(apart @ box, axis=1) < distance]
    return None if not len(close) else (int(close[:, 0].min()), int(close[close[:, 0].argmin(), 1]))


def _in_one_cube(positions: NDArray[np.float64], distance: float) -> tuple[int, int] | None:
    """The first two atoms in one cube so small that they are closer than ``distance``; None if there are none.

    Thousands of atoms at one place have more pairs than fit into memory. Without two atoms in a cube, an atom has few.
    """
    cubes = np.floor(positions * (2.0 / distance))
    order = np.lexsort(cubes.T)  # stable: the atoms of a cube stay in order
    equal = np.flatnonzero((np.diff(cubes[order], axis=0) == 0.0).all(axis=1))
    if not len(equal):
        return None
    first = equal[order[equal].argmin()]
    return int(order[first]), int(order[first + 1])


def _search(
    positions: NDArray[np.float64], box: NDArray[np.float64], radius: float, device: torch.device, *, periodic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (E, 2), shifts (E, 3) and distances (E,) in no particular order.

    The box is periodic in all directions or in none: with mixed boundaries vesin would compare every grid cell with
    every other, and a periodic box with a gap has the same pairs.
    """
    search = NeighborList(cutoff=radius, full_list=True)
    if device.type == "cuda":
        here = (torch.tensor(array, device=device) for array in (positions, box))
        # RuntimeError: vesin finds more neighbours than it has room for, or it finds no CUDA runtime.
        with contextlib.suppress(RuntimeError):
            pairs, shift, distance = search.compute(*here, periodic=periodic, quantities="PSd")
            return pairs.view(torch.int64), shift.long(), distance
    found = search.compute(positions, box, periodic=periodic, quantities="PSd")
    pairs, shift, distance = (
        torch.from_numpy(array.astype(dtype)) for array, dtype in zip(found, _DTYPES, strict=True)
    )
    return pairs.to(device), shift.to(device), distance.to(device)


def _sorted(pairs: Tensor, shift: Tensor, distance: Tensor, n_atoms: int) -> Edges:
    """The pairs sorted by i, j and shift, so that their order does not depend on the search.

    One integer key for each pair holds i, j and the shift.
    """
    edges = Edges(pairs[:, 0], pairs[:, 1], shift, distance)
    if not len(distance):
        return edges
    lowest, highest = shift.amin(0), shift.amax(0)
    key = edges.first * n_atoms + edges.second
    for axis, number in enumerate((highest - lowest + 1).tolist()):
        key = key * number + (shift[:, axis] - lowest[axis])
    order = torch.from_numpy(np.argsort(key.numpy())) if key.device.type == "cpu" else key.argsort()
    return edges.select(order)


def compact(structure: Structure, gap: float) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Shrink the empty space of a structure without changing its close pairs.

    The search lays a grid over the extent of the structure, so flying fragments or a wide cell would cost memory. Along
    periodic directions this function wraps the atoms into the cell. Along all directions it cuts empty stretches to
    ``gap``, including the stretch across the end of the cell. Pairs closer than ``gap`` keep their vectors; all others
    stay farther apart than ``gap``.

    Args:
        structure: the system.
        gap: longest empty stretch in Angstrom that remains.

    Returns:
        positions: in Angstrom (N, 3).
        wraps: by how many lattice vectors each atom was moved back (N, 3).
        box: vectors in Angstrom (3, 3) of a box that is periodic in all directions, with a gap where the structure is
            not periodic.
    """
    box = complete_cell(structure)
    coordinates = np.linalg.solve(box.T, structure.positions.T)  # in lattice vectors, or in Angstrom if not periodic
    wraps = np.where(structure.pbc[:, None], np.floor(coordinates), 0.0)
    coordinates -= wraps
    moved = bool(wraps.any())
    cell, longest = box.copy(), gap / cell_heights(box)
    for axis, periodic in enumerate(structure.pbc):
        order = np.argsort(coordinates[axis])
        ahead = coordinates[axis, order[0]] + 1.0 if periodic else np.inf  # the image of the first atom
        steps = np.diff(coordinates[axis, order], append=ahead)
        if (steps <= longest[axis]).all():
            continue
        moved = moved or bool((steps[:-1] > longest[axis]).any())
        steps = np.minimum(steps, longest[axis])
        coordinates[axis, order] = np.cumsum(steps) - steps
        box[axis] *= steps.sum()
    positions = coordinates.T @ cell if moved else structure.positions
    return positions, wraps.T.astype(np.int64, order="C"), box


def _less_skewed(structure: Structure, most: float = MAX_SKEW) -> tuple[Structure, NDArray[np.int64]] | None:
    """The same crystal with short lattice vectors, and these as combinations (3, 3) of the given ones.

    None unless the cell is so skewed, by more than ``most``, that the search would look at thousands of images of each
    atom.
    """
    if not structure.pbc.any():
        return None
    cell = complete_cell(structure)
    if abs(np.linalg.det(cell)) < most * math.prod(cell_heights(cell).tolist()):
        return None
    return structure.with_short_lattice_vectors()


def _search_radius(extents: NDArray[np.float64], cutoff: float) -> float:
    """The radius in Angstrom to search with: the cutoff, or more for large flat systems.

    vesin 0.6 allows 1e5 grid cells. It coarsens a finer grid by one factor in all directions, and divides by zero if
    less than one cell is left in a thin direction. A larger radius makes the grid coarse enough from the start.
    """
    radius = cutoff
    while True:
        counts = np.maximum(np.floor(extents / radius), 1.0)
        if counts.prod() < 5e4 or counts.min() > 2.0 * np.cbrt(counts.prod() / 5e4):
            return radius
        radius *= 1.25


def complete_cell(structure: Structure) -> NDArray[np.float64]:
    """The cell (3, 3), in which unit vectors across the periodic ones replace the vectors that are not periodic.

    Their length does not matter, because no pair is shifted along them.
    """
    cell = np.where(structure.pbc[:, None], structure.cell, 0.0)
    if structure.pbc.all():
        return cell
    _, _, across = np.linalg.svd(cell)  # the last rows span the directions that the periodic vectors do not
    cell[~structure.pbc] = across[int(structure.pbc.sum()) :]
    return cell


def still_valid(before: Structure, after: Structure, cutoff: float, skin: float) -> bool:
    """Whether, for each radius r up to ``cutoff``, pairs of ``before`` within r + ``skin`` include those of ``after``.

    Let F be the deformation between the cells, sigma_min(F) its smallest singular value, and d_i the displacement of
    atom i beyond F. A pair that was not listed is now at least sigma_min(F) (r + skin) - 2 max|d_i| apart, which must
    be r or more. With sigma_min(F) <= 1 the largest r asks for most. In a cell that has grown it is the smallest, for
    which nothing but the skin is left, so that sigma_min(F) counts as 1 there. If the cell has not changed, this gives
    Verlet's criterion 2 max|d_i| < skin.
    """
    if not (_same(before.numbers, after.numbers) and _same(before.pbc, after.pbc)):
        return False
    if _same(before.cell, after.cell):
        stretch, moved = 1.0, after.positions - before.positions
    else:
        strain = np.linalg.solve(complete_cell(before), complete_cell(after))  # r_after = r_before @ strain
        stretch = min(1.0, np.linalg.svd(strain, compute_uv=False)[-1])
        moved = after.positions - before.positions @ strain
    farthest = math.sqrt((moved * moved).sum(axis=1).max(initial=0.0))
    return bool(2.0 * farthest < stretch * (cutoff + skin) - cutoff)


def _same(before: NDArray[Any], after: NDArray[Any]) -> bool:
    """Whether two arrays of one dtype have the same bits. On few atoms it is ten times as fast as ``array_equal``."""
    return before.tobytes() == after.tobytes()
