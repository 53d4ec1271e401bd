"""Model files: what was saved is loaded bit for bit, versions of the past stay readable, writes are atomic."""

import copy
import json
import os
import stat
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ase_nbody import NBodyCalculator
from ase_nbody.files.archive import (
    checksum,
    find_model,
    load_members,
    load_model,
    read_card,
    save_model,
    shipped_models,
)
from ase_nbody.files.entries import FEATURES, FORMAT_VERSION
from ase_nbody.files.tensor_file import ModelFileError
from ase_nbody.files.writing import leftovers_of, write_whole
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.prediction import Prediction

FILES = Path(__file__).parents[1] / "example_models"
VERSION_1 = FILES / "version_1.nbody"


@pytest.fixture
def saved(network, tmp_path):
    return save_model(network, tmp_path / "model.nbody", card={"data": "none", "rmse": 0.1})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_round_trip_is_bitwise_equal(dtype, make_network, predict, systems, tmp_path):
    network = make_network(repulsion=True).to(dtype)
    loaded = load_model(save_model(network, tmp_path / "model.nbody")).to(dtype)
    assert loaded.config == network.config
    assert loaded.state_dict().keys() == network.state_dict().keys()
    for name, weight in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    for name in ("molecule", "triclinic"):
        one, other = predict(loaded, systems[name]()), predict(network, systems[name]())
        assert torch.equal(one.energy, other.energy)
        assert torch.equal(one.forces, other.forces)
        assert torch.equal(one.virials, other.virials)


def test_the_same_model_makes_the_same_file(network, saved, tmp_path):
    again = save_model(network, tmp_path / "again.nbody", card={"data": "none", "rmse": 0.1})
    assert read_card(again) == read_card(saved)
    resaved = save_model(load_model(saved), tmp_path / "resaved.nbody", card={"data": "none", "rmse": 0.1})
    assert read_card(resaved) == read_card(saved)


def test_the_file_is_plain_safetensors(saved, network):
    """Other programs can read it: tensors by their names in the network, JSON entries in the metadata."""
    with safe_open(saved, framework="pt") as file:
        assert set(file.keys()) == network.state_dict().keys()
        assert {key: json.loads(value) for key, value in file.metadata().items()} == read_card(saved)


def test_a_loaded_model_is_frozen(saved):
    assert not any(weight.requires_grad for weight in load_model(saved).parameters())


def test_the_card_can_be_read_alone(saved, network):
    card = read_card(saved)
    assert card["card"] == {"data": "none", "rmse": 0.1}
    assert card["format"] == 3
    assert card["units"] == {"energy": "eV", "length": "Angstrom"}
    assert card["versions"]["torch"] == torch.__version__
    assert card["checksum"] == checksum(network.config.model_dump(mode="json"), network.state_dict())


def test_loading_does_not_advance_the_random_numbers(saved):
    torch.manual_seed(0)
    expected = torch.random.get_rng_state()
    load_model(saved)
    assert torch.equal(torch.random.get_rng_state(), expected)


def test_names_may_be_strings_or_paths(saved):
    assert load_model(str(saved)).config == load_model(saved).config
    assert find_model(str(saved)) == saved


