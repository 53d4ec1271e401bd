"""Notice atoms whose surroundings occur nowhere in the training data, at little cost, and warn once."""

import warnings
from collections.abc import Sequence

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from ase_nbody.hierarchy.neighbours import Pairs, find_pairs, still_valid
from ase_nbody.network.coverage import Coverage, counts_of, formula_of
from ase_nbody.network.surroundings import BOND, bond_reach, bonded_counts, densities
from ase_nbody.runtime.evaluation import Evaluation
from ase_nbody.runtime.extrapolation import ExtrapolationWarning
from ase_nbody.structure import Structure

# A vibration must not look like chemistry. So a bond surely exists below the first factor, times the sum of covalent
# radii, and surely does not above the second; a bond between them agrees with either.
SURELY_BONDED, SURELY_FREE = 1.15, 1.5
# Densities may leave the range of the training data by these factors: long dynamics goes a little beyond short one.
THINNER, DENSER = 0.85, 1.15
# The structure is looked at again when an atom has moved by half of this since the last time.
_SKIN_ANGSTROM = 0.4


class CoverageWatch:
    """Warns once about the first atom that is bonded, or packed, unlike every atom of its kind in the training data.

    Composition alone is no reason. If the user has made the warning an error, it is raised for every such structure.

    Args:
        coverages: that of each network; an atom must be covered for all of them. A network without any says nothing.
    """

    def __init__(self, coverages: Sequence[Coverage | None]) -> None:
        self._coverages = [
            coverage for number, coverage in enumerate(coverages) if coverage and coverage not in coverages[:number]
        ]
        self._seen: Structure | None = None

    def check(self, evaluation: Evaluation) -> None:
        """Warn if an atom of the evaluated structure is outside. The sentence has the committee's spread there.

        Warns:
            ExtrapolationWarning: an atom is outside, and there has been no such warning before.
        """
        structure = evaluation.structure
        if not self._coverages or not len(structure):
            return
        reach = max(coverage.radius for coverage in self._coverages)
        if self._seen is not None and still_valid(self._seen, structure, reach, _SKIN_ANGSTROM):
            return
        reach = max(reach, bond_reach(np.unique(structure.numbers), SURELY_FREE))
        pairs = find_pairs(structure, reach)
        outside = (_first_outside(structure, pairs, coverage) for coverage in self._coverages)
        found = next((pair for pair in outside if pair is not None), None)
        if found is not None:
            atom, sentence = found
            warnings.warn(f"{sentence}: {_trust(evaluation, atom)}", ExtrapolationWarning, 2)
            self._coverages = []  # reached only if the warning is not an error
        self._seen = structure


def _first_outside(structure: Structure, pairs: Pairs, coverage: Coverage) -> tuple[int, str] | None:
    """The first atom that the coverage lacks, and a sentence about it; None if there is none."""
    for outside in (_bonded_unlike, _packed_unlike):
        found = outside(structure, pairs, coverage)
        if found is not None:
            return found
    return None


def _bonded_unlike(structure: Structure, pairs: Pairs, coverage: Coverage) -> tuple[int, str] | None:
    """The first atom whose bonds agree with none of the listed surroundings of its species."""
    numbers = structure.numbers
    listed = {
        atomic_numbers[symbol]: [counts_of(formula) for formula in found] for symbol, found in coverage.bonded.items()
    }
    named = {atomic_numbers[symbol] for found in listed.values() for counts in found for symbol in counts}
    species = np.array(sorted({*np.unique(numbers).tolist(), *named}))
    sure, possible, plain = (
        bonded_counts(numbers, pairs, species, factor) for factor in (SURELY_BONDED, SURELY_FREE, BOND)
    )
    outside = np.zeros(len(numbers), dtype=bool)
    for number, found in listed.items():
        atoms = np.flatnonzero(numbers == number)
        if not len(atoms):
            continue
        known = np.array([[counts.get(chemical_symbols[other], 0) for other in species] for counts in found])
        kinds, kind_of = np.unique(np.column_stack([sure[atoms], possible[atoms]]), axis=0, return_inverse=True)
        low, high = np.split(kinds[:, None], 2, axis=2)  # (kinds, 1, species)
        agrees = np.all((low <= known) & (known <= high), axis=2)  # (kinds, listed surroundings)
        outside[atoms] = ~np.any(agrees, axis=1)[kind_of.reshape(-1)]
    if not outside.any():
        return None
    atom = int(outside.argmax())
    symbol = chemical_symbols[numbers[atom]]
    bonds = formula_of(species, plain[atom])
    is_bonded = f"is bonded to {bonds}" if bonds else "has no bonds"
    return (
        atom,
        f"atom {atom} ({symbol}) {is_bonded}, unlike every {symbol} in the training data ({_some(coverage, symbol)})",
    )


def _packed_unlike(structure: Structure, pairs: Pairs, coverage: Coverage) -> tuple[int, str] | None:
    """The first atom whose neighbours are denser or thinner than around any atom of its species."""
    low, high = np.zeros(len(chemical_symbols)), np.full(len(chemical_symbols), np.inf)
    for symbol, (lowest, highest) in coverage.densities.items():
        low[atomic_numbers[symbol]], high[atomic_numbers[symbol]] = THINNER * lowest, DENSER * highest
    numbers = structure.numbers
    density = densities(len(numbers), pairs, coverage.radius)
    outside: NDArray[np.bool_] = (density < low[numbers]) | (density > high[numbers])
    if len(numbers) == 1 and not len(pairs):
        return None  # a free atom has its own energy
    if not outside.any():
        return None
    atom = int(outside.argmax())
    symbol = chemical_symbols[numbers[atom]]
    lowest, highest = coverage.densities[symbol]
    kind = "denser" if density[atom] > highest else "thinner"
    return atom, (
        f"the surroundings of atom {atom} ({symbol}) are {kind} than those of any {symbol} in the training data "
        f"(density of neighbours {density[atom]:.3g}; seen: {lowest:.3g} to {highest:.3g})"
    )


def _some(coverage: Coverage, symbol: str) -> str:
    """What the training data have, shortened."""
    found = [formula or "none" for formula in coverage.bonded[symbol]]
    return ", ".join(found[:4]) + (f" and {len(found) - 4} others" if len(found) > 4 else "")


def _trust(evaluation: Evaluation, atom: int) -> str:
    """What follows from it, with the committee's opinion where there is one."""
    known = ""
    if len(evaluation.predictions) > 1:
        spread = float(np.linalg.norm(evaluation.spread("forces")[atom]))
        known = f" The networks' forces on it have a standard deviation of {spread:.2g} eV/Angstrom."
    return f"energies and forces are guesses there.{known} Train on such structures. This warning comes only once."
