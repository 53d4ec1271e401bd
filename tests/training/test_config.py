"""The configuration is strict, and its errors name the entry."""

import pytest

from ase_nbody.training.config import ConfigError, TrainingConfig


def load(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return TrainingConfig.from_yaml(path)


def test_defaults_fill_everything_and_survive_a_round_trip(tmp_path):
    config = load(tmp_path, "data: {train: a.extxyz}\n")
    assert [level.parts for level in config.network.levels] == ["all", "heavy"]
    again = load(tmp_path, config.model_copy(update={"data": config.data.model_copy(update={"train": "a"})}).to_yaml())
    assert again.network == config.network
    assert again.training == config.training


def test_paths_are_relative_to_the_file(tmp_path):
    config = load(tmp_path, "data: {train: a.extxyz, validation: sub/b.extxyz, test: ../c}\n")
    assert config.data.train == str(tmp_path / "a.extxyz")
    assert config.data.validation == str(tmp_path / "sub/b.extxyz")
    assert config.data.test == str(tmp_path.parent / "c")


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("data: {train: a, trian: b}", "data.trian"),
        ("data: {train: a}\ntraining: {epochs: -1}", "training.epochs"),
        ("data: {train: a}\ntraining: {epochs: many}", "training.epochs"),
        ("training: {}", "data: Field required"),
        ("data: {train: a}\nnetwork: {levels: [{parts: [Xx]}]}", "'Xx' is not a chemical symbol"),
        ("data: [", "not valid YAML"),
        ("just text", "must hold entries"),
    ],
)
def test_faults_are_named(tmp_path, text, culprit):
    with pytest.raises(ConfigError, match=culprit.replace("[", r"\[")):
        load(tmp_path, text)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        TrainingConfig.from_yaml(tmp_path / "nowhere.yaml")
