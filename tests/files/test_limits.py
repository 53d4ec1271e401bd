"""What a model file can hold: enough for all elements; what it cannot hold is refused before the work begins."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
import torch
import yaml
from ase.data import chemical_symbols

from ase_nbody.files import tensor_file
from ase_nbody.files.archive import ModelFileError, load_members, read_card, save_model, shipped_models
from ase_nbody.files.committee import pack_models
from ase_nbody.files.room import require_room
from ase_nbody.network.config import LevelConfig, NBodyConfig
from ase_nbody.network.coverage import MAX_SURROUNDINGS, Coverage
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.training import TrainingConfig, train, train_committee
from ase_nbody.training.config import ConfigError

ELEMENTS = tuple(chemical_symbols[1:])
TINY = {"channels": 1, "l_max": 1, "l_out": 1, "n_basis": 1, "n_radial": 1, "message_channels": 1, "hidden": 1}


@pytest.fixture(scope="module")
def of_all_elements():
    """A network that knows all elements, distances and contacts of all pairs and as many surroundings as may be."""
    formulas = tuple(f"H{number % 100}C{number}N12O12" for number in range(MAX_SURROUNDINGS))
    closest = {f"{one}-{other}": 1.2345 for i, one in enumerate(ELEMENTS) for other in ELEMENTS[i:]}
    coverage = Coverage(
        bonded=dict.fromkeys(ELEMENTS, formulas),
        densities=dict.fromkeys(ELEMENTS, (1.234, 12.345)),
        radius=5.0,
        contacts=tuple(closest),
    )
    energies = dict.fromkeys(ELEMENTS, -12345.678901234567)
    config = NBodyConfig(
        species=ELEMENTS,
        levels=(LevelConfig(**TINY),),
        closest_distances=closest,
        isolated_atom_energies=energies,
        coverage=coverage,
    )
    return NBodyNetwork(config).float()


def test_a_model_of_all_elements_can_be_written_and_read(of_all_elements, tmp_path):
    """With the errors of each element in its card, as a training writes them."""
    error = {"unit": "meV/Angstrom", "mae": 12.345678901234567, "rmse": 23.456789012345678}
    errors = {f"forces_{symbol}": error for symbol in ELEMENTS}
    card = {"validation errors": errors, "test errors": errors}
    path = save_model(of_all_elements, tmp_path / "all.nbody", card)
    assert load_members(path)[0].config == of_all_elements.config
    assert read_card(path)["card"] == card


def test_there_is_room_for_a_committee_of_all_elements(of_all_elements):
    """What ``require_room`` allows for what a training adds to a card is enough for it."""
    require_room(of_all_elements.config, 64)


def test_64_of_the_largest_shipped_models_are_packed(tmp_path):
    largest = max(shipped_models().values(), key=lambda path: path.stat().st_size)
    first = load_members(largest)[0].float()
    members = [copy.deepcopy(first) for _ in range(64)]
    for number, member in enumerate(members):
        next(member.parameters()).data.add_(1e-3 * number)
    models = [save_model(half, tmp_path / f"{len(half)}.nbody") for half in (members[:31], members[31:])]
    committee = pack_models(models, tmp_path / "committee.nbody")
    assert committee.stat().st_size < 1.1 * sum(path.stat().st_size for path in models)  # the dtype is kept
    assert read_card(committee)["members"] == 64


LARGE = {**TINY, "channels": 4096, "l_max": 2, "l_out": 2}


def test_what_does_not_fit_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr(NBodyNetwork, "__init__", lambda *_: pytest.fail("built"))
    large = NBodyConfig(species=("H",), levels=(LevelConfig(**LARGE),))
    with pytest.raises(ModelFileError, match=r"its weights take [0-9,]+ MiB, and a model file holds 512 MiB"):
        require_room(large)
    small = NBodyConfig(species=("H",), levels=(LevelConfig(**TINY),))
    with pytest.raises(ModelFileError, match=r"a committee of 65 networks; a model file holds 1 to 64"):
        require_room(small, 65)
    with pytest.raises(ModelFileError, match=r"its card and configuration take about [0-9,]+ bytes"):
        require_room(small, card={"text": "x" * 2**23})
    with pytest.raises(ModelFileError, match=r"its header has more than 300,000 values"):  # as a reader counts them
        require_room(small, card={"text": "," * 299_000})


@pytest.fixture
def training(tmp_path, copper):
    """Makes the configuration of a training of a few seconds, with changes."""

    def make(name="run", **changes):
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        ase.io.write(folder / "data.traj", copper)
        content = {
            "data": {"train": "data.traj", "validation": 1, "test": "data.traj"},
            "network": {"levels": [{**TINY, "radius": 3.0}]},
            "training": {"epochs": 1, "compile": False, "schedule": "plateau"},
            "output": str(tmp_path / name),
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(content | changes))
        return TrainingConfig.from_yaml(folder / "config.yaml")

    return make


def test_a_training_that_could_not_write_its_model_does_not_begin(training, tmp_path):
    with pytest.raises(ConfigError, match=r"could not be written: its weights take .* MiB"):
        train(training(network={"levels": [LARGE]}))
    config = training().model_copy(update={"card": {"theory": "x" * 2**23}, "output": str(tmp_path / "other")})
    with pytest.raises(ConfigError, match="could not be written: its card and configuration take"):
        train(config)
    assert not list(tmp_path.glob("*/checkpoints"))


def test_nor_does_a_committee(training, tmp_path, monkeypatch):
    """One member would fit."""
    monkeypatch.setattr(tensor_file, "MAX_FILE_BYTES", 200_000)
    with pytest.raises(ConfigError, match=r"could not be written: its weights take .* fewer members"):
        train_committee(training(), 64)
    assert not list(tmp_path.glob("run/*/checkpoints"))


def test_a_pack_that_does_not_fit_is_refused_before_it_is_built(tmp_path, monkeypatch):
    config = NBodyConfig(species=("H",), levels=(LevelConfig(**TINY | {"channels": 100}),))
    models = [save_model(NBodyNetwork(config), tmp_path / f"{number}.nbody") for number in range(3)]
    monkeypatch.setattr(tensor_file, "MAX_FILE_BYTES", models[0].stat().st_size + 100_000)
    with pytest.raises(ModelFileError, match=r"its weights take .* fewer members"):
        pack_models(models, tmp_path / "committee.nbody")
    assert not (tmp_path / "committee.nbody").exists()


ODD = "o[/run] {epoch} a::b :smile: %s \x1b[31m"


def test_an_output_folder_may_have_any_name(training, tmp_path, capsys):
    """It is neither markup nor a pattern nor an address, on the terminal, in lightning or in tensorboard."""
    path = train(training(ODD))
    assert path.parent == Path(str(tmp_path / ODD))
    assert load_members(path)
    out = capsys.readouterr().out
    assert f"Wrote {path}".replace("\x1b", r"\x1b") in out
    assert "\x1b" not in out


# --- memory and time -------------------------------------------------------------------------------------------------

LOADED = """
import sys, time, torch
import ase_nbody
from ase_nbody.files.archive import load_members

