"""Files that are no models, are damaged, or are made to do harm: a sentence refuses them before anything is built."""

import json
import os
import stat
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import ase_nbody.files.archive
import ase_nbody.files.entries
from ase_nbody.files.archive import (
    checksum,
    load_members,
    load_model,
    read_card,
    save_model,
)
from ase_nbody.files.entries import FEATURES, FORMAT_VERSION, Feature, metadata_checksum
from ase_nbody.files.tensor_file import MAX_HEADER_BYTES, ModelFileError, unpack
from ase_nbody.network.config import MAX_LEVELS
from ase_nbody.network.network import NBodyNetwork


@pytest.fixture
def saved(network, tmp_path):
    return save_model(network, tmp_path / "model.nbody", card={"data": "none", "rmse": 0.1})


@pytest.fixture
def no_network(monkeypatch):
    """Make sure that no network is built: it might be larger than any memory."""

    def build(self, config):
        raise AssertionError("a network was built from a file that should be refused")

    monkeypatch.setattr(NBodyNetwork, "__init__", build)


def forge(path, entries=None, weights=None, **texts) -> None:
    """Rewrite a file with other entries, weights, or literal texts of entries. All checksums are made to fit."""
    weights = load(path.read_bytes()) if weights is None else weights
    content = {**read_card(path), **(entries or {})}
    content["checksum"] = checksum(content["config"], weights)
    content["metadata_checksum"] = metadata_checksum(
        {key: value for key, value in content.items() if key != "metadata_checksum"}
    )
    metadata = {key: json.dumps(value) for key, value in content.items()} | texts
    path.write_bytes(save(weights, metadata))


def reforged(path, change) -> None:
    """Rewrite a file with its entries changed by a function of them. All checksums are made to fit."""
    content, weights = read_card(path), load(path.read_bytes())
    change(content)
    content["checksum"] = checksum(content["config"], weights)
    content["metadata_checksum"] = metadata_checksum(
        {key: value for key, value in content.items() if key != "metadata_checksum"}
    )
    path.write_bytes(save(weights, {key: json.dumps(value) for key, value in content.items()}))


def with_header(header: str, data: bytes = b"") -> bytes:
    """The bytes of a file with the given header, whatever it is."""
    return len(header.encode()).to_bytes(8, "little") + header.encode() + data


@pytest.mark.parametrize("change", [lambda species: species[::-1], lambda species: [*species, species[0]]])
def test_species_in_another_order(change, saved, no_network):
    """Rows of the weights would go to other elements."""

    def reorder(content):
        content["config"]["species"] = change(content["config"]["species"])

    reforged(saved, reorder)
    with pytest.raises(ModelFileError, match=r"not in the order of their atomic numbers.* instead of H, C, O"):
        load_model(saved)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, 0.999])
def test_a_truncated_file(kept, saved):
    payload = saved.read_bytes()
    saved.write_bytes(payload[: kept if isinstance(kept, int) else int(kept * len(payload))])
    with pytest.raises(ModelFileError, match="is not an N-body model that can be loaded: it"):
        load_model(saved)


def test_a_file_with_too_many_bytes(saved):
    saved.write_bytes(saved.read_bytes() + bytes(1))
    with pytest.raises(ModelFileError, match="its tensors cannot be read"):
        load_model(saved)


@pytest.mark.parametrize("name", ["text", "pickle", "zip"])
def test_files_of_another_kind_are_not_executed(name, tmp_path, network):
    path = tmp_path / "model.nbody"
    if name == "text":
        path.write_text("a model, honestly\n")
    elif name == "pickle":
        torch.save(network.state_dict(), path)
    else:
        path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelFileError, match="a file of another kind"):
        load_model(path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"format": "true"}, {"config": "{}"}])
