"""Refuse structures with far more neighbours than any matter has, before these fill the memory."""

import math

import numpy as np
from numpy.typing import NDArray

from ase_nbody.structure import Structure, StructureError

# A sphere of 6 Angstrom has room for about 3,000 protons that are as close as those in H2. So 15,000 must be an error.
MAX_NEIGHBOURS = 15_000
# A cube of 2 Angstrom has room for about 27 protons that are as close as those in H2.
CUBE_ANGSTROM, MAX_ATOMS_IN_CUBE = 2.0, 100
# Matter has about one atom in such a cube. Where there are many times as many, a few thousand atoms fill gigabytes.
CROWDED_ATOMS_IN_CUBE, MAX_PAIRS_IN_CROWD = 20, 1e7


def cell_heights(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distances in Angstrom between opposite faces of a cell (3,)."""
    return 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)


def refuse_crowds(structure: Structure, box: NDArray[np.float64], cutoff: float) -> None:
    """Refuse a structure whose pairs would fill the memory. The estimate assumes that the atoms fill the box (3, 3)."""
    heights = cell_heights(box)
    # The box is larger than the atoms along directions that are not periodic.
    shares = np.where(structure.pbc, 1.0, np.maximum(heights - 1.5 * cutoff, 2.0 * cutoff) / heights)
    # A skewed box has a larger volume than the product of its heights.
    volume = abs(np.linalg.det(box)) * math.prod(shares.tolist())
    neighbours = len(structure) * 4.0 / 3.0 * math.pi * cutoff**3 / volume
    if neighbours > MAX_NEIGHBOURS:
        lengths = ", ".join(f"{length:.3g}" for length in np.linalg.norm(structure.cell, axis=1))
        raise StructureError(
            f"each atom would have about {neighbours:.1g} neighbours within {cutoff:.3g} Angstrom (allowed: "
            f"{MAX_NEIGHBOURS}): {len(structure)} atoms in a cell with vectors of {lengths} Angstrom are too crowded. "
            "Check atoms.cell and atoms.positions, which are in Angstrom (1 nm = 10 Angstrom), and the skin."
        )


def refuse_clumps(positions: NDArray[np.float64], cutoff: float) -> None:
    """Refuse positions (N, 3) where far too many atoms share a place, such as a molecule with positions in nm.

    The estimate of the pairs assumes that the cubes around an atom are as full as its own.
    """
    if len(positions) <= MAX_ATOMS_IN_CUBE:
        return
    cubes = np.floor(positions / CUBE_ANGSTROM).astype(np.int64)
    order = np.lexsort(cubes.T)
    ends = np.flatnonzero((np.diff(cubes[order], axis=0) != 0).any(axis=1))
    starts = np.concatenate([[0], ends + 1])
    counts = np.diff(starts, append=len(positions))
    fullest = int(counts.argmax())
    if counts[fullest] > MAX_ATOMS_IN_CUBE:
        raise StructureError(
            f"{counts[fullest]} atoms share a cube of {CUBE_ANGSTROM:g} Angstrom around atom "
            f"{order[starts[fullest]]} (allowed: {MAX_ATOMS_IN_CUBE}): they are too crowded. Check atoms.positions, "
            "which are in Angstrom (1 nm = 10 Angstrom)."
        )
    together = float(np.square(counts).sum()) / len(positions)  # atoms in the cube of an average atom
    pairs = len(positions) * together * 4.0 / 3.0 * math.pi * (cutoff / CUBE_ANGSTROM) ** 3
    if together > CROWDED_ATOMS_IN_CUBE and pairs > MAX_PAIRS_IN_CROWD:
        raise StructureError(
            f"{len(positions)} atoms would have about {pairs:.1g} pairs within {cutoff:.3g} Angstrom, because "
            f"{together:.0f} of them share a cube of {CUBE_ANGSTROM:g} Angstrom: they are too crowded. Check "
            "atoms.positions, which are in Angstrom (1 nm = 10 Angstrom)."
        )
