"""Molecular dynamics with ASE's integrators: conserved quantities, temperatures, evaluations per step and memory."""

import gc
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.constraints import FixAtoms, FixBondLengths
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet


def heat(atoms: ase.Atoms, kelvin: float) -> ase.Atoms:
    """The atoms, with momenta from the Maxwell-Boltzmann distribution and the centre of mass at rest."""
    masses = atoms.get_masses()[:, None]
    velocities = np.random.default_rng(0).normal(size=(len(atoms), 3)) * np.sqrt(units.kB * kelvin / masses)
    velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    atoms.set_velocities(velocities)
    return atoms


def record(dynamics: MolecularDynamics, quantity: Callable[[], float], steps: int) -> np.ndarray:
    """The quantity at every step."""
    values: list[float] = []
    dynamics.attach(lambda: values.append(quantity()))
    dynamics.run(steps)
    return np.array(values)


@pytest.mark.parametrize("name", ["crystal", "tetrahedron"])
def test_verlet_conserves_energy_to_second_order(name: str, request: pytest.FixtureRequest) -> None:
    """The error of velocity Verlet falls with the square of the time step, although neighbours cross the radius."""
    atoms, errors = heat(request.getfixturevalue(name), 300.0), []
    start = atoms.copy()
    for timestep in (4.0, 2.0):
        atoms.positions, atoms.cell = start.positions, start.cell
        atoms.set_momenta(start.get_momenta())
        dynamics = VelocityVerlet(atoms, timestep * units.fs)
        energy = record(dynamics, atoms.get_total_energy, round(100.0 / timestep))
        errors.append(abs(energy - energy[0]).max())
    assert errors[0] < 0.03 * start.get_kinetic_energy()
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)


def test_verlet_keeps_momenta(tetrahedron: ase.Atoms) -> None:
    heat(tetrahedron, 500.0)
    momentum, spin = tetrahedron.get_momenta().sum(axis=0), tetrahedron.get_angular_momentum()
    VelocityVerlet(tetrahedron, 2.0 * units.fs).run(50)
    np.testing.assert_allclose(tetrahedron.get_momenta().sum(axis=0), momentum, atol=1e-11)
    np.testing.assert_allclose(tetrahedron.get_angular_momentum(), spin, atol=1e-10)


def test_verlet_is_reversible(crystal: ase.Atoms) -> None:
    start = heat(crystal, 600.0).copy()
    for _ in range(2):
        VelocityVerlet(crystal, 2.0 * units.fs).run(25)
        crystal.set_momenta(-crystal.get_momenta())
    np.testing.assert_allclose(crystal.positions, start.positions, atol=1e-9)


def langevin(atoms: ase.Atoms) -> MolecularDynamics:
    keywords = {"temperature_K": 300.0, "friction": 0.05 / units.fs, "rng": np.random.default_rng(1), "fixcm": False}
    return Langevin(atoms, 4.0 * units.fs, **keywords)


def bussi(atoms: ase.Atoms) -> MolecularDynamics:
    return Bussi(atoms, 4.0 * units.fs, temperature_K=300.0, taut=20.0 * units.fs, rng=np.random.default_rng(1))


@pytest.mark.parametrize("thermostat", [langevin, bussi], ids=lambda thermostat: thermostat.__name__)
def test_stochastic_thermostats_reach_their_temperature(thermostat: Callable, crystal: ase.Atoms) -> None:
    temperature = record(thermostat(heat(crystal, 500.0)), crystal.get_temperature, 400)
    assert temperature[80:].mean() == pytest.approx(300.0, rel=0.15)


def test_nose_hoover_chain_conserves_its_energy(crystal: ase.Atoms) -> None:
    heat(crystal, 300.0)
    dynamics = NoseHooverChainNVT(crystal, 2.0 * units.fs, temperature_K=300.0, tdamp=40.0 * units.fs)
    conserved = record(dynamics, dynamics.get_conserved_energy, 150)
    assert np.ptp(conserved) < 0.01 * crystal.get_kinetic_energy()


def test_isotropic_npt_conserves_its_energy_and_relieves_pressure(crystal: ase.Atoms) -> None:
    """A compressed crystal expands, which needs the stress, while the conserved quantity stays constant."""
    crystal.set_cell(0.97 * crystal.cell, scale_atoms=True)
    volume, pressure = crystal.get_volume(), -crystal.get_stress()[:3].mean()
    heat(crystal, 300.0)
    times = {"tdamp": 40.0 * units.fs, "pdamp": 150.0 * units.fs}
    dynamics = IsotropicMTKNPT(crystal, 2.0 * units.fs, temperature_K=300.0, pressure_au=0.0, **times)
    conserved = record(dynamics, dynamics.get_conserved_energy, 150)
    assert np.ptp(conserved) < 0.03 * pressure * volume
    assert pressure > 5.0 * units.GPa
    assert crystal.get_volume() > 1.03 * volume


def test_constraints(tetrahedron: ase.Atoms) -> None:
    heat(tetrahedron, 300.0)
    tetrahedron.set_constraint([FixAtoms([0]), FixBondLengths([(1, 2)])])
    before, bond = tetrahedron.positions[0].copy(), tetrahedron.get_distance(1, 2)
    VelocityVerlet(tetrahedron, 2.0 * units.fs).run(20)
    assert not tetrahedron.get_forces()[0].any()
    assert tetrahedron.get_forces(apply_constraint=False)[0].any()
    np.testing.assert_array_equal(tetrahedron.positions[0], before)
    assert tetrahedron.get_distance(1, 2) == pytest.approx(bond, rel=1e-6)


def test_a_log_file_costs_no_evaluation(crystal: ase.Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes, calculate = [], crystal.calc.calculate
    monkeypatch.setattr(crystal.calc, "calculate", lambda *a: (passes.append(1), calculate(*a)))
    files = {"logfile": str(tmp_path / "md.log"), "trajectory": str(tmp_path / "md.traj")}
    with VelocityVerlet(heat(crystal, 300.0), 2.0 * units.fs, **files) as dynamics:
        dynamics.run(5)
    assert len(passes) == 6
    assert len((tmp_path / "md.log").read_text().splitlines()) == 7


def memory() -> np.ndarray:
    """Number of tensors, bytes of Python objects made since tracing began, and resident bytes of the process."""
    gc.collect()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return np.array([tensors, tracemalloc.get_traced_memory()[0], pages * os.sysconf("SC_PAGE_SIZE")])


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_is_constant_over_a_thousand_steps(tetrahedron: ase.Atoms) -> None:
    """One array of forces kept at each step would take 200 kB of Python's memory; its free lists take about 50 kB."""
    dynamics = VelocityVerlet(heat(tetrahedron, 300.0), 2.0 * units.fs)
    tracemalloc.start()
    try:
        dynamics.run(500)
        before = memory()
        dynamics.run(1000)
        tensors, python, process = memory() - before
    finally:
        tracemalloc.stop()
    assert tensors <= 0
    assert python < 100_000
    assert process < 16 * 2**20