def test_safetensors_of_another_program(metadata, tmp_path):
    path = tmp_path / "model.nbody"
    path.write_bytes(save({"weight": torch.zeros(3)}, metadata))
    with pytest.raises(ModelFileError, match=r"a file of another program|not one of safetensors with JSON entries"):
        load_model(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", FORMAT_VERSION + 1, f"format version {FORMAT_VERSION + 1}; .* Update ase-nbody"),
        ("format", "1", "no entry 'format'"),
        ("format", True, "no entry 'format'"),
        ("format", 0, "no entry 'format'"),
        ("config", {"species": ["H"], "new_option": 1}, "'config.new_option': Extra inputs are not permitted"),
        ("config", {"species": ["H", "Xy"]}, "'Xy' is not a chemical symbol"),
        ("config", {"species": ["H"], "repulsion": "yes"}, "'config.repulsion': Input should be a valid boolean"),
        ("config", {"species": ["H"], "levels": [{"channels": 8.0}]}, "'config.levels.0.channels'"),
        ("config", {"species": ["H"], "levels": [{"l_max": 9}]}, "less than or equal to 8"),
        ("config", {"species": ["\ud800"]}, "'config'"),
        ("units", {"energy": "kcal/mol", "length": "Angstrom"}, "kcal/mol"),
        ("members", 0, "a committee of 0 networks; a model file holds 1 to 64"),
        ("members", 10**9, "a committee of 1000000000 networks"),
        ("members", True, "a committee of True networks"),
        ("members", "2", "its entry 'members' is a str, not a int"),
        ("members", 2, "the file holds .* weights for 2 network\\(s\\): the weights do not fit"),
    ],
)
def test_entries_that_do_not_fit(key, value, message, saved, no_network):
    forge(saved, {key: value})
    with pytest.raises(ModelFileError, match=message):
        load_model(saved)


@pytest.fixture
def with_charges(make_network, tmp_path):
    return save_model(make_network(outputs=("charges",)), tmp_path / "charges.nbody")


@pytest.mark.parametrize("kind", ["saved", "with_charges"])
def test_what_is_forged_without_a_change_loads(kind, request):
    path = request.getfixturevalue(kind)
    before = load_model(path)
    reforged(path, lambda content: None)
    assert load_model(path).config == before.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content["config"].update(outputs=["charges"]),
            "has 'outputs', and .* is not among",
        ),
        (lambda content: content["config"].update(outputs=[]), "configuration has 'outputs', and .* is not among"),
        (lambda content: content.update(format=2), "it has the entries"),
        (lambda content: content.update(features=["outputs"]), "it has the entries"),
        (lambda content: content.update(format=4), "it has the entries"),
        (lambda content: content.update(format=4, features=[]), "'features' is not a list of names; .* version 3"),
        (
            lambda content: content.update(format=4, features=["outputs"]),
            "lacks 'outputs', and .* is among",
        ),
    ],
    ids=["outputs", "empty outputs", "2", "features", "no features", "none", "unused"],
)
def test_a_file_of_version_3_uses_no_features(change, message, saved, no_network):
    reforged(saved, change)
    with pytest.raises(ModelFileError, match=message):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("features"), "it has the entries"),
        (lambda content: content.update(format=3), "it has the entries"),
        (lambda content: (content.update(format=3), content.pop("features")), "has 'outputs', and .* is not among"),
        (lambda content: content.update(features="outputs"), "'features' is not a list of names"),
        (lambda content: content.update(features={"outputs": 1}), "'features' is not a list of names"),
        (lambda content: content.update(features=[]), "'features' is not a list of names"),
        (lambda content: content.update(features=["outputs", 1]), "'features' is not a list of names"),
        (lambda content: content.update(features=["outputs", "outputs"]), "not sorted, or one occurs twice"),
        (lambda content: content.update(features=["outputs", "heads"]), "not sorted, or one occurs twice"),
        (lambda content: content.update(features=["ghosts", "outputs"]), "it uses 'ghosts', .* Update ase-nbody"),
        (
            lambda content: content.update(features=["\ud800"], coverage={}),
            "does not know; it knows .*coverage, .*outputs",
        ),
        (lambda content: content.update(coverage={}), "it has the entries"),
        (lambda content: content["config"].update(outputs=[]), "names the feature 'outputs' but does not use it"),
        (
            lambda content: content["config"].update(outputs=["dipoles"]),
            "'config.outputs': .*no output is called",
        ),
        (lambda content: content["config"].update(outputs="charges"), "'config.outputs'"),
        (lambda content: content["config"]["levels"][0].update(read_out=False), "weights do not fit the configuration"),
        (lambda content: content["config"]["levels"][0].update(l_out=0), "weights do not fit the configuration"),
    ],
)
def test_features_that_do_not_fit(change, message, with_charges, no_network):
    reforged(with_charges, change)
    with pytest.raises(ModelFileError, match=message):
        load_model(with_charges)


