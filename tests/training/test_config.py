"""The configuration is checked strictly, and its errors name the entry."""

import os
from pathlib import Path

import pytest

from ase_nbody.training.config import ConfigError, TrainingConfig, differences
from ase_nbody.training.origin import Origin
from ase_nbody.training.splits import read_sources


def load(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return TrainingConfig.from_yaml(path)


def test_every_entry_has_a_default_and_survives_a_round_trip(tmp_path):
    config = load(tmp_path, "data: {train: a.extxyz}\n")
    assert [level.parts for level in config.network.levels] == ["all", "heavy"]
    again = load(tmp_path, config.to_yaml())
    assert again.network == config.network
    assert again.training == config.training


def test_data_paths_are_relative_to_the_file(tmp_path):
    config = load(tmp_path, "data: {train: a.extxyz, validation: sub/b.extxyz, test: ../c}\n")
    assert [source.path for source in config.data.train] == [str(tmp_path / "a.extxyz")]
    assert [source.path for source in config.data.validation] == [str(tmp_path / "sub/b.extxyz")]
    assert [source.path for source in config.data.test] == [str(tmp_path.parent / "c")]


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("data: {train: a, trian: b}", "data.trian is not an entry; did you mean 'train'?"),
        ("data: {train: a}\ntraining: {epochs: -1}", "training.epochs"),
        ("data: {train: a}\ntraining: {epochs: many}", "training.epochs"),
        ("data: {train: a}\ntraining: {epochs: true}", "training.epochs: should not be true or false"),
        (
            "data: {train: a}\nnetwork: {levels: [{radius: true}]}",
            "network.levels.0.radius: should not be true or false",
        ),
        ("data: {train: a}\nnetwork: {total_charges: [false]}", "network.total_charges.0: should not be true or false"),
        (
            "data: {train: a, isolated_atom_energies: {H: true}}",
            "data.isolated_atom_energies.H: should not be true or false",
        ),
        ("training: {}", "data is missing"),
        ("data: {train: a}\nnetwork: {levels: [{parts: [Xx]}]}", "'Xx' is not a chemical symbol"),
        ("data: [", "not valid YAML"),
        ("just text", "must hold entries"),
        ("data: {train: a}\nnetwork: {levels: []}", "network.levels: should have at least 1 item, and has 0"),
        (
            "data: {train: a}\nnetwork: {levels: [{}, {}, {}, {}, {}, {}, {}, {}, {}]}",
            "network.levels: .* at most 8 items",
        ),
        (
            "data: {train: a}\nnetwork: {levels: [{read_out: false}]}",
            "level 1 is the last one",
        ),
        ("data: {train: a}\nnetwork: {levels: [{}, {read_out: false}]}", "network.levels: level 2 is the last one"),
    ],
)
def test_errors_name_the_entry(tmp_path, text, culprit):
    with pytest.raises(ConfigError, match=culprit.replace("[", r"\[")):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        TrainingConfig.from_yaml(tmp_path / "nowhere.yaml")


def test_the_output_path_is_relative_to_the_file(tmp_path):
    assert load(tmp_path, "data: {train: a.extxyz}\noutput: ../runs/a\n").output == str(tmp_path.parent / "runs" / "a")


