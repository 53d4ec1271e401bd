"""Notice atoms whose surroundings occur nowhere in the training data, at little cost, and warn once."""

import warnings
from collections.abc import Sequence

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from ase_nbody.hierarchy.neighbours import Pairs, find_pairs, still_valid
from ase_nbody.network.coverage import Coverage, counts_of, formula_of
from ase_nbody.network.surroundings import (
    between_molecules,
    bond_reach,
    bonded_counts,
    closer_than_bonds,
    closer_than_contacts,
    contacts,
    densities,
    pair_of,
    within,
)
from ase_nbody.runtime.evaluation import Evaluation
from ase_nbody.runtime.extrapolation import ExtrapolationWarning
from ase_nbody.structure import Structure

# A vibration must not look like chemistry. So a bond surely exists below the first factor, times the sum of covalent
# radii, and surely does not above the second; a bond between them agrees with either.
SURELY_BONDED, SURELY_FREE = 1.15, 1.5
# Training takes note of contacts a little further apart (``network.surroundings.CONTACT``).
SURELY_IN_CONTACT = 1.0
# Densities may leave the range of the training data by these factors: long dynamics goes a little beyond short one.
THINNER, DENSER = 0.85, 1.15
# The structure is looked at again when an atom has moved by half of this since the last time.
_SKIN_ANGSTROM = 0.8


class CoverageWatch:
    """Warns once about the first atom that is bonded, or packed, unlike every atom of its kind in the training data.

    It also warns of two atoms in contact whose elements never were in the training data, and of two molecules side by
    side if these data have none. Composition is no reason.
    If the user has made the warning an error, it is raised for every such structure.

    Args:
        coverages: that of each network; an atom must be covered for all of them. A network without any says nothing.
    """

    def __init__(self, coverages: Sequence[Coverage | None]) -> None:
        different = [found for number, found in enumerate(coverages) if found and found not in coverages[:number]]
        self._limits = [_Limits(coverage) for coverage in different]
        self._radius = max((coverage.radius for coverage in different), default=0.0)
        self._seen: Structure | None = None

    def check(self, evaluation: Evaluation) -> None:
        """Warn if an atom of the evaluated structure is outside. The sentence has the committee's spread.

        Warns:
            ExtrapolationWarning: an atom is outside, and there has been no such warning before.
        """
        structure = evaluation.structure
        if not self._limits or not len(structure):
            return
        if self._seen is not None and still_valid(self._seen, structure, self._radius, _SKIN_ANGSTROM):
            return
        if (found := self.first_unlike(structure)) is not None:
            _, sentence = found
            warnings.warn(f"{sentence}: {_trust(evaluation)}", ExtrapolationWarning, 2)
            self._limits = []  # reached only if the warning is not an error
        self._seen = structure

    def first_unlike(self, structure: Structure) -> tuple[int, str] | None:
        """The first atom that is outside and a sentence about it; None if all atoms are covered."""
        if not self._limits or not len(structure):
            return None
        pairs = find_pairs(structure, max(self._radius, bond_reach(np.unique(structure.numbers), SURELY_FREE)))
        for limits in self._limits:
            for unlike in (limits.bonded, limits.in_contact, limits.side_by_side, limits.packed):
                if (found := unlike(structure.numbers, pairs)) is not None:
                    return found
        return None


