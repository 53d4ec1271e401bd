"""``network.head``: a training that teaches a model another theory, by one more head on its states."""

import ase.io
import numpy as np
import pytest
import torch
import yaml

from ase_nbody import NBodyCalculator, load_model
from ase_nbody.files.archive import load_members, read_card, save_model
from ase_nbody.files.tensor_file import MAX_JSON_VALUES
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.training.claim import what_is_missing
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.progress import Progress
from ase_nbody.training.run import train

SHORT = {"epochs": 6, "batch_size": 2, "warmup": 2, "compile": False}


@pytest.fixture
def model(configuration, tmp_path):
    """A model that has learnt the frames of ``data.extxyz`` for a moment."""
    path = train(TrainingConfig.from_yaml(configuration(epochs=1)))
    network = load_model(path)
    return save_model(network.float(), tmp_path / "model.nbody", read_card(path)["card"] | {"head": "EMT"})


@pytest.fixture
def write(tmp_path, model, frames):
    """A function that writes frames of another theory and a configuration, and reads it."""
    scaled = []
    for frame in frames:
        atoms = frame.copy()
        results = {"REF_energy": 1.3 * frame.get_potential_energy() - 2.0 * len(frame)}
        atoms.info |= results
        atoms.arrays["REF_forces"] = 1.3 * frame.get_forces()
        atoms.calc = None
        scaled.append(atoms)
    ase.io.write(tmp_path / "other.extxyz", scaled)

    def config(name="head.yaml", data=(), training=(), **network):
        content = {
            "data": {"train": "other.extxyz", "validation": 4, "test": "other.extxyz", **dict(data)},
            "network": {"start_from": str(model), "head": "other", **network},
            "training": SHORT | dict(training),
            "report": False,
            "output": str(tmp_path / "head"),
        }
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content))
        return TrainingConfig.from_yaml(path)

    return config


@pytest.mark.filterwarnings("ignore::ase_nbody.ExtrapolationWarning")  # some frames were kept for validation
def test_a_head_learns_and_the_model_stays(write, model, frames):
    path = train(write())
    content, before, after = read_card(path), load_model(model), load_model(path)
    assert content["heads"]["default"] == "EMT"
    assert before.config == after.config
    assert all(torch.equal(after.state_dict()[name], weight) for name, weight in before.state_dict().items())
    head = load_model(path, "other")
    own = NBodyNetwork.declared_read_outs(head.config)
    for name, weight in before.state_dict().items():
        assert torch.equal(head.state_dict()[name], weight) == (name not in own)
    card = content["card"]["heads"]["other"]
    assert card["test errors"]["forces"]["mae"] > 0.0
    assert card["started from"].startswith("model.nbody, ")
    assert "example" not in card
    assert {key: value for key, value in content["card"].items() if key != "heads"} == read_card(model)["card"]
    shift = [
        NBodyCalculator(path, head="other").get_potential_energy(frame)
        - NBodyCalculator(path).get_potential_energy(frame)
        for frame in frames
    ]
    assert np.median(np.array(shift) / [len(frame) for frame in frames]) == pytest.approx(-2.0, abs=0.6)


@pytest.mark.filterwarnings("ignore::ase_nbody.ExtrapolationWarning")
def test_the_model_below_may_vanish_once_it_is_read(write, model, monkeypatch):
    """The training ended without a model, and so did the resumed one."""
    shown, before = Progress.on_train_start, read_card(model)["card"]

    def remove(self, trainer, module):
        model.unlink()
        shown(self, trainer, module)

    monkeypatch.setattr(Progress, "on_train_start", remove)
    path = train(write(training={"epochs": 1}))
    assert read_card(path)["card"].items() >= before.items()
    assert load_members(path, "other")


def test_it_goes_on_and_makes_up_for_test_errors(write, tmp_path):
    train(write())
    assert what_is_missing(tmp_path / "head", write()) == []
    longer = train(write(training={"epochs": 8}), resume=True)
    assert read_card(longer)["card"]["heads"]["other"]["training"]["epochs"] == 8


def test_a_head_that_is_there_is_trained_on(write, tmp_path):
    first = train(write())
    config = write(start_from=str(first))
    again = train(config.model_copy(update={"output": str(tmp_path / "again")}))
    assert list(read_card(again)["heads"]["others"]) == ["other"]
    errors = [
        read_card(path)["card"]["heads"]["other"]["validation errors"]["forces"]["mae"] for path in (first, again)
    ]
    assert errors[1] < errors[0]


def test_a_head_that_could_not_be_written_is_refused_before_it_is_trained(write, model, tmp_path, monkeypatch):
    monkeypatch.setattr("ase_nbody.training.run._fit", lambda *_: pytest.fail("trained"))
    present = sum(map(model.read_bytes().count, (b"[", b"{", b",")))  # values of the header, and some of the weights
    card = read_card(model)["card"] | {"note": "," * (MAX_JSON_VALUES - present)}
    full = save_model(load_model(model).float(), tmp_path / "full.nbody", card)
    with pytest.raises(ConfigError, match=r"the model of this training could not be written: .* 300,000 values"):
        train(write(start_from=str(full)))
    monkeypatch.setattr("ase_nbody.files.archive.MAX_HEADS", 1)
    with pytest.raises(ConfigError, match=r"could not be written: .*model.nbody has 1 heads, as many as a file may"):
        train(write().model_copy(update={"output": str(tmp_path / "other")}))


def test_what_a_head_cannot_be(write, tmp_path, model):
    for network, message in (
        ({"start_from": "none"}, "head needs start_from"),
        ({"start_from": "auto"}, "head needs start_from"),
        ({"freeze": [1]}, "leave out freeze"),
        ({"outputs": ["charges"]}, "network.head adds no outputs"),
        ({"head": "EMT"}, "EMT is the default head of"),
        ({"head": " "}, "the name of a head has 1 to 60"),
        ({"start_from": "ethanol"}, "ethanol is a committee"),
    ):
        with pytest.raises(ConfigError, match=message):
            write(**network)
    atoms = ase.io.read(tmp_path / "other.extxyz", "0")
    atoms.symbols[0] = "Xe"
    ase.io.write(tmp_path / "foreign.extxyz", [atoms] * 3)
    with pytest.raises(ConfigError, match=r"the data have Xe, which .* does not know"):
        train(write(data={"train": "foreign.extxyz", "validation": 1, "test": None}))
    assert len(load_members(model)) == 1


@pytest.mark.parametrize("entry", ["total_charges", "multiplicities"])
def test_a_head_takes_the_charges_and_spins_of_its_model(write, entry):
    """The entry was ignored, and the model took any charge."""
    with pytest.raises(ConfigError, match=rf"network\.{entry} differs .* leave it out"):
        write(**{entry: [1]})
