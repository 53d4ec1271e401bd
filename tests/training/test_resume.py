"""A run goes on with what it began with, wherever it lies now, and no two trainings share a folder."""

import io
import shutil
import threading
from pathlib import Path

import ase.io
import pytest
import torch
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from rich.console import Console

from ase_nbody import load_model
from ase_nbody.files.archive import read_card
from ase_nbody.training import ConfigError, TrainingConfig, train, train_committee
from ase_nbody.training.callbacks import AtomicCheckpoints, CheckpointError
from ase_nbody.training.folder import only_run_in
from ase_nbody.training.initial import build_network
from ase_nbody.training.origin import Origin
from ase_nbody.training.progress import Progress
from ase_nbody.training.splits import read_sources


def run(path, *overrides, **options):
    return train(TrainingConfig.from_yaml(path, overrides), **options)


def same(path, other):
    first, second = load_model(path).state_dict(), load_model(other).state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def killed(configuration, monkeypatch):
    """A function that starts a training which fails after its first epoch, and returns its configuration."""
    shown = Progress.on_validation_end

    def start(**options):
        def fail(self, trainer, module):
            shown(self, trainer, module)
            if trainer.current_epoch == 1:
                raise RuntimeError("killed")

        path = configuration(**options)
        with monkeypatch.context() as patch:
            patch.setattr(Progress, "on_validation_end", fail)
            with pytest.raises(RuntimeError, match="killed"):
                run(path)
        return path

    return start


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "figures"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_file_in_place_of_a_folder_is_refused_before_the_first_epoch(name, resume, killed, tmp_path):
    path = killed()
    output = tmp_path / "run"
    shutil.rmtree(output / name, ignore_errors=True)
    (output / name).touch()
    with pytest.raises(ConfigError, match=f"{name} is a file, and a run needs a folder of that name: move it away"):
        run(path, resume=resume)


def test_other_data_are_refused(killed, tmp_path, frames):
    path = killed()
    before = (tmp_path / "data.extxyz").read_bytes()
    gold = frames[0].copy()
    gold.symbols[:] = "Au"
    gold.calc = SinglePointCalculator(gold, **frames[0].calc.results)
    for others in (frames[:-1], [gold, *frames[1:]], frames[::-1]):
        ase.io.write(tmp_path / "data.extxyz", others)
        with pytest.raises(ConfigError, match=r"data.train \(data.extxyz\) has other contents than when the run"):
            run(path, resume=True)
    (tmp_path / "data.extxyz").write_bytes(before)
    assert run(path, resume=True).is_file()


def test_frames_that_move_between_files_are_noticed(configuration, tmp_path, frames):
    """The files joined are the same; but a file may have a weight and keys of its own."""
    path = configuration(epochs=1)
    ase.io.write(tmp_path / "data.extxyz", frames[:10])
    ase.io.write(tmp_path / "more.extxyz", frames[10:])
    content = yaml.safe_load(path.read_text())
    content["data"]["train"] = ["data.extxyz", {"path": "more.extxyz", "weight": 2.0}]
    path.write_text(yaml.safe_dump(content))
    begun = Origin.of(TrainingConfig.from_yaml(path)).digests
    first, second = (tmp_path / name for name in ("data.extxyz", "more.extxyz"))
    joined = first.read_bytes() + second.read_bytes()
    first.write_bytes(joined[:1000])
    second.write_bytes(joined[1000:])
    config = TrainingConfig.from_yaml(path)
    with pytest.raises(ConfigError, match=r"data.train.0 \(data.extxyz\) has other contents"):
        Origin.of(config).require_same(begun, config)
    Origin.of(config).require_same({"data.train": begun["data.train"]}, config)  # an earlier release


