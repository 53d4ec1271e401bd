import json
import os

import ase
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ase_nbody.archive import (
    FORMAT_VERSION,
    ModelFileError,
    checksum,
    find_model,
    load_model,
    read_card,
    save_model,
    shipped_models,
    write_whole,
)
from ase_nbody.network import NBodyNetwork


@pytest.fixture
def saved(network, tmp_path):
    return save_model(network, tmp_path / "model.nbody", card={"data": "none", "rmse": 0.1})


def contents(path):
    with safe_open(path, framework="pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
        return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewrite(path, tensors, metadata) -> None:
    save_file(tensors, path, metadata={key: json.dumps(value) for key, value in metadata.items()})


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
    assert contents(again)[0] == contents(saved)[0]
    resaved = save_model(load_model(saved), tmp_path / "resaved.nbody", card={"data": "none", "rmse": 0.1})
    assert contents(resaved)[0] == contents(saved)[0]


def test_a_loaded_model_is_frozen(saved):
    assert not any(weight.requires_grad for weight in load_model(saved).parameters())


def test_the_card_can_be_read_alone(saved, network):
    card = read_card(saved)
    assert card["card"] == {"data": "none", "rmse": 0.1}
    assert card["format"] == FORMAT_VERSION
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


def test_a_directory_is_not_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a directory, not a model file"):
        load_model(tmp_path)


def test_shipped_models_load_by_name():
    for name in shipped_models():
        assert isinstance(load_model(name), NBodyNetwork)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(kept, saved):
    payload = saved.read_bytes()
    saved.write_bytes(payload[: kept if isinstance(kept, int) else int(kept * len(payload))])
    with pytest.raises(ModelFileError, match="not a readable N-body model file"):
        load_model(saved)


def test_a_flipped_byte_is_noticed_anywhere(saved):
    """In the header as well as in the weights: the file is refused, or (spaces, the card's words) means the same."""
    payload, (metadata, weights) = saved.read_bytes(), contents(saved)
    generator = np.random.default_rng(0)
    header = 8 + int.from_bytes(payload[:8], "little")
    places = [*range(8), *generator.integers(8, header, 200), *generator.integers(header, len(payload), 20)]
    for place in map(int, places):
        damaged = bytearray(payload)
        damaged[place] ^= 1 << int(generator.integers(8))
        saved.write_bytes(damaged)
        try:
            loaded = load_model(saved)
        except ModelFileError:
            continue
        assert place < header
        assert loaded.config.model_dump(mode="json") == metadata["config"]
        assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in weights.items())


def test_a_changed_weight_is_damage(saved):
    metadata, weights = contents(saved)
    next(iter(weights.values())).view(-1)[0] += 1e-9
    rewrite(saved, weights, metadata)
    with pytest.raises(ModelFileError, match="checksum does not match"):
        load_model(saved)


def test_a_changed_configuration_is_damage(saved):
    metadata, weights = contents(saved)
    metadata["config"]["energy_scale"] *= 2.0
    rewrite(saved, weights, metadata)
    with pytest.raises(ModelFileError, match="checksum does not match"):
        load_model(saved)


@pytest.mark.parametrize("name", ["text", "pickle", "directory of a zip"])
def test_files_of_another_kind_are_refused_and_not_executed(name, tmp_path, network):
    path = tmp_path / "model.nbody"
    if name == "text":
        path.write_text("a model, honestly\n")
    elif name == "pickle":
        torch.save(network.state_dict(), path)
    else:
        path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelFileError, match="not a readable N-body model file"):
        load_model(path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"format": "1"}, {"config": "{}"}])
def test_safetensors_of_someone_else_are_refused(metadata, tmp_path):
    path = tmp_path / "model.nbody"
    save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
    with pytest.raises(ModelFileError, match="N-body model"):
        load_model(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", FORMAT_VERSION + 1, f"format version {FORMAT_VERSION + 1}; .* Update ase-nbody"),
        ("format", "1", "no format or config entry"),
        ("config", {"species": ["H"], "new_option": 1}, "configuration inside is not valid"),
        ("config", [1, 2], "configuration inside is not valid"),
        ("checksum", "0" * 64, "checksum does not match"),
        ("units", {"energy": "kcal/mol", "length": "Angstrom"}, "kcal/mol"),
    ],
)
def test_metadata_that_does_not_fit(key, value, message, saved):
    metadata, weights = contents(saved)
    rewrite(saved, weights, {**metadata, key: value})
    with pytest.raises(ModelFileError, match=message):
        load_model(saved)


def forge(path, change) -> None:
    """A file whose weights were changed and whose checksum was made to fit."""
    metadata, weights = contents(path)
    change(weights)
    config = metadata["config"]
    rewrite(path, weights, {**metadata, "checksum": checksum(config, weights)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.popitem(), "weights do not fit the configuration"),
        (lambda weights: weights.update(extra=torch.zeros(1, dtype=torch.float64)), "do not fit the configuration"),
        (lambda weights: next(iter(weights.values())).fill_(torch.nan), "a weight is NaN or infinite"),
        (lambda weights: next(iter(weights.values())).fill_(-torch.inf), "a weight is NaN or infinite"),
        (lambda weights: weights.update({(name := next(iter(weights))): weights[name].float()}), "one floating-point"),
        (lambda weights: weights.update({k: v.to(torch.int64) for k, v in weights.items()}), "one floating-point"),
    ],
    ids=["missing", "extra", "nan", "inf", "mixed", "integers"],
)
def test_weights_that_do_not_fit(change, message, saved):
    forge(saved, change)
    with pytest.raises(ModelFileError, match=message):
        load_model(saved)


def test_weights_that_numpy_does_not_know_are_refused_in_words(saved):
    metadata, weights = contents(saved)
    rewrite(saved, {name: weight.bfloat16() for name, weight in weights.items()}, metadata)
    with pytest.raises(ModelFileError):
        load_model(saved)


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


def test_a_model_is_replaced_by_another(saved, make_network):
    other = make_network(seed=7)
    save_model(other, saved)
    assert load_model(saved).config == other.config
    assert os.listdir(saved.parent) == [saved.name]


def test_a_card_must_be_json(network, tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_model(network, tmp_path / "model.nbody", card={"atoms": ase.Atoms()})
    assert not os.listdir(tmp_path)
