"""Committees from several seeds: each member equals a single run with its seed, and a killed committee resumes."""

from io import StringIO

import ase.io
import pytest
import torch
import yaml
from rich.console import Console

from ase_nbody import NBodyCalculator, load_model
from ase_nbody.files.archive import load_members, read_card
from ase_nbody.training.claim import write_config
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.evaluation import evaluate_model
from ase_nbody.training.origin import digests_of_run
from ase_nbody.training.progress import Progress
from ase_nbody.training.run import train
from ase_nbody.training.seeds import _require_different_members, train_committee
from ase_nbody.training.splits import read_splits
from ase_nbody.training.spread import members_table, spread_table


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def read(configuration):
    def make(**options):
        return TrainingConfig.from_yaml(configuration(**options))

    return make


@pytest.fixture
def killed(monkeypatch):
    """A function that makes the training of a seed fail at the end of an epoch."""
    whole = Progress.on_validation_end

    def at(seed, epoch):
        def fail(self, trainer, module):
            whole(self, trainer, module)
            if module.config.seed == seed and trainer.current_epoch == epoch:
                raise RuntimeError("killed")

        monkeypatch.setattr(Progress, "on_validation_end", fail)

    return at


def test_members_equal_single_runs_with_their_seeds(read, nbody, configuration):
    code, _, err = nbody("train", configuration(epochs=1, seed=5), "--seeds", 2)
    assert code == 0, err
    config = read(epochs=1, seed=5)
    path = f"{config.output}/model.nbody"
    members = load_members(path)
    alone = [load_model(train(read(output=f"alone_{seed}", epochs=1, seed=seed))) for seed in (5, 6)]
    assert all(same(*pair) for pair in zip(members, alone, strict=True))
    assert not same(*members)
    card = read_card(path)["card"]
    assert [member["training"]["seed"] for member in card["members"]] == [5, 6]
    mean = evaluate_model(members, read_splits(config)[1])
    assert card["validation errors"]["forces"]["mae"] == pytest.approx(mean["forces"]["mae"])
    assert card["members"][0]["validation errors"]["forces"]["mae"] != card["validation errors"]["forces"]["mae"]
    assert len(NBodyCalculator(path).networks) == 2


def test_a_committee_has_one_table_and_one_report_and_can_be_trained_for_longer(read, tmp_path, capsys):
    config = read(epochs=1).model_copy(update={"report": True})
    train_committee(config, 2)
    out = capsys.readouterr().out
    for words in ("MAE of", "member 2", "their mean", "Spread of the committee, 4 validation frames"):
        assert words in out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Spread of the committee of 2, validation set" in page
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["epochs"] == 1
    path = train_committee(read(epochs=2), 2, resume=True)
    assert {member["training"]["epochs"] for member in read_card(path)["card"]["members"]} == {2} or (
        read_card(path)["card"]["training"]["epochs"] == 2
    )
    assert len(load_members(tmp_path / "run" / "model_after_1_epoch.nbody")) == 2


def test_a_committee_that_was_killed_before_its_errors_gets_them(read, monkeypatch):
    """It is written before it is evaluated. Without test frames and a report, nothing else would be missing."""

    def killed(*arguments):
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr("ase_nbody.training.seeds.evaluate_model", killed)
        with pytest.raises(SystemExit):
            train_committee(read(epochs=1), 2)
    path = train_committee(read(epochs=1), 2, resume=True)
    assert "forces" in read_card(path)["card"]["validation errors"]


def test_a_killed_committee_resumes_bit_for_bit(read, killed, monkeypatch):
    unbroken = train_committee(read(output="unbroken", epochs=2), 2)
    config = read(epochs=2)
    for seed, epoch in ((0, 1), (1, 1)):
        killed(seed, epoch)
        with pytest.raises(RuntimeError, match="killed"):
            train_committee(config, 2, resume=True)
    with pytest.raises(ConfigError, match="continue it with --resume"):
        train_committee(config, 2)
    with pytest.raises(ConfigError, match="differs"):
        train_committee(read(epochs=3), 2, resume=True)
    monkeypatch.undo()
    path = train_committee(config, 2, resume=True)
    assert all(same(*pair) for pair in zip(load_members(path), load_members(unbroken), strict=True))
    before = path.read_bytes()
    assert train_committee(config, 2, resume=True).read_bytes() == before
    with pytest.raises(ConfigError, match="finished run of 2 members, and --seeds says 3"):
        train_committee(config, 3, resume=True)
    assert yaml.safe_load((path.parent / "config.yaml").read_text())["training"]["seed"] == 0


