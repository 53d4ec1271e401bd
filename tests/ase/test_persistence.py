"""Copies, trajectories and databases can be read again, and ASE finds the calculator by its name."""

import configparser
import copy
import io
import json
import os
import pickle
import subprocess
import sys
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
from ase_nbody.engines import evaluate_together


@pytest.fixture
def atoms(systems, network: NBodyNetwork) -> ase.Atoms:
    crystal = systems["triclinic"]()
    crystal.calc = NBodyCalculator(network)
    return crystal


@pytest.fixture
def model(network: NBodyNetwork, tmp_path: Path) -> Path:
    return save_model(network, tmp_path / "model.nbody")


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda calc: pickle.loads(pickle.dumps(calc))])
def test_copies_of_a_calculator(duplicate: Callable, used: bool, atoms: ase.Atoms) -> None:
    original = atoms.calc
    if used:
        original.get_property("energy", atoms)
    twin = duplicate(original)
    assert twin.todict() == original.todict()
    if used:  # a copy has the results, and a pickle is calculated anew
        assert bool(twin.results) == (duplicate in (copy.copy, copy.deepcopy))
        twin.get_property("energy", atoms)
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


@pytest.fixture
def committee(make_network: Callable) -> NBodyCalculator:
    return NBodyCalculator([make_network(seed) for seed in range(3)])


@pytest.mark.parametrize("together", [False, True])
def test_frames_carry_the_spreads_of_a_committee(together: bool, systems, committee, tmp_path: Path) -> None:
    atoms, seen = systems["molecule"](), []
    atoms.calc = committee
    if together:
        evaluate_together(committee, [atoms])
    with VelocityVerlet(atoms, 0.5 * units.fs, trajectory=str(tmp_path / "md.traj")) as dynamics:
        dynamics.attach(lambda: ase.io.write(tmp_path / "md.extxyz", atoms, append=True))
        dynamics.attach(lambda: seen.append(committee.evaluate([atoms])[0]))
        dynamics.run(3)
    frames = ase.io.read(tmp_path / "md.extxyz", ":")
    assert len({found["energy_spread"] for found in seen}) == len(frames) == 4
    with Trajectory(tmp_path / "md.traj") as trajectory:
        others = list(trajectory)
    for frame, other, found in zip(frames, others, seen, strict=True):
        assert frame.info["energy_spread"] == pytest.approx(found["energy_spread"], rel=1e-6)
        np.testing.assert_allclose(frame.arrays["forces_spread"], found["forces_spread"], atol=1e-7)
        assert other.info["energy_spread"] == pytest.approx(found["energy_spread"], rel=1e-12)


def test_spreads_follow_the_results(systems, committee) -> None:
    """Also those that were not calculated for these very atoms; and the caller may change what they hold."""
    atoms = systems["molecule"]()
    committee.get_property("energy", atoms)
    atoms.arrays["forces_spread"][:] = 0.0
    twin = ase.Atoms(atoms.symbols, atoms.positions)
    committee.get_property("energy", twin)
    assert twin.info["energy_spread"] == committee.energy_spread > 0.0
    np.testing.assert_array_equal(twin.arrays["forces_spread"], committee.forces_spread)
    assert twin.arrays["forces_spread"].any()


def test_a_single_network_has_no_spread_to_carry(atoms: ase.Atoms) -> None:
    atoms.get_forces()
    assert not {"energy_spread", "forces_spread"} & {*atoms.info, *atoms.arrays}


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


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Entry points as ``setup.cfg`` declares them, as if this checkout had just been installed."""
    root, setup = Path(__file__).parents[2], configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    plugins = setup["options.entry_points"]["ase.ioformats"]
    record = tmp_path / "site" / "of_this_test-0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: of-this-test\nVersion: 0\n")
    (record / "entry_points.txt").write_text(f"[ase.ioformats]{plugins}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(record.parent), str(root)]))
    return tmp_path


BY_NAME = """
import sys
import ase.db, ase.io
from ase.calculators.calculator import get_calculator_class
assert "torch" not in sys.modules  # programs without the calculator do not wait
row = ase.db.connect("found.json").get(id=1)
made = get_calculator_class(row.calculator)(**row.calculator_parameters)
print(made.get_property("energy", row.toatoms()), row.energy, ase.io.read(sys.argv[1]))
"""


def test_ase_finds_the_calculator_by_its_name(installed: Path, make_network: Callable, systems) -> None:
    """``ase run nbody``, and what was stored with its name and keywords, in programs that import only ASE."""
    atoms = systems["molecule"]()
    example = {"numbers": [6, 8], "positions": [[0, 0, 0], [0, 0, 1.2]], "cell": [[0] * 3] * 3, "pbc": [False] * 3}
    model = save_model(make_network(), installed / "model.nbody", {"example": example})
    energy = NBodyCalculator(model).get_property("energy", atoms)
    atoms.write(installed / "methanol.traj")
    for command in (
        ["-m", "ase", "run", "nbody", "methanol.traj", "-p", f"model={model}", "-o", "found.json"],
        ["-c", BY_NAME, str(model)],
    ):
        run = [sys.executable, "-W", "ignore", *command]
        result = subprocess.run(run, cwd=installed, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    first, second, *example = result.stdout.split(maxsplit=2)
    assert float(first) == float(second) == energy
    assert example[0].startswith("Atoms(symbols='CO'")


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
