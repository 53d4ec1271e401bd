"""Pairs of similar frames, and the work that forces and stresses do between them.

Energies, forces and stresses belong together: between two frames a and b of the same atoms, the trapezoidal rule gives

    E_b - E_a = -1/2 (F_a + F_b) . (R_b - R_a) + 1/2 (V_a sigma_a + V_b sigma_b) : epsilon + third order,

where epsilon is the strain that leads from one cell to the other, and R_b - R_a the displacement beyond it. No model is
fitted. In molecules the rule is applied to x = ln r of all pairs of atoms, so that rotations do no harm and bonds and
torsions become nearly linear:

    E_b - E_a = 1/2 (g_a + g_b) . (x_b - x_a),   J^T g = -F,   J = dx/dR,

with the shortest such g. It is exact to second order, and right within a few per cent for neighbours in a trajectory.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.labels import LabelledStructure
from ase_nbody.hierarchy.neighbours import find_pairs

Array = NDArray[np.float64]

MAX_ATOMS = 12_000  # of a larger data set, a part is used
MAX_ATOMS_OF_MOLECULE = 150  # J has 3 N columns and N (N - 1) / 2 rows
MAX_ATOMS_OF_GROUP = 6000
NEIGHBOURS = 3  # of each frame
MAX_DISPLACEMENT = (
    0.25  # root mean square, in units of the shortest distance between atoms; farther, forces change too much
)
MAX_LOG_DISTANCE = 0.35  # root mean square over the pairs of atoms of a molecule
MAX_STRAIN = 0.1
_SEARCH = 4.0  # Angstrom: range in which the shortest distance is looked for
STRAIN_IN_ANGSTROM = 2.0  # a strain of 1 counts as this displacement
# Components of stress and strain in ASE's order: xx, yy, zz, yz, xz, xy.
ROWS, COLUMNS = np.array([0, 1, 2, 1, 0, 0]), np.array([0, 1, 2, 2, 2, 1])


@dataclass(frozen=True)
class Motion:
    """How the atoms move between the two frames of P pairs, and what the forces say of it.

    Attributes:
        first, second: indices of the frames a and b (P,).
        displacement: root mean square displacement beyond the strain (P,), in Angstrom; in molecules the root mean
            square change of ln r instead.
        strain: epsilon (P, 6), with the shear strains doubled; zero in molecules.
        force_work: work of the forces, the first term above, in eV (P,), NaN if unknown.
        force_work_change: half of the difference between the works of F_a and of F_b, in eV (P,).
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    displacement: Array
    strain: Array
    force_work: Array
    force_work_change: Array


@dataclass(frozen=True)
class Changes(Motion):
    """What differs between the two frames of P pairs: how the atoms move, and the labels.

    Attributes:
        energy: E_b - E_a in eV (P,), NaN if unknown.
        volume_stress: 1/2 (V_a sigma_a + V_b sigma_b) in eV (P, 6); zero in molecules, NaN if unknown.
        stress: sigma_b - sigma_a in eV/Angstrom^3 (P, 6), zero in molecules, NaN if unknown.
        volume_stress_change: V_b sigma_b - V_a sigma_a in eV (P, 6), as ``stress``.
    """

    energy: Array
    volume_stress: Array
    stress: Array
    volume_stress_change: Array

    def __len__(self) -> int:
        return len(self.first)

    def select(self, which: NDArray[np.bool_]) -> "Changes":
        """The pairs that a mask (P,) names."""
        return Changes(*(array[which] for array in vars(self).values()))


def similar_pairs(frames: Sequence[LabelledStructure]) -> Changes:
    """Each frame with its nearest neighbours among the frames of the same atoms in the same order."""
    found = [changes for group in groups(frames) if (changes := _within(frames, group)) is not None]
    if not found:
        index, none, six = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 6))
        return Changes(index, index, none, six, none, none, none, six, six, six)
    return Changes(*(np.concatenate(arrays) for arrays in zip(*(vars(part).values() for part in found), strict=True)))