@pytest.mark.parametrize("start", ["data", "config"])
def test_a_moved_run_that_was_killed_before_its_first_checkpoint_starts_anew(start, configuration, tmp_path, nbody):
    def killed(*arguments):
        raise RuntimeError("killed")

    path = configuration(epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ase_nbody.training.run.read_sources", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run(path)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    given = [path, f"output={tmp_path / 'moved'}"] if start == "data" else [tmp_path / "moved" / "config.yaml"]
    code, _, err = nbody("train", *given, "--resume")
    assert code == 0, err
    assert (tmp_path / "moved" / "model.nbody").is_file()
    assert not (tmp_path / "run").exists()


def test_another_start_is_refused(configuration, killed, tmp_path):
    start = run(configuration(name="start.yaml", output="start", epochs=1))
    content = yaml.safe_load(configuration().read_text())
    content["network"] = {"start_from": str(start)}
    path = tmp_path / "tuned.yaml"
    path.write_text(yaml.safe_dump(content))
    other = run(configuration(name="other.yaml", output="other", epochs=1, seed=1))
    run(path, "training.epochs=1")
    (tmp_path / "run" / "model.nbody").unlink()
    shutil.copy(other, start)
    with pytest.raises(ConfigError, match=r"network.start_from \(model.nbody\) has other contents"):
        run(path, "training.epochs=1", resume=True)


def test_data_that_change_while_they_are_read_are_refused(configuration, tmp_path, monkeypatch):
    path = configuration()

    def growing(*arguments):
        found = read_sources(*arguments)
        with open(tmp_path / "data.extxyz", "a") as file:
            file.write("\n")
        return found

    monkeypatch.setattr("ase_nbody.training.run.read_sources", growing)
    with pytest.raises(ValueError, match="changed while it was being read"):
        run(path)


def test_data_may_vanish_once_they_are_read(configuration, tmp_path, monkeypatch):
    shown = Progress.on_train_start

    def remove(self, trainer, module):
        (tmp_path / "data.extxyz").unlink()
        shown(self, trainer, module)

    monkeypatch.setattr(Progress, "on_train_start", remove)
    assert len(read_card(run(configuration(epochs=1)))["card"]["training data sha256"]) == 64


def test_a_start_that_changes_while_it_is_read_is_refused(configuration, tmp_path, monkeypatch):
    """Its weights came from one model, and the card and the digest of the checkpoint named another."""
    start = run(configuration(name="start.yaml", output="start", epochs=1))
    other = run(configuration(name="other.yaml", output="other", epochs=1, seed=1))
    content = yaml.safe_load(configuration().read_text())
    content["network"] = {"start_from": str(start)}
    path = tmp_path / "tuned.yaml"
    path.write_text(yaml.safe_dump(content))

    def replaced(*arguments):
        shutil.copy(other, start)
        return build_network(*arguments)

    monkeypatch.setattr("ase_nbody.training.run.build_network", replaced)
    with pytest.raises(ValueError, match=r"model.nbody changed while it was being read"):
        run(path, "training.epochs=1")
    assert not (tmp_path / "run" / "model.nbody").exists()


def test_a_checkpoint_of_an_earlier_release_with_other_shapes_is_refused(killed, tmp_path):
    path = killed()
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = AtomicCheckpoints().load_checkpoint(checkpoint)
    del content["digests"]
    name = next(name for name in content["state_dict"] if "embedding" in name)
    content["state_dict"][name] = torch.zeros(9, 9)
    AtomicCheckpoints().save_checkpoint(content, checkpoint)
    with pytest.raises(CheckpointError, match=r"holds another network: .*embedding.* is \(9, 9\) there and \("):
        run(path, resume=True)


@pytest.mark.parametrize("has_checksum", [True, False])
def test_a_checkpoint_without_a_checksum_is_said(has_checksum, killed, tmp_path):
    """It may be of an early release, or of a later one that somebody has changed."""
    path, console = killed(), Console(record=True, width=1000, quiet=False, file=io.StringIO())
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    if not has_checksum:
        content = torch.load(checkpoint, weights_only=True)
        del content["format"]
        torch.save(content, checkpoint)
    run(path, resume=True, console=console)
    assert ("last.ckpt has no checksum" in console.export_text()) == (not has_checksum)


@pytest.mark.parametrize("name", ["optimizer_states", "lr_schedulers"])
def test_a_checkpoint_without_the_state_of_an_optimiser_is_refused(name, killed, tmp_path):
    path = killed()
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = AtomicCheckpoints().load_checkpoint(checkpoint)
    del content[name][0]
    AtomicCheckpoints().save_checkpoint(content, checkpoint)
    with pytest.raises(CheckpointError, match=f"is damaged: it has 1 {name}, and this training has 2"):
        run(path, resume=True)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")], ids=["missing", "damaged"])
def test_a_run_without_its_best_epoch_is_refused_before_it_is_trained(damage, killed, tmp_path, monkeypatch):
    """Its model could not be written at the end."""
    path = killed(patience=5)
    damage(tmp_path / "run" / "checkpoints" / "best.ckpt")
    monkeypatch.setattr(Progress, "on_train_start", lambda *arguments: pytest.fail("it was trained"))
    with pytest.raises((ConfigError, CheckpointError), match=r"best\.ckpt is (missing|not a checkpoint)"):
        run(path, resume=True)


def test_a_run_beyond_its_number_of_epochs_is_refused(configuration, tmp_path):
    run(configuration(epochs=2)).unlink()
    written = tmp_path / "run" / "config.yaml"
    written.write_text(written.read_text().replace("epochs: 2", "epochs: 1"))
    with pytest.raises(ConfigError, match=r"has come to epoch 2, beyond training\.epochs=1"):
        run(configuration(epochs=1), resume=True)


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_moved_run_is_resumed_bit_for_bit(schedule, configuration, killed, tmp_path, nbody):
    unbroken = run(configuration(name="unbroken.yaml", output="unbroken", epochs=4, schedule=schedule))
    killed(epochs=4, schedule=schedule)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "run", tmp_path / "elsewhere" / "run")
    shutil.move(tmp_path / "data.extxyz", tmp_path / "elsewhere" / "renamed.extxyz")
    config = tmp_path / "elsewhere" / "run" / "config.yaml"
    code, _, err = nbody("train", config, "--resume", f"data.train={tmp_path / 'elsewhere' / 'renamed.extxyz'}")
    assert code == 0, err
    assert same(config.parent / "model.nbody", unbroken)
    assert not (tmp_path / "run").exists()
    assert TrainingConfig.from_yaml(config).output == str(config.parent)


