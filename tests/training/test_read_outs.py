"""The weights of the read-outs are solved by least squares after the training, where validation says so."""

import copy
import re

import ase.io
import numpy as np
import pytest
import torch

from ase_nbody import load_model
from ase_nbody.data import collate, prepare, read_labelled
from ase_nbody.data.labels import LabelledStructure, Weights
from ase_nbody.files.archive import read_card
from ase_nbody.structure import Structure
from ase_nbody.training import ConfigError, TrainingConfig, train, train_committee
from ase_nbody.training.config import OptimisationConfig
from ase_nbody.training.evaluation import predict, predictions
from ase_nbody.training.linear_rows import rows_of, set_weights, weights_of
from ase_nbody.training.loss import Residuals
from ase_nbody.training.read_outs import solve_read_outs

ALL = 10**3  # more directions than any structure here has
OPTIONS = OptimisationConfig(epochs=1, batch_size=1)


@pytest.fixture
def labelled(tmp_path, frames):
    """Crystals of copper with stresses and molecules of methanol, in which nothing is a labelled part."""
    path = tmp_path / "frames.extxyz"
    ase.io.write(path, frames)
    return read_labelled(path)


@pytest.fixture(params=["levels around atoms", "labelled levels", "a type that falls"])
def trainable(request, network, labelled_network, make_form):
    known = {"levels around atoms": network, "labelled levels": labelled_network}
    made = known[request.param] if request.param in known else make_form("falling")
    return copy.deepcopy(made).requires_grad_(True)


def with_parts(frames):
    """The same frames with a label for each molecule, and for one atom of each crystal."""
    found = []
    for frame in frames:
        one = frame.structure
        labels = np.where(np.arange(len(one)) == 0, 0, -1 if one.pbc.any() else 0)
        structure = Structure(one.numbers, one.positions, one.cell, one.pbc, one.charge, labels)
        found.append(LabelledStructure(structure, frame.energy, frame.forces, frame.stress, frame.weights))
    return found


