"""Committees in one file: every command and the calculator accept them, and they give what their members give."""

import json
from copy import deepcopy

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.calculator import CalculatorSetupError
from ase.calculators.singlepoint import SinglePointCalculator
from safetensors.torch import load_file

from ase_nbody import NBodyCalculator
from ase_nbody.data import read_labelled
from ase_nbody.engines.lammps import export_model
from ase_nbody.engines.lammps.form import packed as packed_for_lammps
from ase_nbody.files import archive
from ase_nbody.files.archive import ModelFileError, checksum, load_members, load_model, read_card, save_model
from ase_nbody.files.committee import pack_models
from ase_nbody.files.entries import metadata_checksum
from ase_nbody.files.tensor_file import pack
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.training.evaluation import evaluate_model


@pytest.fixture(scope="module")
def members(make_network):
    """Three networks of one configuration."""
    first, *others = (make_network(seed) for seed in range(3))
    for other in others:
        other.config = first.config
    return [first, *others]


@pytest.fixture
def files(members, tmp_path):
    return [
        save_model(network, tmp_path / f"{number}.nbody", {"theory": "none", "seed": number})
        for number, network in enumerate(members)
    ]


@pytest.fixture
def committee(files, tmp_path):
    return pack_models(files, tmp_path / "committee.nbody", {"purpose": "tests"})


def test_the_members_come_back_bit_for_bit(committee, members):
    loaded = load_members(committee)
    assert len(loaded) == len(members)
    for one, other in zip(loaded, members, strict=True):
        assert one.config == other.config
        assert all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


def test_the_card_has_common_entries_and_those_of_each_member(committee, members):
    content = read_card(committee)
    own = [checksum(content["config"], member.state_dict()) for member in members]
    assert content["members"] == 3
    assert content["card"] == {
        "theory": "none",
        "purpose": "tests",
        "members": [{"checksum": digest, "seed": seed} for seed, digest in enumerate(own)],
    }


@pytest.fixture
def of_other_zeros(members):
    """The same networks, with isolated-atom energies of their own, as when they start from networks that differ."""
    changed = deepcopy(members)
    for number, network in enumerate(changed):
        energies = network.config.isolated_atom_energies
        network.set_isolated_atom_energies({symbol: energy + 0.1 * number for symbol, energy in energies.items()})
    return changed


def test_members_keep_their_isolated_atom_energies(of_other_zeros, systems, tmp_path):
    files = [save_model(network, tmp_path / f"{number}.nbody") for number, network in enumerate(of_other_zeros)]
    pair, atoms = pack_models(files[:2], tmp_path / "pair.nbody"), systems["molecule"]()
    for path in (pack_models([pair, files[2]], tmp_path / "packed"), save_model(of_other_zeros, tmp_path / "saved")):
        assert read_card(path)["features"] == ["member_energies"]
        assert [member.config for member in load_members(path)] == [member.config for member in of_other_zeros]
        listed, packed = NBodyCalculator(files), NBodyCalculator(path)
        assert packed.get_potential_energy(atoms) == listed.get_potential_energy(atoms)
        assert packed.energy_spread == listed.energy_spread > 0.0
    assert read_card(tmp_path / "packed")["checksum"] == read_card(tmp_path / "saved")["checksum"]
    assert read_card(pair)["checksum"] != read_card(pack_models(files[1:], tmp_path / "others.nbody"))["checksum"]


def test_lammps_gets_the_mean_of_the_isolated_atom_energies(of_other_zeros):
    head = packed_for_lammps(of_other_zeros, {}).split(b"\nend\n")[0].decode().splitlines()
    found = dict(line.split()[1:] for line in head if line.startswith("atom "))
    first = of_other_zeros[0].config.isolated_atom_energies
    assert {symbol: float(energy) for symbol, energy in found.items()} == pytest.approx(
        {symbol: energy + 0.1 for symbol, energy in first.items()}, abs=1e-9
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda tables: tables[:2],
        lambda tables: [*tables[:2], {**tables[2], "Xe": 0.0}],
        lambda tables: [*tables[:2], {**tables[2], "H": None}],
        lambda tables: [*tables[:2], {**tables[2], "H": True}],
        lambda tables: [*tables[:2], {**tables[2], "H": 1e300}],
        lambda tables: [*tables[:2], [1.0]],
        lambda tables: [tables[1], *tables[1:]],
        lambda tables: [],
    ],
)
def test_forged_isolated_atom_energies_are_refused(change, of_other_zeros, tmp_path):
    path = save_model(of_other_zeros, tmp_path / "model.nbody")
    content, weights = read_card(path), load_file(path)
    content["member_energies"] = change(content["member_energies"])
    content["checksum"] = checksum(content["config"], weights, content["member_energies"])
    del content["metadata_checksum"]
    path.write_bytes(pack(weights, {**content, "metadata_checksum": metadata_checksum(content)}))
    with pytest.raises(ModelFileError, match="its entry 'member_energies'"):
        load_members(path)