def test_a_finished_run_is_trained_for_longer_and_its_model_is_kept(configuration, tmp_path):
    first = run(configuration(epochs=2))
    before = first.read_bytes()
    assert run(configuration(epochs=3), resume=True) == first
    assert (tmp_path / "run" / "model_after_2_epochs.nbody").read_bytes() == before
    assert read_card(first)["card"]["training"]["epochs"] == 3
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == 4
    with pytest.raises(ConfigError, match=r"training\.epochs is 2 and was 3"):
        run(configuration(epochs=2), resume=True)
    with pytest.raises(ConfigError, match=r"differs.*training\.seed is 1 and was 0"):
        run(configuration(epochs=4, seed=1), resume=True)


@pytest.mark.parametrize("finished", [False, True])
def test_the_configuration_of_a_run_that_was_edited_in_its_folder(finished, configuration, killed, tmp_path):
    """The run would go on with other settings, or another split, under the weights of the first ones."""
    if finished:
        run(configuration(epochs=2))
    else:
        killed(epochs=3)
    written = tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(written.read_text())
    content["data"]["seed"] += 1
    written.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match=r"data\.seed is 1 and was 0"):
        run(written, resume=True)


def test_a_kill_while_the_model_is_set_aside_loses_nothing(configuration, tmp_path, monkeypatch):
    """The configuration still has the former number of epochs, but there is no model of them any more."""

    def killed(*arguments):
        raise SystemExit(137)

    model = run(configuration(epochs=1))
    with monkeypatch.context() as patch:
        patch.setattr("ase_nbody.training.run.write_config", killed)
        with pytest.raises(SystemExit):
            run(configuration(epochs=2), resume=True)
    assert not model.exists()
    assert run(configuration(epochs=2), resume=True) == model
    assert read_card(model)["card"]["training"]["epochs"] == 2
    assert [path.name for path in model.parent.glob("model_after*")] == ["model_after_1_epoch.nbody"]


