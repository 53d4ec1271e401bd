"""``Coverage``: the surroundings of atoms that occurred in the training data. Elsewhere, a network extrapolates."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.network.surroundings import bond_reach, bonded_counts, closer_than_bonds, densities
from ase_nbody.structure import Structure

# An element with more surroundings than this, as in liquids of many elements, is judged by its density alone.
MAX_SURROUNDINGS = 1000

_TERM = re.compile(r"([A-Z][a-z]?)(\d{0,4})")
Formula = Annotated[str, Field(pattern=r"^([A-Z][a-z]?\d{0,4})*$", max_length=200)]
Formulas = Annotated[tuple[Formula, ...], Field(max_length=MAX_SURROUNDINGS)]
Range = tuple[Annotated[float, Field(ge=0.0)], Annotated[float, Field(ge=0.0)]]


class Coverage(BaseModel):
    """What the training data covered, for each species.

    Attributes:
        bonded: which atoms were bonded to an atom, as formulas in the order of atomic numbers,
            ``{"C": ("H3C", "H2CO")}``. A free atom has the empty formula. A species with too many surroundings is
            missing here.
        densities: lowest and highest density of neighbours, ``{"C": (3.7, 4.6)}``; see ``network.surroundings``. A
            species that occurred only as a free atom is missing here.
        radius: R of the densities in Angstrom.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    bonded: dict[str, Formulas]
    densities: dict[str, Range]
    radius: float = Field(gt=0.0, le=100.0)

    @model_validator(mode="after")
    def _known_symbols(self) -> "Coverage":
        named = {*self.bonded, *self.densities}
        named.update(
            symbol for formulas in self.bonded.values() for formula in formulas for symbol in counts_of(formula)
        )
        if unknown := sorted(symbol for symbol in named if atomic_numbers.get(symbol, 0) < 1):
            raise ValueError(f"coverage names {', '.join(unknown)}, which are not chemical symbols")
        if reversed_ := sorted(symbol for symbol, (low, high) in self.densities.items() if low > high):
            raise ValueError(f"coverage has densities of {', '.join(reversed_)} whose lowest is above the highest")
        return self

    @classmethod
    def of(cls, structures: Sequence[Structure], radius: float) -> "Coverage":
        """Record the surroundings of all atoms of the structures; densities within ``radius`` Angstrom."""
        bonded: dict[str, set[str]] = {}
        ranges: dict[str, tuple[float, float]] = {}
        for structure in structures:
            numbers = structure.numbers
            species = np.unique(numbers)
            pairs = find_pairs(structure, max(radius, bond_reach(species)))
            counts = bonded_counts(numbers, closer_than_bonds(numbers, pairs), species)
            for row in np.unique(np.column_stack([numbers, counts]), axis=0):
                bonded.setdefault(chemical_symbols[row[0]], set()).add(formula_of(species, row[1:]))
            if not len(pairs):
                continue  # free atoms: their density would allow any dilution
            density = densities(len(numbers), pairs, radius)
            for number in species:
                here = density[numbers == number]
                known = ranges.get(chemical_symbols[number], (np.inf, 0.0))
                ranges[chemical_symbols[number]] = (min(known[0], here.min()), max(known[1], here.max()))
        return cls(
            bonded={
                symbol: tuple(sorted(found)) for symbol, found in _sorted(bonded) if len(found) <= MAX_SURROUNDINGS
            },
            densities={symbol: (round(low, 3), round(high, 3)) for symbol, (low, high) in _sorted(ranges)},
            radius=radius,
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
        )

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


def _sorted(by_symbol: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(by_symbol.items(), key=lambda item: atomic_numbers[item[0]])
