"""The training loop learns, resumes bit for bit after a kill, and never overwrites a finished run."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from ase_nbody import load_model
from ase_nbody.data import read_labelled
from ase_nbody.files.archive import read_card
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.evaluation import evaluate_model
from ase_nbody.training.run import train
from ase_nbody.training.seeds import train_committee


def run(path, **options):
    return train(TrainingConfig.from_yaml(path), **options)


def weights(path):
    return load_model(path).state_dict()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_training_lowers_the_errors(configuration, tmp_path):
    start = load_model(run(configuration(output="start", epochs=1, muon_rate=1e-6, adam_rate=1e-6)))
    end = load_model(run(configuration(output="end", epochs=20, muon_rate=0.02)))
    frames = read_labelled(tmp_path / "data.extxyz")
    before, after = evaluate_model(start, frames), evaluate_model(end, frames)
    for quantity in ("energy", "forces", "stress"):
        assert after[quantity]["mae"] < 0.5 * before[quantity]["mae"], quantity


def test_the_model_card_has_data_errors_and_units(configuration):
    content = read_card(run(configuration()))
    assert content["card"]["training data"] == "20 frames of data.extxyz"
    assert content["card"]["validation errors"]["forces"]["unit"] == "meV/Angstrom"
    assert content["units"] == {"energy": "eV", "length": "Angstrom"}
    assert set(content["config"]["isolated_atom_energies"]) == {"H", "C", "O", "Cu"}


def test_the_seed_determines_the_weights(configuration):
    first, again, other = (
        weights(run(configuration(output=name, seed=seed, epochs=1))) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert same(first, again)
    assert not same(first, other)


def test_a_killed_run_resumes_bit_for_bit(configuration, tmp_path):
    unbroken = run(configuration(name="unbroken.yaml", output="unbroken", epochs=12))
    path = configuration(name="killed.yaml", output="killed", epochs=12)
    command = [sys.executable, "-m", "ase_nbody.cli", "train", str(path), "--threads", str(torch.get_num_threads())]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 600
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "killed" / "model.nbody").exists(), "the run ended before it could be killed"
    with pytest.raises(ConfigError, match="--resume"):
        run(path)
    assert same(weights(run(path, resume=True)), weights(unbroken))
    tables = [(tmp_path / name / "metrics.csv").read_text() for name in ("killed", "unbroken")]
    assert tables[0] == tables[1]


def test_a_finished_run_is_never_overwritten(configuration):
    path = configuration(epochs=1)
    model = run(path)
    before = model.read_bytes()
    with pytest.raises(ConfigError, match="finished run"):
        run(path)
    assert run(path, resume=True) == model
    assert model.read_bytes() == before


def test_resume_without_a_run_starts_one_and_needs_the_same_configuration(configuration, tmp_path):
    run(configuration(epochs=1), resume=True)
    (tmp_path / "run" / "model.nbody").unlink()
    with pytest.raises(ConfigError, match=r"differs.*training\.epochs is 2 and was 1; training\.loss is"):
        run(configuration(epochs=2, loss="mse"), resume=True)


@pytest.mark.parametrize("start", [run, lambda path: train_committee(TrainingConfig.from_yaml(path), 2)])
def test_the_users_own_configuration_is_not_overwritten(start, configuration, tmp_path):
    """With ``output: .`` the run would write its own ``config.yaml`` over it."""
    path = configuration(output="", epochs=1)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"config.yaml was not written by a run in this folder"):
        start(path)
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "data.extxyz"]
    assert run(configuration(name="mine.yaml", output="run", epochs=1)).is_file()


@pytest.mark.parametrize(
    "name",
    ["metrics.csv", "report.html", "figures/learning.png", "checkpoints/best.ckpt", "tensorboard/x"],
)
def test_other_files_of_the_user_are_not_overwritten(name, configuration, tmp_path):
    mine = tmp_path / "run" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ConfigError, match="was not written by a run in this folder"):
        run(configuration(epochs=1))
    assert mine.read_text() == "mine"
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_in_the_place_of_the_configuration_is_not_waited_for(configuration, tmp_path):
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "config.yaml")
    with pytest.raises(ConfigError, match=r"config.yaml was not written by a run in this folder"):
        run(configuration(epochs=1))


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(configuration, tmp_path, monkeypatch):
    def killed(*arguments):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("ase_nbody.training.run.read_sources", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run(configuration(epochs=2))
    (tmp_path / "run" / "metrics.csv").write_text("left by the killed run")
    assert run(configuration(epochs=1)).is_file()
