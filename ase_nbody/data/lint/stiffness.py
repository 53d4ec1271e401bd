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


def bond_stiffness(frames: Sequence[LabelledStructure]) -> Slope:
    """Force constants in units of those of Badger's rule: 1 if forces are in eV/Angstrom.

    Each kind of bond, such as C-H, gives a value: the slope of the measured force along the bond over the expected one.
    Only frames are used that share their atoms with others, in the same order.
    """
    samples: defaultdict[tuple[int, int], list[Array]] = defaultdict(list)
    for group in groups(frames):
        for kind, sample in _forces_along_bonds([frames[index] for index in group]):
            samples[kind].append(sample)
    ratios = []
    for parts in samples.values():
        expected, measured = np.concatenate(parts, axis=1)
        products = float(expected @ measured)
        strength = np.linalg.norm(expected) * np.linalg.norm(measured)
        if len(expected) >= MIN_SAMPLES and abs(products) > MIN_CORRELATION * strength:
            ratios.append(products / float(expected @ expected))
    return slope_of(np.array(ratios), STIFFNESS_BOUNDS)


def _forces_along_bonds(frames: Sequence[LabelledStructure]) -> Iterator[tuple[tuple[int, int], Array]]:
    """For each bond of an atom with one neighbour: its kind, and expected and measured forces (2, M) in eV/Angstrom.

    Both are deviations from the mean over the M frames of the same atoms.
    """
    numbers = frames[0].structure.numbers
    frames = [frame for frame in frames if np.isfinite(frame.forces).all()]
    if len(frames) < 2 or len(numbers) > MAX_ATOMS_OF_STRUCTURE:
        return
    first, second = np.triu_indices(len(numbers), 1)
    vectors = np.stack([_nearest(frame.structure, first, second) for frame in frames])  # (M, pairs, 3)
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
        length, force = r[:, pair], np.stack([frame.forces[terminal] for frame in frames])
        measured = sign * (force * vectors[:, pair]).sum(axis=-1) / length
        constant = BADGER / max(float(length.mean()) - offset, MIN_LENGTH) ** 3
        expected = constant * (length - length.mean())
        low, high = sorted((int(numbers[a]), int(numbers[b])))
        yield (low, high), np.stack([expected, measured - measured.mean()])


def _nearest(structure: Structure, first: NDArray[np.int64], second: NDArray[np.int64]) -> Array:
    """Vectors (pairs, 3) in Angstrom from the first atoms to the nearest images of the second ones."""
    vectors = structure.positions[second] - structure.positions[first]
    if not structure.pbc.any():
        return vectors
    cell = complete_cell(structure)
    steps = np.round(vectors @ np.linalg.inv(cell))
    return vectors - np.where(structure.pbc, steps, 0.0) @ cell