def test_a_missing_file_lists_the_shipped_models(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model file '.*nowhere.nbody'; shipped models are"):
        load_model(tmp_path / "nowhere.nbody")


def test_a_name_that_is_too_long_is_cut():
    with pytest.raises(
        OSError, match=r"the model file 'a{200,}\.\.\.' cannot be looked for: File name too long"
    ) as error:
        load_model("a" * 100_000)
    assert len(str(error.value)) < 1000


def test_a_directory_is_not_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a directory, not a model file"):
        load_model(tmp_path)


def test_shipped_models_load_by_name():
    for name in shipped_models():
        assert all(isinstance(network, NBodyNetwork) for network in load_members(name))


@pytest.mark.parametrize(
    ("name", "version"),
    [*((f"version_{version}", version) for version in range(1, FORMAT_VERSION + 1)), ("member_energies", 4)],
)
def test_every_version_stays_readable(name, version):
    """A file of each version and its results. Never replace any: whoever has such a file relies on it."""
    path = FILES / f"{name}.nbody"
    assert read_card(path)["format"] == version
    reference = json.loads(path.with_suffix(".json").read_text())
    assert len(reference) == 2
    for system in reference.values():
        atoms = ase.Atoms(**{key: system[key] for key in ("numbers", "positions", "cell", "pbc")})
        atoms.calc = NBodyCalculator(path)
        assert atoms.get_potential_energy() == pytest.approx(system["energy"], rel=0, abs=1e-10)
        np.testing.assert_allclose(atoms.get_forces(), system["forces"], rtol=0, atol=1e-10)
        if atoms.pbc.all():
            np.testing.assert_allclose(atoms.get_stress(), system["stress"], rtol=0, atol=1e-10)
        if "forces spread" in system:
            np.testing.assert_allclose(atoms.calc.forces_spread, system["forces spread"], rtol=0, atol=1e-10)


def test_a_file_of_the_first_release_can_be_saved_in_the_present_format(tmp_path):
    first = load_model(VERSION_1)
    assert first.config.closest_distances == {}
    assert {(level.product_decay, level.radial_decay) for level in first.config.levels} == {(1.0, 1.0)}
    again = save_model(first, tmp_path / "again.nbody", card=read_card(VERSION_1)["card"])
    assert read_card(again)["format"] == 3
    assert load_model(again).config == first.config


def test_charges_and_dipole_of_version_4(predict):
    path = FILES / "version_4.nbody"
    system = json.loads(path.with_suffix(".json").read_text())["methanol"]
    atoms = ase.Atoms(system["numbers"], system["positions"])
    found = Prediction.mean([predict(member, atoms) for member in load_members(path)])
    np.testing.assert_allclose(found["charges"], system["charges"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["dipole"][0], system["dipole"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("version", range(3, FORMAT_VERSION + 1))
def test_a_model_is_written_in_the_oldest_version_that_holds_it(version, tmp_path):
    """So what needs nothing new can be read by earlier releases, and keeps its entries and checksum."""
    path = FILES / f"version_{version}.nbody"
    before = read_card(path)
    saved = save_model(load_members(path), tmp_path / "again.nbody", before["card"])
    content = read_card(saved)
    assert content["format"] == version
    assert content.keys() == before.keys()
    assert ("features" in content) == ("outputs" in content["config"]) == (version == 4)
    old, new = load_file(path), load_file(saved)
    assert new.keys() == old.keys()
    assert all(torch.equal(new[name], old[name]) for name in old)
    if version == 4:
        assert content["features"] == ["outputs"]
        assert "outputs" in FEATURES
        assert content["checksum"] == before["checksum"]


def test_shipped_models_are_written_as_they_are(tmp_path):
    for name in shipped_models():
        before = read_card(name)
        again = read_card(save_model(load_members(name), tmp_path / "again.nbody", before["card"]))
        changing = {"versions", "checksum", "metadata_checksum"}  # weights are in float64 now
        assert again.keys() == before.keys()
        assert {key: again[key] for key in before if key not in changing} == {
            key: before[key] for key in before if key not in changing
        }


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_whole(failing, saved, make_network, monkeypatch):
    before = saved.read_bytes()

    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="no space left"):
        save_model(make_network(seed=7), saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", b"new")
    assert not os.listdir(tmp_path)


def test_temporary_files_of_killed_writers_are_removed_when_nobody_can_be_writing_them(tmp_path):
    abandoned, living, other = (tmp_path / name for name in (".file.0123abcd", ".file.89abcdef", ".file.old.txt"))
    for path in (abandoned, living, other):
        path.write_bytes(b"unfinished")
    for path in (abandoned, other):
        os.utime(path, (0, 0))
    write_whole(tmp_path / "file", b"new")
    assert sorted(os.listdir(tmp_path)) == [living.name, other.name, "file"]


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*/none/file'$"):
        write_whole(tmp_path / "none" / "file", b"new")


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_umask_allows(mask, mode, tmp_path):
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "file", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_an_existing_file_keeps_its_mode(mode, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path):
    """Such as an output folder of links to a larger disk: the link was replaced, and the file behind it stayed old."""
    large = tmp_path / "large"
    large.mkdir()
    (large / "old").write_bytes(b"old")
    for name in ("old", "new"):
        (tmp_path / name).symlink_to(Path("large") / name)
        write_whole(tmp_path / name, b"new")
        assert (tmp_path / name).is_symlink()
        assert (large / name).read_bytes() == b"new"
    killed = large / ".old.0123abcd"
    killed.touch()
    assert leftovers_of(tmp_path / "old") == [killed]
    assert sorted(os.listdir(tmp_path)) == ["large", "new", "old"]


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
@pytest.mark.parametrize("target", ["loop", "none/file"])
def test_a_link_that_leads_nowhere_is_replaced(target, tmp_path):
    (tmp_path / "loop").symlink_to(target)
    write_whole(tmp_path / "loop", b"new")
    assert (tmp_path / "loop").read_bytes() == b"new"


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_a_link_in_the_place_of_a_private_or_a_new_file_is_not_followed(tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "planted").symlink_to("mine")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "planted", b"new", replace=False)
    write_whole(tmp_path / "planted", b"new", private=True)
    assert ((tmp_path / "mine").read_bytes(), (tmp_path / "planted").read_bytes()) == (b"mine", b"new")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize("name", ["null", "link"])
def test_a_device_or_a_pipe_is_not_replaced(name, tmp_path):
    """Root could write a model in the place of /dev/null, and every other program would fill it."""
    os.mkfifo(tmp_path / "null")
    (tmp_path / "link").symlink_to("null")
    with pytest.raises(FileExistsError, match="is a pipe or a device: choose the name of a file"):
        write_whole(tmp_path / name, b"new")
    assert stat.S_ISFIFO(os.stat(tmp_path / "null").st_mode)


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_never_takes_the_place_of_one_that_another_process_has_just_made(links, tmp_path, monkeypatch):
    """Whether there is one is decided when the file gets its name, not before its contents are made."""

    def impossible(*_):
        raise PermissionError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", impossible)
    path = tmp_path / "file"
    write_whole(path, b"first", replace=False)
    with pytest.raises(FileExistsError, match="exists; choose another name or move the file away"):
        write_whole(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]
    write_whole(path, b"third")
    assert path.read_bytes() == b"third"


def test_a_model_is_replaced_by_another(saved, make_network):
    other = make_network(seed=7)
    save_model(other, saved)
    assert load_model(saved).config == other.config
    assert os.listdir(saved.parent) == [saved.name]


def test_a_card_must_be_json(network, tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_model(network, tmp_path / "model.nbody", card={"atoms": ase.Atoms()})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("card", [{"rmse": float("nan")}, {"notes": [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]}])
def test_a_card_that_would_not_be_read_is_not_written(card, network, tmp_path):
    with pytest.raises(ValueError, match=r"JSON compliant|nested deeper"):
        save_model(network, tmp_path / "model.nbody", card=card)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_would_not_be_read_are_not_written(value, network, tmp_path):
    broken = copy.deepcopy(network)
    with torch.no_grad():
        next(broken.parameters()).view(-1)[0] = value
    with pytest.raises(ModelFileError, match="a weight is NaN or infinite"):
        save_model(broken, tmp_path / "model.nbody")
    assert not os.listdir(tmp_path)


def test_a_network_that_would_not_be_read_is_not_written(network, tmp_path):
    deep = NBodyNetwork(network.config.model_copy(update={"levels": network.config.levels[:1] * 9}))
    with pytest.raises(ModelFileError, match="9 levels; a model file holds at most 8"):
        save_model(deep, tmp_path / "model.nbody")
    assert not os.listdir(tmp_path)