@pytest.mark.parametrize("name", ["molecule", "crystal"])
def test_the_calculator_treats_it_as_the_list_of_its_members(name, systems, committee, files):
    listed, packed = NBodyCalculator(files), NBodyCalculator(committee)
    for calculator in (listed, packed):
        calculator.calculate(systems[name]())
    assert packed.energy_spread == listed.energy_spread > 0.0
    np.testing.assert_array_equal(packed.forces_spread, listed.forces_spread)
    assert packed.results.keys() == listed.results.keys()
    for quantity, value in listed.results.items():
        np.testing.assert_array_equal(packed.results[quantity], value)
    assert packed.todict()["model"] == str(committee)


def test_committees_and_single_models_make_one_committee(committee, members, make_network, tmp_path):
    other = make_network(3)
    other.config = members[0].config
    fourth = save_model(other, tmp_path / "fourth.nbody")
    assert len(NBodyCalculator([committee, fourth]).networks) == 4
    assert len(load_members(pack_models([committee, fourth], tmp_path / "four.nbody"))) == 4


def test_a_network_that_occurs_twice_is_refused(committee, files, members, tmp_path):
    """It agrees with itself, under whatever name, so the committee would show too small a spread."""
    copy = tmp_path / "copy.nbody"
    copy.write_bytes(files[0].read_bytes())
    rounded = save_model(deepcopy(members[0]).float(), tmp_path / "rounded.nbody")
    for models in ([files[0], files[0]], [files[0], files[1], copy], [committee, files[2]], [files[0], rounded]):
        last = models[-1].name
        with pytest.raises(ValueError, match=rf"{last} and .*nbody are, or hold, the same network: .*too small"):
            pack_models(models, tmp_path / "twice.nbody")
        with pytest.raises(CalculatorSetupError, match=rf"{last} and .*nbody are, or hold, the same network"):
            NBodyCalculator(models)
    for network in (members[0], copy):
        with pytest.raises(CalculatorSetupError, match="the same network"):
            NBodyCalculator([members[0], members[1], network])
    assert not (tmp_path / "twice.nbody").exists()


def test_networks_of_equal_weights_are_one_network(members, nbody, tmp_path):
    """A release added what the training data had been to its models, and left the weights. One file may hold them."""
    first = members[0]
    later = NBodyNetwork(first.config.model_copy(update={"multiplicities": (1,)})).to(first.dtype)
    later.load_state_dict(first.state_dict())
    with pytest.raises(CalculatorSetupError, match="the same network"):
        NBodyCalculator([first, later])
    twins = save_model([first, members[1], first], tmp_path / "twins.nbody")
    with pytest.raises(CalculatorSetupError, match=r"twins.nbody holds the same network twice: .*too small a spread"):
        NBodyCalculator(twins)
    with pytest.raises(ValueError, match=r"twins.nbody holds the same network twice"):
        export_model(twins, tmp_path / "twins.lammps")
    code, _, err = nbody("evaluate", twins, tmp_path / "none.xyz")
    assert (code, "twins.nbody holds the same network twice" in " ".join(err.split())) == (1, True)


def test_the_command_that_compiles_does_so_for_every_member(of_other_zeros, nbody, tmp_path, monkeypatch):
    """Isolated-atom energies become constants of the code. Members that have the same ones share it."""
    fourth = deepcopy(of_other_zeros[0])
    with torch.no_grad():
        next(fourth.parameters()).mul_(1.5)
    save_model([*of_other_zeros, fourth], tmp_path / "several.nbody")
    compiled = []
    monkeypatch.setattr(
        "ase_nbody.runtime.aot.kept_library", lambda network, name, *_, **__: compiled.append((network.config, name))
    )
    code, _, err = nbody("compile", tmp_path / "several.nbody")
    assert (code, err) == (0, "")
    assert compiled == [(network.config, "whole") for network in of_other_zeros]


def test_the_missing_folder_of_a_committee_is_named(nbody, files, tmp_path):
    code, _, err = nbody("pack", *files, "-o", tmp_path / "none" / "packed.nbody")
    assert code == 1
    assert f"there is no folder {tmp_path / 'none'} for packed.nbody: make it first" in " ".join(err.split())


