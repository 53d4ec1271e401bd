"""Notice atoms that are closer together than any in the training data, at little cost, and warn once."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from ase_nbody.hierarchy.neighbours import find_pairs, still_valid
from ase_nbody.nn.closest_approach import pair_table
from ase_nbody.structure import Structure

# The limit for a pair of species that the data have, as a fraction of their closest distance. Hot dynamics stays above.
SEEN_LIMIT = 0.9
# The limit for species that never met in the data, as a multiple of the sum of covalent radii: bonds begin there.
UNSEEN_LIMIT = 1.5
# Pairs up to this distance beyond their limits are watched too, so that the list of pairs stays valid for a while.
_SKIN_ANGSTROM = 1.0


class ExtrapolationWarning(UserWarning):
    """The structure has atoms that are closer together, or surrounded otherwise, than any in the training data."""


class ProximityWatch:
    """Warns once about a pair that is closer than in the training data, and once about species that never met there.

    If the user has made the warning an error, it is raised for every such structure. Only those pairs are watched that
    may come too close before the next search for neighbours, in practice the bonds.

    Args:
        tables: the ``closest_distances`` in Angstrom of each network of a committee; for each pair of species the
            largest distance counts. An empty table, as in files of older releases, is ignored.
    """

    def __init__(self, tables: Sequence[Mapping[str, float]]) -> None:
        known = [pair_table(table) for table in tables if table]
        self._closest = np.max(known, axis=0) if known else np.zeros((1, 1))  # infinite for species that never met
        radii = UNSEEN_LIMIT * (covalent_radii[:, None] + covalent_radii)[: len(self._closest), : len(self._closest)]
        self._limits = np.where(np.isinf(self._closest), radii, SEEN_LIMIT * self._closest)
        self._active = bool(known)
        self._watched_for: Structure | None = None

    def check(self, structure: Structure) -> None:
        """Warn about the pair of the structure that is farthest below its limit. All its species must be known.

        Warns:
            ExtrapolationWarning: a pair is below its limit, and there has been no such warning before.
        """
        if not self._active:
            return
        if self._watched_for is None or not still_valid(self._watched_for, structure, self._reach, _SKIN_ANGSTROM):
            self._watch(structure)
        positions = structure.positions
        vectors = positions.take(self._second, 0) - positions.take(self._first, 0)
        if structure.pbc.any():
            vectors += self._shift @ structure.cell
        square = (vectors * vectors).sum(1)
        if (square < self._square_limit).any():
            self._tell(structure, np.sqrt(square))

    def _watch(self, structure: Structure) -> None:
        """Choose the pairs to watch in the structure and in the next ones."""
        numbers = structure.numbers
        present = np.unique(numbers)
        self._reach = float(self._limits[np.ix_(present, present)].max(initial=0.0))
        pairs = find_pairs(structure, self._reach + _SKIN_ANGSTROM)
        limit = self._limits[numbers[pairs.first], numbers[pairs.second]]
        near = (pairs.first <= pairs.second) & (pairs.distance < limit + _SKIN_ANGSTROM) & (limit > 0.0)
        self._first, self._second, self._limit = pairs.first[near], pairs.second[near], limit[near]
        self._shift, self._square_limit = pairs.shift[near].astype(np.float64), self._limit**2
        self._watched_for = structure

    def _tell(self, structure: Structure, distance: NDArray[np.float64]) -> None:
        """Warn about the worst pair among species that met in the data, and among those that never met, once each."""
        numbers = structure.numbers
        closest = self._closest[numbers[self._first], numbers[self._second]]
        for seen in (True, False):
            near = np.flatnonzero((np.isfinite(closest) == seen) & (distance < self._limit))
            if len(near):
                worst = near[(distance[near] / self._limit[near]).argmin()]
                ends = (int(self._first[worst]), int(self._second[worst]))
                warnings.warn(_sentence(numbers, ends, distance[worst], closest[worst]), ExtrapolationWarning, 2)
                # Reached only if the warning is not an error: an error must come again at the next such structure.
                self._limits[np.isfinite(self._closest) == seen] = 0.0
                self._watched_for = None
                self._active = bool(self._limits.any())


def _sentence(numbers: NDArray[np.int64], ends: tuple[int, int], distance: float, closest: float) -> str:
    first, second = (chemical_symbols[numbers[atom]] for atom in ends)
    where = f"atoms {ends[0]} ({first}) and {ends[1]} ({second}) are {distance:.3g} Angstrom apart"
    if np.isinf(closest):
        known = f"and the training data have no {first} and {second} near each other"
    else:
        known = f"closer than any {first} and {second} in the training data ({closest:.3g} Angstrom)"
    return (
        f"{where}, {known}: energies and forces are guesses there. "
        "Check the structure and the time step, or train on such structures. This warning comes only once."
    )
