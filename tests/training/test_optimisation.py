"""Losses, optimisers, schedules and stages do what their entries say, and resume bit for bit."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ase_nbody import load_model
from ase_nbody.files.archive import read_card
from ase_nbody.training.callbacks import AtomicCheckpoints, StopEarly
from ase_nbody.training.config import OptimisationConfig, TrainingConfig
from ase_nbody.training.module import NBodyTraining
from ase_nbody.training.run import train


@pytest.fixture
def run(configuration, tmp_path):
    """A function that trains and returns the weights, the rows of metrics.csv and the last checkpoint."""

    def start(output="run", resume=False, **training):
        config = TrainingConfig.from_yaml(configuration(name=f"{output}.yaml", output=output, **training))
        weights = load_model(train(config, resume=resume)).state_dict()
        with open(tmp_path / output / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        return weights, rows, AtomicCheckpoints().load_checkpoint(tmp_path / output / "checkpoints" / "last.ckpt")

    return start


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Killed(Exception):
    pass


@pytest.fixture
def kill(monkeypatch):
    """A function that makes one training step fail, as if the process were killed; steps count from 0."""

    def at(step):
        original, calls = NBodyTraining.training_step, iter(range(10_000))

        def training_step(self, *arguments):
            if next(calls) == step:
                raise Killed
            return original(self, *arguments)

        monkeypatch.setattr(NBodyTraining, "training_step", training_step)

    return at


PLATEAU = {"optimiser": "adamw", "weight_decay": 0.1, "schedule": "plateau", "plateau_patience": 0, "loss": "mse"}
PLATEAU |= {"second_stage": {"start": 0.5, "energy_weight": 10.0}, "gradient_clip": 1.0, "adam_rate": 0.03}
EARLY = {"loss": "huber", "patience": 1, "muon_rate": 0.1, "adam_rate": 0.1, "averaging": 0.0}


@pytest.mark.parametrize(("options", "step"), [(PLATEAU, 22), (EARLY, 8)], ids=["plateau", "early"])
def test_an_interrupted_run_resumes_bit_for_bit(options, step, run, kill, configuration):
    weights, rows, last = run("unbroken", epochs=8, **options)
    kill(step)
    with pytest.raises(Killed):
        run("broken", epochs=8, **options)
    again, rows_again, last_again = run("broken", resume=True, epochs=8, **options)
    assert same(weights, again)
    assert rows == rows_again
    assert same(last["current_model_state"], last_again["current_model_state"])


def test_plateau_lowers_the_learning_rate_after_epochs_without_improvement(run, monkeypatch):
    """The rate is multiplied by the factor after each epoch without a lower force error, and at no other time."""
    rates = []
    monkeypatch.setattr(
        NBodyTraining,
        "on_train_epoch_start",
        lambda self: rates.append(self.trainer.optimizers[0].param_groups[0]["lr"]),
    )
    _, rows, _ = run(epochs=8, warmup=2, schedule="plateau", plateau_patience=0, plateau_factor=0.1, muon_rate=0.3)
    errors = [float(row["forces mae (meV/Angstrom)"]) for row in rows]
    expected, best = 0.3, errors[0]
    for rate, error in zip(rates[1:], errors[1:], strict=True):
        assert rate == pytest.approx(expected)
        if error >= best * (1 - 1e-4):
            expected *= 0.1
        best = min(best, error)
    assert expected < 0.3, "the rate never fell, so the test shows nothing"


def test_early_stop_saves_the_best_epoch_and_its_errors(run, tmp_path):
    weights, rows, last = run(epochs=30, **EARLY)
    assert len(rows) < 30
    best = AtomicCheckpoints().load_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert best["epoch"] == len(rows) - 2
    assert same({f"network.{name}": value for name, value in weights.items()}, best["state_dict"])
    assert not same(best["state_dict"], last["state_dict"])
    card = read_card(tmp_path / "run" / "model.nbody")["card"]
    assert card["validation errors"]["forces"]["mae"] == pytest.approx(float(rows[-2]["forces mae (meV/Angstrom)"]))
    assert (card["weights of epoch"], card["training"]["epochs"]) == (len(rows) - 1, 30)


def test_patience_counts_in_the_second_stage_only():
    config = OptimisationConfig(epochs=200, second_stage={"start": 0.6, "energy_weight": 5.0}, patience=3)
    assert config.first_epoch_of_second_stage() == 120
    assert config.loss_weights(119) == {"forces": 1.0, "energy": 1.0, "stress": 1.0, "charges": 0.1, "dipole": 0.1}
    assert config.loss_weights(120) == config.loss_weights(119) | {"energy": 5.0}
    trainer = type("Trainer", (), {"current_epoch": 119, "callback_metrics": None})()
    StopEarly(3, 120).on_train_epoch_end(trainer, None)  # fails if it looks at the losses already


def test_a_validation_loss_that_is_not_finite_counts_as_one_without_progress():
    """The training ended with the first one, without a word."""
    state = {"current_epoch": 0, "should_stop": False, "fast_dev_run": False, "world_size": 1}
    trainer = SimpleNamespace(**state, strategy=SimpleNamespace(reduce_boolean_decision=lambda stop, **_: stop))
    early, stops = StopEarly(2, 0), []
    for value in (1.0, np.nan, 0.5, np.inf, np.nan):
        trainer.callback_metrics = {"validation_loss": torch.tensor(value)}
        early._run_early_stopping_check(trainer)
        stops.append(trainer.should_stop)
    assert stops == [False, False, False, False, True]


def test_second_stage_changes_the_training_from_its_first_epoch_on(run):
    _, plain, _ = run("plain", epochs=4)
    _, staged, _ = run("staged", epochs=4, second_stage={"start": 0.5, "energy_weight": 30.0})
    assert plain[:2] == staged[:2]
    assert plain[2:] != staged[2:]


def test_clipping_and_decay_have_an_effect(run):
    base, clipped, decayed = (
        run(name, epochs=1, **options)[2]["current_model_state"]
        for name, options in (
            ("base", {"optimiser": "adamw"}),
            ("clipped", {"optimiser": "adamw", "gradient_clip": 1e-9}),  # so short that Adam's epsilon is larger
            ("decayed", {"optimiser": "adamw", "weight_decay": 50.0}),
        )
    )
    name = next(name for name in base if name.endswith(".radial"))
    assert decayed[name].norm() < 0.8 * base[name].norm()
    assert not torch.equal(base[name], clipped[name])
    bias = next(name for name in base if "embedding" in name or "species" in name)
    assert torch.allclose(decayed[bias], base[bias], atol=0.02)


def test_metrics_and_tables_have_the_forces_by_element(run, capsys):
    _, rows, _ = run(epochs=1)
    columns = [column for column in rows[0] if column.startswith("forces_")]
    assert columns == [
        f"forces_{symbol} {measure} (meV/Angstrom)" for symbol in ("H", "C", "O", "Cu") for measure in ("mae", "rmse")
    ]
    assert "forces Cu" in capsys.readouterr().out


def test_a_run_killed_before_writing_its_model_still_saves_the_averages(run, tmp_path):
    """The kill comes after the last checkpoint and before the model file."""
    weights, _, last = run(epochs=2)
    (tmp_path / "run" / "model.nbody").unlink()
    again, _, _ = run(epochs=2, resume=True)
    assert same(weights, again)
    assert not same(last["state_dict"], last["current_model_state"])
    assert read_card(tmp_path / "run" / "model.nbody")["card"]["validation errors"]["forces"]["mae"] > 0.0


@pytest.mark.parametrize(("serial_edges", "expected"), [(10**6, 1), (0, 3)])
def test_trainings_with_small_batches_take_one_thread(serial_edges, expected, run, monkeypatch):
    """Torch's threads would mostly wait for each other, above all where another process is busy."""
    monkeypatch.setattr("ase_nbody.runtime.threads.SERIAL_EDGES", serial_edges)
    before, used = torch.get_num_threads(), set()
    predict = NBodyTraining.predict
    monkeypatch.setattr(
        NBodyTraining, "predict", lambda self, batch: used.add(torch.get_num_threads()) or predict(self, batch)
    )
    try:
        torch.set_num_threads(3)
        run(epochs=1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert used == {expected}


@pytest.mark.parametrize(("epochs", "start", "first"), [(1, 0.75, 0), (2, 0.75, 1), (20, 0.99, 19), (20, 0.75, 15)])
def test_a_second_stage_is_at_least_the_last_epoch(epochs, start, first):
    """Crystals may have two epochs by default, of which three quarters were rounded to both."""
    options = OptimisationConfig(epochs=epochs, second_stage={"start": start, "energy_weight": 10.0})
    assert options.first_epoch_of_second_stage() == first
    assert options.loss_weights(epochs - 1)["energy"] == 10.0
