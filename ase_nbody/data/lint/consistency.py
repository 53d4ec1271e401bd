"""Checks that energies, forces and stresses have matching units and signs, with the help of a pair potential.

A pair potential V_ab(r) = sum_n c_ab,n B_n(r) is fitted to the forces alone. Here a and b are species, or single atoms
if all frames are of one molecule. The fit does not use the energies and stresses, but they must follow from V:

    E = E_composition + alpha sum_pairs V(r_ij) + ...
    sigma = beta / volume sum_pairs V'(r_ij) r_ij ⊗ r_ij / |r_ij| + ...

If all units and signs are ASE's, the slopes alpha and beta are 1, within the accuracy of a pair potential. Forces in
kcal/mol/Angstrom, or gradients instead of forces, give other slopes, whose values show the unit and the sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase import units
from numpy.typing import NDArray

from ase_nbody.data.labels import LabelledStructure
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.structure import Structure

CUTOFF = 5.0  # Angstrom
FUNCTIONS_PER_PAIR = 14  # B_n for each pair of species
MAX_ATOMS = 6000  # in a larger data set, only every second, third, ... frame is used
MIN_FRAMES = 20
RIDGE = 1e-5  # regularisation, relative to the mean diagonal element
MIN_CORRELATION = 0.5  # with a smaller one, the pair potential says nothing about the labels
LARGEST_PLAUSIBLE_SLOPE = 3.0  # the smallest is its inverse; units differ by larger factors

KCAL, KJ = units.kcal / units.mol, units.kJ / units.mol
# Values of the units in eV and eV/Angstrom. The most common units come first.
ENERGY_UNITS = {"eV": 1.0, "Hartree": units.Hartree, "kcal/mol": KCAL, "kJ/mol": KJ, "Rydberg": units.Rydberg}
FORCE_UNITS = {"eV/Angstrom": 1.0, "Hartree/Bohr": units.Hartree / units.Bohr, "kcal/mol/Angstrom": KCAL}
FORCE_UNITS |= {"kJ/mol/nm": 0.1 * KJ, "Rydberg/Bohr": units.Rydberg / units.Bohr, "Hartree/Angstrom": units.Hartree}
# The value of a stress of 1 eV/Angstrom^3 in other units.
STRESS_UNITS = {"GPa": 1.0 / units.GPa, "kbar": 10.0 / units.GPa, "Hartree/Bohr^3": units.Bohr**3 / units.Hartree}


@dataclass(frozen=True)
class Slope:
    """A regression coefficient.

    Attributes:
        value: alpha or beta; it is near 1 if units and signs are right.
        correlation: correlation between the labels and the pair potential, from -1 to 1.
    """

    value: float
    correlation: float

    @property
    def is_meaningful(self) -> bool:
        """Whether the pair potential describes the labels well enough to judge them."""
        return abs(self.correlation) > MIN_CORRELATION

    @property
    def is_plausible(self) -> bool:
        """Whether units and signs can be ASE's."""
        return 1.0 / LARGEST_PLAUSIBLE_SLOPE < self.value < LARGEST_PLAUSIBLE_SLOPE


class Slopes(NamedTuple):
    """alpha for the energies and beta for the stresses; None if too few frames can be compared."""

    energy: Slope | None
    stress: Slope | None


