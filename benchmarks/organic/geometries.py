"""Geometries of molecules and clusters. Units: Angstrom, eV."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase.data.vdw_alvarez import vdw_radii
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from springs import Skeleton, skeleton_of


class Conformer(NamedTuple):
    """A molecule in one geometry, with partial charges (atoms,) in e."""

    skeleton: Skeleton
    positions: NDArray  # (atoms, 3)
    charges: NDArray


def embed(smiles: str, seed: int) -> list[Conformer]:
    """Conformers of a molecule by ETKDG, two to four. None are found of some cages."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    skeleton = skeleton_of(molecule)
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed
    parameters.useSmallRingTorsions = True
    parameters.maxIterations = 30
    conformers = min(4, 2 + int(skeleton.rotatable.sum()) // 2)
    try:
        found = list(rdDistGeom.EmbedMultipleConfs(molecule, conformers, parameters))
    except RuntimeError:  # RDKit's minimiser fails on some strained cages
        return []
    uncharged = np.zeros(len(skeleton.numbers))
    return [Conformer(skeleton, molecule.GetConformer(index).GetPositions(), uncharged) for index in found]


def twisted(conformer: Conformer, rng: np.random.Generator) -> NDArray:
    """The positions with one side of a rotatable bond turned by any angle; the same positions if there is none."""
    skeleton, positions = conformer.skeleton, conformer.positions
    choices = np.flatnonzero(skeleton.rotatable)
    if not len(choices):
        return positions
    first, second = skeleton.bonds[rng.choice(choices)]
    side = _side(skeleton, first, second)
    axis = positions[second] - positions[first]
    turn = Rotation.from_rotvec(rng.uniform(-np.pi, np.pi) * axis / np.linalg.norm(axis))
    turned = positions.copy()
    turned[side] = positions[second] + turn.apply(positions[side] - positions[second])
    return turned


def _side(skeleton: Skeleton, first: int, second: int) -> NDArray:
    """The atoms on the second one's side of a bond that is in no ring."""
    beyond = np.zeros(len(skeleton.numbers), dtype=bool)
    beyond[second] = True
    others = skeleton.bonds[~(np.isin(skeleton.bonds, [first, second]).all(axis=1))]
    for _ in skeleton.numbers:
        beyond[others[beyond[others].any(axis=1)].ravel()] = True
    return np.flatnonzero(beyond)


def cluster(parts: Sequence[Conformer], gaps: Sequence[float], trials: int, rng: np.random.Generator) -> NDArray:
    """The positions of molecules side by side.

    Args:
        parts: the molecules.
        gaps: closest distance of each molecule but the first to those before it, less the sum of van der Waals radii.
        trials: random orientations of each, of which that with the lowest Coulomb energy is taken.
        rng: draws the orientations.
    """
    numbers, charges, positions = parts[0].skeleton.numbers, parts[0].charges, parts[0].positions
    for part, gap in zip(parts[1:], gaps, strict=True):
        reach = vdw_radii[numbers][:, None] + vdw_radii[part.skeleton.numbers] + gap
        placed = []
        for _ in range(trials):
            turned = Rotation.random(rng=rng).apply(part.positions - part.positions.mean(axis=0))
            moved = _slide(positions, turned, reach, rng)
            placed.append((float((np.outer(charges, part.charges) / cdist(positions, moved)).sum()), moved))
        _, best = min(placed, key=lambda pair: pair[0])
        positions = np.concatenate([positions, best])
        numbers = np.concatenate([numbers, part.skeleton.numbers])
        charges = np.concatenate([charges, part.charges])
    return positions


def _slide(fixed: NDArray, moving: NDArray, reach: NDArray, rng: np.random.Generator) -> NDArray:
    """Bring a molecule along a random line so near that the first pair of atoms has its reach."""
    line = rng.normal(size=3)
    line /= np.linalg.norm(line)
    apart = moving[None] + fixed.mean(axis=0) - fixed[:, None]  # (fixed, moving, 3)
    along = apart @ line
    discriminant = along**2 - (apart**2).sum(axis=-1) + reach**2  # of |apart + t line| = reach
    distances = np.where(discriminant > 0, -along + np.sqrt(np.maximum(discriminant, 0)), -np.inf)
    return moving + fixed.mean(axis=0) + max(float(distances.max()), 0.0) * line
