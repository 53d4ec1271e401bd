"""Dimer curves of all pairs of species: smooth, with a repulsive wall and no holes in it.

Molecular dynamics does not stay where the training data were. Two atoms that come too close must be pushed apart: the
energy has to rise from the well inwards, all the way and high enough.

Where the closest distance of the training data is known, an N-body network comes to rest just within it
(``nn.closest_approach``). Atoms that were never closer than they are without a bond may still attract each other there,
as two of hydrogen do: the well is then where the network rests. How far the energy falls on that way is bounded by
itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import ase
import numpy as np
from ase.data import atomic_numbers, covalent_radii

from ase_nbody.checks.case import Array, Case, energy_and_forces
from ase_nbody.checks.finding import Curve, Finding, Plot
from ase_nbody.checks.scans import Jump, find_jumps
from ase_nbody.checks.smoothness import SPACING, jump_findings
from ase_nbody.nn.closest_approach import FOLLOWS, RESTS

INNERMOST = 0.3  # of the sum of covalent radii, where the wall is measured
BONDS = 0.7  # of the sum of covalent radii: no bond is shorter. Where the closest distance seen is known, 0.95 of that
WALL = 5.0  # eV above the separated atoms: 58 kT at 1000 K. Two lithium nuclei repel each other by 8 eV there
HOLE = 0.1  # eV: kT at 1000 K. Such a dip holds nobody
FALL = 0.5  # eV while the network comes to rest: a bond of 13 eV/Angstrom, the steepest there is, over 0.04 Angstrom
DEEPEST = -18.0  # eV; the strongest bond of two atoms, that of CO, has 11.2, by GFN1-xTB 17.4, by GFN2-xTB 15.1
FAR = 50.0  # Angstrom: separated atoms


@dataclass(frozen=True)
class DimerCurve:
    """Energies in eV of a dimer, relative to the separated atoms, by distance in Angstrom (n,).

    No bond is shorter than ``shortest_bond``; the network rests from ``rest`` inwards, both in Angstrom.
    """

    pair: str
    distances: Array
    energies: Array
    shortest_bond: float
    rest: float
    seen: bool
    jumps: dict[str, Jump]

    @property
    def fall(self) -> float:
        """How far the energy falls in eV, inwards from the shortest bond to where the network rests."""
        outer, inner = np.searchsorted(self.distances, [self.shortest_bond, self.rest])
        return float(self.energies[outer] - self.energies[inner : outer + 1].min())

    @property
    def hole(self) -> tuple[float, float]:
        """How far the energy drops below what it has reached on the way in from the well, in eV, and where.

        The well is the first minimum downhill from the shortest bond: within the way to ``rest``, or anywhere beyond.
        """
        outer, inner = np.searchsorted(self.distances, [self.shortest_bond, self.rest])
        well = int(outer)
        while well > inner and self.energies[well - 1] < self.energies[well]:
            well -= 1
        while well + 1 < len(self.energies) and self.energies[well + 1] < self.energies[well]:
            well += 1
        inwards = self.energies[well::-1]
        drop = np.maximum.accumulate(inwards) - inwards
        deepest = int(drop.argmax())
        return float(drop[deepest]), float(self.distances[well - deepest])

    @property
    def wall(self) -> float:
        """Energy at the innermost distance in eV."""
        return float(self.energies[0])

    @property
    def depth(self) -> tuple[float, float]:
        """The lowest energy in eV, and where."""
        lowest = int(self.energies.argmin())
        return float(self.energies[lowest]), float(self.distances[lowest])


def pairs_of(case: Case) -> list[tuple[str, str]]:
    """All pairs of the species, each with the lighter element first."""
    species = sorted(case.species, key=atomic_numbers.__getitem__)
    return [(first, second) for index, first in enumerate(species) for second in species[index:]]


def contact(first: str, second: str) -> float:
    """Sum of the covalent radii in Angstrom."""
    return float(covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]])


def dimer(first: str, second: str, distance: float) -> ase.Atoms:
    """Two atoms, aside of all axes: of what is zero by symmetry nothing is learnt."""
    return ase.Atoms([first, second], [np.zeros(3), distance * np.array([0.48, 0.6, 0.64])])


def scan(case: Case, first: str, second: str) -> DimerCurve:
    """The curve of two species, from 0.3 of the sum of covalent radii to beyond the cutoff."""

    def path(places: Array) -> Array:
        return energy_and_forces(case.calculator, [dimer(first, second, place) for place in places])

    radius, name = contact(first, second), f"{first}-{second}"
    closest = case.closest.get(name)
    grid = np.arange(INNERMOST * radius, case.outer, SPACING)
    samples = path(grid)
    known = (*case.radii, radius) if closest is None else (*case.radii, radius, FOLLOWS * closest, RESTS * closest)
    return DimerCurve(
        name,
        grid,
        samples[:, 0] - path(np.array([FAR]))[0, 0],
        BONDS * radius if closest is None else FOLLOWS * closest,
        BONDS * radius if closest is None else RESTS * closest,
        not case.closest or closest is not None,
        find_jumps(path, grid, samples, known),
    )


def dimer_curves(case: Case) -> Iterator[Finding]:
    """The lowest wall, the deepest hole and fall, the lowest energy and the largest jumps of all pairs."""
    curves = [scan(case, *pair) for pair in pairs_of(case)]
    lines = tuple(Curve(curve.pair, tuple(curve.distances), tuple(curve.energies)) for curve in curves)
    plot = Plot("distance / Angstrom", "energy of the dimer / eV", lines, y_range=(DEEPEST, 25.0))
    weakest = min(curves, key=lambda curve: _number(curve.wall, -np.inf))
    yield Finding(
        "dimers",
        f"wall at {INNERMOST:g} of the covalent radii",
        weakest.wall,
        "eV",
        lower=WALL,
        note=_list("low", [curve for curve in curves if not curve.wall >= WALL]) or _named(weakest),
        plot=plot,
    )
    deepest = max(curves, key=lambda curve: _number(curve.hole[0], np.inf))
    holes = [curve for curve in curves if not curve.hole[0] <= HOLE]
    yield Finding(
        "dimers",
        "deepest hole inwards from the well",
        deepest.hole[0],
        "eV",
        upper=HOLE,
        note=", ".join(f"{_named(curve)} {curve.hole[0]:.3g} eV at {curve.hole[1]:.2f} Angstrom" for curve in holes),
    )
    if case.closest:
        steepest = max(curves, key=lambda curve: _number(curve.fall, np.inf))
        measured = "fall of the energy while the network comes to rest"
        yield Finding("dimers", measured, steepest.fall, "eV", upper=FALL, note=_named(steepest))
    lowest = min(curves, key=lambda curve: _number(curve.depth[0], -np.inf))
    yield Finding(
        "dimers",
        "lowest energy",
        lowest.depth[0],
        "eV",
        lower=DEEPEST,
        note=f"{_named(lowest)} at {lowest.depth[1]:.2f} Angstrom",
    )
    yield from jump_findings("dimers", {f"{curve.pair} at": curve.jumps for curve in curves})


def _named(curve: DimerCurve) -> str:
    return curve.pair if curve.seen else f"{curve.pair} (not in the training data)"


def _list(word: str, curves: list[DimerCurve]) -> str:
    return ", ".join(f"{word}: {_named(curve)} {curve.wall:.3g} eV" for curve in curves)


def _number(value: float, instead: float) -> float:
    """The value, or what makes a NaN the worst."""
    return instead if np.isnan(value) else value
