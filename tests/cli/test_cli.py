"""The command line: what it prints for people and for programs, and its exit codes."""

import copy
import json
import sys

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import NBodyCalculator, save_model
from ase_nbody.cli import main
from ase_nbody.network.coverage import Coverage
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.structure import Structure


@pytest.fixture
def model(tmp_path, network):
    return save_model(network, tmp_path / "model.nbody", {"theory": "none, random weights"})


@pytest.fixture
def data(tmp_path, network):
    """Methanol with the network's own energies plus 1 meV and forces plus 2 meV/Angstrom."""
    atoms = molecule("CH3OH")
    atoms.calc = NBodyCalculator(network)
    energy, forces = atoms.get_potential_energy() - 1e-3, atoms.get_forces() - 2e-3
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    ase.io.write(tmp_path / "data.extxyz", [atoms, atoms])
    return tmp_path / "data.extxyz"


def test_evaluate_for_programs(nbody, model, data):
    code, out, _ = nbody("evaluate", model, data, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["frames"] == 2
    for quantity, unit, error in (("energy", "meV", 1.0), ("forces", "meV/Angstrom", 2.0)):
        assert found["errors"][quantity].pop("unit") == unit
        assert found["errors"][quantity] == pytest.approx({"mae": error, "rmse": error}, rel=1e-3)


def test_evaluate_for_people(nbody, model, data):
    code, out, _ = nbody("evaluate", model, data, "--index", ":1")
    assert code == 0
    for word in ("forces", "2.000", "meV/Angstrom", "energy per atom", "RMSE"):
        assert word in out


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (("info", "nowhere"), "no model file 'nowhere'"),
        (("evaluate", "nowhere", "data"), "no model file 'nowhere'"),
        (("train", "nowhere.yaml"), "no configuration file 'nowhere.yaml'"),
    ],
)
def test_errors_are_one_line_and_exit_code_one(nbody, arguments, culprit):
    code, out, err = nbody(*arguments)
    assert code == 1
    assert culprit in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nbody", "--debug", "info", "nowhere"])
    with pytest.raises(FileNotFoundError):
        main()


def test_unknown_species_are_refused(nbody, model, tmp_path):
    atoms = molecule("CH3SH")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.full((len(atoms), 3), 0.1))
    ase.io.write(tmp_path / "s.extxyz", atoms)
    code, _, err = nbody("evaluate", model, tmp_path / "s.extxyz")
    assert code == 1
    assert "contain S" in err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_another_zero_of_energy_is_found(options, nbody, model, data, tmp_path):
    """The constants are named, with the error without them."""
    frames = []
    for name in ("CH3OH", "H2O", "CH4"):
        atoms = molecule(name)
        atoms.calc = NBodyCalculator(model)
        energy, forces = atoms.get_potential_energy() + 1e-3 * len(frames), atoms.get_forces()
        energy += sum({"H": 13.6, "C": -700.0, "O": 2000.0}[one] for one in atoms.symbols)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    ase.io.write(tmp_path / "shifted.extxyz", frames)
    code, out, _ = nbody("evaluate", model, tmp_path / "shifted.extxyz", *options)
    assert code == 0
    if options:
        zero = json.loads(out)["energy_zero"]
        assert zero["constants_eV"] == pytest.approx({"H": 13.6, "C": -700.0, "O": 2000.0}, abs=0.01)
        assert zero["determined"]
        assert zero["errors_without"]["energy"]["mae"] < 1.0
    else:
        for words in ("another zero", "For each atom: H +13.", " eV, C -", "Without these constants"):
            assert words in out
    code, out, _ = nbody("evaluate", model, data)
    assert "another zero" not in out, "1 meV is no other zero"


def test_evaluate_says_that_labels_are_the_model_s_own(nbody, model, network, data, tmp_path):
    atoms = molecule("CH3OH")
    atoms.calc = NBodyCalculator(network)
    atoms.get_forces()
    ase.io.write(tmp_path / "own.extxyz", atoms)
    assert "these labels were computed by this model" in " ".join(
        nbody("evaluate", model, tmp_path / "own.extxyz")[1].split()
    )
    assert "computed by this model" in nbody("evaluate", model, tmp_path / "own.extxyz", "--json")[2]
    assert "computed by this model" not in nbody("evaluate", model, data)[1]


@pytest.mark.parametrize(
    ("scale", "what"), [(1e300, "values above 1e+30"), (None, "NaN or infinite values")], ids=["absurd", "nan"]
)
def test_evaluate_prints_no_nan(scale, what, nbody, network, data, tmp_path):
    broken = copy.deepcopy(network)
    if scale is None:
        with torch.no_grad():
            for weight in broken.parameters():
                weight.fill_(1e200)
    else:
        broken = NBodyNetwork(network.config.model_copy(update={"energy_scale": scale}))
    model = save_model(broken, tmp_path / "broken.nbody")
    code, out, err = nbody("evaluate", model, data, "--json")
    assert (code, out) == (1, "")
    assert f"gives {what} for frame 0" in err


