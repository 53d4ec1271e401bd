"""Structures from several files with their own weights and keys, and batches by number of atoms."""

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import load_model
from ase_nbody.data import DataError
from ase_nbody.files.archive import read_card
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.progress import Progress
from ase_nbody.training.recovery import TrainingDiverged
from ase_nbody.training.run import train
from ase_nbody.training.splits import read_splits


@pytest.fixture
def entries(configuration):
    """A function from entries of ``data`` and ``training`` to a configuration with these entries."""

    def make(data=None, output="run", **training):
        path = configuration(output=output, **training)
        content = yaml.safe_load(path.read_text())
        content["data"] = {**content["data"], **(data or {})}
        path.write_text(yaml.safe_dump(content))
        return TrainingConfig.from_yaml(path)

    return make


@pytest.fixture
def renamed(tmp_path, frames):
    """A file of six frames whose labels have other names."""
    strange = []
    for atoms in frames[:6]:
        copy = atoms.copy()
        copy.info |= {
            "my_e": atoms.get_potential_energy(),
            "virial": -atoms.get_stress(voigt=False) * atoms.get_volume(),
        }
        copy.arrays["my_f"] = atoms.get_forces()
        strange.append(copy)
    ase.io.write(tmp_path / "strange.extxyz", strange)
    return "strange.extxyz"


def test_a_part_of_a_file(entries, frames):
    part = {"path": "data.extxyz"}
    training, validation = read_splits(
        entries({"train": {**part, "index": ":4"}, "validation": {**part, "index": "-2:"}})
    )
    expected = [frames[i].get_potential_energy() for i in (0, 1, 2, 3, -2, -1)]
    assert [frame.energy for frame in (*training, *validation)] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(DataError, match="not a slice"):
        read_splits(entries({"train": {**part, "index": "first"}}))


def test_a_list_of_files_with_weights_and_keys(entries, renamed, frames):
    strange = {"path": renamed, "weight": 0.5, "energy_key": "my_e", "forces_key": "my_f"}
    config = entries(
        {"train": ["data.extxyz", strange], "validation": [{**strange, "weight": 1.0}], "test": "data.extxyz"}
    )
    training, validation = read_splits(config)
    assert (len(training), len(validation)) == (len(frames) + 6, 6)
    for one, other in zip(training[:6], training[-6:], strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-6)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-6)
        np.testing.assert_allclose(one.stress, other.stress, atol=1e-6)
    assert [set(frame.weights) for frame in (training[0], training[-1], validation[0])] == [{1.0}, {0.5}, {1.0}]


def test_keys_of_all_files_and_of_one(entries, renamed):
    config = entries({"train": [renamed], "keys": {"energy": "nowhere", "forces": "my_f"}})
    with pytest.raises(ValueError, match="no frame has 'nowhere'"):
        read_splits(config)
    own = {"path": renamed, "energy_key": "my_e"}
    training, _ = read_splits(
        entries({"train": [own], "validation": 1, "keys": {"energy": "nowhere", "forces": "my_f"}})
    )
    assert np.isfinite(training[0].energy)


def test_sources_are_written_in_the_short_form_in_which_they_were_given(entries, renamed, tmp_path):
    config = entries({"train": "data.extxyz", "validation": [{"path": renamed, "weight": 2.0}]})
    content = yaml.safe_load(config.to_yaml())["data"]
    assert content["train"] == str(tmp_path / "data.extxyz")
    assert content["validation"] == {"path": str(tmp_path / renamed), "weight": 2.0}
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert TrainingConfig.from_yaml(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("data", "culprit"),
    [
        ({"train": [{"path": "a", "wieght": 2}]}, "data.train.0.wieght is not an entry; did you mean 'weight'?"),
        ({"validation": {"pth": "a"}}, "data.validation.0.pth is not an entry; did you mean 'path'?"),
        ({"train": [{"path": "a", "weight": -1}]}, "data.train.0.weight: .* greater than or equal to 0, got -1"),
        ({"train": []}, "data.train: .* at least 1 item"),
        ({"keys": {"enrgy": "E"}}, "data.keys.enrgy is not an entry; did you mean 'energy'?"),
    ],
)
def test_errors_name_the_entry(data, culprit, entries):
    with pytest.raises(ConfigError, match=culprit.replace("?", r"\?")):
        entries(data)


