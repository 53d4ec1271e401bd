"""The shipped models: what their cards say is what they do."""

import hashlib
import runpy
import subprocess
import sys
from pathlib import Path

import ase
import ase.io
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import NBodyCalculator
from ase_nbody.data import LabelledStructure, read_labelled
from ase_nbody.files.archive import (
    load_members,
    read_card,
    read_stored_and_card,
    shipped_models,
    write_model,
)
from ase_nbody.training.evaluation import evaluate_model

ROOT = Path(__file__).resolve().parent.parent
ORGANIC = ROOT / "benchmarks" / "organic"
TESTS = {
    "NbMoTaW": "NbMoTaW/test.extxyz",
    "3bpa": "3bpa/test_300K.extxyz",
    "acac": "acac/test_300K.extxyz",
    "aspirin": "rmd17_aspirin/test.extxyz",
    "ethanol": "rmd17_ethanol/test.extxyz",
    "lithium": "mlearn_Li/test.extxyz",
    "malonaldehyde": "rmd17_malonaldehyde/test.extxyz",
    "molybdenum": "mlearn_Mo/test.extxyz",
    "organic": "organic/validation.npz",
    "organic-small": "organic/validation.npz",
    "silicon": "mlearn_Si/test.extxyz",
}
# Energy in meV (of crystals per atom) and forces in meV/Angstrom, mean absolute errors.
BOUNDS = {
    "NbMoTaW": ("energy_per_atom", 6.0, 65.0),
    "3bpa": ("energy", 3.5, 9.0),
    "acac": ("energy", 0.6, 3.0),
    "aspirin": ("energy", 3.2, 9.5),
    "ethanol": ("energy", 0.6, 3.2),
    "lithium": ("energy_per_atom", 0.6, 8.0),
    "malonaldehyde": ("energy", 0.8, 4.8),
    "molybdenum": ("energy_per_atom", 3.0, 100.0),
    "organic": ("energy_per_atom", 3.0, 50.0),
    "organic-small": ("energy_per_atom", 4.0, 60.0),
    "silicon": ("energy_per_atom", 3.0, 50.0),
}


@pytest.fixture
def test_frames(reference_data, tmp_path):
    """A function that reads the test frames of a model."""

    def read(name: str) -> list[LabelledStructure]:
        path = reference_data / TESTS[name]
        if path.suffix == ".npz":
            command = [sys.executable, ORGANIC / "frames.py", tmp_path / "test.extxyz", path]
            subprocess.run(command, check=True, capture_output=True)
            path = tmp_path / "test.extxyz"
        return read_labelled(path)

    return read


def test_there_is_a_test_for_every_shipped_model():
    assert set(TESTS) == set(shipped_models())


@pytest.mark.parametrize("name", TESTS)
def test_card_and_training_come_along(name):
    content = read_card(name)
    for entry in ("system", "theory", "source", "licence", "valid for", "training data", "test errors", "trained with"):
        assert content["card"][entry], entry
    folder = ORGANIC if name.startswith("organic") else ROOT / "benchmarks" / "accuracy"
    assert (folder / f"{name}.yaml").is_file()
    assert (ROOT / "models" / f"{name}.md").is_file()
    assert NBodyCalculator(name).species == tuple(content["config"]["species"])


# 1,669 frames of 27 atoms, for two networks
LONG = {"3bpa"}


@pytest.mark.data
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in TESTS]
)
def test_errors_are_those_of_the_card(name, test_frames):
    errors = evaluate_model(load_members(name), test_frames(name))
    for quantity, measures in read_card(name)["card"]["test errors"].items():
        assert errors[quantity]["mae"] == pytest.approx(measures["mae"], rel=1e-6)
        assert errors[quantity]["rmse"] == pytest.approx(measures["rmse"], rel=1e-6)
    quantity, energy, forces = BOUNDS[name]
    assert errors[quantity]["mae"] < energy
    assert errors["forces"]["mae"] < forces


@pytest.mark.parametrize("name", ["heads", "member_energies"])
def test_a_model_to_which_coverage_is_added_keeps_all_else(name, tmp_path):
    """Other heads were lost, and every member got the isolated atoms of the first."""
    stored, content = read_stored_and_card(ROOT / "tests" / "example_models" / f"{name}.nbody")
    atoms = ase.Atoms("OH", [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=[[0.0, 0.0, 0.1], [0.0, 0.0, -0.1]])
    ase.io.write(tmp_path / "train.extxyz", atoms)
    checksum = hashlib.sha256((tmp_path / "train.extxyz").read_bytes()).hexdigest()
    card = {**content["card"], "training data sha256": checksum}
    model = write_model(stored, tmp_path / "model.nbody", card)
    tool = runpy.run_path(str(ROOT / "benchmarks" / "accuracy" / "coverage.py"))
    tool["add_coverage"]("model", model, tmp_path / "train.extxyz", fading=False)
    after, entries = read_stored_and_card(model)
    assert after.config.coverage is not None
    assert after.config.coverage.bonded == {"H": ("O",), "O": ("H",)}
    assert [dict(one) for one in after.energies] == [dict(one) for one in stored.energies]
    assert (after.heads and after.heads.others.keys()) == (stored.heads and stored.heads.others.keys())
    assert entries["card"] == card
    with pytest.raises(SystemExit, match="is not the file that model was trained on"):
        tool["add_coverage"]("model", model, Path(__file__), fading=False)