def of_process(name):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

torch.set_num_threads(1)
for path in sys.argv[1:]:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before, began = of_process("VmRSS"), time.process_time()
    try:
        load_members(path)
    except ValueError:
        pass
    print(of_process("VmHWM") - before, time.process_time() - began)
"""
HIGH = {**TINY, "l_max": 8, "l_out": 8, "body_order": 8}


def committee(path, members, levels, **changes):
    network = NBodyNetwork(NBodyConfig(species=("H",), levels=(LevelConfig(**HIGH | changes),) * levels)).float()
    return save_model([network] * members, path)


def forged_header(path):
    """A header as large as may be, with as many values as may be."""
    values = json.dumps({"__metadata__": {"card": "[" + "[]," * 149_000 + '"' + "\u2603" * 2_500_000 + '"]'}})
    path.write_bytes(len(values).to_bytes(8, "little") + values.encode())
    return path


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux to measure peaks")
def test_loading_takes_four_times_the_file_and_200_MB(tmp_path):
    """Files made to take as much as they can: by constants, members, one large weight, and the header."""
    paths = [
        committee(tmp_path / "constants.nbody", 16, 8),
        committee(tmp_path / "weights.nbody", 1, 1, channels=600),
        forged_header(tmp_path / "header.nbody"),
    ]
    result = subprocess.run([sys.executable, "-c", LOADED, *paths], capture_output=True, text=True, check=True)
    for path, line in zip(paths, result.stdout.splitlines(), strict=True):
        peak, seconds = map(float, line.split())
        assert peak < 4 * path.stat().st_size + 200e6, path.name
        assert seconds < 10.0, path.name


def test_copies_share_the_constants(tmp_path):
    """Also those in float32, which a calculator makes."""
    members = load_members(committee(tmp_path / "model.nbody", 3, 2))
    for copies in (members, [member.to(torch.float32) for member in members]):
        coupling = [member.levels[number].first_order.coupling for member in copies[:2] for number in (1, 1)]
        assert len({tensor.data_ptr() for tensor in coupling}) == 1
    weights = [weight.data_ptr() for member in members for weight in member.parameters()]
    assert len(set(weights)) == len(weights)


def test_loading_draws_no_random_numbers(tmp_path):
    path = committee(tmp_path / "model.nbody", 2, 1)
    before = torch.random.get_rng_state()
    assert all(weight.device.type == "cpu" for member in load_members(path) for weight in member.parameters())
    assert torch.equal(torch.random.get_rng_state(), before)