def test_a_committee_is_not_resumed_with_other_data(read, tmp_path, frames):
    """Nothing is trained: the finished member and the new ones would have learnt from different data."""
    config = read(epochs=1)
    train(read(epochs=1, output="run/seed_0"))
    write_config(config)
    ase.io.write(tmp_path / "data.extxyz", frames[::-1])
    with pytest.raises(ConfigError, match=r"data.train \(data.extxyz\) has other contents .*seed_0"):
        train_committee(config, 2, resume=True)
    assert not (tmp_path / "run" / "seed_1").exists()
    (tmp_path / "run" / "seed_0" / "checkpoints" / "last.ckpt").unlink()  # the card tells it too
    assert digests_of_run(tmp_path / "run" / "seed_0").keys() == {"data.train"}


def test_a_committee_is_fine_tuned_member_by_member(read, tmp_path, frames):
    """Their predictions of the data differ, and so do the isolated-atom energies that they are given."""
    start = train_committee(read(output="start", epochs=1), 2)
    ase.io.write(tmp_path / "data.extxyz", [atoms for atoms in frames if len(atoms) > 1])
    config = read(output="tuned", epochs=1)
    network = config.network.model_copy(update={"start_from": str(start)})
    path = train_committee(config.model_copy(update={"network": network}), 2)
    tuned = load_members(path)
    assert tuned[0].config.isolated_atom_energies != tuned[1].config.isolated_atom_energies
    members = [tmp_path / "tuned" / f"seed_{number}" / "model.nbody" for number in range(2)]
    assert [member.config for member in tuned] == [load_model(member).config for member in members]
    both, whole = NBodyCalculator(members), NBodyCalculator(path)
    assert whole.get_potential_energy(frames[-1]) == both.get_potential_energy(frames[-1])


def test_members_that_would_be_equal_are_refused_before_they_are_trained(read, tmp_path, frames):
    start = train(read(output="start", epochs=1))
    ase.io.write(tmp_path / "few.extxyz", frames[:3])
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    content["data"] = {"train": "few.extxyz", "validation": 1}
    content["network"] = {"start_from": str(start)}
    content["output"] = "tuned"
    (tmp_path / "tuned.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"would be equal: .* has 1 member to start .* one network without --seeds"):
        train_committee(TrainingConfig.from_yaml(tmp_path / "tuned.yaml"), 2)
    assert not (tmp_path / "tuned" / "seed_0").exists()
    ase.io.write(tmp_path / "general.extxyz", frames)
    replay = {"replay": "general.extxyz", "replay_share": 0.8}  # 8 beside 2: more than a batch of 4 holds
    content["data"] |= replay
    (tmp_path / "tuned.yaml").write_text(yaml.safe_dump(content))
    config = TrainingConfig.from_yaml(tmp_path / "tuned.yaml")
    assert config.training.batch_size < 10 <= len(frames) + 2
    _require_different_members(config, [config, config])


def test_numbers_are_not_cut_in_a_narrow_terminal():
    """A poor committee has a large ratio; rich cut it, and the unit of stresses, to "1234…"."""
    one = {"rms_error": 123456.789, "rms_spread": 0.012, "ratio": 10288065.75, "correlation": -0.12}
    names = ("energy", "energy_per_atom", "forces", "stress", "charges", "dipole")
    errors = {name: {"mae": 123456.789} for name in names}
    for table in (spread_table(dict.fromkeys(names, one), "x"), members_table([errors], errors, "x")):
        printed = StringIO()
        Console(file=printed, width=80).print(table)
        assert "\u2026" not in printed.getvalue()


def test_data_that_are_replaced_between_two_members_are_refused(read, tmp_path, monkeypatch):
    """The members of one committee learnt from different data, in silence."""
    config = read(epochs=1)
    frames = ase.io.read(tmp_path / "data.extxyz", ":")
    shown = Progress.on_train_start

    def replace(self, trainer, module):
        ase.io.write(tmp_path / "data.extxyz", frames[::-1])
        shown(self, trainer, module)

    monkeypatch.setattr(Progress, "on_train_start", replace)
    with pytest.raises(ConfigError, match=r"data.train \(data.extxyz\) has other contents .*seed_0"):
        train_committee(config, 2)
    assert not (tmp_path / config.output / "seed_1").exists()


def test_the_data_may_vanish_once_the_last_member_has_read_them(read, tmp_path, monkeypatch):
    """The members were complete, and no committee was written."""
    config, shown, messages = read(epochs=1), Progress.on_train_start, StringIO()

    def remove(self, trainer, module):
        if module.config.seed == config.training.seed + 1:
            (tmp_path / "data.extxyz").unlink()
        shown(self, trainer, module)

    monkeypatch.setattr(Progress, "on_train_start", remove)
    path = train_committee(config, 2, console=Console(file=messages, width=500))
    assert len(load_members(path)) == 2
    assert "The model is complete, but there are no errors of the committee" in messages.getvalue()
