"""Atoms closer together than any in the training data: noticed at little cost, and told once."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from numpy.typing import NDArray

from ase_nbody.hierarchy.neighbours import find_pairs, still_valid
from ase_nbody.structure import Structure

CLOSEST_SHARE = 0.9  # of the closest distance in the training data: hot molecular dynamics stays above it
UNSEEN_SHARE = 1.5  # of the sum of the covalent radii, for species that never met: there they begin to bond
_SKIN = 1.0  # Angstrom that a pair beyond its limit may lose before the pairs to watch are chosen anew


class ExtrapolationWarning(UserWarning):
    """The model is asked about atoms closer together than any that it was trained on."""


class ProximityWatch:
    """Warns, once, of a pair that is too close for the training data; and once of one whose species never met there.

    Watched are only the pairs that may come too close before the next search for neighbours, which are the bonds.

    Args:
        tables: for each network of a committee its ``closest_distances`` in Angstrom; the most cautious one counts. An
            empty one, as in files of older releases, says nothing.
    """

    def __init__(self, tables: Sequence[Mapping[str, float]]) -> None:
        known = [_by_numbers(table) for table in tables if table]
        self._closest = np.max(known, axis=0) if known else np.zeros((1, 1))  # infinite for species that never met
        radii = UNSEEN_SHARE * (covalent_radii[:, None] + covalent_radii)[: len(self._closest), : len(self._closest)]
        self._limits = np.where(np.isinf(self._closest), radii, CLOSEST_SHARE * self._closest)
        self._active = bool(known)
        self._watched_for: Structure | None = None

    def check(self, structure: Structure) -> None:
        """Warn of the structure's closest pair below its limit. The species must be those of the networks.

        Raises:
            ExtrapolationWarning: as a warning.
        """
        if not self._active:
            return
        if self._watched_for is None or not still_valid(self._watched_for, structure, self._reach, _SKIN):
            self._watch(structure)
        positions = structure.positions
        vectors = positions.take(self._second, 0) - positions.take(self._first, 0)
        if structure.pbc.any():
            vectors += self._shift @ structure.cell
        square = (vectors * vectors).sum(1)
        if (square < self._square_limit).any():
            self._tell(structure, np.sqrt(square))

    def _watch(self, structure: Structure) -> None:
        """Choose the pairs to watch."""
        numbers = structure.numbers
        present = np.unique(numbers)
        self._reach = float(self._limits[np.ix_(present, present)].max(initial=0.0))
        pairs = find_pairs(structure, self._reach + _SKIN)
        limit = self._limits[numbers[pairs.first], numbers[pairs.second]]
        near = (pairs.first <= pairs.second) & (pairs.distance < limit + _SKIN) & (limit > 0.0)
        self._first, self._second, self._limit = pairs.first[near], pairs.second[near], limit[near]
        self._shift, self._square_limit = pairs.shift[near].astype(np.float64), self._limit**2
        self._watched_for = structure

    def _tell(self, structure: Structure, distance: NDArray[np.float64]) -> None:
        """Warn of the pair that is closest for its species, of those seen and of those never seen; then no more."""
        numbers = structure.numbers
        closest = self._closest[numbers[self._first], numbers[self._second]]
        for seen in (True, False):
            near = np.flatnonzero((np.isfinite(closest) == seen) & (distance < self._limit))
            if len(near):
                worst = near[(distance[near] / self._limit[near]).argmin()]
                ends = (int(self._first[worst]), int(self._second[worst]))
                self._limits[np.isfinite(self._closest) == seen] = 0.0
                self._watched_for = None
                self._active = bool(self._limits.any())
                warnings.warn(_sentence(numbers, ends, distance[worst], closest[worst]), ExtrapolationWarning, 2)


def _sentence(numbers: NDArray[np.int64], ends: tuple[int, int], distance: float, closest: float) -> str:
    first, second = (chemical_symbols[numbers[atom]] for atom in ends)
    where = f"atoms {ends[0]} ({first}) and {ends[1]} ({second}) are {distance:.3g} Angstrom apart"
    if np.isinf(closest):
        known = f"and the training data have no {first} and {second} near each other"
    else:
        known = f"closer than any {first} and {second} in the training data ({closest:.3g} Angstrom)"
    return (
        f"{where}, {known}: energies and forces are guesses there. "
        "Check the structure and the time step, or train on such structures. This is said once."
    )


def _by_numbers(table: Mapping[str, float]) -> NDArray[np.float64]:
    """Closest distances in Angstrom by two atomic numbers; infinite for species that never met."""
    matrix = np.full((len(chemical_symbols),) * 2, np.inf)
    for pair, distance in table.items():
        first, second = (atomic_numbers[symbol] for symbol in pair.split("-"))
        matrix[first, second] = matrix[second, first] = distance
    return matrix