def test_a_data_file_alone_is_enough(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.extxyz").write_text("")
    config = TrainingConfig.from_yaml("sub/mine.extxyz", ["training.epochs=7"])
    assert [source.path for source in config.data.train] == [str(tmp_path / "sub" / "mine.extxyz")]
    assert config.output == str(tmp_path / "runs" / "mine")
    assert config.training.epochs == 7


@pytest.mark.parametrize(("preset", "channels"), [("small", 32), ("medium", 64), ("large", 128)])
def test_given_entries_take_precedence_over_the_preset(preset, channels, tmp_path):
    config = load(tmp_path, f"preset: {preset}\ndata: {{train: a}}\nnetwork: {{embedding: 5}}\n")
    assert [level.channels for level in config.network.levels] == [channels, channels]
    assert config.network.embedding == 5
    again = load(tmp_path, config.to_yaml())
    assert again == config


def test_the_papers_network_is_a_preset(tmp_path):
    config = load(tmp_path, "preset: kondor\ndata: {train: a}\n")
    assert [level.tau for level in config.network.levels] == [(8, 4, 2), (8, 4, 2)]
    for level in config.network.levels:
        assert (level.channel_pairs, level.parity, level.species_gains) == ("all", "both", False)
        assert level.product.first_order == level.product.zeroth_order == "clebsch_gordan"
    assert load(tmp_path, config.to_yaml()) == config


def test_a_type_in_a_configuration(tmp_path):
    levels = "network: {levels: [{channels: 64x0 + 32x1 + 16x2, product: clebsch_gordan}]}\n"
    config = load(tmp_path, f"data: {{train: a}}\n{levels}")
    assert config.network.levels[0].tau == (64, 32, 16)
    assert load(tmp_path, config.to_yaml()) == config
    path = tmp_path / "config.yaml"
    with pytest.raises(ConfigError, match=r"network.levels.0.*must give every degree from 0"):
        TrainingConfig.from_yaml(path, ["network.levels.0.channels=64x0 + 16x2", "network.levels.0.tau=null"])
    with pytest.raises(ConfigError, match="parity: both needs product: clebsch_gordan"):
        TrainingConfig.from_yaml(path, ["network.levels.0.product=gaunt", "network.levels.0.parity=both"])


def test_medium_is_the_default(tmp_path):
    assert load(tmp_path, "preset: medium\ndata: {train: a}").network == load(tmp_path, "data: {train: a}").network


def test_overrides_replace_single_entries(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("data: {train: a}\ntraining: {epochs: 5, seed: 3}\n")
    changes = ["network.levels.1.radius=3.5", "training.epochs=50", "preset=small", "card.theory=PBE", "report=false"]
    config = TrainingConfig.from_yaml(path, changes)
    assert (config.training.epochs, config.training.seed) == (50, 3)
    assert [level.radius for level in config.network.levels] == [5.0, 3.5]
    assert [level.channels for level in config.network.levels] == [32, 32]
    assert config.card == {"theory": "PBE"}
    assert config.report is False


@pytest.mark.parametrize(
    ("override", "culprit"),
    [
        ("training.epochs", "written as"),
        ("training.epoch=5", "did you mean 'epochs'?"),
        ("network.levels.7.radius=3", "no such place"),
        ("training.epochs=0", "training.epochs"),
        ("data.train.x=3", "no such place"),
        ("preset=huge", "preset"),
    ],
)
def test_errors_name_the_wrong_override(override, culprit, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("preset: small\ndata: {train: a}\n")
    with pytest.raises(ConfigError, match=culprit.replace("?", r"\?")):
        TrainingConfig.from_yaml(path, [override])


def test_a_run_continues_with_other_resources_but_not_with_other_settings(tmp_path):
    """Data may lie elsewhere: their contents are compared by digest."""
    begun = load(tmp_path, "data: {train: a}\n")
    same = "preset: null\noutput: other\nreport: false\ndata: {train: b, test: c, workers: 3, memory: 0.5}\n"
    assert differences(load(tmp_path, same), begun) == []
    for changed, said in (
        ("data: {train: [a, b]}\n", "data.train.1.index is ':' and was not set"),
        ("data: {train: {path: a, index: ':5'}}\n", "data.train.0.index is ':5' and was ':'"),
        ("data: {train: a}\ntraining: {seed: 1}\n", "training.seed is 1 and was 0"),
        ("data: {train: a}\nnetwork: {levels: [{radius: 3.0}]}\n", "network.levels.0.radius is 3.0 and was"),
    ):
        assert said in "; ".join(map(str, differences(load(tmp_path, changed), begun)))


def train_paths(config):
    return [source.path for source in config.data.train]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A data file and a configuration in ``sub``, the working directory ``here`` and the home folder ``home``."""
    for name in ("sub", "here", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "sub" / "mine.extxyz").write_text("")
    (tmp_path / "sub" / "c.yaml").write_text("data: {train: mine.extxyz}\noutput: run\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_faults_beside_data_are_those_of_the_command_line(tmp_path):
    (tmp_path / "mine.extxyz").touch()
    with pytest.raises(ConfigError, match=r"^command line: training\.lr is not an entry"):
        TrainingConfig.from_yaml(tmp_path / "mine.extxyz", ["training.lr=0.1"])


@pytest.mark.parametrize("config", ["../sub/mine.extxyz", "../sub/c.yaml"])
def test_paths_of_the_command_line_count_from_the_working_directory(config, folders):
    here = folders / "here"
    entries = ["output=runs/x", "data.validation=v.extxyz", "data.test=[t.extxyz, {path: u.extxyz}]"]
    found = TrainingConfig.from_yaml(config, [*entries, "pretraining.folder=p"])
    assert train_paths(found) == [str(folders / "sub" / "mine.extxyz")]
    assert found.output == str(here / "runs" / "x")
    assert [source.path for source in found.data.validation] == [str(here / "v.extxyz")]
    assert [source.path for source in found.data.test] == [str(here / "t.extxyz"), str(here / "u.extxyz")]
    assert found.pretraining.folder == str(here / "p")
    for entry in ("data.train=a.extxyz", "data.train.path=a.extxyz", "data={train: a.extxyz}"):
        if config.endswith("c.yaml") and entry.startswith("data.train.path"):
            continue
        assert train_paths(TrainingConfig.from_yaml(config, [entry])) == [str(here / "a.extxyz")]
    assert TrainingConfig.from_yaml(config, ["network.start_from=ethanol"]).network.start_from == "ethanol"


@pytest.mark.parametrize("name", ["~/x", "~"])
def test_the_tilde_is_the_home_folder(name, folders):
    home = str(folders / "home" / "x") if "/" in name else str(folders / "home")
    (folders / "sub" / "c.yaml").write_text(f"data: {{train: ~/x, test: [~/x]}}\noutput: '{name}'\n")
    config = TrainingConfig.from_yaml("../sub/c.yaml")
    assert config.output == home
    assert train_paths(config) == [source.path for source in config.data.test] == [str(folders / "home" / "x")]
    assert TrainingConfig.from_yaml("../sub/mine.extxyz", [f"output={name}"]).output == home
    assert os.listdir(folders / "here") == []
    with pytest.raises(
        FileNotFoundError, match=r"there is no home folder '~nobody-here'; if it is a name .* write \./~nobody-here/x"
    ):
        TrainingConfig.from_yaml("../sub/c.yaml", ["output=~nobody-here/x"])


@pytest.mark.parametrize(
    "name",
    ["2024", "2024-11-28", "yes", "my #1", "@home", "a: b", "a b", "100%", "*x", "&x", "!x", "{a}.x", "[1].x", "1e3"],
)
def test_paths_of_the_command_line_are_taken_as_they_stand(name, folders):
    (folders / "here" / name).mkdir()
    config = TrainingConfig.from_yaml("../sub/c.yaml", [f"output={name}", f"data.train={name}"])
    assert config.output == train_paths(config)[0] == str(folders / "here" / name)


def test_other_values_of_paths_are_yaml(folders):
    entries = ["output='my run'", "data.train=[a.extxyz, b.extxyz]", "data.validation=7", "data.test=null"]
    config = TrainingConfig.from_yaml("../sub/c.yaml", entries)
    here = folders / "here"
    assert config.output == str(here / "my run")
    assert train_paths(config) == [str(here / "a.extxyz"), str(here / "b.extxyz")]
    assert (config.data.validation, config.data.test) == (7, None)
    for entry in ("data.validation=1.5", "output=", "training.epochs=[", "data.train={path"):
        with pytest.raises(ConfigError, match=entry.split("=")[0]):
            TrainingConfig.from_yaml("../sub/c.yaml", [entry])


def test_the_file_that_is_named_is_used_and_not_the_name_that_a_link_leads_to(folders):
    """Beside the target lies another file of the link's name, and the target has no ending."""
    store, sub = folders / "store", folders / "sub"
    store.mkdir()
    for name in ("4f3a", "link.extxyz", "mine.extxyz"):
        (store / name).write_text("")
    (sub / "link.extxyz").symlink_to(store / "4f3a")
    (store / "c.yaml").write_text("data: {train: mine.extxyz, validation: link.extxyz}\noutput: run\n")
    (sub / "linked.yaml").symlink_to(store / "c.yaml")
    assert train_paths(TrainingConfig.from_yaml("../sub/link.extxyz")) == [str(sub / "link.extxyz")]
    config = TrainingConfig.from_yaml("../sub/linked.yaml")
    assert train_paths(config) == [str(sub / "mine.extxyz")]
    assert [source.path for source in config.data.validation] == [str(sub / "link.extxyz")]
    assert config.output == str(sub / "run")
    # A run of an earlier release wrote the target into its configuration. It may go on as long as it is the target.
    begun = load(folders, config.to_yaml().replace(str(sub / "link.extxyz"), str(store / "4f3a")))
    assert differences(config, begun) == []
    assert Origin.of(config) == Origin.of(begun)
    (sub / "link.extxyz").unlink()
    (sub / "link.extxyz").symlink_to(store / "mine.extxyz")
    (store / "mine.extxyz").write_text("another file")
    with pytest.raises(ConfigError, match=r"data.validation \(link.extxyz\) has other contents"):
        Origin.of(config).require_same(Origin.of(begun).digests, config)


def test_links_to_folders_are_followed(folders):
    (folders / "here" / "current").symlink_to(folders / "sub")
    config = TrainingConfig.from_yaml("current/mine.extxyz", ["output=current/../run", "data.test=current/../t"])
    assert train_paths(config) == [str(folders / "sub" / "mine.extxyz")]
    assert config.output == str(folders / "run")
    assert [source.path for source in config.data.test] == [str(folders / "t")]


def test_a_name_may_end_in_an_index_unless_there_is_such_a_file(folders):
    sub = folders / "sub"
    found = TrainingConfig.from_yaml("../sub/mine.extxyz@-5:", ["data.test=../sub/mine.extxyz@3"])
    assert [(source.path, source.index) for source in found.data.train] == [(str(sub / "mine.extxyz"), "-5:")]
    assert [(source.path, source.index) for source in found.data.test] == [(str(sub / "mine.extxyz"), "3")]
    assert found.output == str(folders / "here" / "runs" / "mine")
    (sub / "mine.extxyz@-5:").write_text("")
    found = TrainingConfig.from_yaml("../sub/mine.extxyz@-5:")
    assert [(source.path, source.index) for source in found.data.train] == [(str(sub / "mine.extxyz@-5:"), ":")]
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        TrainingConfig.from_yaml("../sub/c.yaml@:5")
    with pytest.raises(ConfigError, match="has an index, but the index ':9' is given too"):
        load(sub, "data: {train: {path: 'mine.extxyz@:5', index: ':9'}}\n")


def test_a_folder_that_is_a_file_and_a_name_that_is_no_text_are_refused_at_once(folders):
    for name in ("../sub/c.yaml", "../sub/c.yaml/run"):
        with pytest.raises(ConfigError, match=r"should be a folder, but '.*/sub/c.yaml' is a file"):
            TrainingConfig.from_yaml("../sub/c.yaml", [f"output={name}"])
    name = os.fsdecode(b"m\xff.extxyz")
    (folders / "here" / name).write_text("")
    for arguments in ((name, []), ("../sub/c.yaml", [f"data.test={name}"])):
        with pytest.raises(ConfigError, match=r"m\\udcff.extxyz' is not UTF-8: rename"):
            TrainingConfig.from_yaml(*arguments)


@pytest.mark.parametrize("entry", ["output=loop", "output=loop/run", "pretraining.folder=loop", "data.test=loop/a.xyz"])
def test_links_in_a_circle_are_refused(entry, folders):
    (folders / "here" / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=r"the links at .*here/loop.* lead in a circle"):
        TrainingConfig.from_yaml("../sub/c.yaml", [entry])


@pytest.mark.parametrize(
    ("entry", "value", "bound"),
    [
        *(("n_basis", 257, "256"), ("n_radial", 10**5, "256"), ("channels", 5000, "4096"), ("hidden", 10**9, "4096")),
        *(("message_channels", 10**6, "4096"), ("tau.0", 10**6, "4096"), ("embedding", 10**8, "4096")),
        *(("product_decay", 1e-300, "0.001"), ("product_decay", 1e300, "1000")),
    ],
)
def test_a_network_that_would_take_gigabytes_is_refused_from_its_configuration(entry, value, bound):
    level = {"tau": [value]} if entry == "tau.0" else {entry: value}
    network = {"embedding": value} if entry == "embedding" else {"levels": [level]}
    with pytest.raises(ConfigError, match=rf"{entry}: should be (less|greater) than or equal to {bound}, got"):
        TrainingConfig.from_dict({"data": {"train": "a"}, "network": network}, Path("config.yaml"))


@pytest.mark.parametrize(
    ("embedding", "level"),
    [
        (4096, {"n_basis": 256, "channels": 1}),
        (64, {"l_max": 8, "n_basis": 256, "channels": 1}),
        (8, {"channels": 4096, "l_max": 8, "body_order": 2}),
    ],
)
def test_states_that_would_fill_the_memory_with_a_few_atoms_are_refused(embedding, level):
    network = {"embedding": embedding, "levels": [level]}
    with pytest.raises(ConfigError, match=r"each part of level 1 would have a state of [\d,]+ numbers"):
        TrainingConfig.from_dict({"data": {"train": "a"}, "network": network}, Path("config.yaml"))


@pytest.mark.parametrize("name", ["energy_weight", "stress_weight", "charges_weight", "dipole_weight"])
@pytest.mark.parametrize("weight", [1e-300, 1e-7, 1e7, -1.0])
def test_a_weight_of_the_loss_that_single_precision_loses_is_refused(name, weight):
    entries = {name: weight}
    for training in (entries, {"second_stage": {"energy_weight": 1.0} | entries}):
        with pytest.raises(ConfigError, match=rf"{name}: should be 0, or between 1e-06 and 1e\+06, got {weight}"):
            TrainingConfig.from_dict({"data": {"train": "a"}, "training": training}, Path("config.yaml"))
    TrainingConfig.from_dict({"data": {"train": "a"}, "training": {name: 0.0}}, Path("config.yaml"))


@pytest.mark.parametrize(
    "training", [{"muon_rate": 1e-300}, {"adam_rate": 1e-300}, {"gradient_clip": 1e-300}, {"huber_delta": 1e-300}]
)
def test_steps_that_single_precision_loses_are_refused(training):
    with pytest.raises(ConfigError, match=rf"{next(iter(training))}: should be greater than or equal to 1e-"):
        TrainingConfig.from_dict({"data": {"train": "a"}, "training": training}, Path("config.yaml"))


@pytest.mark.parametrize(
    ("entries", "culprit"),
    [
        ({"epochs": 3}, "epochs is not an entry; did you mean 'training.epochs' or 'pretraining.epochs'?"),
        ({"radius": 3}, "radius is not an entry; did you mean 'network.levels.0.radius'?"),
        ({"training": {"epochs": 2.5}}, "training.epochs: should be a whole number, got 2.5"),
        ({"training": {"compile": "a"}}, "training.compile: should be true or false, got 'a'"),
        (
            {"training": {"device": "gpu"}},
            "training.device: should be 'auto', 'cpu', 'cuda', 'mps', or one GPU such as",
        ),
        (
            {"training": {"seed": 10**20}},
            f"training.seed: should be less than or equal to {2**62}, got {10**20}",
        ),
        ({"training": {"muon_rate": 1e300}}, "training.muon_rate: should be less than or equal to 1000000, got 1e+300"),
        (
            {"network": {"levels": [{"radius": 1e-300}]}},
            "network.levels.0.radius: should be greater than or equal to 0.001, got 1e-300",
        ),
        ({"network": {"freeze": ["a"]}}, "network.freeze.levels.0: should be a whole number, got 'a'"),
        (
            {"network": {"freeze": "a"}},
            "network.freeze: should be a list of the numbers of levels, such as [1], got 'a'",
        ),
        ({"data": {"train": "a", "test": []}}, "data.test: should have at least 1 item, and has 0"),
        ({"data": {"train": "a", "validation": 2.5}}, "data.validation: should be a whole number, or should be a file"),
        (
            {"data": {"train": "a", "isolated_atom_energies": {"H": 1e308}}},
            "data.isolated_atom_energies.H: should be less than 1e+15, got 1e+308",
        ),
        (
            {"data": {"train": "a", "isolated_atom_energies": "no"}},
            "data.isolated_atom_energies: should be a mapping of names to values, or should be 'fit', got 'no'",
        ),
    ],
)
def test_faults_are_told_in_sentences(entries, culprit):
    with pytest.raises(ConfigError) as error:
        TrainingConfig.from_dict({"data": {"train": "a"}} | entries, Path("config.yaml"))
    assert str(error.value).startswith(f"config.yaml: {culprit}")
    assert ";" not in str(error.value).replace(culprit, "").replace("; a GPU is called", "")


def test_a_level_of_the_default_network_can_be_changed(tmp_path):
    (tmp_path / "x.extxyz").write_text("")
    config = TrainingConfig.from_yaml(tmp_path / "x.extxyz", ["network.levels.0.radius=4"])
    assert config.network.levels[0].radius == 4.0
    assert config.network.levels[1:] == TrainingConfig.from_yaml(tmp_path / "x.extxyz").network.levels[1:]


def test_a_missing_data_file_is_called_one():
    with pytest.raises(FileNotFoundError, match=r"no data file '~/nothere.extxyz'"):
        TrainingConfig.from_yaml("~/nothere.extxyz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
@pytest.mark.parametrize("name", ["pipe.yaml", "pipe.extxyz", "pipe"])
def test_a_pipe_is_called_one(name, tmp_path):
    """The shell's <(command) is a pipe. It was said not to be there."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match="is a pipe or a device, not a configuration or data: write a file"):
        TrainingConfig.from_yaml(tmp_path / name)


def test_a_missing_file_of_a_configuration_is_looked_for_beside_it(tmp_path):
    (tmp_path / "a.yaml").write_text("data: {train: nowhere.extxyz}")
    with pytest.raises(FileNotFoundError) as error:
        read_sources(TrainingConfig.from_yaml(tmp_path / "a.yaml"), "train")
    assert str(error.value) == f"no data file {str(tmp_path / 'nowhere.extxyz')!r}"
