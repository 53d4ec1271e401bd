"""A potential that passes every check, and functions that spoil it."""

from collections.abc import Callable

import ase
import ase.build
import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from ase_nbody.checks import Finding, run_checks
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.structure import Structure

CUTOFF_ANGSTROM = 5.0
Pair = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Spoil = Callable[[ase.Atoms, dict], None]


def morse(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy and slope of a Morse potential with its minimum at 2.5 Angstrom, faded out with three derivatives."""
    wave, fade = np.exp(1.5 * (2.5 - r)), 1.0 - (r / CUTOFF_ANGSTROM) ** 2
    energy, slope = wave**2 - 2.0 * wave, 3.0 * (wave - wave**2)
    return energy * fade**4, slope * fade**4 - 8.0 * energy * fade**3 * r / CUTOFF_ANGSTROM**2


class PairPotential(Calculator):
    """A calculator of a pair function; ``spoil`` may change the results."""

    implemented_properties = ("energy", "energies", "forces", "stress", "stresses")

    def __init__(self, pair: Pair = morse, spoil: Spoil | None = None):
        super().__init__()
        self.pair, self.spoil = pair, spoil

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        pairs = find_pairs(Structure.from_atoms(self.atoms), CUTOFF_ANGSTROM)
        x, first = self.atoms.positions, pairs.first
        vector = x[pairs.second] + pairs.shift @ self.atoms.cell.array - x[first]
        energy, slope = self.pair(pairs.distance)
        pull = (slope / pairs.distance)[:, None] * vector
        energies, forces = np.zeros(len(self.atoms)), np.zeros((len(self.atoms), 3))
        virials = np.zeros((len(self.atoms), 3, 3))
        np.add.at(energies, first, 0.5 * energy)
        np.add.at(forces, first, pull)
        np.add.at(virials, first, 0.5 * vector[:, :, None] * pull[:, None, :])
        self.results = {"energy": energies.sum(), "energies": energies, "forces": forces}
        if self.atoms.cell.rank == 3:
            stresses = full_3x3_to_voigt_6_stress(virials) / self.atoms.get_volume()
            self.results |= {"stress": stresses.sum(axis=0), "stresses": stresses}
        if self.spoil is not None:
            self.spoil(self.atoms, self.results)


def cluster() -> ase.Atoms:
    return ase.Atoms("Cu5", 1.7 * np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1.9, 1]]))


STRUCTURES = {
    "cluster": cluster,
    "crystal": lambda: ase.build.bulk("Cu", a=3.4) * (2, 1, 1),
    "slab": lambda: ase.build.fcc111("Cu", (1, 1, 3), a=3.4, vacuum=4.0),
    "atom": lambda: ase.Atoms("Cu"),
}


@pytest.fixture(scope="session")
def pair_potential() -> type[PairPotential]:
    return PairPotential


@pytest.fixture(scope="session", name="morse")
def _morse() -> Pair:
    return morse


@pytest.fixture(params=list(STRUCTURES))
def structure(request: pytest.FixtureRequest) -> ase.Atoms:
    """One structure of each kind."""
    return STRUCTURES[request.param]()


@pytest.fixture(scope="session")
def structures() -> dict[str, Callable[[], ase.Atoms]]:
    return STRUCTURES


@pytest.fixture(scope="session")
def failures() -> Callable[..., list[Finding]]:
    """Run checks on one structure, and return the findings that failed."""

    def failed(calculator: Calculator, atoms: ase.Atoms, *only: str, **keywords) -> list[Finding]:
        findings = list(run_checks(calculator, [atoms], only=only, **{"steps": 100, **keywords}))
        assert any(finding.value is not None for finding in findings), "nothing was checked"
        return [finding for finding in findings if finding.outcome == "failed"]

    return failed