class _Limits:
    """A coverage as arrays, by atomic number. Each method looks for what the data do not have."""

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        listed = {atomic_numbers[symbol]: [*map(counts_of, found)] for symbol, found in coverage.bonded.items()}
        named = {atomic_numbers[symbol] for found in listed.values() for counts in found for symbol in counts}
        self._named = named | {atomic_numbers[symbol] for symbol in (*coverage.bonded, *coverage.densities)}
        self._listed = listed
        size = len(chemical_symbols)
        self._no_bond, self._no_contact = np.zeros((2, size, size), dtype=bool)
        _mark(self._no_bond, coverage.missing(coverage.bonds))
        if coverage.contacts is not None:
            _mark(self._no_contact, coverage.missing(coverage.contacts))
        self._lowest, self._highest = np.zeros(size), np.full(size, np.inf)
        for symbol, (low, high) in coverage.densities.items():
            self._lowest[atomic_numbers[symbol]], self._highest[atomic_numbers[symbol]] = THINNER * low, DENSER * high

    def bonded(self, numbers: NDArray[np.int64], pairs: Pairs) -> tuple[int, str] | None:
        """The first atom whose bonds agree with none of the listed surroundings of its species, and a sentence."""
        present = np.unique(numbers).tolist()
        species = np.array(sorted({*present, *self._named}))
        possible = closer_than_bonds(numbers, pairs, SURELY_FREE)
        low = bonded_counts(numbers, closer_than_bonds(numbers, possible, SURELY_BONDED), species)
        high = bonded_counts(numbers, possible, species)
        outside = np.zeros(len(numbers), dtype=bool)
        for number in {*present} & {*self._listed}:
            atoms = np.flatnonzero(numbers == number)
            outside[atoms] = ~_agree(low[atoms], high[atoms], self._known(number, species))
        if not outside.any():
            return None
        atom = int(outside.argmax())
        symbol = chemical_symbols[numbers[atom]]
        counts = bonded_counts(numbers, closer_than_bonds(numbers, possible), species)[atom]
        bonds = formula_of(species, counts)
        never = [pair_of(numbers[atom], other) for other in species[counts > 0] if self._no_bond[numbers[atom], other]]
        return atom, (
            f"atom {atom} ({symbol}) {f'is bonded to {bonds}' if bonds else 'has no bonds'}, unlike every {symbol} in "
            f"the training data ({_some(self._coverage.bonded[symbol])}"
            f"{f'; no {never[0]} bond occurs there' if never else ''})"
        )

    def in_contact(self, numbers: NDArray[np.int64], pairs: Pairs) -> tuple[int, str] | None:
        """The first atom in contact with one of an element that its own never met, and a sentence."""
        near = closer_than_contacts(numbers, within(pairs, self._coverage.radius), SURELY_IN_CONTACT)
        if not self._no_contact[numbers[near.first], numbers[near.second]].any():
            return None
        bonds = closer_than_bonds(numbers, pairs, SURELY_FREE)
        index = next(contacts(numbers, near, bonds, self._no_contact), None)
        if index is None:
            return None
        atom, other = int(near.first[index]), int(near.second[index])
        return atom, (
            f"atoms {atom} ({chemical_symbols[numbers[atom]]}) and {other} ({chemical_symbols[numbers[other]]}) are "
            f"{near.distance[index]:.1f} Angstrom apart and not bonded; the training data have no such contact "
            f"{pair_of(numbers[atom], numbers[other])}"
        )

    def side_by_side(self, numbers: NDArray[np.int64], pairs: Pairs) -> tuple[int, str] | None:
        """The first atom that sees one of another molecule, if the data have no such pair, and a sentence."""
        if self._coverage.intermolecular is not False:
            return None
        visible = within(pairs, self._coverage.radius)
        apart = between_molecules(len(numbers), visible, closer_than_bonds(numbers, pairs, SURELY_FREE))
        if not len(apart):
            return None
        index = apart[visible.distance[apart].argmin()]
        atom, other = int(visible.first[index]), int(visible.second[index])
        return atom, (
            f"atoms {atom} ({chemical_symbols[numbers[atom]]}) and {other} ({chemical_symbols[numbers[other]]}) are "
            f"{visible.distance[index]:.1f} Angstrom apart in two molecules; the training data have no molecules side "
            "by side"
        )

    def _known(self, number: int, species: NDArray[np.int64]) -> NDArray[np.int64]:
        """The listed surroundings of a species as numbers of atoms (surroundings, species)."""
        symbols = [chemical_symbols[other] for other in species]
        return np.array([[counts.get(symbol, 0) for symbol in symbols] for counts in self._listed[number]])

    def packed(self, numbers: NDArray[np.int64], pairs: Pairs) -> tuple[int, str] | None:
        """The first atom whose neighbours are denser or thinner than around any atom of its species, and a sentence."""
        if len(numbers) == 1 and not len(pairs):
            return None  # a free atom has an energy of its own
        density = densities(len(numbers), pairs, self._coverage.radius)
        outside = (density < self._lowest[numbers]) | (density > self._highest[numbers])
        if not outside.any():
            return None
        atom = int(outside.argmax())
        symbol = chemical_symbols[numbers[atom]]
        lowest, highest = self._coverage.densities[symbol]
        return atom, (
            f"the surroundings of atom {atom} ({symbol}) are {'denser' if density[atom] > highest else 'thinner'} than "
            f"those of any {symbol} in the training data (density of neighbours {density[atom]:.3g}; seen: "
            f"{lowest:.3g} to {highest:.3g})"
        )


def _agree(low: NDArray[np.int64], high: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each atom has known surroundings between its sure bonds (N, species) and its possible ones."""
    kinds, kind_of = np.unique(np.column_stack([low, high]), axis=0, return_inverse=True)
    least, most = np.split(kinds[:, None], 2, axis=2)  # (kinds, 1, species)
    agrees = np.all((least <= known) & (known <= most), axis=2).any(axis=1)
    return np.asarray(agrees[kind_of.reshape(-1)])


def _mark(table: NDArray[np.bool_], pairs: Sequence[str]) -> None:
    """Mark pairs of elements in a table by atomic numbers."""
    for pair in pairs:
        first, second = (atomic_numbers[symbol] for symbol in pair.split("-"))
        table[first, second] = table[second, first] = True


def _some(formulas: Sequence[str]) -> str:
    """Surroundings that the training data have, shortened."""
    found = [formula or "none" for formula in formulas[:4]]
    return ", ".join(found) + (f" and {len(formulas) - 4} others" if len(formulas) > 4 else "")


def _trust(evaluation: Evaluation) -> str:
    """What follows from it, with the committee's opinion where there is one."""
    known = ""
    if len(evaluation.predictions) > 1:
        spread = float(evaluation.spread("energy")) / len(evaluation.structure)  # symmetry can make forces vanish
        known = f" The networks' energies have a standard deviation of {spread:.2g} eV per atom."
    return f"energies and forces are guesses there.{known} Train on such structures. This warning comes only once."