@pytest.mark.parametrize("name", ["saved", "with_charges"])
def test_a_feature_may_bring_an_entry(name, request, monkeypatch):
    """What later releases add: a file with it is read, and refused without its entry or of another type."""
    path = request.getfixturevalue(name)
    later = {**FEATURES, "coverage": Feature(entries={"coverage": dict})}
    monkeypatch.setattr(ase_nbody.files.entries, "FEATURES", later)
    features = sorted({*read_card(path).get("features", []), "coverage"})
    reforged(path, lambda content: content.update(format=4, features=features, coverage={"atoms": 10}))
    assert read_card(path)["coverage"] == {"atoms": 10}
    assert load_model(path).config.outputs == (("charges",) if name == "with_charges" else ())
    payload = path.read_bytes()
    for change, message in (
        (lambda content: content.pop("coverage"), "it has the entries"),
        (lambda content: content.update(coverage=[]), "its entry 'coverage' is a list, not a dict"),
    ):
        path.write_bytes(payload)
        reforged(path, change)
        with pytest.raises(ModelFileError, match=message):
            load_model(path)


def test_a_type_that_names_no_feature(saved, no_network):
    """A file of version 3 with ``channels: 8x0 + 8x1 + ...`` could not be read by the releases that know version 3."""

    def write_out(content):
        content["config"]["levels"][0]["channels"] = "8x0 + 8x1 + 8x2 + 8x3"

    reforged(saved, write_out)
    with pytest.raises(ModelFileError, match="uses 'types', which is not among the features that it names"):
        load_model(saved)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("used", [True, False])
def test_a_feature_may_bring_a_key_of_levels(named, used, saved, monkeypatch):
    """A level that uses it has the key; the file names the feature if and only if a level does."""
    monkeypatch.setattr(ase_nbody.files.entries, "FEATURES", {**FEATURES, "products": Feature(levels=("product",))})

    def change(content):
        if used:
            content["config"]["levels"][1]["product"] = "clebsch_gordan"
        if named:
            content.update(format=4, features=["products"])

    reforged(saved, change)
    assert ase_nbody.files.entries.features_of(unpack(saved.read_bytes())[0]["config"]) == ["products"] * used
    if used == named:
        ase_nbody.files.entries.check_entries(unpack(saved.read_bytes())[0])
        return
    with pytest.raises(ModelFileError, match=r"'products' is (not )?among the features"):
        ase_nbody.files.entries.check_entries(unpack(saved.read_bytes())[0])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"card": "[1, 2]"}, "its entry 'card' is a list, not a dict"),
        ({"extra": "1"}, "it has the entries"),
        ({"card": '{"licence": "none"}'}, "damaged: its checksum does not match its entries"),
        ({"config": "{}"}, "damaged: its checksum does not match"),
        ({"card": '{"mae": NaN}'}, "the number NaN is not finite"),
        ({"card": '{"mae": 1e999}'}, "the number 1e999 is not finite"),
        ({"card": '{"mae": 1, "mae": 2}'}, "a key occurs twice"),
        ({"card": "1" * 5000}, "4300"),
        ({"card": "[" * 10**4}, "nested too deep"),
        ({"card": "[" * 17 + "]" * 17}, "nested deeper than 16"),
        ({"config": '{"levels": ' * 900 + "1" + "}" * 900}, "nested deeper than 16"),
        ({"card": ""}, "not one of safetensors with JSON entries"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else next(iter(value)),
)
def test_texts_without_a_meaning_or_with_two(texts, message, saved, no_network):
    forge(saved, **texts)
    with pytest.raises(ModelFileError, match=message):
        load_model(saved)


ENTRY = '{"dtype":"F64","shape":[1],"data_offsets":[0,8]}'


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "1",
        '{"__metadata__":[]}',
        '{"__metadata__":{"format":1},"a":' + ENTRY + "}",
        '{"__metadata__":{"format":"1","format":"2"},"a":' + ENTRY + "}",
        '{"a":' + ENTRY + ',"a":' + ENTRY + "}",
        '{"a":1}',
        '{"a":{"dtype":["F64"],"shape":[1],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F64","shape":[1000000000000],"data_offsets":[0,8000000000000]}}',
        '{"a":{"dtype":"F64","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F64","shape":[9223372036854775807,0],"data_offsets":[0,0]},"b":' + ENTRY + "}",
        '{"a":{"dtype":"F64","shape":[-1],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F64","shape":[1],"data_offsets":[8,0]}}',
        '{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F64","shape":[' + ",".join(["9" * 4000] * 2000) + '],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F64","shape":[' + "1," * 8 + '1],"data_offsets":[0,8]}}',
        '{"a":' * 10**4,
        '{"\ufeff\\ud800":' + ENTRY + "}",
    ],
    ids=lambda header: header[:40],
)
def test_nonsensical_headers(header, tmp_path):
    path = tmp_path / "model.nbody"
    path.write_bytes(with_header(header, bytes(8)))
    with pytest.raises(ModelFileError, match="is not an N-body model that can be loaded"):
        load_model(path)


