"""``data.replay``: general structures among those of a fine-tuning, labelled by the model that it starts from."""

import os

import ase
import ase.io
import numpy as np
import pytest
import yaml
from ase.build import molecule

from ase_nbody import load_model
from ase_nbody.data import DataError, LabelledStructure
from ase_nbody.data.labels import Weights
from ase_nbody.files.archive import read_card
from ase_nbody.structure import Structure
from ase_nbody.training.config import ConfigError, SourceConfig, TrainingConfig
from ase_nbody.training.evaluation import evaluate_model, predict
from ase_nbody.training.initial import build_network
from ase_nbody.training.origin import Origin, require_unchanged
from ase_nbody.training.read_outs import solve_read_outs
from ase_nbody.training.replay import read_replay, replayed, said_of_replay
from ase_nbody.training.run import train
from ase_nbody.training.splits import read_splits, sha256_of_files
from ase_nbody.training.start import with_start


@pytest.fixture
def model(configuration):
    return train(TrainingConfig.from_yaml(configuration(epochs=2)))


@pytest.fixture
def write(tmp_path, model, frames):
    """A function that writes data of one kind and other structures to replay, and reads the configuration."""
    ase.io.write(tmp_path / "own.extxyz", [frame for frame in frames if len(frame) > 1][:12])
    several = [molecule(name) for name in ("CH3OH", "H2O", "CO2", "CH4") for _ in range(4)]
    for number, atoms in enumerate(several):
        atoms.set_initial_magnetic_moments(None)
        atoms.rattle(0.05, seed=number)
    ase.io.write(tmp_path / "general.xyz", several, format="extxyz")

    def config(output="tuned", data=(), training=(), **network):
        content = {
            "data": {"train": "own.extxyz", "validation": 3, "replay": "general.xyz", **dict(data)},
            "network": {"start_from": str(model), **network},
            "training": {"epochs": 3, "batch_size": 3, "warmup": 2, "compile": False, **dict(training)},
            "report": False,
            "output": str(tmp_path / output),
        }
        path = tmp_path / "tuned.yaml"
        path.write_text(yaml.safe_dump(content))
        return TrainingConfig.from_yaml(path)

    return config


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_pipes_and_devices_are_refused(tmp_path):
    """They are hashed before they are read: a pipe would wait for a writer, and /dev/zero never end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path / "missing"):
        with pytest.raises((FileNotFoundError, DataError), match=r"no data file|is a pipe or a device"):
            sha256_of_files([SourceConfig(path=str(path))])


@pytest.mark.filterwarnings("ignore::ase_nbody.ExtrapolationWarning")
def test_their_labels_are_those_of_the_model_at_the_zero_of_the_data(write, model):
    config = write()
    training, validation = read_splits(config)
    config, _ = with_start(config, {"training": training, "validation": validation})
    network = build_network(config, training)
    found = replayed(config, read_replay(config), network, len(training))
    assert len(found) == len(training) // 3  # a quarter of all
    before = load_model(model)
    again = predict(before, found)
    new, old = network.config.isolated_atom_energies, before.config.isolated_atom_energies
    for frame, other in zip(found, again, strict=True):
        np.testing.assert_allclose(frame.forces, other.forces, atol=1e-5)
        symbols = ase.Atoms(frame.structure.numbers).symbols
        assert frame.energy - other.energy == pytest.approx(sum(new[s] - old[s] for s in symbols), abs=1e-4)
    again = replayed(config, read_replay(config), network, len(training))
    assert [frame.energy for frame in again] == [frame.energy for frame in found]
    assert "instead of" not in said_of_replay(config, found, len(training))[0]
    everything = replayed(config, read_replay(config), network, 10_000)
    assert len(everything) == 16  # all there are, which is said
    said = said_of_replay(config, everything, 84)[0]
    assert "general.xyz has no more: a share of 0.16 instead of 0.25 (data.replay_share), which would take 28" in said


@pytest.mark.filterwarnings("ignore::ase_nbody.ExtrapolationWarning")
def test_new_heads_say_nothing_of_them(write, model):
    """The charges of a head with random weights would be learnt as labels."""
    config = write(outputs=["charges"])
    training, validation = read_splits(config)
    config, _ = with_start(config, {"training": training, "validation": validation})
    found = replayed(config, read_replay(config), build_network(config, training), len(training))
    assert all(np.isfinite(frame.forces).all() for frame in found)
    assert all(np.isnan([*frame.charges, *frame.dipole]).all() for frame in found)


def test_they_have_the_weight_of_their_file(write, tmp_path, model):
    source = {"path": "general.xyz", "weight": 0.1}
    config = write(data={"replay": [source, {**source, "weight": 0.0}], "replay_share": 0.9})
    found = replayed(config, read_replay(config), load_model(model), 12)
    assert {frame.weights for frame in found} == {Weights(*[0.1] * 5), Weights(*[0.0] * 5)}
    config = write(data={"replay": {**source, "weight": 1e-9}})
    with pytest.raises(DataError, match="has the weight 1e-09 for energy"):
        replayed(config, read_replay(config), load_model(model), 12)


def test_read_outs_are_solved_for_the_replayed_structures_too(write, monkeypatch):
    numbers = []

    def solve(network, training, validation, options):
        numbers.append((len(training), len(validation)))
        return solve_read_outs(network, training, validation, options)

    monkeypatch.setattr("ase_nbody.training.run.solve_read_outs", solve)
    train(write(data={"replay_share": 0.5}, training={"epochs": 1, "solve_read_outs": True}))
    assert numbers == [(18, 3)]


def test_a_network_forgets_less(write, tmp_path, model):
    long = {"epochs": 20, "muon_rate": 0.005, "adam_rate": 0.005}
    with_replay = train(write(data={"replay_share": 0.5}, training=long))
    without = train(write(output="plain", data={"replay": None}, training={**long, "epochs": 40}))  # as many steps
    card = read_card(with_replay)["card"]
    assert card["replayed"] == "general.xyz, a share of at most 0.5"
    assert card["training data"].startswith("9 frames")
    assert "replayed" not in read_card(without)["card"]
    general = [Structure.from_atoms(atoms) for atoms in ase.io.read(tmp_path / "general.xyz", ":")]
    empty = [LabelledStructure(one, np.nan, np.full((len(one), 3), np.nan), np.full((3, 3), np.nan)) for one in general]
    frames = predict(load_model(model), empty)
    errors = [evaluate_model(load_model(path), frames)["forces"]["mae"] for path in (with_replay, without)]
    assert errors[0] < errors[1]


def test_it_goes_on_with_the_same_structures_or_is_refused(write, tmp_path):
    train(write())
    longer = write()
    longer = longer.model_copy(update={"training": longer.training.model_copy(update={"epochs": 4})})
    train(longer, resume=True)
    ase.io.write(tmp_path / "general.xyz", [molecule("H2O")] * 20, format="extxyz")
    more = longer.model_copy(update={"training": longer.training.model_copy(update={"epochs": 5})})
    with pytest.raises(ConfigError, match=r"data.replay \(general.xyz\) has other contents"):
        train(more, resume=True)


def test_what_cannot_be_replayed(write, tmp_path):
    with pytest.raises(ConfigError, match="this one starts from nothing"):
        train(write(start_from="none", levels=[{"channels": 4, "l_max": 1, "l_out": 0, "radius": 3.0}]))
    with pytest.raises(ConfigError, match="a head leaves the model as it is"):
        train(write(head="another"))
    with pytest.raises(ConfigError, match="replay_share"):
        write(data={"replay_share": 1.0})
    ase.io.write(tmp_path / "general.xyz", [molecule("H2O"), molecule("SiH4")], format="extxyz")
    with pytest.raises(DataError, match="has structures with Si, which the model does not know"):
        train(write(data={"replay_share": 0.9}))
    with pytest.raises(FileNotFoundError):
        train(write(data={"replay": "missing.xyz"}))


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        ("0\n\n", "frame 1 of data.replay: there are no atoms"),
        ("2\n\nH 0 0 0\nH 0 0 0\n", "frame 1 of data.replay: atoms 0 and 1 are at one place"),
        ("1\n\nH nan 0 0\n", "frame 1 of data.replay: position of atom 0 is not finite"),
        ("1\ncharge=-3.0\nH 0 0 0\n", "frame 1 of data.replay: the total charge is -3 e"),
    ],
)
def test_a_frame_that_teaches_nothing_is_refused_as_among_data(frame, sentence, write, tmp_path):
    (tmp_path / "general.xyz").write_text("1\n\nH 0 0 0\n" + frame)
    with pytest.raises(DataError, match=sentence):
        train(write())


def test_values_of_the_model_that_cannot_be_learnt_are_refused(write, model, frames):
    config = write(data={"replay_share": 0.9})
    network = load_model(model)
    network.set_isolated_atom_energies(dict.fromkeys(network.config.isolated_atom_energies, 1e20))
    with pytest.raises(DataError, match=r"above 1e\+15, or not finite, for .*general.xyz, frame \d+ of data.replay"):
        replayed(config, read_replay(config), network, 12)


def test_a_file_that_is_no_file_of_structures_is_refused_unread(write, tmp_path, monkeypatch):
    """It may be of any size, and a checksum would take as long as that needs."""
    monkeypatch.setattr("ase_nbody.training.run.Origin.of", lambda config: pytest.fail("it was hashed"))
    (tmp_path / "general.xyz").write_bytes(b"")
    os.truncate(tmp_path / "general.xyz", 2**36)
    with pytest.raises(DataError, match=r"general.xyz cannot be read as structures: line 1 has more than"):
        train(write())


def test_a_file_that_is_replaced_before_it_is_hashed_is_refused(write, tmp_path, monkeypatch):
    of = Origin.of

    def replace(config):
        ase.io.write(tmp_path / "general.xyz", [molecule("H2O")] * 20, format="extxyz")
        return of(config)

    monkeypatch.setattr("ase_nbody.training.run.Origin.of", replace)
    with pytest.raises(DataError, match=r"general.xyz changed while it was being read"):
        train(write())


def test_a_file_that_is_replaced_afterwards_is_not_read_again(write, tmp_path, monkeypatch):
    before = read_card(train(write(output="before")))["checksum"]
    of = Origin.of

    def replace(config):
        found = of(config)
        monkeypatch.setattr("ase_nbody.training.run.require_unchanged", _then_replace(tmp_path / "general.xyz"))
        return found

    monkeypatch.setattr("ase_nbody.training.run.Origin.of", replace)
    assert read_card(train(write()))["checksum"] == before


def _then_replace(path):
    def check(stamped, now):
        require_unchanged(stamped, now)
        ase.io.write(path, [molecule("H2O")] * 20, format="extxyz")

    return check