def test_the_card_of_a_training_on_two_files_names_both(entries, renamed):
    strange = {"path": renamed, "energy_key": "my_e", "forces_key": "my_f"}
    card = read_card(train(entries({"train": ["data.extxyz", strange]}, epochs=1)))["card"]
    assert card["training data"] == "26 frames of data.extxyz, strange.extxyz"


def test_the_weight_of_a_file_changes_the_model(entries, renamed):
    def learnt(output, weight):
        strange = {"path": renamed, "energy_key": "my_e", "forces_key": "my_f", "weight": weight}
        model = load_model(train(entries({"train": ["data.extxyz", strange]}, output, epochs=1)))
        return model.levels[0].read_out.linear

    assert not torch.equal(learnt("a", 1.0), learnt("b", 0.1))


def test_batches_by_atoms_resume_bit_for_bit(entries, monkeypatch):
    unbroken = load_model(train(entries(output="unbroken", epochs=3, batch_atoms=14))).state_dict()
    whole = Progress.on_validation_end

    def fail(self, trainer, module):
        whole(self, trainer, module)
        if trainer.current_epoch == 1:
            raise RuntimeError("killed")

    monkeypatch.setattr(Progress, "on_validation_end", fail)
    config = entries(output="killed", epochs=3, batch_atoms=14)
    with pytest.raises(RuntimeError, match="killed"):
        train(config)
    monkeypatch.undo()
    resumed = load_model(train(config, resume=True)).state_dict()
    assert all(torch.equal(weight, unbroken[name]) for name, weight in resumed.items())


def test_a_structure_too_large_for_a_batch_is_named(entries):
    with pytest.raises(ValueError, match=r"has 6 atoms, but training\.batch_atoms = 5"):
        train(entries(epochs=1, batch_atoms=5))


@pytest.mark.parametrize("weight", [1e-300, 1e-40, 1e30])
def test_weights_that_single_precision_loses_are_refused(weight, entries):
    with pytest.raises(DataError, match=r"has the weight 1e.* for .*must be 0, or between 1e-06 and 1e\+06"):
        read_splits(entries({"train": {"path": "data.extxyz", "weight": weight}}))


def test_validation_on_the_training_frames_is_said(entries, capsys):
    part = {"path": "data.extxyz"}
    train(entries({"train": part, "validation": {**part, "index": "-3:"}}, epochs=1))
    assert "Warning: 3 validation frames of 3 are among the training frames" in capsys.readouterr().out
    train(entries({"train": {**part, "index": ":22"}, "validation": {**part, "index": "-1:"}}, output="b", epochs=1))
    out = capsys.readouterr().out
    assert "with different frames" in out
    assert "22 training structures and 1 validation structure of" in out


def test_fitted_isolated_energies_are_marked(entries, capsys, frames, tmp_path):
    alone = Atoms("H")
    alone.calc = SinglePointCalculator(alone, energy=-1.0, forces=np.zeros((1, 3)))
    ase.io.write(tmp_path / "atom.extxyz", alone)
    train(entries({"train": ["data.extxyz", "atom.extxyz"]}, epochs=1))
    out = capsys.readouterr().out
    assert "H -1.000 eV, C " in out
    assert "Warning: the isolated-atom energies of C, O, Cu are fitted, and the others are known" in out
    assert out.count("eV (fitted)") == 3


def test_a_run_without_a_finite_validation_loss_ends_with_a_sentence(entries, monkeypatch):
    monkeypatch.setattr("ase_nbody.training.run._fit", lambda *_: None)
    with pytest.raises(TrainingDiverged, match=r"the validation loss was not finite in any epoch"):
        train(entries(epochs=1))
