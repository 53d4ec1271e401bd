"""An elastic network that stands for the Hessian H of a molecule. Units: Angstrom, eV, K.

It has springs on bonds, on distances across an angle, on dihedral angles, and on atoms that leave the plane or line of
their neighbours. With it a conformer takes a Newton step towards the teacher's minimum, thermal displacements are drawn
from exp(-x.H.x / 2kT), and a bond is stretched while the other atoms follow.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from ase import units
from ase.geometry import get_dihedrals_derivatives
from numpy.typing import NDArray
from rdkit import Chem
from scipy.spatial.distance import cdist

# Springs in eV/Angstrom^2, typical of organic molecules.
BOND = 32.0  # a single bond; others are stiffer by ORDER_EXPONENT of their order
ORDER_EXPONENT = 1.1
HEAVY = 0.6  # times as stiff are single bonds of third-row elements and below
ACROSS_ANGLE, ACROSS_ANGLE_WITH_H = 14.0, 9.0
OFF_CENTRE = 8.0  # an atom with two neighbours in a line or three in a plane that leaves it
CONTACT = 0.05  # atoms three bonds apart and more, closer than
CONTACT_RANGE = 4.5  # Angstrom
# Springs of all dihedrals about a bond together, in eV/rad^2.
TURN, TURN_IN_RING, TURN_OF_DOUBLE_BOND = 0.5, 1.0, 2.5
LINEAR = 170.0  # degrees; a dihedral angle with a bond angle above it has no meaning

SOFTEST = 0.15  # eV/Angstrom^2; softer modes do not move further
CAUTION = 1.25  # stiffness in a step, in that of the network
LARGEST_STEP = 0.3  # Angstrom, of a Newton step


class Skeleton(NamedTuple):
    """What a molecule is, whatever its geometry."""

    numbers: NDArray  # (atoms,)
    bonds: NDArray  # (bonds, 2)
    stretch: NDArray  # (bonds,) stiffness of each bond's length, eV/Angstrom^2
    turn: NDArray  # (bonds,) stiffness of a turn about each bond, eV/rad^2
    rotatable: NDArray  # (bonds,) whether it is a single bond outside of rings with atoms on both ends
    charge: int


def skeleton_of(molecule: Chem.Mol) -> Skeleton:
    """The skeleton of a molecule with its hydrogens."""
    bonds = list(molecule.GetBonds())
    ends = [(bond.GetBeginAtom(), bond.GetEndAtom()) for bond in bonds]
    single = [bond.GetBondType() == Chem.BondType.SINGLE and not bond.GetIsConjugated() for bond in bonds]
    turns = [
        TURN_OF_DOUBLE_BOND if not alone else TURN_IN_RING if bond.IsInRing() else TURN
        for bond, alone in zip(bonds, single, strict=True)
    ]
    rotatable = [
        bond.GetBondType() == Chem.BondType.SINGLE
        and not bond.IsInRing()
        and min(first.GetDegree(), second.GetDegree()) > 1
        for bond, (first, second) in zip(bonds, ends, strict=True)
    ]
    return Skeleton(
        np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()]),
        np.array([(first.GetIdx(), second.GetIdx()) for first, second in ends], dtype=int).reshape(-1, 2),
        np.array([_stretch(bond) for bond in bonds]),
        np.array(turns),
        np.array(rotatable, dtype=bool),
        Chem.GetFormalCharge(molecule),
    )


def _stretch(bond: Chem.Bond) -> float:
    heaviest = max(bond.GetBeginAtom().GetAtomicNum(), bond.GetEndAtom().GetAtomicNum())
    softer = HEAVY if heaviest > 10 and bond.GetBondType() == Chem.BondType.SINGLE else 1.0
    return BOND * softer * bond.GetBondTypeAsDouble() ** ORDER_EXPONENT


class Springs:
    """The elastic network of a molecule in one geometry, with its modes."""

    def __init__(self, skeleton: Skeleton, positions: NDArray) -> None:
        self.skeleton, self.positions = skeleton, positions
        self._neighbours: list[list[int]] = [[] for _ in skeleton.numbers]
        for first, second in skeleton.bonds:
            self._neighbours[first].append(second)
            self._neighbours[second].append(first)
        angles = [(i, k) for around in self._neighbours for n, i in enumerate(around) for k in around[n + 1 :]]
        across = sorted({(min(ends), max(ends)) for ends in angles} - {tuple(sorted(bond)) for bond in skeleton.bonds})
        self._stiff = np.array([*map(tuple, skeleton.bonds), *across], dtype=int).reshape(-1, 2)

    @cached_property
    def modes(self) -> tuple[NDArray, NDArray]:
        """Stiffnesses (modes,) and directions (atoms * 3, modes) without those of zero stiffness."""
        size = len(self.positions)
        hessian = np.zeros((3 * size, 3 * size))
        with_hydrogen = (self.skeleton.numbers[self._stiff[len(self.skeleton.bonds) :]] == 1).any(axis=1)
        across = np.where(with_hydrogen, ACROSS_ANGLE_WITH_H, ACROSS_ANGLE)
        for atoms, vectors, stiffness in (
            (self._stiff, self._of_distances(self._stiff), np.concatenate([self.skeleton.stretch, across])),
            self._contacts(),
            *self._off_centre(),
            self._dihedrals(),
        ):
            rows = _rows(atoms, vectors, size)
            hessian += rows.T @ (stiffness[:, None] * rows)
        stiffness, directions = np.linalg.eigh(hessian)
        kept = stiffness > 1e-6
        return np.maximum(stiffness[kept], SOFTEST), directions[:, kept]

    def newton(self, forces: NDArray) -> NDArray:
        """The positions after a step towards the minimum of the energy with these forces, eV/Angstrom."""
        stiffness, directions = self.modes
        step = (directions @ (directions.T @ forces.ravel() / (CAUTION * stiffness + 1.0))).reshape(-1, 3)
        longest = np.linalg.norm(step, axis=1).max()
        return self.curved(step * min(1.0, LARGEST_STEP / longest)) if longest > 0 else self.positions

    def thermal(self, temperature: float, rng: np.random.Generator) -> NDArray:
        """Positions drawn at a temperature."""
        stiffness, directions = self.modes
        amplitudes = rng.normal(size=len(stiffness)) * np.sqrt(units.kB * temperature / stiffness)
        return self.curved((directions @ amplitudes).reshape(-1, 3))

    def stretched(self, bond: int, scale: float) -> NDArray:
        """The positions with a bond scaled in its length; the network follows the pull."""
        ends = self.skeleton.bonds[bond : bond + 1]
        pull = _rows(ends, self._of_distances(ends), len(self.positions))[0]
        stiffness, directions = self.modes
        response = directions @ (directions.T @ pull / stiffness)
        length = np.linalg.norm(self.positions[ends[0, 0]] - self.positions[ends[0, 1]])
        return self.curved((response * (scale - 1) * length / (pull @ response)).reshape(-1, 3))

    def curved(self, step: NDArray, iterations: int = 5) -> NDArray:
        """The positions after a step along curved paths.

        Bonds and distances across angles change by what the step says to first order, so that large turns do not
        stretch bonds.
        """
        first, second = self._stiff.T
        rows = _rows(self._stiff, self._of_distances(self._stiff), len(self.positions))
        lengths = np.linalg.norm(self.positions[first] - self.positions[second], axis=1)
        aims = np.maximum(lengths + rows @ step.ravel(), 0.6 * lengths)
        positions = self.positions + step
        for _ in range(iterations):
            apart = positions[first] - positions[second]
            lengths = np.linalg.norm(apart, axis=1)
            unit = apart / lengths[:, None]
            rows = _rows(self._stiff, np.stack([unit, -unit], axis=1), len(positions))
            damped = rows @ rows.T + 0.02 * np.eye(len(rows))
            positions = positions + (rows.T @ np.linalg.solve(damped, aims - lengths)).reshape(-1, 3)
        return positions

    def _of_distances(self, pairs: NDArray) -> NDArray:
        """The derivatives of distances by the positions of both atoms, (pairs, 2, 3)."""
        apart = self.positions[pairs[:, 0]] - self.positions[pairs[:, 1]]
        unit = apart / np.linalg.norm(apart, axis=1)[:, None]
        return np.stack([unit, -unit], axis=1)

    def _contacts(self) -> tuple[NDArray, NDArray, NDArray]:
        near = cdist(self.positions, self.positions) < CONTACT_RANGE
        near[tuple(self._stiff.T)] = False
        pairs = np.argwhere(np.triu(near, 1))
        return pairs, self._of_distances(pairs), np.full(len(pairs), CONTACT)

    def _off_centre(self) -> list[tuple[NDArray, NDArray, NDArray]]:
        """Springs on atoms with two or three neighbours, in the directions in which those do not lie."""
        springs = []
        for atom, around in enumerate(self._neighbours):
            if len(around) in (2, 3):
                arms = self.positions[around] - self.positions[atom]
                arms /= np.linalg.norm(arms, axis=1)[:, None]
                _, _, axes = np.linalg.svd(arms - arms.mean(axis=0))
                outside = axes[len(around) - 1 :]
                # Only where the atom itself lies in that line or plane: bent ones have springs that resist.
                flat = np.abs(outside @ arms.mean(axis=0)) < 0.15
                for axis in outside[flat]:
                    vectors = np.array([axis, *[-axis / len(around)] * len(around)])[None]
                    springs.append((np.array([[atom, *around]]), vectors, np.array([OFF_CENTRE])))
        return springs

    def _dihedrals(self) -> tuple[NDArray, NDArray, NDArray]:
        atoms, stiffness = [], []
        for (j, k), stiff in zip(self.skeleton.bonds.tolist(), self.skeleton.turn, strict=True):
            found = [
                (i, j, k, m)
                for i in self._neighbours[j]
                for m in self._neighbours[k]
                if len({i, j, k, m}) == 4 and self._bent(i, j, k) and self._bent(j, k, m)
            ]
            atoms += found
            stiffness += [stiff / max(len(found), 1)] * len(found)
        if not atoms:
            return np.zeros((0, 4), dtype=int), np.zeros((0, 4, 3)), np.zeros(0)
        corners = self.positions[np.array(atoms)]
        derivatives = get_dihedrals_derivatives(*np.diff(corners, axis=1).transpose(1, 0, 2))  # in degrees
        return np.array(atoms), np.radians(derivatives), np.array(stiffness)

    def _bent(self, i: int, j: int, k: int) -> bool:
        arms = self.positions[[i, k]] - self.positions[j]
        cosine = arms[0] @ arms[1] / np.prod(np.linalg.norm(arms, axis=1))
        return bool(cosine > np.cos(np.radians(LINEAR)))


def _rows(atoms: NDArray, vectors: NDArray, size: int) -> NDArray:
    """Derivatives (terms, corners, 3) as rows (terms, 3 * size)."""
    rows = np.zeros((len(atoms), size, 3))
    np.add.at(rows, (np.arange(len(atoms))[:, None], atoms), vectors)
    return rows.reshape(len(atoms), 3 * size)
