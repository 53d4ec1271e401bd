"""A training that diverges returns to its last good state and says so; if nothing helps, it ends with advice."""

import math

import pytest
import torch

from ase_nbody import load_model
from ase_nbody.data import read_labelled
from ase_nbody.training.callbacks import AtomicCheckpoints
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.evaluation import evaluate_model
from ase_nbody.training.module import NBodyTraining
from ase_nbody.training.recovery import LossWatch, TrainingDiverged
from ase_nbody.training.run import train

TRAINING_STEP = NBodyTraining.training_step
OPTIONS = {"epochs": 5, "batch_size": 2, "muon_rate": 0.02}  # ten steps an epoch


class Killed(Exception):
    pass


@pytest.fixture
def spoil(monkeypatch):
    """A function that spoils the weights after one step, and makes another step fail as if the process were killed."""

    def at(poisoned, killed=None):
        kills = [killed]

        def training_step(self, batch, index):
            place = (self.current_epoch, index)
            if place in kills:
                kills.remove(place)
                raise Killed
            result = TRAINING_STEP(self, batch, index)
            if place == poisoned:
                with torch.no_grad():
                    for weight in self.parameters():
                        weight.mul_(1.8)
            return result

        monkeypatch.setattr(NBodyTraining, "training_step", training_step)

    return at


@pytest.fixture
def run(configuration, tmp_path):
    """A function that trains and returns the weights and the last checkpoint."""

    def start(output, resume=False, **changes):
        path = configuration(name=f"{output}.yaml", output=output, **{**OPTIONS, **changes})
        weights = load_model(train(TrainingConfig.from_yaml(path), resume=resume)).state_dict()
        return weights, AtomicCheckpoints().load_checkpoint(tmp_path / output / "checkpoints" / "last.ckpt")

    return start


def test_recovery_saves_the_training(run, spoil, capsys, tmp_path):
    run("clean")
    assert "diverged" not in capsys.readouterr().out
    spoil((3, 1))
    _, checkpoint = run("spoilt")
    assert capsys.readouterr().out.count("diverged in epoch 4") == 1
    assert [state["base_lrs"] for state in checkpoint["lr_schedulers"]] == [[0.01], [0.0025]]
    frames = read_labelled(tmp_path / "data.extxyz")
    clean, spoilt = (
        evaluate_model(load_model(tmp_path / name / "model.nbody"), frames)["stress"]["mae"]
        for name in ("clean", "spoilt")
    )
    assert spoilt < 2.0 * clean


@pytest.mark.parametrize(("poisoned", "schedule"), [((3, 1), "cosine"), ((3, 8), "plateau")])
def test_an_interrupted_run_resumes_bit_for_bit(poisoned, schedule, run, spoil, capsys, tmp_path):
    spoil(poisoned)
    unbroken, _ = run("unbroken", schedule=schedule)
    assert "diverged" in capsys.readouterr().out
    spoil(poisoned, killed=(4, 1))
    with pytest.raises(Killed):
        run("broken", schedule=schedule)
    state = AtomicCheckpoints().load_checkpoint(tmp_path / "broken" / "checkpoints" / "last.ckpt")["recovery"]
    across_epochs = poisoned == (3, 8)
    assert (state["count"], state["good"] is None) == ((0, False) if across_epochs else (1, True))
    resumed, _ = run("broken", resume=True, schedule=schedule)
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)


def test_it_gives_up_with_advice(run, capsys):
    with pytest.raises(TrainingDiverged, match=r"diverged 4 times.*lower training\.muon_rate"):
        run("hopeless", muon_rate=1e6, adam_rate=1e6, warmup=0)
    assert capsys.readouterr().out.count("learning rates are halved") == 3


def watched(losses, gradient=1.0):
    watch = LossWatch(jump=10.0)
    return [watch.has_diverged(loss, gradient) for loss in losses]


def test_hard_batches_are_not_taken_for_a_divergence():
    losses = [1e6 if step % 3 == 0 else 1.0 - 0.001 * step for step in range(25, 300)]
    assert not any(watched([1.0] * 25 + losses))


def test_high_losses_in_a_row_are_a_divergence():
    assert watched([1.0] * 30 + [11.0] * 5) == [False] * 34 + [True]
    assert not any(watched([1.0] * 30 + [9.0] * 50))


@pytest.mark.parametrize(("loss", "gradient"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_a_loss_or_gradient_that_is_not_finite_is_a_divergence_at_once(loss, gradient):
    assert watched([loss], gradient) == [True]
