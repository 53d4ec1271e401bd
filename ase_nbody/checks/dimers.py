"""Dimer curves of all pairs of species: they must be smooth, and have a repulsive wall without holes.

Molecular dynamics does not stay where the training data were. Two atoms that come too close must be pushed apart: the
energy has to rise from the well inwards, all the way and high enough.

If a network knows the closest distance r_0 in the training data, its radial functions stop following the distance just
inside r_0 (``nn.closest_approach``). Two atoms that are never bonded to each other in the data, such as two
hydrogen atoms, may still attract each other at r_0. The well then lies where the radial functions rest. A bound of its
own limits how far the energy may fall on the way there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import ase
import numpy as np
from ase.data import atomic_numbers, covalent_radii

from ase_nbody.checks.case import Array, Case, energy_and_forces
from ase_nbody.checks.finding import Curve, Finding, Plot
from ase_nbody.checks.scans import Jump, find_jumps
from ase_nbody.checks.smoothness import SPACING_ANGSTROM, jump_findings
from ase_nbody.nn.closest_approach import FOLLOWS, RESTS
from ase_nbody.structure import LABEL_ARRAYS

# Distances as fractions of the sum of the covalent radii:
WALL_DISTANCE = 0.3  # where the scan begins and the wall is measured
SHORTEST_BOND = 0.7  # no bond is shorter; where the closest distance in the data is known, 0.95 of that takes its place
# Energies in eV:
MIN_WALL_EV = 5.0  # above the separated atoms: 58 kT at 1000 K. Two lithium nuclei repel each other by 8 eV there
MAX_HOLE_EV = 0.1  # about kT at 1000 K: no atom stays in such a hole
MAX_FALL_EV = 0.5  # between FOLLOWS and RESTS: the steepest bond there is, 13 eV/Angstrom, over 0.04 Angstrom
MIN_ENERGY_EV = -18.0  # the strongest bond of two atoms is that of CO: 11.2 eV (GFN1-xTB: 17.4, GFN2-xTB: 15.1)
SEPARATED_ANGSTROM = 50.0  # distance of separated atoms


@dataclass(frozen=True)
class DimerCurve:
    """The energy of a dimer as a function of the distance.

    Attributes:
        pair: the two species, ``"H-C"``.
        distances: in Angstrom (n,), ascending.
        energies: in eV relative to the separated atoms (n,).
        shortest_bond: no bond is shorter than this, in Angstrom.
        rest: the radial functions rest from here inwards, in Angstrom; ``shortest_bond`` where they never rest.
        seen: False if the training data are known to have no such pair.
        jumps: the largest jumps of the curve by quantity (``scans.find_jumps``).
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
        """How far the energy falls in eV, inwards from the shortest bond to where the radial functions rest."""
        outer, inner = np.searchsorted(self.distances, [self.shortest_bond, self.rest])
        return float(self.energies[outer] - self.energies[inner : outer + 1].min())

    @property
    def hole(self) -> tuple[float, float]:
        """The depth in eV of the deepest hole on the way inwards from the well, and its distance in Angstrom.

        A hole is as deep as the energy falls below the highest value that it has reached on the way. The well is the
        first minimum that one reaches downhill from the shortest bond: inwards at most to ``rest``, outwards anywhere.
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
        """The energy in eV at the innermost distance."""
        return float(self.energies[0])

    @property
    def depth(self) -> tuple[float, float]:
        """The lowest energy in eV, and the distance in Angstrom where the curve has it."""
        lowest = int(self.energies.argmin())
        return float(self.energies[lowest]), float(self.distances[lowest])


def pairs_of(case: Case) -> list[tuple[str, str]]:
    """All pairs of the species of a case, each with the lighter element first."""
    species = sorted(case.species, key=atomic_numbers.__getitem__)
    return [(first, second) for index, first in enumerate(species) for second in species[index:]]


def contact(first: str, second: str) -> float:
    """The sum of the covalent radii in Angstrom."""
    return float(covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]])


def dimer(first: str, second: str, distance: float) -> ase.Atoms:
    """Two atoms at a distance in Angstrom, along no axis: components that vanish by symmetry would test nothing."""
    atoms = ase.Atoms([first, second], [np.zeros(3), distance * np.array([0.48, 0.6, 0.64])])
    atoms.set_array(LABEL_ARRAYS[0], np.arange(2))  # for a network with labelled parts each atom is one
    return atoms


def scan(case: Case, first: str, second: str) -> DimerCurve:
    """Scan the curve of two species, from 0.3 of the sum of the covalent radii to beyond the cutoff."""

    def path(places: Array) -> Array:
        return energy_and_forces(case.calculator, [dimer(first, second, place) for place in places])

    radius, name = contact(first, second), f"{first}-{second}"
    closest = case.closest.get(name)
    grid = np.arange(WALL_DISTANCE * radius, case.outer, SPACING_ANGSTROM)
    samples = path(grid)
    known = [*case.radii, radius]
    if closest is None:
        shortest_bond = rest = SHORTEST_BOND * radius
    else:
        shortest_bond, rest = FOLLOWS * closest, RESTS * closest
        known += [shortest_bond, rest]
    return DimerCurve(
        pair=name,
        distances=grid,
        energies=samples[:, 0] - path(np.array([SEPARATED_ANGSTROM]))[0, 0],
        shortest_bond=shortest_bond,
        rest=rest,
        seen=not case.closest or closest is not None,
        jumps=find_jumps(path, grid, samples, known),
    )


def dimer_curves(case: Case) -> Iterator[Finding]:
    """The lowest wall, deepest hole, largest fall, lowest energy and largest jumps among all pairs of species."""
    curves = [scan(case, *pair) for pair in pairs_of(case)]
    lines = tuple(Curve(curve.pair, tuple(curve.distances), tuple(curve.energies)) for curve in curves)
    plot = Plot("distance / Angstrom", "energy of the dimer / eV", lines, y_range=(MIN_ENERGY_EV, 25.0))
    weakest = min(curves, key=lambda curve: _number(curve.wall, -np.inf))
    yield Finding(
        "dimers",
        f"wall at {WALL_DISTANCE:g} of the covalent radii",
        weakest.wall,
        "eV",
        lower=MIN_WALL_EV,
        note=_list("low", [curve for curve in curves if not curve.wall >= MIN_WALL_EV]) or _named(weakest),
        plot=plot,
    )
    deepest = max(curves, key=lambda curve: _number(curve.hole[0], np.inf))
    holes = [curve for curve in curves if not curve.hole[0] <= MAX_HOLE_EV]
    yield Finding(
        "dimers",
        "deepest hole inwards from the well",
        deepest.hole[0],
        "eV",
        upper=MAX_HOLE_EV,
        note=", ".join(f"{_named(curve)} {curve.hole[0]:.3g} eV at {curve.hole[1]:.2f} Angstrom" for curve in holes),
    )
    if case.closest:
        steepest = max(curves, key=lambda curve: _number(curve.fall, np.inf))
        measured = "fall of the energy while the network comes to rest"
        yield Finding("dimers", measured, steepest.fall, "eV", upper=MAX_FALL_EV, note=_named(steepest))
    lowest = min(curves, key=lambda curve: _number(curve.depth[0], -np.inf))
    yield Finding(
        "dimers",
        "lowest energy",
        lowest.depth[0],
        "eV",
        lower=MIN_ENERGY_EV,
        note=f"{_named(lowest)} at {lowest.depth[1]:.2f} Angstrom",
    )
    yield from jump_findings("dimers", {f"{curve.pair} at": curve.jumps for curve in curves})


def _named(curve: DimerCurve) -> str:
    return curve.pair if curve.seen else f"{curve.pair} (not in the training data)"


def _list(word: str, curves: list[DimerCurve]) -> str:
    return ", ".join(f"{word}: {_named(curve)} {curve.wall:.3g} eV" for curve in curves)


def _number(value: float, instead: float) -> float:
    """The value, or for NaN the value ``instead``, which makes it the worst."""
    return instead if np.isnan(value) else value