def test_sizes_whose_product_would_take_minutes(saved, no_network):
    """The other entries are right, so that they are compared with the weights of the configuration."""
    payload = saved.read_bytes()
    end = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:end])
    next(entry for name, entry in header.items() if name != "__metadata__")["shape"] = ["sizes"]
    text = json.dumps(header).replace('"sizes"', ",".join(["9" * 4000] * 1800))
    saved.write_bytes(with_header(text, payload[end:]))
    began = time.process_time()
    with pytest.raises(ModelFileError, match="a tensor has more than 8 axes, or sizes that no file could hold"):
        load_members(saved)
    assert time.process_time() - began < 10.0


def test_values_that_a_header_hides_as_escapes(saved, no_network):
    content = read_card(saved) | {"card": {"many": [[]] * 300_000}}
    content["metadata_checksum"] = metadata_checksum(
        {key: value for key, value in content.items() if key != "metadata_checksum"}
    )
    weights = load(saved.read_bytes())
    payload = save(weights, {key: json.dumps(value) for key, value in content.items()})
    end = 8 + int.from_bytes(payload[:8], "little")
    text = payload[8:end].decode().replace("[], ", "\\u005b]\\u002c")
    assert text.count("[") < 1000
    saved.write_bytes(with_header(text, payload[end:]))
    with pytest.raises(ModelFileError, match="its header has more than 300,000 values"):
        load_members(saved)


def _renamed(weights):
    weights["other"] = weights.popitem()[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.popitem(), "the weights do not fit the configuration"),
        (lambda weights: weights.update(extra=torch.zeros(1, dtype=torch.float64)), "do not fit the configuration"),
        (_renamed, "Missing key"),
        (lambda weights: weights.update({name: weights[name].flatten() for name in weights}), "size mismatch"),
        (lambda weights: next(iter(weights.values())).fill_(torch.nan), "a weight is NaN or infinite"),
        (lambda weights: next(iter(weights.values())).fill_(-torch.inf), "a weight is NaN or infinite"),
        (lambda weights: weights.update({(name := next(iter(weights))): weights[name].float()}), "one floating-point"),
    ],
    ids=["missing", "extra", "renamed", "flat", "nan", "inf", "mixed"],
)
def test_weights_that_do_not_fit(change, message, saved, no_network):
    weights = load(saved.read_bytes())
    change(weights)
    forge(saved, weights=weights)
    with pytest.raises(ModelFileError, match=message):
        load_model(saved)


def test_weights_of_transposed_shape(saved, no_network):
    """As many numbers as the network has, under their names, in another shape."""
    weights = load(saved.read_bytes())
    name = next(name for name, weight in sorted(weights.items()) if weight.dim() == 2 and len(set(weight.shape)) == 2)
    forge(saved, weights=weights | {name: weights[name].T.contiguous()})
    with pytest.raises(ModelFileError, match=f"size mismatch: the weight '{name}' has"):
        load_model(saved)


def test_weights_for_another_number_of_members(network, tmp_path):
    path = save_model([network] * 3, tmp_path / "committee.nbody")
    assert len(load_members(path)) == 3
    weights = load(path.read_bytes())
    name = next(name for name, weight in sorted(weights.items()) if weight.shape[1] > 1)
    forge(path, weights=weights | {name: weights[name].flatten(0, 1)})
    with pytest.raises(ModelFileError, match=f"'{name}' is not that of a committee of 3"):
        load_members(path)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.bfloat16, torch.float8_e4m3fn, torch.complex64])
