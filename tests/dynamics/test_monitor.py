"""The monitor ends a run that has gone wrong, says why, and leaves a sound run alone."""

import ase
import numpy as np
import pytest
from ase import units
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from ase_nbody import NBodyCalculator, NBodyMonitor
from ase_nbody.dynamics import DynamicsStopped
from ase_nbody.dynamics.integrators import set_target_temperature


class Broken(Calculator):
    """A calculator that returns the given energy and forces, whatever the structure."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, energy, forces):
        super().__init__()
        self.given = {"energy": energy, "forces": forces}

    def calculate(self, *arguments):
        super().calculate(*arguments)
        self.results = dict(self.given)


@pytest.fixture
def methanol(network, systems) -> ase.Atoms:
    atoms = systems["molecule"]()
    atoms.calc = NBodyCalculator(network)
    atoms.set_momenta(np.zeros((len(atoms), 3)))
    return atoms


def test_a_sound_run_is_left_alone_and_costs_no_evaluation(methanol, monkeypatch):
    passes, calculate = [], methanol.calc.calculate
    monkeypatch.setattr(methanol.calc, "calculate", lambda *a: (passes.append(1), calculate(*a)))
    dynamics = VelocityVerlet(methanol, 0.5 * units.fs)
    dynamics.attach(NBodyMonitor(dynamics, min_distance=0.5))
    dynamics.run(10)
    assert len(passes) == 11


def test_a_run_ends_at_the_step_that_goes_wrong(methanol):
    """With a time step of 20 fs a molecule explodes: the monitor says so before any number has overflowed."""
    dynamics = VelocityVerlet(methanol, 20 * units.fs)
    dynamics.attach(NBodyMonitor(dynamics))
    methanol.set_velocities(np.random.default_rng(0).normal(scale=0.02, size=(6, 3)))
    with pytest.raises(DynamicsStopped, match=r"stopped at step \d+: .*(shorter time step|such frames)") as stopped:
        dynamics.run(1000)
    assert f"step {dynamics.nsteps}:" in str(stopped.value)
    assert dynamics.nsteps < 100
    assert np.isfinite(methanol.positions).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["position", "momentum", "force", "energy"])
def test_values_that_are_not_finite(what, value):
    forces = np.zeros((3, 3))
    forces[1, 2] = value if what == "force" else 0.0
    atoms = molecule("H2O")
    atoms.calc = Broken(value if what == "energy" else 0.0, forces)
    monitor = NBodyMonitor(atoms)
    if what == "position":
        atoms.positions[1, 0] = value
    if what == "momentum":
        atoms.set_momenta(np.where(np.arange(9).reshape(3, 3) == 4, value, 0.0))
    expected = rf"energy is {value} eV" if what == "energy" else rf"the {what} of atom 1 \(H\) is not finite"
    with pytest.raises(DynamicsStopped, match=expected):
        monitor()


def test_temperature(methanol):
    monitor = NBodyMonitor(methanol)
    methanol.set_velocities(np.eye(6, 3)[::-1] * 0.05)
    kelvin = methanol.get_temperature()
    monitor.max_temperature = 1.01 * kelvin
    monitor()
    monitor.max_temperature = 0.99 * kelvin
    with pytest.raises(DynamicsStopped, match=rf"temperature is {kelvin:.4g} K, beyond.* the hottest is atom 3 \(H\)"):
        monitor()


def test_the_bound_of_the_temperature_follows_the_thermostat(methanol):
    langevin = Langevin(methanol, 0.05, temperature_K=450, friction=0.1, fixcm=False, rng=np.random.default_rng(0))
    monitor = NBodyMonitor(langevin)
    assert monitor.temperature_bound() == pytest.approx(4500)
    for target in (900, 20):  # up and down a ramp; the atoms cool more slowly than the target falls
        set_target_temperature(langevin, target)
        assert monitor.temperature_bound() == pytest.approx(9000)
    assert NBodyMonitor(langevin, max_temperature=600).temperature_bound() == 600
    assert NBodyMonitor(VelocityVerlet(methanol, 0.05)).temperature_bound() == 5000


def test_a_run_that_is_resumed_on_the_way_down_has_the_bound_of_the_unbroken_one(methanol):
    dynamics = Langevin(methanol, 0.05, temperature_K=900, friction=0.1, fixcm=False)
    monitor = NBodyMonitor(dynamics)  # made before the run is put where it was
    set_target_temperature(dynamics, 20)
    assert monitor.temperature_bound() == pytest.approx(9000)


def test_force(methanol):
    lengths = np.linalg.norm(methanol.get_forces(), axis=1)
    atom, length = lengths.argmax(), lengths.max()
    NBodyMonitor(methanol, max_force=1.01 * length)()
    with pytest.raises(DynamicsStopped, match=rf"the force on atom {atom} \(.\) is {length:.4g} eV/Angstrom, beyond"):
        NBodyMonitor(methanol, max_force=0.99 * length)()
    NBodyMonitor(methanol, max_force=None)()


def test_spread_of_a_committee(methanol, network, make_network):
    methanol.calc = NBodyCalculator([network, make_network(seed=1)])
    methanol.get_forces()
    spread = np.linalg.norm(methanol.calc.forces_spread, axis=1)
    NBodyMonitor(methanol, max_spread=1.01 * spread.max())()
    with pytest.raises(
        DynamicsStopped, match=rf"spread on atom {spread.argmax()} .* is {spread.max():.4g} .*label this structure"
    ):
        NBodyMonitor(methanol, max_spread=0.99 * spread.max())()


def test_spread_needs_a_committee(methanol, network):
    for calculator, name in ((EMT(), "EMT"), (NBodyCalculator(network), "NBodyCalculator")):
        methanol.calc = calculator
        with pytest.raises(ValueError, match=f"needs a committee, but {name} is a single model"):
            NBodyMonitor(methanol, max_spread=0.1)


def test_bounds_and_advice_at_the_start(methanol):
    """A bound must be a number above 0; the advice before the first step does not speak of frames before it."""
    for name in ("max_temperature", "max_force", "min_distance", "max_gap"):
        for value in (np.nan, 0.0, -1.0):
            with pytest.raises(ValueError, match=f"{name} must be a number above 0"):
                NBodyMonitor(methanol, **{name: value})
    assert NBodyMonitor(methanol, max_gap=np.inf).max_gap is None
    methanol.set_velocities(np.eye(6, 3) * 0.1)
    dynamics = VelocityVerlet(methanol, 0.05)
    with pytest.raises(DynamicsStopped, match="starts with these velocities: draw others, or raise the bound"):
        NBodyMonitor(dynamics, max_temperature=1.0)()
    with pytest.raises(DynamicsStopped, match="starts with this structure: relax it first"):
        NBodyMonitor(dynamics, max_temperature=1e6, max_force=1e-6)()


def test_distance(methanol):
    closest = methanol.get_all_distances()[np.triu_indices(6, 1)].min()
    NBodyMonitor(methanol, min_distance=closest - 0.01)()
    with pytest.raises(DynamicsStopped, match=rf"atoms \d \(.\), \d \(H\) are {closest:.4g} Angstrom apart, closer"):
        NBodyMonitor(methanol, min_distance=closest + 0.01)()
    with pytest.raises(ValueError, match="min_distance must be a finite distance"):
        NBodyMonitor(methanol, min_distance=np.inf)


def with_morse(atoms: ase.Atoms) -> ase.Atoms:
    """The atoms with a calculator of ASE that takes every species."""
    atoms.calc = MorsePotential(epsilon=0.01, r0=1.0)
    return atoms


def test_an_atom_that_flies_off():
    atoms = with_morse(molecule("CH3CH2OH"))
    monitor = NBodyMonitor(atoms, max_force=None)
    methyl_hydrogen = atoms.positions[8].copy()
    outward = methyl_hydrogen - atoms.get_center_of_mass()
    outward /= np.linalg.norm(outward)
    atoms.positions[8] = methyl_hydrogen + 3.5 * outward  # the bond is broken, but the atom is still near
    monitor()
    atoms.positions[8] = methyl_hydrogen + 5.5 * outward
    with pytest.raises(DynamicsStopped, match=r"atom 8 \(H\) flew off: .*farther than 5 Angstrom"):
        monitor()
    NBodyMonitor(atoms, max_force=None)()  # apart from the start
    monitor.max_gap = None
    monitor()


def test_a_piece_that_flies_off_is_named():
    atoms = with_morse(molecule("CH3CH2OH"))
    monitor = NBodyMonitor(atoms, max_gap=4.0)
    atoms.positions[[2, 3]] += [-20.0, 0.0, 0.0]
    with pytest.raises(DynamicsStopped, match=r"atoms 2 \(O\), 3 \(H\) flew off"):
        monitor()


def test_molecules_that_were_apart_may_drift_apart():
    water = molecule("H2O")
    pair = water.copy()
    pair.translate([0, 0, 3.0])
    atoms = with_morse(water + pair)
    monitor = NBodyMonitor(atoms)
    atoms.positions[3:] += [0, 0, 50.0]
    monitor()
    atoms.positions[4] += [0, 30.0, 0]
    with pytest.raises(DynamicsStopped, match=r"atom 4 \(H\) flew off"):
        monitor()


def test_periodic_systems():
    """Atoms may cross the faces of a cell; one that leaves a surface into the vacuum has flown off."""
    crystal = bulk("Cu", cubic=True) * 2
    crystal.calc = EMT()
    monitor = NBodyMonitor(crystal)
    crystal.positions += 1.7 * crystal.cell.array[0]
    crystal.positions[3] -= 2 * crystal.cell.array[1]
    monitor()
    slab = fcc111("Cu", (2, 2, 2), vacuum=12.0)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.calc = EMT()
    monitor = NBodyMonitor(slab, max_force=None)
    slab.positions[8, 2] += 2.0
    monitor()
    slab.positions[8, 2] += 6.0
    with pytest.raises(DynamicsStopped, match=r"atom 8 \(O\) flew off"):
        monitor()


@pytest.mark.parametrize("atoms", [ase.Atoms("He"), ase.Atoms("He", cell=[5, 5, 5], pbc=True)])
def test_one_atom(atoms):
    NBodyMonitor(with_morse(atoms))()
