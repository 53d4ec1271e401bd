"""Fit an embedded-atom potential to training data: the network that stands on it learns what it lacks.

The potential is linear in A and c and in the energies of lone atoms. So least squares with A and c not negative
determine these for given p and q, and these are searched. Energies count per atom, forces in units of their root mean
square. Where a lone atom is not among the data, its energy follows from the fit: the forces of vibrating atoms and the
energies of vacancies, surfaces and strained cells determine how deep the binding is, within the bounds that all matter
keeps.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from scipy.optimize import lsq_linear, minimize

from ase_nbody.data.labels import LabelledStructure
from ase_nbody.data.statistics import evenly_spaced, fit_isolated_energies, shares_of_forces
from ase_nbody.hierarchy.neighbours import Pairs, find_pairs
from ase_nbody.network.embedded_atom import EmbeddedAtomConfig
from ase_nbody.nn.embedded_atom import SOFTENING

Array = NDArray[np.float64]

GRID_P, GRID_Q = (2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0), (0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0)
MIN_RATIO = 2.0  # p / q: the repulsion must win where atoms are pressed together
MAX_COHESION_EV = 9.0  # of an atom in any matter: that of tungsten
MAX_REACH = 0.8  # of the radius: pairs that never come closer are left out, for their repulsion cannot be known
MAX_ATOMS, MAX_ATOMS_OF_DECAY = 2500, 600  # that all is fitted to, and p and q; more change the few parameters little
_REFINEMENT = {"maxfev": 40, "xatol": 0.01}
ENERGY_WEIGHTS = (10.0, 1.0)  # of the energies of all frames together, relative to that of all forces
LARGEST_REST = 0.6  # of the forces' root mean square, that a potential may lack to be of use


@dataclass(frozen=True)
class EmbeddedAtomFit:
    """What a fit found.

    Attributes:
        config: the potential.
        isolated_atom_energies: energy of each species in eV far from everything.
        force_scale: root mean square in eV/Angstrom of the forces that the potential lacks. Those of frames that weigh
            less than the typical one count in proportion.
        energy_error: root mean square in eV per atom of the energies that it lacks.
        is_of_use: whether it explains so much of the forces that a network should stand on it.
    """

    config: EmbeddedAtomConfig
    isolated_atom_energies: dict[str, float]
    force_scale: float
    energy_error: float
    is_of_use: bool


def fit_embedded_atom(
    data: Sequence[LabelledStructure], lengths: Mapping[str, float], radius: float, known: Mapping[str, float]
) -> EmbeddedAtomFit:
    """Fit the potential.

    Energies weigh much first, because they tell how deep the binding is. Where they spoil the forces, as in covalent
    crystals, whose angles no such potential knows, they weigh less.

    Args:
        data: the training frames.
        lengths: d in Angstrom by pair of species: the closest distances in the data.
        radius: where f_c ends, in Angstrom.
        known: energies of lone atoms in eV that are known; they stay as they are.
    """
    for energy_weight in ENERGY_WEIGHTS:
        p, q = _decay(_Problem(_some(data, MAX_ATOMS_OF_DECAY), lengths, radius, known, energy_weight))
        problem = _Problem(_some(data, MAX_ATOMS), lengths, radius, known, energy_weight)
        fit = problem.fit(p, q, problem.solve(p, q)[1])
        if fit.is_of_use:
            break
    return fit


def _decay(problem: "_Problem") -> tuple[float, float]:
    """The best p and q: those of a grid, refined."""
    grid = [(p, q) for p in GRID_P for q in GRID_Q if p >= MIN_RATIO * q]
    found = [problem.solve(p, q) for p, q in grid]
    start = grid[int(np.argmin([cost for cost, _ in found]))]
    bounds = [(GRID_P[0], GRID_P[-1]), (GRID_Q[0], GRID_Q[-1])]
    refined = minimize(lambda x: problem.solve(*x)[0], start, method="Nelder-Mead", bounds=bounds, options=_REFINEMENT)
    p, q = (round(float(value), 3) for value in refined.x)
    return p, q


class _Problem:
    """The least squares of a set of frames. Unknowns: energies of lone atoms, A of each pair, c of each species."""

    def __init__(
        self,
        data: Sequence[LabelledStructure],
        lengths: Mapping[str, float],
        radius: float,
        known: Mapping[str, float],
        energy_weight: float,
    ) -> None:
        self.lengths = {pair: length for pair, length in lengths.items() if length < MAX_REACH * radius}
        self.radius, self.known = radius, known
        self.numbers = np.unique(np.concatenate([frame.structure.numbers for frame in data]))
        self.pairs_of_species = sorted(
            {pair: tuple(atomic_numbers[symbol] for symbol in pair.split("-")) for pair in self.lengths}.items()
        )
        size = len(chemical_symbols)
        self.kind, self.length = np.full((size, size), -1), np.full((size, size), np.inf)
        for kind, (pair, (first, second)) in enumerate(self.pairs_of_species):
            self.kind[first, second] = self.kind[second, first] = kind
            self.length[first, second] = self.length[second, first] = lengths[pair]
        self.frames = [(frame, find_pairs(frame.structure, radius)) for frame in data]
        forces = np.concatenate([frame.forces.ravel() for frame in data])
        sizes = [frame.forces.size for frame in data]
        of_forces = _that_count(np.repeat([frame.weights.forces for frame in data], sizes))
        self.has_forces = np.isfinite(forces) & (of_forces > 0.0)
        self.forces = forces[self.has_forces]
        self.energies = np.array([frame.energy / len(frame.structure) for frame in data])
        of_energies = _that_count(np.array([frame.weights.energy for frame in data]))
        self.has_energy = np.isfinite(self.energies) & (of_energies > 0.0)
        typical = fit_isolated_energies(data, known)
        self.bound = np.array([typical[chemical_symbols[number]] for number in self.numbers])
        self.shares = np.repeat(shares_of_forces(data), sizes)[self.has_forces]
        self.force_scale = self._scale_of(self.forces)
        n_energies = max(1, int(self.has_energy.sum()))
        of_labels = [
            energy_weight * (len(self.forces) / n_energies) ** 0.5 * np.sqrt(of_energies[self.has_energy]),
            np.sqrt(of_forces[self.has_forces]),
        ]
        self.weights = np.concatenate(of_labels) / self.force_scale

    def _scale_of(self, forces: Array) -> float:
        """The root mean square of forces, 1 if all are zero. Frames of little weight count in proportion."""
        return float(np.sqrt(np.mean(np.square(self.shares * forces)))) or 1.0

    def columns(self, p: float, q: float) -> Array:
        """Energies per atom of all frames that have one, and then all forces, by each unknown (labels, unknowns)."""
        found = [_columns(frame, pairs, self, p, q) for frame, pairs in self.frames]
        energies = np.array([energy for energy, _ in found])[self.has_energy]
        return np.concatenate([energies, np.concatenate([forces for _, forces in found])[self.has_forces]])

    def solve(self, p: float, q: float) -> tuple[float, Array]:
        """The smallest sum of squares and its unknowns."""
        columns, n = self.columns(p, q), len(self.numbers)
        target = np.concatenate([self.energies[self.has_energy], self.forces])
        fixed = np.array([chemical_symbols[number] in self.known for number in self.numbers])
        free = np.concatenate([~fixed, np.ones(columns.shape[1] - n, dtype=bool)])
        given = np.zeros(columns.shape[1])
        given[:n] = [self.known.get(chemical_symbols[number], 0.0) for number in self.numbers]
        others = columns.shape[1] - n
        bounds = (
            np.append(self.bound, np.zeros(others))[free],
            np.append(self.bound + MAX_COHESION_EV, np.full(others, np.inf))[free],
        )
        matrix, target = columns[:, free] * self.weights[:, None], (target - columns @ given) * self.weights
        # The normal equations are small; the triangle of a QR decomposition keeps their digits.
        rotation, triangle = np.linalg.qr(matrix)
        found = lsq_linear(triangle, rotation.T @ target, bounds=bounds, method="bvls")
        given[free] = found.x
        return float(np.sum(np.square(matrix @ found.x - target))), given

    def fit(self, p: float, q: float, unknowns: Array) -> EmbeddedAtomFit:
        """The potential with these unknowns."""
        n = len(self.numbers)
        lacking = np.concatenate([self.energies[self.has_energy], self.forces]) - self.columns(p, q) @ unknowns
        n_energies = int(self.has_energy.sum())
        symbols = [chemical_symbols[number] for number in self.numbers]
        config = EmbeddedAtomConfig(
            lengths=self.lengths,
            repulsion={pair: float(unknowns[n + kind]) for kind, (pair, _) in enumerate(self.pairs_of_species)},
            binding=dict(zip(symbols, unknowns[-n:].tolist(), strict=True)),
            decay=(p, q),
        )
        force_scale = self._scale_of(lacking[n_energies:])
        return EmbeddedAtomFit(
            config,
            dict(zip(symbols, unknowns[:n].tolist(), strict=True)),
            force_scale,
            float(np.sqrt(np.mean(lacking[:n_energies] ** 2))) if n_energies else 0.0,
            force_scale < LARGEST_REST * self.force_scale,
        )


def _columns(frame: LabelledStructure, pairs: Pairs, problem: _Problem, p: float, q: float) -> tuple[Array, Array]:
    """The energy per atom (unknowns,) and the forces (3 N, unknowns) of a frame, for each unknown set to 1."""
    numbers, n_atoms = frame.structure.numbers, len(frame.structure)
    n_kinds, n_species = len(problem.pairs_of_species), len(problem.numbers)
    first, second, r = pairs.first, pairs.second, pairs.distance
    length, kind = problem.length[numbers[first], numbers[second]], problem.kind[numbers[first], numbers[second]]
    stretch, inner = r / length - 1.0, 1.0 - (r / problem.radius) ** 2
    fading, slope = inner**3, -6.0 * r / problem.radius**2 * inner**2
    known = kind >= 0
    pair, field = (np.where(known, np.exp(-decay * stretch), 0.0) for decay in (p, 2.0 * q))
    pair_slope = pair * (slope - p / length * fading)
    field_slope = field * (slope - 2.0 * q / length * fading)
    density = np.bincount(first, field * fading, n_atoms)
    root = density / np.sqrt(density + SOFTENING)
    root_slope = (0.5 * density + SOFTENING) / (density + SOFTENING) ** 1.5
    shift = pairs.shift @ frame.structure.cell if len(pairs) else np.zeros((0, 3))
    unit = (frame.structure.positions[second] + shift - frame.structure.positions[first]) / r[:, None]

    def forces(along: Array) -> Array:
        """Forces (3 N,) from dE/dr of each directed pair."""
        pulls = (along[:, None] * unit).T
        return np.stack([np.bincount(first, x, n_atoms) - np.bincount(second, x, n_atoms) for x in pulls], 1).ravel()

    energy, force = np.zeros(2 * n_species + n_kinds), np.zeros((3 * n_atoms, 2 * n_species + n_kinds))
    for column, number in enumerate(problem.numbers):
        here = numbers == number
        energy[column] = here.sum()
        energy[n_species + n_kinds + column] = -root[here].sum()
        force[:, n_species + n_kinds + column] = forces(-(root_slope * here)[first] * field_slope)
    for each in range(n_kinds):
        chosen = kind == each
        energy[n_species + each] = 0.5 * (pair * fading)[chosen].sum()
        force[:, n_species + each] = forces(0.5 * pair_slope * chosen)
    return energy / n_atoms, force


def _that_count(weights: Array) -> Array:
    """Weights of labels; ones if all are zero, because a fit needs some."""
    return weights if (weights > 0.0).any() else np.ones(len(weights))


def _some(data: Sequence[LabelledStructure], atoms: int) -> list[LabelledStructure]:
    """Evenly spaced frames with about so many atoms in all, and the first frames of species and pairs that these lack.

    A species without an energy would have any energy.
    """
    total = sum(len(frame.structure) for frame in data)
    step = max(1, round(total / atoms))
    chosen = {*evenly_spaced(data, step)}
    seen = {kind for index in chosen for kind in _kinds(data[index])}
    for index in range(len(data) if step > 1 else 0):
        kinds = _kinds(data[index])
        if not kinds <= seen:
            chosen.add(index)
            seen |= kinds
    return [data[index] for index in sorted(chosen)]


def _kinds(frame: LabelledStructure) -> set[tuple[int, ...]]:
    """What a fit needs of a frame, by atomic numbers: species (z,), those with an energy (z, 0), and pairs (z, z').

    An isolated atom has no pairs.
    """
    species = np.unique(frame.structure.numbers).tolist()
    pairs = [] if frame.structure.is_isolated_atom() else itertools.combinations_with_replacement(species, 2)
    has_energy = bool(np.isfinite(frame.energy)) and frame.weights.energy > 0.0
    return {*pairs, *((number,) for number in species), *((number, 0) for number in species if has_energy)}