def test_weights_of_another_type(dtype, saved):
    weights = {name: weight.to(dtype) for name, weight in load(saved.read_bytes()).items()}
    metadata = {key: json.dumps(value) for key, value in read_card(saved).items()}
    saved.write_bytes(save(weights, metadata))
    with pytest.raises(ModelFileError, match="one floating-point type"):
        load_model(saved)


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        *(({name: 4096}, "the configuration describes a network of") for name in ("channels", "hidden")),
        ({"n_basis": 256}, "the configuration describes a network of"),
        *(
            ({"channels": number}, "channels': Input should be less than or equal to 4096")
            for number in (10**9, 10**400)
        ),
        ({"hidden": 10**12}, "hidden': Input should be less than or equal to 4096"),
        ({"n_basis": 10**15}, "n_basis': Input should be less than or equal to 256"),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_a_network_of_gigabytes_or_terabytes(level, reason, number, saved, no_network):
    config = read_card(saved)["config"]
    config["levels"][number].update(level)
    forge(saved, {"config": config})
    with pytest.raises(ModelFileError, match=reason):
        load_model(saved)


@pytest.mark.parametrize("count", [MAX_LEVELS + 1, 10_000])
def test_a_network_of_too_many_levels(count, saved, no_network):
    config = {**read_card(saved)["config"], "levels": [{}] * count}
    forge(saved, {"config": config})
    with pytest.raises(ModelFileError, match=f"{count} levels; a model file holds at most {MAX_LEVELS}"):
        load_model(saved)


@pytest.mark.parametrize("claimed", [2**63, 2**64 - 1, 10**12, MAX_HEADER_BYTES + 1])
def test_a_header_that_claims_to_be_huge(claimed, saved):
    payload = claimed.to_bytes(8, "little") + saved.read_bytes()[8:]
    saved.write_bytes(payload + bytes(max(0, MAX_HEADER_BYTES + 9 - len(payload))))
    with pytest.raises(ModelFileError, match=r"ends within its header|in the header; at most .* are allowed"):
        load_model(saved)


def test_an_oversized_file_is_not_even_read(saved):
    os.truncate(saved, 10 * 2**30)  # a sparse file, which takes no room on the disk
    with pytest.raises(ModelFileError, match=r"has 10,240 MiB; a model file has at most 512 MiB"):
        load_model(saved)


def test_reading_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "model.nbody")
    with pytest.raises(ModelFileError, match="is a pipe or a device"):
        load_model(tmp_path / "model.nbody")


def test_reading_does_not_wait_for_a_file_that_turns_into_a_pipe(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "model.nbody")
    monkeypatch.setattr(ase_nbody.archive, "find_model", lambda name: name)
    with pytest.raises(ModelFileError, match="is a pipe or a device"):
        load_model(tmp_path / "model.nbody")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device(device):
    with pytest.raises(ModelFileError, match=f"{device} is a pipe or a device"):
        load_model(device)


def test_links_are_followed_to_files_only(saved, tmp_path):
    (tmp_path / "link").symlink_to(saved)
    assert load_model(tmp_path / "link").config == load_model(saved).config
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileNotFoundError, match="no model file"):
        load_model(tmp_path / "loop")


def test_a_file_that_may_not_be_read(saved, monkeypatch):
    saved.chmod(stat.S_IWUSR)

    def refuse(path, flags):  # the system refuses all users but root
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match="may not be read by this user; ask its owner"):
        load_model(saved)


def test_an_error_names_the_file(saved):
    saved.write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(ModelFileError, match=str(saved)):
        load_model(saved)
    with pytest.raises(ModelFileError, match=str(saved)):
        read_card(saved)


@pytest.mark.parametrize("place", ["tensor", "entry", "units", "config", "feature", "card"])
def test_text_of_a_file_cannot_control_the_terminal(place, saved, nbody):
    """Escape sequences and endless names, wherever an error may show them; in a card, ``nbody info`` shows them."""
    evil = "\x1b]0;mine\x07\x1b[2J\u202e" + "x" * 100_000
    weights, entries = load(saved.read_bytes()), {}
    if place == "tensor":
        weights[evil] = weights.popitem()[1]
    elif place == "entry":
        entries = {evil: 1}
    elif place == "units":
        entries = {"units": {evil: evil}}
    elif place == "config":
        entries = {"config": read_card(saved)["config"] | {evil: 1}}
    elif place == "feature":
        entries = {"format": 4, "features": [evil]}
    else:
        entries = {"card": {evil: {evil: [evil]}, "theory": evil}}
    forge(saved, entries, weights)
    code, out, err = nbody("info", saved)
    assert code == (0 if place == "card" else 1)
    for letter in "\x1b\x07\u202e":
        assert letter not in out + err
    assert len(out + err) < 50_000