def changed(network, size=0.1):
    """The network with other weights of its read-outs."""
    other, weights = copy.deepcopy(network), weights_of(network)
    noise = torch.randn(len(weights), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    set_weights(other, weights + size * noise * weights.abs().mean())
    return other


def sums_of_squares(network, frames):
    (batch, prediction), *_ = predictions(network, frames, torch.float64)
    residuals = Residuals.of(prediction, batch)
    return {name: float(residuals[name].error.square().sum()) for name in ("energy", "forces", "stress")}


def test_rows_are_the_change_of_the_predictions_with_the_weights(trainable, labelled):
    """Along all directions, the errors after any change of the weights follow from the rows alone."""
    frames = predict(trainable, with_parts(labelled[14:18]))
    batch = collate(prepare(frames, trainable.config))
    other = changed(trainable)
    change = weights_of(other) - weights_of(trainable)
    found = {"energy": 0.0, "forces": 0.0, "stress": 0.0}
    with torch.no_grad():
        for rows in rows_of(trainable, batch, ALL, torch.Generator()):
            found[rows.label] += float((rows.lacking - rows.features @ change).square().sum())
    assert all(found.values())
    assert found == pytest.approx(sums_of_squares(other, frames), rel=1e-3)


def test_a_few_directions_have_the_same_squares_on_average(network, labelled):
    network = copy.deepcopy(network).requires_grad_(True)
    frames = labelled[14:18]
    batch, generator = collate(prepare(frames, network.config)), torch.Generator().manual_seed(0)
    found = {"forces": [], "stress": []}
    with torch.no_grad():
        for _ in range(60):
            sums = dict.fromkeys(found, 0.0)
            for rows in rows_of(network, batch, 2, generator):
                if rows.label in sums:
                    sums[rows.label] += float(rows.lacking.square().sum())
            for name, value in sums.items():
                found[name].append(value)
    expected = sums_of_squares(network, frames)
    for name, values in found.items():
        error = np.std(values) / len(values) ** 0.5
        assert np.mean(values) == pytest.approx(expected[name], abs=4.0 * error)
        assert error < 0.2 * expected[name]


def test_labels_that_are_missing_make_no_rows(network, labelled):
    network = copy.deepcopy(network).requires_grad_(True)
    forces = labelled[-1].forces.copy()
    forces[:2] = np.nan
    frames = [
        LabelledStructure(labelled[0].structure, np.nan, labelled[0].forces, np.full((3, 3), np.nan)),
        LabelledStructure(labelled[-1].structure, labelled[-1].energy, forces, labelled[-1].stress),
    ]
    batch = collate(prepare(frames, network.config))
    found = {"energy": 0.0, "forces": 0.0}
    with torch.no_grad():
        for rows in rows_of(network, batch, ALL, torch.Generator()):
            found[rows.label] += float(rows.lacking.square().sum())
    expected = sums_of_squares(network, frames)
    assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_weights_that_made_the_data_are_found(trainable, labelled, dtype):
    frames = with_parts(labelled)
    truth = changed(trainable)
    made = predict(truth, frames)
    start = copy.deepcopy(trainable).to(dtype)
    solution = solve_read_outs(start, made[::2], made[1::2], OPTIONS)
    (_, before), (_, after) = solution.before, solution.after
    assert solution.strength is not None
    for name in ("energy", "forces"):
        assert after[name]["rmse"] < 0.05 * before[name]["rmse"]
    assert start.dtype == dtype


def test_nothing_but_free_read_outs_changes(network, labelled):
    start = copy.deepcopy(network).requires_grad_(True)
    start.levels[0].requires_grad_(False)
    made = predict(changed(start), labelled)
    before = copy.deepcopy(start.state_dict())
    assert solve_read_outs(start, made[::2], made[1::2], OPTIONS).strength is not None
    differ = {name for name, weight in start.state_dict().items() if not torch.equal(weight, before[name])}
    assert differ == {"levels.1.read_out.linear", "levels.1.read_out.output"}


def test_the_trained_weights_stay_where_validation_wants_them(network, labelled):
    """The training frames want other weights, and the validation frames are exactly as predicted."""
    start = copy.deepcopy(network).requires_grad_(True)
    before = weights_of(start)
    wanted, exact = predict(changed(start, 3.0), labelled[::2]), predict(start, labelled[1::2])
    solution = solve_read_outs(start, wanted, exact, OPTIONS)
    assert solution.strength is None
    assert solution.after == solution.before
    assert torch.equal(weights_of(start), before)
    assert "trained weights stay" in str(solution)


def test_forces_are_kept_where_those_of_the_training_frames_mislead(network, labelled):
    start, rng = copy.deepcopy(network).requires_grad_(True), np.random.default_rng(0)
    made = predict(changed(start, 0.02), labelled)
    noisy = [
        LabelledStructure(one.structure, one.energy, one.forces + rng.normal(size=one.forces.shape), one.stress)
        for one in made[::2]
    ]
    solution = solve_read_outs(start, noisy, made[1::2], OPTIONS)
    assert solution.strength is not None
    assert solution.kept_forces
    assert "forces kept" in str(solution)


def test_frames_without_weight_are_not_fitted(network, labelled):
    start = copy.deepcopy(network).requires_grad_(True)
    made = predict(changed(start), labelled)
    none = Weights(*[0.0] * len(Weights._fields))
    spoilt = [
        LabelledStructure(one.structure, one.energy + 5.0, 2.0 * one.forces, one.stress, none) for one in labelled[:6]
    ]
    solution = solve_read_outs(start, made[6::2] + spoilt, made[7::2], OPTIONS)
    assert solution.after[1]["forces"]["rmse"] < 0.05 * solution.before[1]["forces"]["rmse"]


@pytest.mark.parametrize("loss", ["norm", "mse", "mae", "huber"])
def test_the_energy_weighs_as_in_the_loss(network, labelled, loss):
    """Data that contradict themselves, because their forces are not those of their energies."""
    start = copy.deepcopy(network).requires_grad_(True)
    made = predict(changed(start, 0.5), labelled)
    other = predict(changed(start, -0.5), labelled)
    mixed = [LabelledStructure(a.structure, a.energy, b.forces, b.stress) for a, b in zip(made, other, strict=True)]
    found = {}
    for weight in (1e-3, 1e3):
        solved = copy.deepcopy(start)
        options = OptimisationConfig(epochs=1, loss=loss, energy_weight=weight, stress_weight=0.0)
        found[weight] = solve_read_outs(solved, mixed[::2], mixed[1::2], options).after[1]
    assert found[1e3]["energy"]["rmse"] < found[1e-3]["energy"]["rmse"]
    assert found[1e3]["forces"]["rmse"] > found[1e-3]["forces"]["rmse"]


# --- in a training ---------------------------------------------------------------------------------------------------


class Lines:
    """A console that keeps what is printed."""

    def __init__(self):
        self.text = ""

    def print(self, *texts, **options):
        self.text += " ".join(map(str, texts)) + "\n"


def same(path, other):
    first, second = load_model(path).state_dict(), load_model(other).state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_solves_its_read_outs(configuration):
    plain = train(TrainingConfig.from_yaml(configuration("a.yaml", "plain")))
    console = Lines()
    solved = train(TrainingConfig.from_yaml(configuration("b.yaml", "solved", solve_read_outs=True)), console=console)
    before, after = (read_card(path)["card"] for path in (plain, solved))
    entry = after["read-outs solved"]
    assert entry["validation loss"]["solved"] < entry["validation loss"]["trained"]
    assert after["validation errors"] != before["validation errors"]
    assert re.search("Least squares for .* lower the validation loss from .* energy per atom .* forces", console.text)
    first, second = load_model(plain).state_dict(), load_model(solved).state_dict()
    differ = {name for name in first if not torch.equal(first[name], second[name])}
    assert differ == {f"levels.{level}.read_out.{name}" for level in (0, 1) for name in ("linear", "output")}
    assert "read-outs solved" not in before


def test_a_run_that_was_killed_while_it_solved_is_resumed(configuration, monkeypatch):
    whole = train(TrainingConfig.from_yaml(configuration("a.yaml", "whole", solve_read_outs=True)))
    config = TrainingConfig.from_yaml(configuration("b.yaml", "killed", solve_read_outs=True))

    def fail(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ase_nbody.training.run.solve_read_outs", fail)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert same(whole, train(config, resume=True))


def test_read_outs_that_cannot_be_solved_are_refused_before_the_training(configuration, monkeypatch):
    config = TrainingConfig.from_yaml(configuration(solve_read_outs=True))
    monkeypatch.setattr("ase_nbody.training.read_outs.MAX_UNKNOWNS", 100)
    with pytest.raises(ConfigError, match=r"at most 100 weights, .* have 288 that are free \(4 species\)"):
        train(config)


def test_members_of_a_committee_solve_theirs(configuration):
    options = {"solve_read_outs": True, "second_stage": {"start": 0.5, "energy_weight": 10.0}}
    path = train_committee(TrainingConfig.from_yaml(configuration(**options)), 2)
    members = [path.parent / f"seed_{seed}" / "model.nbody" for seed in (0, 1)]
    strengths = [read_card(member)["card"]["read-outs solved"]["ridge"] for member in members]
    assert len(strengths) == 2


def test_the_report_says_it(configuration):
    path = configuration(solve_read_outs=True)
    train(TrainingConfig.from_yaml(path, ["report=true"]))
    text = (path.parent / "run" / "report.html").read_text()
    assert "Least squares for" in text