def test_the_report_of_a_run_that_is_trained_for_longer_is_that_of_its_last_model(configuration, tmp_path, monkeypatch):
    """The report on the model before would pass for it if the run were killed before its own was written."""

    def killed(*arguments):
        raise SystemExit(137)

    model = run(configuration(epochs=1), "report=true")
    report, worst = model.with_name("report.html"), model.with_name("worst.extxyz")
    before = report.read_bytes(), worst.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("ase_nbody.training.run.write_report", killed)
        with pytest.raises(SystemExit):
            run(configuration(epochs=2), "report=true", resume=True)
    assert not report.exists()
    assert not worst.exists()
    asides = [model.with_name(f"{path.stem}_after_1_epoch{path.suffix}") for path in (report, worst)]
    assert tuple(path.read_bytes() for path in asides) == before
    assert run(configuration(epochs=2), "report=true", resume=True) == model
    assert report.read_bytes() != before[0]
    assert worst.exists()


@pytest.mark.parametrize("where", ["evaluate_model", "write_report"])
def test_what_follows_the_model_is_made_up_for(where, configuration, tmp_path, monkeypatch):
    """A job may be killed when its model is written, but neither the errors on the test frames nor the report."""

    def killed(*arguments):
        raise SystemExit(137)

    options = (f"data.test={tmp_path / 'data.extxyz'}", "report=true")
    with monkeypatch.context() as patch:
        patch.setattr(f"ase_nbody.training.run.{where}", killed)
        with pytest.raises(SystemExit):
            run(configuration(), *options)
    model, report = tmp_path / "run" / "model.nbody", tmp_path / "run" / "report.html"
    before = read_card(model)["checksum"]
    assert not report.exists()
    with pytest.raises(ConfigError, match=r"holds a run without .*its report: make up for it with --resume"):
        run(configuration(), *options)
    assert run(configuration(), *options, resume=True) == model
    unbroken = run(configuration(output="unbroken"), *options)
    assert read_card(model)["checksum"] == before == read_card(unbroken)["checksum"]
    assert read_card(model)["card"]["test errors"] == read_card(unbroken)["card"]["test errors"]
    assert report.exists()
    assert not [*model.parent.glob("model_after*")]
    assert run(configuration(), *options, resume=True) == model
    report.unlink()
    (tmp_path / "run" / "checkpoints" / "last.ckpt").unlink()  # so --resume is no remedy
    for resume in (False, True):
        with pytest.raises(ConfigError, match="holds a finished run"):
            run(configuration(), *options, resume=resume)


def test_a_report_that_always_fails_keeps_no_run_from_ending(configuration, monkeypatch, capsys):
    """It is tried again and said again; the run can be trained for longer, and ends without a report."""

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("ase_nbody.training.run.write_report", fail)
    model = run(configuration(epochs=1), "report=true")
    with pytest.raises(ConfigError, match=r"without its report.*--resume.*report=false"):
        run(configuration(epochs=1), "report=true")
    before = read_card(model)["checksum"]
    assert run(configuration(epochs=1), "report=true", resume=True) == model
    assert read_card(model)["checksum"] == before
    assert " ".join(capsys.readouterr().out.split()).count("there is no report: MemoryError. Try again with") == 2
    assert run(configuration(epochs=2), "report=true", resume=True) == model
    written = model.stat().st_mtime_ns
    assert run(configuration(epochs=2), resume=True) == model
    assert model.stat().st_mtime_ns == written


def test_of_a_finished_run_nothing_is_left_to_do(configuration, tmp_path, frames, capsys):
    """A job that a queue starts again ends well, and the next command of its script runs."""
    model = run(configuration())
    before = {path: path.read_bytes() for path in model.parent.rglob("*") if path.is_file()}
    assert run(configuration(), "training.epochs=null", resume=True) == model
    assert run(configuration(), resume=True) == model
    assert " ".join(capsys.readouterr().out.split()).count("is finished, and nothing is left to do") == 2
    assert {path: path.read_bytes() for path in model.parent.rglob("*") if path.is_file()} == before
    with pytest.raises(ConfigError, match=r"training\.loss is"):
        run(configuration(loss="mse"), resume=True)
    ase.io.write(tmp_path / "data.extxyz", frames[::-1])
    with pytest.raises(ConfigError, match="has other contents"):
        run(configuration(), resume=True)


