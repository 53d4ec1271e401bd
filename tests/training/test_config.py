"""The configuration is checked strictly, and its errors name the entry."""

import pytest

from ase_nbody.training.config import ConfigError, TrainingConfig


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
        ("training: {}", "data is missing"),
        ("data: {train: a}\nnetwork: {levels: [{parts: [Xx]}]}", "'Xx' is not a chemical symbol"),
        ("data: [", "not valid YAML"),
        ("just text", "must hold entries"),
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
    begun = load(tmp_path, "data: {train: a}\n")
    assert load(tmp_path, "data: {train: a, workers: 3, memory: 0.5}\n").continues(begun)
    assert not load(tmp_path, "data: {train: b}\n").continues(begun)
    assert not load(tmp_path, "data: {train: a}\ntraining: {seed: 1}\n").continues(begun)
