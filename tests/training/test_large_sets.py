"""A training gives the same weights if the data do not fit into memory, and with any number of workers."""

import os
import weakref
from pathlib import Path

import pytest
import torch
import yaml

from ase_nbody import load_model
from ase_nbody.data import FrameStore, LabelledStructure
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.crystals import with_defaults_by_data
from ase_nbody.training.electronic_states import require_learnt_states
from ase_nbody.training.initial import build_network, species_with_fitted_energies
from ase_nbody.training.replay import Together
from ase_nbody.training.run import train
from ase_nbody.training.seeds import train_committee
from ase_nbody.training.splits import frames_folder, read_splits


@pytest.fixture
def entries(configuration):
    def make(output, training, **data):
        path = configuration(output=output, epochs=2, **training)
        content = yaml.safe_load(path.read_text())
        content["data"] |= data
        path.write_text(yaml.safe_dump(content))
        return TrainingConfig.from_yaml(path)

    return make


@pytest.mark.parametrize("training", [{}, {"batch_atoms": 14}], ids=["structures", "atoms"])
def test_neither_memory_nor_workers_change_the_result(training, entries):
    expected = load_model(train(entries("memory", training))).state_dict()
    for workers, memory in ((0, 0.0), (2, 0.0), (2, 4.0)):
        config = entries(f"{workers}_{memory}", training, workers=workers, memory=memory)
        found = load_model(train(config)).state_dict()
        assert all(torch.equal(weight, found[name]) for name, weight in expected.items()), (workers, memory)
        assert not frames_folder(config).exists()


def test_large_files_are_stored_on_disk(entries):
    assert isinstance(read_splits(entries("small", {}))[0], list)
    on_disk = read_splits(entries("large", {}, memory=0.0))
    assert all(isinstance(frames, FrameStore) for frames in on_disk)
    in_memory = read_splits(entries("small", {}))
    assert [[frame.energy for frame in frames] for frames in on_disk] == [
        [frame.energy for frame in frames] for frames in in_memory
    ]


def test_frames_on_disk_stay_there_while_a_training_begins(entries, monkeypatch):
    """Whole sets were in memory at once."""
    config = entries("large", {}, memory=0.0, isolated_atom_energies="fit")
    training, validation = read_splits(config)
    assert isinstance(training, FrameStore)
    alive, most = 0, 0
    read = FrameStore.__getitem__

    def left():
        nonlocal alive
        alive -= 1

    def counted(store, index):
        nonlocal alive, most
        found = read(store, index)
        if isinstance(index, slice):
            return found
        alive += 1
        weakref.finalize(found.structure, left)
        most = max(most, alive)
        return found

    monkeypatch.setattr(FrameStore, "__getitem__", counted)
    frames = {"training": training, "validation": validation, "test": []}
    config, _ = with_defaults_by_data(config, frames)
    network = build_network(config, training)
    species_with_fitted_energies(config, training)
    require_learnt_states(network.config, frames)
    atom = LabelledStructure(training[0].structure, 0.0, training[0].forces, training[0].stress)
    learnt = Together(training, [atom] * 3)
    assert len(learnt) == len(training) + 3
    assert learnt[-1] is atom
    assert learnt[len(training) - 1].source == training[len(training) - 1].source
    assert [frame.source for frame in learnt] == [*(frame.source for frame in training), None, None, None]
    assert most < 5 < len(training)


def test_folders_of_the_user_stay(entries):
    """With ``output: .`` the run shares a folder with the user's own files."""
    config = entries("shared", {}, memory=0.0)
    mine = Path(config.output) / "frames" / "train_0" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    train(config)
    assert mine.read_text() == "mine"
    assert not frames_folder(config).exists()


@pytest.mark.parametrize("name", ["mine.txt", "train_0/mine.txt", "train_x/key.json"])
@pytest.mark.parametrize("start", [train, lambda config: train_committee(config, 2)], ids=["single", "committee"])
def test_a_foreign_folder_of_frames_is_refused_before_any_work(name, start, entries):
    config = entries("shared", {}, memory=0.0)
    mine = frames_folder(config) / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ConfigError, match="nbody_train_frames is where a training keeps frames"):
        start(config)
    assert mine.read_text() == "mine"
    assert os.listdir(config.output) == ["nbody_train_frames"]