def test_evaluate_compares_the_spread_of_a_committee_with_its_errors(nbody, network, tmp_path):
    members = [copy.deepcopy(network) for _ in range(3)]
    for number, member in enumerate(members):
        for weight in member.parameters():
            weight.data *= 1.0 + 0.01 * number
    atoms = molecule("CH3OH")
    atoms.calc = NBodyCalculator(members)
    forces, spread = atoms.get_forces(), atoms.calc.forces_spread
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces + 2.0 * spread)
    ase.io.write(tmp_path / "data.extxyz", atoms)
    model = save_model(members, tmp_path / "committee.nbody")
    _, out, _ = nbody("evaluate", model, tmp_path / "data.extxyz", "--json")
    found = json.loads(out)["spread"]["forces"]
    assert found["ratio"] == pytest.approx(2.0, rel=1e-4)
    assert found["correlation"] > 0.9, "not 1: equal hydrogens tie"
    assert found["rms_spread"] == pytest.approx(1e3 * np.sqrt(np.mean(spread**2)), rel=1e-4)
    shown = tmp_path / "o[bold]\x1b[31m.extxyz"
    (tmp_path / "data.extxyz").rename(shown)
    _, out, _ = nbody("evaluate", model, shown)
    assert "Spread of the committee" in out
    assert "\x1b" not in out
    assert r"o[bold]\x1b[31m.extxyz" in out.replace("\n", "")


def test_labels_may_have_other_names(nbody, model, data, tmp_path):
    atoms = ase.io.read(data)
    atoms.info["my_e"], atoms.arrays["my_f"] = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = None
    ase.io.write(tmp_path / "named.extxyz", atoms)
    code, out, _ = nbody(
        "evaluate", model, tmp_path / "named.extxyz", "--key", "energy=my_e", "--key", "forces=my_f", "--json"
    )
    assert code == 0
    assert json.loads(out)["errors"]["forces"]["mae"] == pytest.approx(2.0, rel=1e-3)
    for keys, missing in (((), True), (("--key", "forces=my_f"), False)):
        _, out, _ = nbody("lint", tmp_path / "named.extxyz", *keys, "--json")
        assert ("No frame has forces" in out) == missing
    assert nbody("evaluate", model, tmp_path / "named.extxyz", "--key", "forces=other")[0] == 1
    _, _, err = nbody("evaluate", model, data, "--key", "enrgy=a")
    assert "write LABEL=NAME, where LABEL is one of energy, forces, stress, charges, dipole, virial" in err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_evaluate_counts_the_frames_unlike_the_training_data(options, nbody, make_network, tmp_path):
    """Carbons of benzene and dimethyl ether have surroundings that ethanol's have not."""
    ethanol = [rattled(molecule("CH3CH2OH"), seed) for seed in range(5)]
    coverage = Coverage.of([Structure.from_atoms(atoms) for atoms in ethanol], 4.0)
    model = save_model(make_network(coverage=coverage), tmp_path / "ethanol.nbody")
    for name, frames in (("known", ethanol[:2]), ("mixed", [ethanol[0], molecule("C6H6"), molecule("CH3OCH3")])):
        for number, atoms in enumerate(frames):
            forces = np.full((len(atoms), 3), 0.1)
            atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - number, forces=forces)
        ase.io.write(tmp_path / f"{name}.extxyz", frames)
    code, out, _ = nbody("evaluate", model, tmp_path / "known.extxyz", *options)
    assert code == 0
    assert "unlike" not in out
    code, out, _ = nbody("evaluate", model, tmp_path / "mixed.extxyz", *options)
    assert code == 0
    if options:
        found = json.loads(out)["unlike_training_data"]
        assert (found["frames"], found["of"], found["first_frame"], found["atom"]) == (2, 3, 1, 0)
    else:
        assert "2 of 3 frames hold atoms unlike the training data; the first: frame 1, atom 0 (C) is bonded to" in out


def rattled(atoms, seed):
    atoms.rattle(0.03, seed=seed)
    return atoms


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"stress": 160.218}, "stresses in the data are 160.2 times the predicted ones, as if they were in GPa."),
        ({"stress": -1602.18}, "in kbar with the opposite sign (positive under pressure)."),
        ({"forces": 23.06}, "in kcal/mol/Angstrom."),
        ({"forces": -1.0}, "in eV/Angstrom with the opposite sign (gradients, not forces)."),
        ({"energy": 1.0 / 27.2114}, "in Hartree. Convert them to eV"),
        ({}, ""),
        ({"forces": 1.08, "stress": 3.0}, ""),
    ],
)
def test_evaluate_names_the_unit_of_labels_that_are_a_multiple(changed, said, nbody, network, tmp_path):
    frames = [rattled(bulk("NaCl", "rocksalt", a=5.6, cubic=True), seed) for seed in range(6)]
    for number, atoms in enumerate(frames):
        atoms.set_cell(atoms.cell * (1.0 + 0.01 * number), scale_atoms=True)
        atoms.calc = NBodyCalculator(network)
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        results = {name: value * changed.get(name, 1.0) for name, value in results.items()}
        atoms.calc = SinglePointCalculator(atoms, **results)
    ase.io.write(tmp_path / "data.extxyz", frames)
    model = save_model(network, tmp_path / "salt.nbody")
    code, out, _ = nbody("evaluate", model, tmp_path / "data.extxyz")
    assert code == 0
    assert said in out
    assert ("times the predicted ones" in out) == bool(said)
    assert "another zero" not in out
    units = json.loads(nbody("evaluate", model, tmp_path / "data.extxyz", "--json")[1]).get("units", {})
    assert set(units) == ({next(iter(changed))} if said else set())
