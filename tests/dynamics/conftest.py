"""Systems with small random networks, and one integrator of each kind."""

from collections.abc import Callable
from pathlib import Path

import ase
import numpy as np
import pytest
from ase import units
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

from ase_nbody import NBodyCalculator
from ase_nbody.dynamics import IsotropicNPT, NoseHooverChain, ResumableRun

KELVIN = {"temperature_K": 300.0}
TIMES = {"tdamp": 20 * units.fs, "pdamp": 40 * units.fs}
FRICTION = {"friction": 0.05 / units.fs, "fixcm": False}

# Every integrator that can be continued, with each kind of random number generator.
INTEGRATORS: dict[str, Callable[[ase.Atoms, int], MolecularDynamics]] = {
    "verlet": lambda atoms, seed: VelocityVerlet(atoms, 0.5 * units.fs),
    "langevin": lambda atoms, seed: Langevin(
        atoms, 0.5 * units.fs, **KELVIN, **FRICTION, rng=np.random.default_rng(seed)
    ),
    "langevin, legacy": lambda atoms, seed: Langevin(
        atoms, 0.5 * units.fs, **KELVIN, **FRICTION, rng=np.random.RandomState(seed)
    ),
    "bussi": lambda atoms, seed: Bussi(
        atoms, 0.5 * units.fs, **KELVIN, taut=20 * units.fs, rng=np.random.default_rng(seed)
    ),
    "nose-hoover": lambda atoms, seed: NoseHooverChainNVT(atoms, 0.5 * units.fs, **KELVIN, tdamp=TIMES["tdamp"]),
    "nose-hoover with constraints": lambda atoms, seed: NoseHooverChain(
        atoms, 0.5 * units.fs, 300.0, tdamp=TIMES["tdamp"]
    ),
    "isotropic npt at rest": lambda atoms, seed: IsotropicNPT(atoms, 0.5 * units.fs, 300.0, 0.0, **TIMES),
    "isotropic npt": lambda atoms, seed: IsotropicMTKNPT(atoms, 0.5 * units.fs, **KELVIN, pressure_au=0.0, **TIMES),
    "npt": lambda atoms, seed: MTKNPT(atoms, 0.5 * units.fs, **KELVIN, pressure_au=0.0, **TIMES),
}


def make_dynamics(kind: str, atoms: ase.Atoms, calculator: object, seed: int) -> MolecularDynamics:
    """An integrator for the atoms, after displacing, straining and pushing them at random by the seed."""
    atoms.calc = calculator
    rng = np.random.default_rng(seed)
    atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
    if atoms.pbc.all():
        atoms.set_cell(atoms.cell.array * rng.uniform(0.99, 1.01), scale_atoms=True)
    atoms.set_velocities(rng.normal(scale=0.02, size=(len(atoms), 3)))
    return INTEGRATORS[kind](atoms, seed)


@pytest.fixture(params=list(INTEGRATORS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def dynamics_of(network, systems) -> Callable[..., MolecularDynamics]:
    """Make dynamics of a kind, of a crystal (constant pressure needs one): ``dynamics_of("langevin", seed=0)``."""

    def make(kind: str, seed: int = 0) -> MolecularDynamics:
        return make_dynamics(kind, systems["triclinic"](), NBodyCalculator(network, skin=0.3), seed)

    return make


def read_files(folder: str | Path) -> dict[str, bytes]:
    """All files of a run. The checkpoint holds every variable with all its digits."""
    names = ("trajectory.extxyz", "table.csv", "checkpoint.json")
    return {name: (Path(folder) / name).read_bytes() for name in names}


@pytest.fixture(scope="session")
def contents() -> Callable[[str | Path], dict[str, bytes]]:
    """Read the files of a run as bytes."""
    return read_files


@pytest.fixture(scope="session")
def run() -> Callable[..., dict[str, bytes]]:
    """Run an integrator to a step, with a frame every 5 steps, and return the files of the run."""

    def run_to(dynamics: MolecularDynamics, folder: Path, steps: int, **keywords: object) -> dict[str, bytes]:
        with ResumableRun(dynamics, folder, interval=5, **keywords) as running:
            assert running.run_to(steps)
        return read_files(folder)

    return run_to