def test_a_run_that_lost_patience_is_not_trained_for_longer_in_vain(configuration):
    options = {"patience": 1, "muon_rate": 1e-9, "adam_rate": 1e-9, "averaging": 0.0}
    run(configuration(epochs=9, **options))
    with pytest.raises(ConfigError, match=r"give a larger training\.patience too"):
        run(configuration(epochs=10, **options), resume=True)
    assert run(configuration(epochs=10, **{**options, "patience": 99}), resume=True).is_file()


def test_the_number_of_epochs_is_written_down(configuration, tmp_path):
    def first_words(*arguments):
        raise RuntimeError("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "on_train_start", first_words)
        with pytest.raises(RuntimeError, match="enough"):
            run(configuration(), "training.epochs=null")
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["training"]["epochs"] == 500


def test_a_folder_of_another_kind_of_run_is_not_entered(configuration, killed):
    path = killed(epochs=3)
    with pytest.raises(ConfigError, match=r"another kind \(training\)"):
        train_committee(TrainingConfig.from_yaml(path), 2, resume=True)


def test_two_trainings_do_not_share_a_folder(configuration, tmp_path):
    path = configuration(epochs=1)
    with only_run_in(tmp_path / "run"):
        for start in (run, lambda path: train_committee(TrainingConfig.from_yaml(path), 2)):
            with pytest.raises(ConfigError, match=r"another training is running in .*run: wait until it ends"):
                start(path)
    assert run(path).is_file()


def test_a_shared_folder_is_waited_for(tmp_path):
    said, order = [], []
    with only_run_in(tmp_path):

        def second():
            with only_run_in(tmp_path, wait=lambda: said.append("waiting")):
                order.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        while not said:
            pass
        order.append("first")
    thread.join()
    assert (said, order) == (["waiting"], ["first", "second"])


@pytest.mark.parametrize("taken", [False, True])
def test_a_training_whose_folder_was_moved_leaves_the_next_one_alone(taken, configuration, tmp_path, monkeypatch):
    """It made the folder anew and wrote its checkpoints and its model there, beside those of whoever came next."""
    path, shown = configuration(epochs=3), Progress.on_validation_end
    output = tmp_path / "run"

    def move(self, trainer, module):
        shown(self, trainer, module)
        if trainer.current_epoch == 1:
            output.rename(tmp_path / "moved")
            if taken:
                (output / "tensorboard").mkdir(parents=True)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_validation_end", move)
        with pytest.raises(ConfigError, match="run was moved or removed while a run was using it"):
            run(path)
    assert [file for file in output.rglob("*") if file.is_file() and "tfevents" not in file.name] == []
    assert run(path, f"output={tmp_path / 'moved'}", resume=True).is_file()


def test_a_committee_whose_folder_was_moved_ends(configuration, tmp_path, monkeypatch):
    import ase_nbody.training.seeds as seeds

    train_one = seeds.train_in_stages

    def move(member, **options):
        train_one(member, **options)
        (tmp_path / "run").rename(tmp_path / "moved")

    monkeypatch.setattr(seeds, "train_in_stages", move)
    with pytest.raises(ConfigError, match="was moved or removed"):
        train_committee(TrainingConfig.from_yaml(configuration(epochs=1)), 2)
    assert not (tmp_path / "run").exists()


def test_leftovers_of_kills_are_swept_and_nothing_else(killed, tmp_path):
    path = killed()
    output = tmp_path / "run"
    leftovers = [output / "checkpoints" / ".last.ckpt.0123abcd", output / ".config.yaml.89abcdef"]
    leftovers += [output / ".data_sha256.json.00000000", output / ".frames.txt.ffffffff"]  # of a pretraining there
    (output / "figures").mkdir()
    leftovers.append(output / "figures" / ".force_errors.png.0123abcd")
    mine = [output / ".last.ckpt.mine", output / ".notes.0123abcd", Path(output / "checkpoints" / "notes")]
    mine += [output / "figures" / name for name in (".mine.png.bak", "mine.png", ".mine.0123abcd")]
    for file in (*leftovers, *mine):
        file.write_text("...")
    run(path, resume=True)
    assert not any(file.exists() for file in leftovers)
    assert all(file.exists() for file in mine)