def test_pack_as_a_command_refuses_a_file_twice(nbody, files, tmp_path):
    code, _, err = nbody("pack", files[0], files[0], "-o", tmp_path / "twice.nbody")
    assert code == 1
    assert "the same network" in " ".join(err.split())


def test_a_committee_is_refused_where_one_network_is_expected(committee):
    with pytest.raises(ModelFileError, match=r"holds a committee of 3 networks where one is expected"):
        load_model(committee)


def test_a_file_that_is_replaced_while_it_is_packed_gives_its_weights_and_card_together(files, tmp_path, monkeypatch):
    first, checksum_before = files[0], read_card(files[0])["checksum"]
    read = archive._read

    def replaced_afterwards(path):
        found = read(path)
        if path == files[1]:
            first.write_bytes(files[2].read_bytes())
        return found

    monkeypatch.setattr(archive, "_read", replaced_afterwards)
    packed = pack_models(files[:2], tmp_path / "packed.nbody")
    assert read_card(packed)["card"]["members"][0]["checksum"] == checksum_before


def test_networks_that_differ_are_not_packed(files, make_network, tmp_path):
    other = save_model(make_network(energy_scale=3.0, repulsion=True), tmp_path / "other.nbody")
    with pytest.raises(ValueError, match=r"other.nbody differs from .*0.nbody in energy_scale, repulsion"):
        pack_models([files[0], other], tmp_path / "committee.nbody")
    with pytest.raises(ValueError, match="at least two models, got 1"):
        pack_models(files[:1], tmp_path / "committee.nbody")
    with pytest.raises(ValueError, match="must have one configuration"):
        save_model([load_model(files[0]), load_model(other)], tmp_path / "committee.nbody")
    with pytest.raises(ModelFileError, match="a committee of 0 networks"):
        save_model([], tmp_path / "committee.nbody")


def test_networks_of_two_theories_are_not_packed(files, members, tmp_path):
    """The spread would be the difference of the theories, which says nothing of an error. A card may have no theory."""
    other = save_model(members[1], tmp_path / "other.nbody", {"theory": "PBE"})
    with pytest.raises(ValueError, match=r"other.nbody learnt PBE, but .*0.nbody learnt none"):
        pack_models([files[0], other], tmp_path / "committee.nbody")
    pack_models([files[0], save_model(members[1], tmp_path / "untold.nbody")], tmp_path / "committee.nbody")


@pytest.fixture
def data(tmp_path, files):
    """Methanol with the committee's own energies and forces, shifted by known errors."""
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=0)
    atoms.calc = NBodyCalculator([str(file) for file in files])
    energy, forces = atoms.get_potential_energy() - 1e-3, atoms.get_forces() - 2e-3
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    ase.io.write(tmp_path / "data.extxyz", [atoms, atoms])
    return tmp_path / "data.extxyz"


def test_every_command_accepts_it(nbody, committee, data, tmp_path):
    code, out, _ = nbody("evaluate", committee, data, "--json")
    assert code == 0
    assert json.loads(out)["errors"]["energy"]["mae"] == pytest.approx(1.0, rel=1e-3)
    assert json.loads(out)["errors"]["forces"]["mae"] == pytest.approx(2.0, rel=1e-3)
    code, out, _ = nbody("info", committee)
    assert code == 0
    assert "3 networks" in out
    code, out, _ = nbody("check", committee, data, "--only", "rotation", "--only", "forces", "--no-compile", "--json")
    assert code == 0
    assert {finding["outcome"] for finding in json.loads(out)["findings"]} == {"passed"}
    code, out, _ = nbody("md", committee, data, "--steps", 2, "--interval", 1, "--output", tmp_path / "md", "--json")
    assert "spread" in (tmp_path / "md" / "table.csv").read_text().splitlines()[0]
    assert code in (0, 1), "random weights may make the monitor stop the run"


def test_pack_as_a_command(nbody, files, tmp_path):
    output = tmp_path / "packed.nbody"
    code, out, _ = nbody("pack", *files, "-o", output)
    assert code == 0
    assert str(output) in out.replace("\n", "")
    assert len(load_members(output)) == 3
    code, _, err = nbody("pack", *files, "-o", output)
    assert code == 1
    assert "exists; choose another name" in err


def test_the_error_of_the_mean_is_no_larger_than_that_of_the_members(members, data):
    frames = read_labelled(data)
    mean = evaluate_model(members, frames)["forces"]["rmse"]
    assert mean == pytest.approx(2.0, rel=1e-3)
    assert all(evaluate_model(member, frames)["forces"]["rmse"] > mean for member in members)