def groups(frames: Sequence[LabelledStructure]) -> Iterator[list[int]]:
    """Indices of frames with the same atoms in the same order, evenly chosen where there are too many."""
    by_atoms: defaultdict[tuple[bytes, bytes, float], list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        structure = frame.structure
        if len(structure) > 1 or structure.pbc.all():
            by_atoms[structure.numbers.tobytes(), structure.pbc.tobytes(), structure.charge].append(index)
    several = [group for group in by_atoms.values() if len(group) > 1]
    # Groups are taken in an order that has nothing to do with that of the file, until there are enough atoms.
    budget = MAX_ATOMS
    for chosen in np.random.default_rng(0).permutation(len(several)):
        group = several[chosen]
        size = len(frames[group[0]].structure)
        step = -(-len(group) * size // min(MAX_ATOMS_OF_GROUP, max(budget, 20 * size)))
        yield group[::step]
        budget -= len(group[::step]) * size
        if budget <= 0:
            return


def _within(frames: Sequence[LabelledStructure], group: list[int]) -> Changes | None:
    """The changes between neighbouring frames of one group; None for surfaces, wires and large clusters."""
    chosen = [frames[index] for index in group]
    pbc = chosen[0].structure.pbc
    stress, volumes = np.zeros((len(chosen), 6)), np.zeros(len(chosen))
    if pbc.all():
        motion = _in_crystals(chosen)
        stress = np.stack([frame.stress[ROWS, COLUMNS] for frame in chosen])
        volumes = np.array([frame.structure.volume for frame in chosen])
    elif not pbc.any() and len(chosen[0].structure) <= MAX_ATOMS_OF_MOLECULE:
        motion = _in_molecules(chosen)
    else:
        return None
    a, b, index = motion.first, motion.second, np.array(group)
    energy, volume_stress = np.array([frame.energy for frame in chosen]), volumes[:, None] * stress
    return Changes(
        **vars(motion) | {"first": index[a], "second": index[b]},
        energy=energy[b] - energy[a],
        volume_stress=0.5 * (volume_stress[a] + volume_stress[b]),
        stress=stress[b] - stress[a],
        volume_stress_change=volume_stress[b] - volume_stress[a],
    )


def _neighbours(distance: Array, farthest: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs (a, b) of different frames, b among the nearest to a, from their distances (M, M)."""
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1)[:, :NEIGHBOURS]
    a = np.repeat(np.arange(len(distance)), nearest.shape[1])
    b = nearest.ravel()
    near = (distance[a, b] < farthest) & (distance[a, b] > 1e-5)  # copies of one frame say nothing
    return a[near], b[near]


def _in_crystals(frames: Sequence[LabelledStructure]) -> Motion:
    """The pairs of near frames of a crystal. The nearest images of the atoms are compared."""
    cells = np.stack([frame.structure.cell for frame in frames])
    scaled = np.stack([frame.structure.positions @ np.linalg.inv(frame.structure.cell) for frame in frames])
    displacement, strain = np.zeros((2, len(frames), len(frames)))
    for a in range(len(frames)):
        moved, epsilon = _displacements(scaled, cells, a)
        displacement[a] = np.sqrt((moved**2).sum(axis=(1, 2)) / moved.shape[1])
        strain[a] = np.abs(epsilon).max(axis=(1, 2))
    shortest = np.min(find_pairs(frames[0].structure, _SEARCH).distance, initial=_SEARCH)
    near = (strain < MAX_STRAIN) & (displacement < MAX_DISPLACEMENT * shortest)
    distance = np.where(near, np.hypot(displacement, STRAIN_IN_ANGSTROM * strain), np.inf)
    first, second = _neighbours(distance, np.inf)
    tensors, work, change = np.zeros((len(first), 3, 3)), np.zeros(len(first)), np.zeros(len(first))
    for a in np.unique(first):
        pairs = first == a
        moved, tensors[pairs] = _displacements(scaled, cells, a, second[pairs])
        forces = np.stack([frames[b].forces for b in second[pairs]])
        work[pairs] = -0.5 * ((frames[a].forces + forces) * moved).sum(axis=(1, 2))
        change[pairs] = -0.5 * ((forces - frames[a].forces) * moved).sum(axis=(1, 2))
    six = tensors[:, ROWS, COLUMNS] * np.where(ROWS == COLUMNS, 1.0, 2.0)
    return Motion(first, second, displacement[first, second], six, work, change)


def _displacements(
    scaled: Array, cells: Array, a: int, to: NDArray[np.int64] | slice = slice(None)
) -> tuple[Array, Array]:
    """From frame a to others: displacements (M, N, 3) in Angstrom without the strain, and the strain (M, 3, 3)."""
    middle = 0.5 * (cells[to] + cells[a])
    gradient = np.linalg.solve(middle, cells[to] - cells[a])
    step = scaled[to] - scaled[a]
    step -= np.round(step)
    return step @ middle, 0.5 * (gradient + gradient.swapaxes(1, 2))


def _in_molecules(frames: Sequence[LabelledStructure]) -> Motion:
    """The pairs of near frames of a molecule, by x = ln r of all pairs of its atoms."""
    positions = np.stack([frame.structure.positions for frame in frames])  # (M, N, 3)
    first, second = np.triu_indices(positions.shape[1], 1)
    vectors = positions[:, second] - positions[:, first]
    r = np.linalg.norm(vectors, axis=-1)
    x = np.log(np.maximum(r, 1e-3))  # (M, pairs)
    squares = (x**2).sum(axis=1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * x @ x.T, 0.0) / x.shape[1])
    a, b = _neighbours(distance, MAX_LOG_DISTANCE)
    forces = np.stack([frame.forces for frame in frames])
    gradient = _gradient(vectors / np.maximum(r, 1e-3)[..., None] ** 2, forces)
    at_first, at_second = (gradient[index] * (x[b] - x[a]) for index in (a, b))
    work, change = 0.5 * (at_first + at_second).sum(axis=1), 0.5 * (at_second - at_first).sum(axis=1)
    return Motion(a, b, distance[a, b], np.zeros((len(a), 6)), work, change)


def _gradient(slopes: Array, forces: Array) -> Array:
    """The shortest g (M, pairs) with J^T g = -F. ``slopes`` (M, pairs, 3) are dx/dR of the second atom of each pair.

    g = J y, where J^T J y = -F. The small ridge makes up for the six motions of the molecule as a whole.
    """
    n_frames, n_atoms, _ = forces.shape
    first, second = np.triu_indices(n_atoms, 1)
    products = slopes[..., :, None] * slopes[..., None, :]  # (M, pairs, 3, 3)
    blocks = np.zeros((n_frames, n_atoms, n_atoms, 3, 3))
    blocks[:, first, second] = blocks[:, second, first] = -products
    blocks[:, range(n_atoms), range(n_atoms)] = -blocks.sum(axis=2)
    square: Array = blocks.swapaxes(2, 3).reshape(n_frames, 3 * n_atoms, 3 * n_atoms)
    ridge = 1e-8 * np.trace(square, axis1=1, axis2=2) / (3 * n_atoms)
    right = -forces.reshape(n_frames, -1, 1)
    y = np.linalg.solve(square + ridge[:, None, None] * np.eye(3 * n_atoms), right).reshape(forces.shape)
    gradient: Array = (slopes * (y[:, second] - y[:, first])).sum(axis=-1)
    return gradient
