"""Beyond the densest data: the energy must rise as everything is pressed together, and random starts must not collapse.

A structure search, a cell under pressure and a collision reach densities that no training data have. A polynomial of
the neighbours may fall there without end, even if no single pair is closer than in the data.
"""

from collections.abc import Iterator

import ase
import numpy as np
from ase.data import covalent_radii
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from ase_nbody.checks.case import Array, Case, energy_and_forces
from ase_nbody.checks.dynamics import MIN_DISTANCE, closest_approach
from ase_nbody.checks.finding import Curve, Finding, Plot, not_applicable
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.network.coverage import Coverage
from ase_nbody.network.surroundings import densities
from ase_nbody.structure import LABEL_ARRAYS, Structure

SCALES = np.round(np.arange(1.0, 0.39, -0.02), 2)  # of all lengths
MAX_FALL_EV = 1e-3  # per atom
UNCOVERED_START = 0.85  # without a record of the data, the rise begins at the lowest energy above this scale
START_DISTANCE = 0.6  # closest distance of a random start, as a fraction of the sum of the covalent radii
STARTS, START_ATOMS = 3, 8  # random starts, and about how many atoms each has
RELAXATION_STEPS = 150
FORCE_EV_PER_ANGSTROM = 0.05  # at which a relaxation ends
FREE_VOLUME = 1.5  # volume of a random molecule, in cubes of the mean diameter of its atoms

PRESSED = "fall of the energy per atom while all lengths shrink to 0.4"
RELAXED = f"closest approach in the relaxation of {STARTS} random starts, divided by the sum of covalent radii"


def compression(case: Case) -> Iterator[Finding]:
    """Shrink the structure as a whole: once it is denser than the data, its energy rises all the way."""
    if len(case.atoms) == 1 and not case.atoms.pbc.any():
        yield not_applicable("compression", PRESSED, "a single atom has nothing to press against")
        return
    shrunk = [scaled(case.atoms, scale) for scale in SCALES]
    energies = np.array([energy_and_forces(case.calculator, [atoms])[0, 0] for atoms in shrunk]) / len(case.atoms)
    begins = _begins(case, shrunk, energies)
    inwards = energies[begins:]
    falls = np.maximum.accumulate(inwards) - inwards
    deepest = int(falls.argmax()) if np.isfinite(falls).all() else int(np.argmin(np.isfinite(falls)))
    plot = Plot("scale of all lengths", "energy / eV per atom", (_curve(case, energies),), y_range=(-1.0, 20.0))
    note = f"at {SCALES[begins + deepest]:g}, from {SCALES[begins]:g} inwards"
    yield Finding("compression", PRESSED, float(falls[deepest]), "eV", upper=MAX_FALL_EV, note=note, plot=plot)


def random_starts(case: Case) -> Iterator[Finding]:
    """Relax atoms that were thrown together, and their cell if there is a stress: no two may end up in one place."""
    if len(case.atoms) == 1 and not case.atoms.pbc.any():
        yield not_applicable("random starts", RELAXED, "a single atom meets no other")
        return
    approaches = [_relaxed(case, random_start(case.atoms, seed)) for seed in range(STARTS)]
    note = ", ".join(f"{closest:.2f} after {steps} steps" for closest, steps in approaches)
    closest = min(approaches)[0]
    yield Finding("random starts", RELAXED, closest, lower=MIN_DISTANCE, note=note)


def scaled(atoms: ase.Atoms, scale: float) -> ase.Atoms:
    """The structure with all lengths multiplied by ``scale``; vacuum shrinks with it."""
    shrunk = atoms.copy()
    shrunk.set_cell(scale * atoms.cell.array)
    shrunk.positions = scale * atoms.positions
    return shrunk


def random_start(atoms: ase.Atoms, seed: int) -> ase.Atoms:
    """Some eight atoms of the composition of a structure at random places, its closest pair at ``START_DISTANCE``.

    In a crystal they have its volume per atom.
    """
    rng = np.random.default_rng(seed)
    numbers = _composition(atoms)
    radii, periodic = covalent_radii[numbers], bool(atoms.pbc.all())
    volume = len(numbers) * (atoms.get_volume() / len(atoms) if periodic else FREE_VOLUME * np.mean(2 * radii) ** 3)
    while True:
        start = ase.Atoms(numbers, cell=[volume ** (1 / 3)] * 3, pbc=periodic)
        start.set_array(LABEL_ARRAYS[0], np.arange(len(numbers)))
        placed = _placed(start, radii, rng)
        if placed:
            break
        volume *= 1.1
    start = scaled(start, START_DISTANCE / closest_approach(start))
    if not periodic:
        start.set_cell(None)
    return start


def _placed(start: ase.Atoms, radii: Array, rng: np.random.Generator) -> bool:
    """Put the atoms one by one where none is too close; False if there is no room."""
    length = start.cell.array[0, 0]
    for atom in range(len(start)):
        for _ in range(200):
            place = rng.uniform(0.0, length, 3)
            vectors = start.positions[:atom] - place
            if start.pbc.all():
                vectors -= length * np.round(vectors / length)
            if (np.linalg.norm(vectors, axis=1) >= START_DISTANCE * (radii[:atom] + radii[atom])).all():
                start.positions[atom] = place
                break
        else:
            return False
    return True


def _composition(atoms: ase.Atoms) -> Array:
    """Atomic numbers of a small sample of the structure: every n-th of its atoms, sorted by element; at least two."""
    numbers = np.sort(atoms.numbers)
    if len(numbers) < START_ATOMS:
        return np.sort(np.tile(numbers, -(-START_ATOMS // len(numbers))))
    return numbers[np.round(np.linspace(0, len(numbers) - 1, START_ATOMS)).astype(int)]


def _relaxed(case: Case, start: ase.Atoms) -> tuple[float, int]:
    """The closest approach where the relaxation ends, relative to covalent radii, and the number of its steps."""
    start.calc = case.calculator
    has_stress = start.pbc.all() and "stress" in case.calculator.implemented_properties
    optimizer = FIRE(FrechetCellFilter(start) if has_stress else start, logfile=None)
    closest, steps = closest_approach(start), 0
    for _ in optimizer.irun(fmax=FORCE_EV_PER_ANGSTROM, steps=RELAXATION_STEPS):
        steps, closest = optimizer.nsteps, closest_approach(start)
        if not closest >= 0.5 * MIN_DISTANCE:  # collapsed: further steps may take long or raise errors
            break
    return closest, steps


def _begins(case: Case, shrunk: list[ase.Atoms], energies: Array) -> int:
    """The index of the first scale that is denser than the data; of the lowest energy where they do not tell.

    They do not where they are unknown, or where a sparse structure becomes denser at most at the last scale.
    """
    if case.coverage is not None:
        for index, atoms in enumerate(shrunk[:-1]):
            if _is_denser(atoms, case.coverage):
                return index
    return int(np.nanargmin(np.where(SCALES >= UNCOVERED_START, energies, np.inf)))


def _is_denser(atoms: ase.Atoms, coverage: Coverage) -> bool:
    """Whether an atom has a denser neighbourhood than any of its species in the data."""
    pairs = find_pairs(Structure.from_atoms(atoms), coverage.radius)
    density = densities(len(atoms), pairs, coverage.radius)
    highest = np.array([coverage.densities.get(symbol, (0.0, np.inf))[1] for symbol in atoms.symbols])
    return bool((density > highest).any())


def _curve(case: Case, energies: Array) -> Curve:
    return Curve(case.label, tuple(SCALES), tuple(energies - energies[0]))
