"""Several theories in one model file: each head has its own read-outs and isolated-atom energies on shared states."""

import copy
import json
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ase_nbody import NBodyCalculator, load_model
from ase_nbody.files.archive import ModelFileError, add_head, load_members, read_card, save_model
from ase_nbody.files.committee import pack_models
from ase_nbody.files.entries import metadata_checksum
from ase_nbody.files.heads import MAX_HEADS
from ase_nbody.files.tensor_file import pack
from ase_nbody.network.network import NBodyNetwork

EXAMPLE = Path(__file__).parents[1] / "example_models" / "heads.nbody"


@pytest.fixture
def other(network):
    """A network with the same states and other read-outs and isolated-atom energies."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for name in NBodyNetwork.declared_read_outs(network.config):
            other.get_parameter(name).mul_(1.5)
    other.set_isolated_atom_energies({symbol: -1.0 - number for number, symbol in enumerate(network.config.species)})
    return other


@pytest.fixture
def base(network, tmp_path):
    network.set_isolated_atom_energies(dict.fromkeys(network.config.species, -3.0))
    return save_model(network, tmp_path / "base.nbody", {"theory": "first", "head": "first"})


@pytest.fixture
def both(base, other, tmp_path):
    return add_head(base, "second/x 2", other, tmp_path / "both.nbody", {"theory": "another"})


@pytest.mark.parametrize("name", ["molecule", "triclinic"])
def test_each_head_gives_its_own_energies(name, network, other, both, systems):
    atoms = systems[name]()
    for head, expected in ((None, network), ("first", network), ("second/x 2", other)):
        found, alone = NBodyCalculator(both, head=head), NBodyCalculator(expected)
        assert found.get_potential_energy(atoms) == alone.get_potential_energy(atoms)
        np.testing.assert_array_equal(found.get_forces(atoms), alone.get_forces(atoms))
    energies = {NBodyCalculator(both, head=head).get_potential_energy(atoms) for head in ("first", "second/x 2")}
    assert len(energies) == 2


def test_the_command_that_compiles_takes_a_head(other, both, nbody, monkeypatch):
    """Its isolated-atom energies become constants of the code."""
    compiled = []
    monkeypatch.setattr("ase_nbody.runtime.aot.kept_library", lambda network, *_, **__: compiled.append(network.config))
    assert nbody("compile", both, "--head", "second/x 2")[0] == 0
    assert compiled == [other.config]


def test_a_third_head_leaves_the_others(both, other, network, tmp_path):
    third = copy.deepcopy(network)
    with torch.no_grad():
        third.get_parameter("levels.0.read_out.linear").zero_()
    path = add_head(both, "a third", third, tmp_path / "three.nbody", {"theory": "none"})
    content = read_card(path)
    assert list(content["heads"]["others"]) == ["second/x 2", "a third"]
    assert content["features"] == ["heads"]
    assert content["card"]["heads"] == {"second/x 2": {"theory": "another"}, "a third": {"theory": "none"}}
    assert content["card"]["theory"] == "first"
    for head, expected in (("first", network), ("second/x 2", other), ("a third", third)):
        loaded = load_model(path, head).state_dict()
        assert all(torch.equal(loaded[name], weight) for name, weight in expected.state_dict().items())
    again = add_head(path, "a third", network, tmp_path / "again.nbody")  # replaces it
    assert torch.equal(
        load_model(again, "a third").levels[0].read_out.linear, load_model(again).levels[0].read_out.linear
    )


def test_a_model_with_all_the_heads_of_a_file_takes_no_other(base, other, tmp_path):
    path = base
    for number in range(MAX_HEADS - 1):
        path = add_head(path, f"head {number}", other, tmp_path / f"{number}.nbody")
    with pytest.raises(ModelFileError, match=r"14.nbody has 16 heads, as many as a file may have"):
        add_head(path, "one more", other, tmp_path / "refused.nbody")
    again = add_head(path, "head 3", other, tmp_path / "again.nbody")
    assert len(read_card(again)["heads"]["others"]) == 15


@pytest.mark.parametrize("said", ["two", ["PBE"], None, 3.0])
def test_a_card_may_say_anything_under_heads(said, network, other, tmp_path):
    """It is free text, so a user or a stranger may have written it."""
    path = save_model(network, tmp_path / "model.nbody", {"heads": said})
    both = add_head(path, "another", other, tmp_path / "both.nbody", {"theory": "another"})
    assert read_card(both)["card"]["heads"] == {"another": {"theory": "another"}}


def test_a_wrong_head_is_refused_with_the_list(both, base, network):
    with pytest.raises(ModelFileError, match=r"has no head 'secnd'; it has first \(the default\), second/x 2"):
        NBodyCalculator(both, head="secnd")
    with pytest.raises(ModelFileError, match=r"has no head 'other'; it has first \(the default\)$"):
        load_model(base, "other")
    with pytest.raises(ModelFileError, match=r"it has default \(the default\)$"):
        load_members("ethanol", "PBE")
    with pytest.raises(ase.calculators.calculator.CalculatorSetupError, match="an NBodyNetwork has one head"):
        NBodyCalculator(network, head="first")


def test_a_card_that_names_no_head_is_text_alone(network, tmp_path):
    path = save_model(network, tmp_path / "model.nbody", {"head": "\x1b[31m"})
    with pytest.raises(ModelFileError, match=r"it has default \(the default\)$"):
        load_model(path, "other")


def test_a_calculator_remembers_its_head(both):
    assert "head" not in NBodyCalculator(both).todict()
    kept = json.loads(json.dumps(NBodyCalculator(both, head="second/x 2").todict()))
    assert kept["head"] == "second/x 2"
    again = NBodyCalculator(**kept)
    assert again.networks[0].config.isolated_atom_energies["H"] == -1.0


def test_a_head_needs_the_states_of_its_model(network, other, base, both, tmp_path):
    path = tmp_path / "refused.nbody"
    moved = copy.deepcopy(other)
    with torch.no_grad():
        moved.embedding.weight.mul_(1.01)
    with pytest.raises(ValueError, match="the states of the network are not those of"):
        add_head(base, "another", moved, path)
    denser = NBodyNetwork(network.config.model_copy(update={"energy_scale": 2.0}))
    denser.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="the states of the network are not those of"):
        add_head(base, "another", denser, path)
    with pytest.raises(ValueError, match="first is the default head"):
        add_head(base, "first", other, path)
    with pytest.raises(ModelFileError, match="is a committee"):
        add_head("ethanol", "another", other, path)
    for name in ("", " a", "a\nb", "x" * 61):
        with pytest.raises(ValueError, match="the name of a head has 1 to 60 printable characters"):
            add_head(base, name, other, path)
    with pytest.raises(ValueError, match="has the heads first, second/x 2, and the members of a committee have one"):
        pack_models([both, base], path)
    assert not path.exists()


FORGED = {
    "no default": lambda entry: {"others": entry["others"]},
    "others are a list": lambda entry: {**entry, "others": [*entry["others"]]},
    "no others": lambda entry: {**entry, "others": {}},
    "default twice": lambda entry: {**entry, "others": {"first": entry["others"]["second/x 2"]}},
    "escape sequence": lambda entry: {**entry, "default": "\x1b[31m"},
    "a number": lambda entry: {**entry, "default": 1},
    "too many": lambda entry: {
        **entry,
        "others": {f"{n}": entry["others"]["second/x 2"] for n in range(MAX_HEADS)},
    },
    "no energies": lambda entry: {**entry, "others": {"second/x 2": {}}},
    "energies are a list": lambda entry: {**entry, "others": {"second/x 2": [1.0]}},
    "no number": lambda entry: {
        **entry,
        "others": {"second/x 2": {**entry["others"]["second/x 2"], "H": 1e40}},
    },
    "text": lambda entry: {**entry, "others": {"second/x 2": {**entry["others"]["second/x 2"], "H": "1"}}},
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_forged_heads_are_refused(change, both):
    content, weights = read_card(both), load_file(both)
    content["heads"] = change(content["heads"])
    del content["metadata_checksum"]
    both.write_bytes(pack(weights, {**content, "metadata_checksum": metadata_checksum(content)}))
    with pytest.raises(ModelFileError, match="its entry 'heads'") as error:
        load_members(both)
    assert "\x1b" not in str(error.value)


def test_heads_of_a_committee_are_refused(both):
    content, weights = read_card(both), load_file(both)
    content["members"] = 2
    del content["metadata_checksum"]
    stacked = {name: torch.stack([weight, weight]) for name, weight in weights.items()}
    both.write_bytes(pack(stacked, {**content, "metadata_checksum": metadata_checksum(content)}))
    with pytest.raises(ModelFileError, match="is a committee and has several heads"):
        load_members(both)


def test_the_file_of_this_release_stays_readable():
    """A file with two heads and their results. Never replace it: whoever has such a file relies on it."""
    for head, system in json.loads(EXAMPLE.with_suffix(".json").read_text()).items():
        atoms = ase.Atoms(system["numbers"], system["positions"], calculator=NBodyCalculator(EXAMPLE, head=head))
        assert atoms.get_potential_energy() == pytest.approx(system["energy"], rel=0, abs=1e-10)
        np.testing.assert_allclose(atoms.get_forces(), system["forces"], rtol=0, atol=1e-10)


def test_isolated_atom_energies_beyond_any_result_are_not_written(network, base, other, tmp_path):
    """Such a model loaded, and was refused at each evaluation."""
    other.set_isolated_atom_energies(dict.fromkeys(other.config.species, 1e300))
    with pytest.raises(ModelFileError, match="isolated-atom energies"):
        save_model(other, tmp_path / "model.nbody")
    with pytest.raises(ModelFileError, match="isolated-atom energies"):
        add_head(base, "second", other, tmp_path / "both.nbody")
