"""Copies, trajectories and databases can be read again, and ASE finds the calculator by its name."""

import copy
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import ase
import ase.db
import ase.io
import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import Calculator
from ase.io.jsonio import decode, encode
from ase.io.trajectory import Trajectory
from ase.md.verlet import VelocityVerlet

from ase_nbody import NBodyCalculator, NBodyNetwork, save_model


@pytest.fixture
def atoms(systems, network: NBodyNetwork) -> ase.Atoms:
    crystal = systems["triclinic"]()
    crystal.calc = NBodyCalculator(network)
    return crystal


@pytest.fixture
def model(network: NBodyNetwork, tmp_path: Path) -> Path:
    return save_model(network, tmp_path / "model.nbody")


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda calc: pickle.loads(pickle.dumps(calc))])
def test_copies_of_a_calculator(duplicate: Callable, used: bool, atoms: ase.Atoms) -> None:
    original = atoms.calc
    if used:
        original.get_property("energy", atoms)
    twin = duplicate(original)
    assert twin.todict() == original.todict()
    if used:
        assert twin.energy_spread == 0.0
        np.testing.assert_array_equal(twin.part_energies[0].energies, original.part_energies[0].energies)
    here = atoms.get_forces()
    elsewhere = atoms.copy()
    elsewhere.rattle(0.3, seed=0)
    twin.get_property("forces", elsewhere)  # must not disturb the original
    np.testing.assert_array_equal(original.get_property("forces", atoms), here)
    np.testing.assert_allclose(twin.get_property("forces", atoms), here, atol=1e-12)


def test_atoms_with_a_calculator_are_copied(atoms: ase.Atoms) -> None:
    twin = copy.deepcopy(atoms)
    assert twin.calc is not atoms.calc
    assert twin.get_potential_energy() == atoms.get_potential_energy()


def test_todict_makes_the_same_calculator(
    model: Path, atoms: ase.Atoms, make_network: Callable, tmp_path: Path
) -> None:
    other = str(save_model(make_network(1), tmp_path / "other.nbody"))
    for models in (model, [model, other]):
        parameters = NBodyCalculator(models, dtype="float32", skin=0.3).todict()
        assert parameters == json.loads(json.dumps(parameters)) == decode(encode(parameters))
        again = NBodyCalculator(**parameters)
        assert again.todict() == parameters
        expected = NBodyCalculator(models).get_property("energy", atoms)
        assert again.get_property("energy", atoms) == pytest.approx(expected, rel=1e-6)


def test_todict_names_a_network_by_its_contents(network: NBodyNetwork, make_network: Callable) -> None:
    same, other = make_network(0), make_network(1)
    names = [NBodyCalculator(one).todict()["model"] for one in (network, same, other)]
    assert names[0].startswith("sha256:")
    assert names[0] == names[1] != names[2]


def test_trajectory_has_energies_forces_and_stress(atoms: ase.Atoms, tmp_path: Path) -> None:
    seen = []
    with VelocityVerlet(atoms, 0.5 * units.fs, trajectory=str(tmp_path / "md.traj")) as dynamics:
        dynamics.attach(lambda: seen.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())))
        dynamics.run(3)
    with Trajectory(tmp_path / "md.traj") as trajectory:
        frames = list(trajectory)
    assert len(frames) == len(seen) == 4
    for frame, (energy, forces, stress) in zip(frames, seen, strict=True):
        assert frame.calc.name == "nbody"
        assert frame.get_potential_energy() == energy
        np.testing.assert_array_equal(frame.get_forces(), forces)
        np.testing.assert_array_equal(frame.get_stress(), stress)


def test_database(atoms: ase.Atoms, tmp_path: Path) -> None:
    atoms.get_forces()
    with ase.db.connect(tmp_path / "structures.db") as database:
        number = database.write(atoms, kind="triclinic")
        row = database.get(id=number)
    assert row.calculator == "nbody"
    assert row.calculator_parameters == atoms.calc.todict()
    again = row.toatoms()
    assert again.get_potential_energy() == atoms.get_potential_energy()
    np.testing.assert_array_equal(again.get_forces(), atoms.get_forces())
    np.testing.assert_array_equal(again.get_stress(), atoms.get_stress())


@pytest.mark.parametrize("name", ["triclinic", "molecule"])
def test_extended_xyz(name: str, systems, network: NBodyNetwork) -> None:
    atoms, file = systems[name](), io.StringIO()
    atoms.calc = NBodyCalculator(network)
    forces = atoms.get_forces()
    ase.io.write(file, atoms, format="extxyz")
    file.seek(0)
    again = ase.io.read(file, format="extxyz")
    assert again.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(again.get_forces(), forces, atol=1e-7)
    np.testing.assert_allclose(again.calc.results["energies"], atoms.get_potential_energies(), atol=1e-4)
    assert ("stress" in again.calc.results) == (name == "triclinic")


def test_ase_json(atoms: ase.Atoms, tmp_path: Path) -> None:
    energy = atoms.get_potential_energy()
    ase.io.write(tmp_path / "atoms.json", atoms)
    assert ase.io.read(tmp_path / "atoms.json").get_potential_energy() == energy


def test_ase_finds_the_calculator_by_its_plugin(model: Path, atoms: ase.Atoms) -> None:
    from ase._4.plugins import plugins

    plugin = next(plugin for plugin in plugins.calculators if plugin.name == "nbody")
    assert plugin() is NBodyCalculator
    assert plugin.package == "ase_nbody"
    assert plugin.version.count(".") >= 1
    assert plugin.implementation(model).get_property("energy", atoms) == atoms.get_potential_energy()


def test_it_is_an_ase_calculator(atoms: ase.Atoms) -> None:
    assert isinstance(atoms.calc, Calculator)
    assert atoms.calc.name == "nbody"
    assert atoms.calc.get_spin_polarized() is False
    atoms.get_forces()
    assert not atoms.calc.calculation_required(atoms, ["energy", "stress", "stresses"])
    atoms.rattle(0.1)
    assert atoms.calc.calculation_required(atoms, ["energy"])
    atoms.calc.reset()
    assert atoms.calc.atoms is None
