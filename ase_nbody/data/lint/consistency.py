"""Do forces and stresses belong to the energies? Units and signs, by way of a pair potential.

A pair potential V_ab(r) = sum_n c_ab,n B_n(r) is fitted to the forces alone, a and b being species, or atoms if all
frames are of one molecule. It knows nothing of the energies, but its own
energies go with them, and its virials with the stresses:

    E = E_composition + alpha sum_pairs V(r_ij) + ...
    sigma = beta / volume sum_pairs V'(r_ij) r_ij ⊗ r_ij / |r_ij| + ...

alpha = beta = 1 within what a pair potential can do, if all units and signs are ASE's. A force in kcal/mol/Angstrom, or
a gradient in place of the force, gives another number that tells which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase import units
from numpy.typing import NDArray

from ase_nbody.data.reading import LabelledStructure
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.structure import Structure

CUTOFF, SIZE = 5.0, 14  # Angstrom; functions per pair of species
MOST_ATOMS, FEWEST_FRAMES = 6000, 20
RIDGE = 1e-5

KCAL, KJ = units.kcal / units.mol, units.kJ / units.mol
# eV per unit, and Angstrom per unit, the likeliest first.
ENERGY_UNITS = {"eV": 1.0, "Hartree": units.Hartree, "kcal/mol": KCAL, "kJ/mol": KJ, "Rydberg": units.Rydberg}
FORCE_UNITS = {"eV/Angstrom": 1.0, "Hartree/Bohr": units.Hartree / units.Bohr, "kcal/mol/Angstrom": KCAL}
FORCE_UNITS |= {"kJ/mol/nm": 0.1 * KJ, "Rydberg/Bohr": units.Rydberg / units.Bohr, "Hartree/Angstrom": units.Hartree}
# Numbers that a stress of 1 eV/Angstrom^3 has in other units.
STRESS_UNITS = {"GPa": 1.0 / units.GPa, "kbar": 10.0 / units.GPa, "Hartree/Bohr^3": units.Bohr**3 / units.Hartree}


@dataclass(frozen=True)
class Slope:
    """A regression coefficient.

    Attributes:
        value: alpha or beta, 1 if units and signs are right.
        correlation: of the labels with the pair potential, between -1 and 1.
    """

    value: float
    correlation: float

    @property
    def telling(self) -> bool:
        """Whether the pair potential describes the labels well enough to judge them."""
        return abs(self.correlation) > 0.5

    @property
    def plausible(self) -> bool:
        """Whether units and signs may well be ASE's."""
        return 1.0 / 3.0 < self.value < 3.0


class Slopes(NamedTuple):
    """alpha of the energies and beta of the stresses; None where there is nothing to compare."""

    energy: Slope | None
    stress: Slope | None


