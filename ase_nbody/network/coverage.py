"""``Coverage``: the surroundings of atoms that occurred in the training data. Elsewhere, a network extrapolates."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.network.compact import Compact
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
from ase_nbody.structure import Structure

# An element with more surroundings than this, as in liquids of many elements, is judged by its density alone.
MAX_SURROUNDINGS = 1000

_TERM = re.compile(r"([A-Z][a-z]?)(\d{0,4})")
Formula = Annotated[str, Field(pattern=r"^([A-Z][a-z]?\d{0,4})*$", max_length=200)]
Formulas = Annotated[tuple[Formula, ...], Field(min_length=1, max_length=MAX_SURROUNDINGS)]
Range = tuple[Annotated[float, Field(ge=0.0)], Annotated[float, Field(ge=0.0)]]
# Two chemical symbols, the lighter element first: ``H-O``. There are 7,021 pairs of 118 elements.
ElementPair = Annotated[str, Field(pattern=r"^[A-Z][a-z]?-[A-Z][a-z]?$")]
ElementPairs = Annotated[tuple[ElementPair, ...], Field(max_length=7021)]


class Coverage(Compact):
    """What the training data covered, for each species.

    Attributes:
        bonded: which atoms were bonded to an atom, as formulas in the order of atomic numbers,
            ``{"C": ("H3C", "H2CO")}``. A free atom has the empty formula. A species with too many surroundings is
            missing here.
        densities: lowest and highest density of neighbours, ``{"C": (3.7, 4.6)}``; see ``network.surroundings``. A
            species that occurred only as a free atom is missing here.
        radius: R of the densities in Angstrom.
        contacts: pairs of elements that were in contact within R (see ``network.surroundings``), ``("H-H", "H-O")``;
            None if that is unknown.
        intermolecular: whether atoms of two molecules, which no bonds link, were within R; None if that is unknown.
    """

    newer = frozenset({"contacts", "intermolecular"})

    bonded: dict[str, Formulas]
    densities: dict[str, Range]
    radius: float = Field(gt=0.0, le=100.0)
    contacts: ElementPairs | None = None
    intermolecular: bool | None = None

    @model_validator(mode="after")
    def _known_symbols(self) -> "Coverage":
        named = {*self.bonded, *self.densities, *(symbol for pair in self.contacts or () for symbol in pair.split("-"))}
        named.update(
            symbol for formulas in self.bonded.values() for formula in formulas for symbol in counts_of(formula)
        )
        if unknown := sorted(symbol for symbol in named if atomic_numbers.get(symbol, 0) < 1):
            raise ValueError(f"coverage names {', '.join(unknown)}, which are not chemical symbols")
        if reversed_ := sorted(symbol for symbol, (low, high) in self.densities.items() if low > high):
            raise ValueError(f"coverage has densities of {', '.join(reversed_)} whose lowest is above the highest")
        return self

    @classmethod
    def of(cls, structures: Iterable[Structure], radius: float) -> "Coverage":
        """Record the surroundings of all atoms of the structures; densities within ``radius`` Angstrom."""
        bonded: dict[str, set[str]] = {}
        ranges: dict[str, tuple[float, float]] = {}
        unmet = np.ones((len(chemical_symbols), len(chemical_symbols)), dtype=bool)
        intermolecular = False
        for structure in structures:
            numbers = structure.numbers
            species = np.unique(numbers)
            pairs = find_pairs(structure, max(radius, bond_reach(species)))
            bonds = closer_than_bonds(numbers, pairs)
            counts = bonded_counts(numbers, bonds, species)
            for row in np.unique(np.column_stack([numbers, counts]), axis=0):
                bonded.setdefault(chemical_symbols[row[0]], set()).add(formula_of(species, row[1:]))
            if not len(pairs):
                continue  # free atoms: their density would allow any dilution
            density = densities(len(numbers), pairs, radius)
            for number in species:
                here = density[numbers == number]
                known = ranges.get(chemical_symbols[number], (np.inf, 0.0))
                ranges[chemical_symbols[number]] = (min(known[0], here.min()), max(known[1], here.max()))
            visible = within(pairs, radius)
            intermolecular = intermolecular or bool(len(between_molecules(len(numbers), visible, bonds)))
            near = closer_than_contacts(numbers, visible)
            for index in contacts(numbers, near, bonds, unmet):
                first, second = numbers[near.first[index]], numbers[near.second[index]]
                unmet[first, second] = unmet[second, first] = False
        met = np.argwhere(np.triu(~unmet)).tolist()
        return cls(
            bonded={
                symbol: tuple(sorted(found)) for symbol, found in _sorted(bonded) if len(found) <= MAX_SURROUNDINGS
            },
            densities={symbol: (round(low, 3), round(high, 3)) for symbol, (low, high) in _sorted(ranges)},
            radius=radius,
            contacts=tuple(pair_of(first, second) for first, second in met),
            intermolecular=intermolecular,
        )

    def __or__(self, other: "Coverage") -> "Coverage":
        """What at least one of two sets of data covered.

        Raises:
            ValueError: the densities are within different radii.
        """
        if self.radius != other.radius:
            raise ValueError(f"densities within {self.radius:g} and {other.radius:g} Angstrom cannot be compared")
        bonded = {
            symbol: tuple(sorted({*self.bonded.get(symbol, ()), *other.bonded.get(symbol, ())}))
            for symbol in {**self.bonded, **other.bonded}
            if not (self._unlisted(symbol) or other._unlisted(symbol))
        }
        lists = [self.densities, other.densities]
        densities = {
            symbol: (
                min(known[symbol][0] for known in lists if symbol in known),
                max(known[symbol][1] for known in lists if symbol in known),
            )
            for symbol in {**self.densities, **other.densities}
        }
        return Coverage(
            bonded={symbol: found for symbol, found in _sorted(bonded) if len(found) <= MAX_SURROUNDINGS},
            densities=dict(_sorted(densities)),
            radius=self.radius,
            contacts=_joined(self.contacts, other.contacts),
            intermolecular=_either(self.intermolecular, other.intermolecular),
        )

    @property
    def bonds(self) -> tuple[str, ...]:
        """The pairs of elements that were bonded, in the form of ``contacts``; two unlisted species count as bonded."""
        listed = [(symbol, counts_of(formula)) for symbol, found in self.bonded.items() for formula in found]
        found = {_pair(symbol, other) for symbol, counts in listed for other in counts}
        unlisted = filter(self._unlisted, self.densities)
        return _in_order({*found, *itertools.starmap(_pair, itertools.combinations_with_replacement(unlisted, 2))})

    def missing(self, seen: Sequence[str]) -> tuple[str, ...]:
        """The pairs of the elements of the data that are not among ``seen``, which is ``bonds`` or ``contacts``."""
        symbols = {*self.bonded, *self.densities}
        every = {_pair(first, second) for first in symbols for second in symbols}
        return _in_order(every - {*seen})

    def _unlisted(self, symbol: str) -> bool:
        """Whether a species had too many surroundings to list them."""
        return symbol in self.densities and symbol not in self.bonded


def formula_of(species: NDArray[np.int64], counts: NDArray[np.int64]) -> str:
    """The formula of atoms in the order of atomic numbers: ``H2CO``; empty if there are none."""
    terms = [(chemical_symbols[number], int(count)) for number, count in zip(species, counts, strict=True) if count]
    return "".join(symbol if count == 1 else f"{symbol}{count}" for symbol, count in terms)


def counts_of(formula: str) -> dict[str, int]:
    """How many atoms of each symbol a formula has. The inverse of ``formula_of``."""
    return {symbol: int(count or 1) for symbol, count in _TERM.findall(formula)}


def _pair(first: str, second: str) -> str:
    return pair_of(atomic_numbers[first], atomic_numbers[second])


def _in_order(pairs: Iterable[str]) -> tuple[str, ...]:
    """Pairs in the order of the atomic numbers of their elements."""
    return tuple(sorted(pairs, key=lambda pair: [atomic_numbers[symbol] for symbol in pair.split("-")]))


def _joined(one: Sequence[str] | None, other: Sequence[str] | None) -> tuple[str, ...] | None:
    """What is in one of two lists of pairs; None if either is unknown."""
    return None if one is None or other is None else _in_order({*one, *other})


def _either(one: bool | None, other: bool | None) -> bool | None:
    return None if one is None or other is None else one or other


def _sorted(by_symbol: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(by_symbol.items(), key=lambda item: atomic_numbers[item[0]])
