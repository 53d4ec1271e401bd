"""Curves go to TensorBoard always, to Weights & Biases if asked for."""

import importlib.machinery
import sys
import types

import pytest
from lightning.pytorch.loggers import CSVLogger

from ase_nbody.training import loggers
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.run import train


def test_without_the_package_nothing_is_begun(configuration, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        train(TrainingConfig.from_yaml(configuration(), ["wandb=true"]))
    assert not (tmp_path / "run").exists()


def test_both_get_the_errors_of_the_validation(configuration, tmp_path, monkeypatch):
    package = types.ModuleType("wandb")
    package.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setattr(loggers, "WandbLogger", lambda name, project, save_dir: CSVLogger(save_dir, name="wandb"))
    train(TrainingConfig.from_yaml(configuration(epochs=1), ["wandb=true"]))
    (table,) = (tmp_path / "run" / "wandb").rglob("metrics.csv")
    assert {"loss", "validation_loss", "forces_mae", "forces_Cu_mae"} <= set(
        table.read_text().splitlines()[0].split(",")
    )
    assert list((tmp_path / "run" / "tensorboard").iterdir())