def slopes(frames: Sequence[LabelledStructure]) -> Slopes:
    """The slopes alpha and beta (see above). Only frames with forces and at least two atoms are used."""
    frames = [frame for frame in frames if np.isfinite(frame.forces).all() and len(frame.structure) > 1]
    atoms = sum(len(frame.structure) for frame in frames)
    frames = frames[:: max(1, -(-atoms // MAX_ATOMS))]
    if len(frames) < MIN_FRAMES:
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
    """Contributions of each pair function B_n to M frames, as if its coefficient were 1.

    Attributes:
        energies: (M, functions).
        gradients: (components, functions), for the 3 N components of each frame, one frame after the other.
        virials: (M, 3, 3, functions).
    """

    energies: NDArray[np.float64]
    gradients: NDArray[np.float64]
    virials: NDArray[np.float64]


def _functions_of_atom_pairs(frames: Sequence[LabelledStructure]) -> _Functions:
    """For frames of one molecule: x, x^2 and x^3 for every pair of atoms.

    x is the deviation of the pair's distance from its mean, in standard deviations. The virials are zero: molecules
    have no stress.
    """
    positions = np.stack([frame.structure.positions for frame in frames])  # (M, N, 3)
    n_frames, n_atoms, _ = positions.shape
    first, second = np.triu_indices(n_atoms, 1)
    vectors = positions[:, second] - positions[:, first]  # (M, pairs, 3)
    r = np.linalg.norm(vectors, axis=-1)
    width = r.std(axis=0) + 1e-3
    x = (r - r.mean(axis=0)) / width
    energies = np.stack([x, x**2, x**3], axis=-1)  # (M, pairs, 3)
    derivatives = np.stack([np.ones_like(x), 2 * x, 3 * x**2], axis=-1) / width[:, None]
    along = (vectors / r[..., None])[..., None] * derivatives[:, :, None, :]  # (M, pairs, xyz, functions)
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
    """sin(n pi r / CUTOFF) / r, n = 1, 2, ..., for every pair of species."""
    species = np.unique(np.concatenate([frame.structure.numbers for frame in frames]))
    of_frames = [_functions_of_frame(frame.structure, species) for frame in frames]
    return _Functions(
        energies=np.stack([energy for energy, _, _ in of_frames]),
        gradients=np.concatenate([gradient for _, gradient, _ in of_frames]),
        virials=np.stack([virial for _, _, virial in of_frames]),
    )


def _functions_of_frame(
    structure: Structure, species: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Energies (functions,), gradients (3 N, functions) and virials (3, 3, functions) of one frame."""
    pairs = find_pairs(structure, CUTOFF)
    index, r = np.searchsorted(species, structure.numbers), pairs.distance[:, None]
    a, b = np.sort(np.stack([index[pairs.first], index[pairs.second]]), axis=0)  # V_ab = V_ba
    species_pair = (a * len(species) + b)[:, None]
    columns = species_pair * FUNCTIONS_PER_PAIR + np.arange(FUNCTIONS_PER_PAIR)  # (pairs, FUNCTIONS_PER_PAIR)
    unit = structure.positions[pairs.second] + pairs.shift @ structure.cell - structure.positions[pairs.first]
    unit /= r
    phase = np.arange(1, FUNCTIONS_PER_PAIR + 1) * np.pi * r / CUTOFF
    value = np.sin(phase) / r
    slope = phase * np.cos(phase) / r**2 - value / r
    n_functions = len(species) ** 2 * FUNCTIONS_PER_PAIR

    energy = np.bincount(columns.ravel(), 0.5 * value.ravel(), n_functions).astype(np.float64)
    gradient, virial = np.zeros((len(structure), 3, n_functions)), np.zeros((3, 3, n_functions))
    for i in range(3):
        np.add.at(gradient[:, i], (pairs.first[:, None], columns), -slope * unit[:, i, None])
        for j in range(3):
            weights = 0.5 * slope * r * (unit[:, i] * unit[:, j])[:, None]
            virial[i, j] = np.bincount(columns.ravel(), weights.ravel(), n_functions)
    return energy, gradient.reshape(-1, n_functions), virial


def _energy_slope(frames: Sequence[LabelledStructure], predicted: NDArray[np.float64]) -> Slope | None:
    """alpha, from the part of the energies that forces determine.

    Forces do not determine how the energy depends on the composition and, in periodic cells, on the volume. Both parts
    are removed from the energies and from the prediction.
    """
    labelled = [index for index, frame in enumerate(frames) if np.isfinite(frame.energy)]
    if len(labelled) < MIN_FRAMES:
        return None
    compositions: dict[bytes, int] = {}
    undetermined = np.zeros((len(labelled), len(labelled) + 2))  # a column per composition, and two for the volume
    for row, index in enumerate(labelled):
        structure = frames[index].structure
        composition = np.sort(structure.numbers).tobytes()
        undetermined[row, compositions.setdefault(composition, len(compositions))] = 1.0
        volume = structure.volume / len(structure) if structure.pbc.all() else 0.0
        undetermined[row, -2:] = len(structure) * volume, len(structure) * volume**2
    basis = np.linalg.svd(undetermined, full_matrices=False)
    directions = basis.U[:, 1e-9 * basis.S[0] < basis.S]

    def determined(energies: NDArray[np.float64]) -> NDArray[np.float64]:
        return energies - directions @ (directions.T @ energies)

    reference = np.array([frames[index].energy for index in labelled])
    return _slope(determined(predicted[labelled]), determined(reference))


def _stress_slope(frames: Sequence[LabelledStructure], virials: NDArray[np.float64]) -> Slope | None:
    """beta, from the deviatoric stresses, because forces do not determine the pressure well enough."""
    periodic = [index for index, frame in enumerate(frames) if frame.structure.pbc.all()]
    labelled = [index for index in periodic if np.isfinite(frames[index].stress).all()]
    if not labelled:
        return None
    predicted = np.stack([virials[index] / frames[index].structure.volume for index in labelled])  # (M, 3, 3)
    reference = np.stack([frames[index].stress for index in labelled])

    def deviator(stress: NDArray[np.float64]) -> NDArray[np.float64]:
        return stress - np.trace(stress, axis1=1, axis2=2)[:, None, None] * np.eye(3) / 3.0

    return _slope(deviator(predicted).ravel(), deviator(reference).ravel())


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> Slope | None:
    """|y| / |x| with the sign of the correlation; or None if x or y is zero.

    Unlike a least-squares slope, it treats x and y alike: both have errors.
    """
    norms = float(np.linalg.norm(x)), float(np.linalg.norm(y))
    if not min(norms) > 1e-9:
        return None
    correlation = float(x @ y) / norms[0] / norms[1]
    return Slope(float(np.sign(correlation)) * norms[1] / norms[0], correlation)


def explain_energy(alpha: float) -> str:
    """The units and signs that would give this alpha, in words."""
    candidates = {
        f"energies in {energy} and {kind} in {force}": sign * FORCE_UNITS[force] / ENERGY_UNITS[energy]
        for energy in ENERGY_UNITS
        for force in FORCE_UNITS
        for kind, sign in (("forces", 1.0), ("gradients (the negative of forces)", -1.0))
    }
    return _nearest(candidates, alpha)


def explain_stress(beta: float) -> str:
    """The units and signs that would give this beta, in words."""
    signs = {"ASE's sign": 1.0, "the opposite sign (positive under pressure)": -1.0}
    candidates = {
        f"stresses in {name} with {sign}": factor * unit
        for sign, factor in signs.items()
        for name, unit in {"eV/Angstrom^3": 1.0, **STRESS_UNITS}.items()
    }
    return _nearest(candidates, beta)


def _nearest(candidates: dict[str, float], slope: float) -> str:
    """The candidates whose slope is within about a third of ``slope``, the nearest first, at most three of them.

    A pair potential cannot tell units apart that are closer than that.
    """
    same_sign = {name: factor for name, factor in candidates.items() if slope * factor > 0.0}
    deviation = {name: abs(np.log(slope / factor)) for name, factor in same_sign.items()}
    fitting = sorted((name for name in deviation if deviation[name] < 0.33), key=deviation.__getitem__)
    return ", or ".join(fitting[:3]) or "units that are not among the usual ones"
