"""Curves always go to TensorBoard, and also to Weights & Biases if the configuration says so."""

import importlib.machinery
import sys
import types

import pytest
from lightning.pytorch.loggers import CSVLogger

from ase_nbody.training import loggers
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.run import train


def test_a_missing_wandb_is_named_before_the_run_begins(configuration, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        train(TrainingConfig.from_yaml(configuration(), ["wandb=true"]))
    assert not (tmp_path / "run").exists()


def test_both_loggers_get_the_validation_errors(configuration, tmp_path, monkeypatch):
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
