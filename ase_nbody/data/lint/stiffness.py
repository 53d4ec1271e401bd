"""Whether bonds are as stiff as they should be: the absolute scale of the forces.

Energies in Hartree match forces in Hartree/Angstrom; only what is known of molecules tells that neither is right.
Badger's rule (J. Chem. Phys. 2, 128 (1934), and 3, 710 (1935)) gives the force constant of a bond of length r from the
rows of the periodic table that its atoms belong to:

    k = 1.86 mdyn/Angstrom / ((r - d) / Angstrom)^3.

It is right within about a third. An atom with one neighbour, such as hydrogen or the oxygen of a carbonyl group, feels
little but its bond: when the bond is longer than on average by x, the force along it is -k x.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from ase_nbody.data.labels import LabelledStructure
from ase_nbody.data.lint.similar import groups
from ase_nbody.data.lint.slopes import STIFFNESS_BOUNDS, Slope, slope_of
from ase_nbody.hierarchy.neighbours import complete_cell
from ase_nbody.structure import Structure

Array = NDArray[np.float64]

BADGER = 1.86 * 6.2415  # eV/Angstrom^2 times Angstrom^3; 1 mdyn/Angstrom is 6.2415 eV/Angstrom^2
# d in Angstrom by the rows of both atoms: hydrogen and helium, Li to Ne, Na to Ar, K to Kr and beyond.
OFFSETS = np.array(
    [
        [0.025, 0.335, 0.585, 0.65],
        [0.335, 0.68, 0.9, np.nan],
        [0.585, 0.9, 1.18, np.nan],
        [0.65, np.nan, np.nan, np.nan],
    ]
)
ROW_ENDS = (2, 10, 18)  # atomic numbers
# Elements whose bonds with each other are covalent; ionic ones such as Na-Cl are much softer than the rule says.
NONMETALS = (1, *range(5, 10), *range(14, 18), *range(32, 36), *range(51, 54))
BONDED = 1.3  # largest length of a bond, in units of the sum of the covalent radii
MIN_LENGTH = 0.2  # Angstrom: smallest r - d, where Badger's rule would diverge
MIN_STRETCH = 0.003  # Angstrom, standard deviation; shorter ones are constraints
MIN_SAMPLES = 20  # bonds of one kind, such as C-H, in all frames
MIN_CORRELATION = 0.6  # between length and force, for bonds of one kind
MAX_ATOMS_OF_STRUCTURE = 400
MIN_STRETCH_OF_FRAME = 0.5  # in units of the typical one; frames whose bonds are less stretched tell nothing


@dataclass(frozen=True)
class BondForces:
    """The forces along one bond of an atom with one neighbour, in the M frames of the same atoms.

    Attributes:
        kind: atomic numbers of both atoms, the smaller first.
        frames: indices of the frames (M,).
        expected, measured: forces in eV/Angstrom (M,), as deviations from their means over the M frames.
    """

    kind: tuple[int, int]
    frames: NDArray[np.int64]
    expected: Array
    measured: Array


def bond_forces(frames: Sequence[LabelledStructure]) -> list[BondForces]:
    """The forces along the bonds of all frames that share their atoms with others, in the same order."""
    return [found for group in groups(frames) for found in _forces_along_bonds(frames, np.array(group))]


def bond_stiffness(bonds: Sequence[BondForces]) -> Slope:
    """Force constants in units of those of Badger's rule: 1 if forces are in eV/Angstrom.

    Each kind of bond, such as C-H, gives a value: the slope of the measured force along the bond over the expected one.
    """
    samples: defaultdict[tuple[int, int], list[Array]] = defaultdict(list)
    for bond in bonds:
        samples[bond.kind].append(np.stack([bond.expected, bond.measured]))
    ratios = []
    for parts in samples.values():
        expected, measured = np.concatenate(parts, axis=1)
        products = float(expected @ measured)
        strength = np.linalg.norm(expected) * np.linalg.norm(measured)
        if len(expected) >= MIN_SAMPLES and abs(products) > MIN_CORRELATION * strength:
            ratios.append(products / float(expected @ expected))
    return slope_of(np.array(ratios), STIFFNESS_BOUNDS)


def stiffness_of_frames(bonds: Sequence[BondForces], n_frames: int) -> Array:
    """The stiffness of all bonds of each single frame (n_frames,) in the same units; NaN where it cannot be told."""
    products, squares = np.zeros((2, n_frames))
    for bond in bonds:
        np.add.at(products, bond.frames, bond.expected * bond.measured)
        np.add.at(squares, bond.frames, bond.expected**2)
    known = squares > 0.0
    if not known.any():
        return np.full(n_frames, np.nan)
    known = squares > MIN_STRETCH_OF_FRAME**2 * float(np.median(squares[known]))
    return np.divide(products, squares, out=np.full(n_frames, np.nan), where=known)


def _forces_along_bonds(frames: Sequence[LabelledStructure], group: NDArray[np.int64]) -> Iterator[BondForces]:
    """Those of the frames of one group, which have the same atoms in the same order."""
    group = group[[bool(np.isfinite(frames[index].forces).all()) for index in group]]
    members = [frames[index] for index in group]
    if len(members) < 2 or len(members[0].structure) > MAX_ATOMS_OF_STRUCTURE:
        return
    numbers = members[0].structure.numbers
    first, second = np.triu_indices(len(numbers), 1)
    vectors = np.stack([_nearest(frame.structure, first, second) for frame in members])  # (M, pairs, 3)
    r = np.linalg.norm(vectors, axis=-1)
    longest = BONDED * (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
    ever = r.min(axis=0) < longest
    neighbours = np.bincount(np.concatenate([first[ever], second[ever]]), minlength=len(numbers))
    always = np.flatnonzero((r.max(axis=0) < longest) & (r.std(axis=0) > MIN_STRETCH))
    rows = np.searchsorted(ROW_ENDS, numbers)
    for pair in always:
        a, b = int(first[pair]), int(second[pair])
        terminal, sign = (b, -1.0) if neighbours[b] == 1 else (a, 1.0)
        offset = OFFSETS[rows[a], rows[b]]
        if neighbours[terminal] != 1 or np.isnan(offset) or not np.isin(numbers[[a, b]], NONMETALS).all():
            continue
        length, force = r[:, pair], np.stack([frame.forces[terminal] for frame in members])
        measured = sign * (force * vectors[:, pair]).sum(axis=-1) / length
        constant = BADGER / max(float(length.mean()) - offset, MIN_LENGTH) ** 3
        low, high = sorted((int(numbers[a]), int(numbers[b])))
        expected = constant * (length - length.mean())
        yield BondForces((low, high), group, expected, measured - measured.mean())


def _nearest(structure: Structure, first: NDArray[np.int64], second: NDArray[np.int64]) -> Array:
    """Vectors (pairs, 3) in Angstrom from the first atoms to the nearest images of the second ones."""
    vectors = structure.positions[second] - structure.positions[first]
    if not structure.pbc.any():
        return vectors
    cell = complete_cell(structure)
    steps = np.round(vectors @ np.linalg.inv(cell))
    return vectors - np.where(structure.pbc, steps, 0.0) @ cell