def slopes(frames: Sequence[LabelledStructure]) -> Slopes:
    """Alpha and beta of frames with forces (see above)."""
    frames = [frame for frame in frames if np.isfinite(frame.forces).all() and len(frame.structure) > 1]
    atoms = sum(len(frame.structure) for frame in frames)
    frames = frames[:: max(1, -(-atoms // MOST_ATOMS))]
    if len(frames) < FEWEST_FRAMES:
        return Slopes(None, None)
    first = frames[0].structure.numbers
    one_molecule = all(
        np.array_equal(frame.structure.numbers, first) and not frame.structure.pbc.any() for frame in frames
    )
    functions = _functions_of_atom_pairs(frames) if one_molecule else _functions_of_species_pairs(frames)
    forces = np.concatenate([frame.forces.ravel() for frame in frames])
    matrix = functions.gradients.T @ functions.gradients
    ridge = RIDGE * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
    coefficients = np.linalg.solve(matrix + ridge, -functions.gradients.T @ forces)
    energies, virials = functions.energies @ coefficients, functions.virials @ coefficients
    return Slopes(_energy_slope(frames, energies), _stress_slope(frames, virials))


class _Functions(NamedTuple):
    """Sums of the pair functions of M frames: energies (M, functions), gradients (sum 3 N, functions), virials
    (M, 3, 3, functions).
    """

    energies: NDArray[np.float64]
    gradients: NDArray[np.float64]
    virials: NDArray[np.float64]


def _functions_of_atom_pairs(frames: Sequence[LabelledStructure]) -> _Functions:
    """For one molecule: x, x^2, x^3 for every pair of atoms, x being its distance in standard deviations."""
    positions = np.stack([frame.structure.positions for frame in frames])  # (M, N, 3)
    n_frames, n_atoms, _ = positions.shape
    first, second = np.triu_indices(n_atoms, 1)
    vectors = positions[:, second] - positions[:, first]  # (M, pairs, 3)
    r = np.linalg.norm(vectors, axis=-1)
    width = r.std(axis=0) + 1e-3
    x = (r - r.mean(axis=0)) / width
    energies = np.stack([x, x**2, x**3], axis=-1)  # (M, pairs, 3)
    slopes = np.stack([np.ones_like(x), 2 * x, 3 * x**2], axis=-1) / width[:, None]
    along = (vectors / r[..., None])[..., None] * slopes[:, :, None, :]  # (M, pairs, xyz, functions)
    gradients = np.zeros((n_frames, n_atoms, 3, len(first), 3))
    pair = np.arange(len(first))
    gradients[:, second, :, pair] = along.swapaxes(0, 1)
    gradients[:, first, :, pair] = -along.swapaxes(0, 1)
    return _Functions(
        energies.reshape(n_frames, -1),
        gradients.reshape(n_frames * n_atoms * 3, -1),
        np.zeros((n_frames, 3, 3, energies[0].size)),
    )


def _functions_of_species_pairs(frames: Sequence[LabelledStructure]) -> _Functions:
    """sin(n pi r / CUTOFF) / r for every pair of species."""
    species = np.unique(np.concatenate([frame.structure.numbers for frame in frames]))
    energies, gradients, virials = zip(*(_of_frame(frame.structure, species) for frame in frames), strict=True)
    return _Functions(np.stack(energies), np.concatenate(gradients), np.stack(virials))


def _of_frame(
    structure: Structure, species: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    pairs = find_pairs(structure, CUTOFF)
    index, r = np.searchsorted(species, structure.numbers), pairs.distance[:, None]
    kinds = np.sort(np.stack([index[pairs.first], index[pairs.second]]), axis=0)
    columns = (kinds[0] * len(species) + kinds[1])[:, None] * SIZE + np.arange(SIZE)  # (pairs, SIZE)
    unit = structure.positions[pairs.second] + pairs.shift @ structure.cell - structure.positions[pairs.first]
    unit /= r
    phase = np.arange(1, SIZE + 1) * np.pi * r / CUTOFF
    value = np.sin(phase) / r
    slope = phase * np.cos(phase) / r**2 - value / r
    n_functions = len(species) ** 2 * SIZE

    energy = np.bincount(columns.ravel(), 0.5 * value.ravel(), n_functions).astype(np.float64)
    gradient, virial = np.zeros((len(structure), 3, n_functions)), np.zeros((3, 3, n_functions))
    for a in range(3):
        np.add.at(gradient[:, a], (pairs.first[:, None], columns), -slope * unit[:, a, None])
        for b in range(3):
            weights = 0.5 * slope * r * (unit[:, a] * unit[:, b])[:, None]
            virial[a, b] = np.bincount(columns.ravel(), weights.ravel(), n_functions)
    return energy, gradient.reshape(-1, n_functions), virial


def _energy_slope(frames: Sequence[LabelledStructure], predicted: NDArray[np.float64]) -> Slope | None:
    """Alpha. Of the composition, and of the volume in periodic cells, forces do not know the energy: left out."""
    labelled = [index for index, frame in enumerate(frames) if np.isfinite(frame.energy)]
    if len(labelled) < FEWEST_FRAMES:
        return None
    kinds: dict[bytes, int] = {}
    unknown = np.zeros((len(labelled), len(labelled) + 2))
    for row, index in enumerate(labelled):
        structure = frames[index].structure
        unknown[row, kinds.setdefault(np.sort(structure.numbers).tobytes(), len(kinds))] = 1.0
        volume = structure.volume / len(structure) if structure.pbc.all() else 0.0
        unknown[row, -2:] = len(structure) * volume, len(structure) * volume**2
    basis = np.linalg.svd(unknown, full_matrices=False)
    directions = basis.U[:, 1e-9 * basis.S[0] < basis.S]
    x, y = predicted[labelled], np.array([frames[index].energy for index in labelled])
    return _slope(*(values - directions @ (directions.T @ values) for values in (x, y)))


def _stress_slope(frames: Sequence[LabelledStructure], virials: NDArray[np.float64]) -> Slope | None:
    """beta, from the deviatoric stresses: of the pressure, forces do not know enough."""
    periodic = [index for index, frame in enumerate(frames) if frame.structure.pbc.all()]
    labelled = [index for index in periodic if np.isfinite(frames[index].stress).all()]
    if not labelled:
        return None
    x = np.stack([virials[index] / frames[index].structure.volume for index in labelled])
    y = np.stack([frames[index].stress for index in labelled])
    deviators = [stress - np.trace(stress, axis1=1, axis2=2)[:, None, None] * np.eye(3) / 3.0 for stress in (x, y)]
    return _slope(*(deviator.ravel() for deviator in deviators))


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> Slope | None:
    """|y| / |x| with the sign of the correlation: neither side is free of error."""
    norms = float(np.linalg.norm(x)), float(np.linalg.norm(y))
    if not min(norms) > 1e-9:
        return None
    correlation = float(x @ y) / norms[0] / norms[1]
    return Slope(float(np.sign(correlation)) * norms[1] / norms[0], correlation)


def explain_energy(alpha: float) -> str:
    """Units and sign that give this alpha, in words."""
    candidates = {
        f"energies in {energy} and {kind} in {force}": sign * FORCE_UNITS[force] / ENERGY_UNITS[energy]
        for energy in ENERGY_UNITS
        for force in FORCE_UNITS
        for kind, sign in (("forces", 1.0), ("gradients (the negative of forces)", -1.0))
    }
    return _nearest(candidates, alpha)


def explain_stress(beta: float) -> str:
    """Units and sign that give this beta, in words."""
    signs = {"ASE's sign": 1.0, "the opposite sign (positive under pressure)": -1.0}
    candidates = {
        f"stresses in {name} with {sign}": factor * unit
        for sign, factor in signs.items()
        for name, unit in {"eV/Angstrom^3": 1.0, **STRESS_UNITS}.items()
    }
    return _nearest(candidates, beta)


def _nearest(candidates: dict[str, float], slope: float) -> str:
    """What fits within a third, best first: a pair potential tells no better."""
    same_sign = {name: factor for name, factor in candidates.items() if slope * factor > 0.0}
    deviation = {name: abs(np.log(slope / factor)) for name, factor in same_sign.items()}
    fitting = sorted((name for name in deviation if deviation[name] < 0.33), key=deviation.__getitem__)
    return ", or ".join(fitting[:3]) or "units that are none of the usual ones"
