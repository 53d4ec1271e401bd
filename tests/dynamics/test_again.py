"""``run_to`` called again: after an error it goes back to the checkpoint, and it refuses what would spoil the run."""

import os
import shutil

import numpy as np
import pytest
from ase.md.langevin import Langevin

from ase_nbody.dynamics import ResumableRun, ResumeError, draw_run
from ase_nbody.dynamics.files import Checkpoint, GrowingFile


@pytest.fixture
def unbroken(dynamics_of, tmp_path, run):
    return run(dynamics_of("langevin"), tmp_path / "unbroken", 40)


def test_after_an_interrupt_between_half_steps(dynamics_of, tmp_path, contents, monkeypatch, unbroken):
    """The positions have moved, the momenta are those before: the next call must not go on from there."""
    dynamics, half_steps = dynamics_of("langevin"), iter(range(100))
    set_momenta = dynamics.atoms.set_momenta

    def interrupted(*arguments, **keywords):
        if next(half_steps) == 12:
            raise KeyboardInterrupt
        set_momenta(*arguments, **keywords)

    monkeypatch.setattr(dynamics.atoms, "set_momenta", interrupted)
    with ResumableRun(dynamics, tmp_path / "run", interval=5, checkpoint=10) as running:
        with pytest.raises(KeyboardInterrupt):
            running.run_to(40)
        assert running.run_to(40)
    assert contents(tmp_path / "run") == unbroken


@pytest.mark.parametrize("failing", [1, 2, 4, 5, 6, 9])
def test_after_a_full_disk(failing, dynamics_of, tmp_path, contents, monkeypatch, unbroken):
    """Whichever file is being written: the trajectory, the table (also in part), or the checkpoint."""
    writes = iter(range(1, 1000))
    append, write = GrowingFile.append, Checkpoint.write

    def full(original, halfway):
        def wrapped(self, payload):
            if next(writes) in (failing, failing + 1):  # the second one is in the attempt to save what is there
                halfway(self, payload)
                raise OSError(28, "No space left on device")
            original(self, payload)

        return wrapped

    def half(file, payload):
        file.path.write_bytes((file.path.read_bytes()[: file.length] if file.path.exists() else b"") + payload[:50])

    monkeypatch.setattr(GrowingFile, "append", full(append, half))
    monkeypatch.setattr(Checkpoint, "write", full(write, lambda *_: None))
    with ResumableRun(dynamics_of("langevin"), tmp_path / "run", interval=5, checkpoint=10) as running:
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                running.run_to(40)
        assert running.run_to(40)
    assert contents(tmp_path / "run") == unbroken


def test_after_a_stop(dynamics_of, tmp_path, contents, unbroken):
    with ResumableRun(dynamics_of("langevin"), tmp_path / "run", interval=5) as running:
        running.dynamics.attach(running.stop, interval=-12)
        assert not running.run_to(40)
        assert running.run_to(40)
    assert contents(tmp_path / "run") == unbroken


def test_steps_that_others_made_and_closed_runs_are_refused(dynamics_of, tmp_path, contents):
    with ResumableRun(dynamics_of("langevin"), tmp_path, interval=5) as running:
        running.run_to(10)
        before = contents(tmp_path)
        running.dynamics.run(5)
        with pytest.raises(ResumeError, match=r"is at step 15, but the last frame of the run in .* is of step 10"):
            running.run_to(20)
    with pytest.raises(ResumeError, match="was closed"):
        running.run_to(20)
    assert contents(tmp_path) == before


def test_a_refused_start_leaves_nothing_to_resume(dynamics_of, tmp_path, run, unbroken):
    """Neither a refused length, nor an end at step 0, nor another run of 0 steps stands in the way of the right one."""
    with (
        ResumableRun(dynamics_of("verlet"), tmp_path / "run", interval=7) as running,
        pytest.raises(ValueError, match="take 0 or 7"),
    ):
        running.run_to(5)
    assert os.listdir(tmp_path / "run") == [".lock"]
    run(dynamics_of("verlet"), tmp_path / "run", 0)
    assert run(dynamics_of("langevin"), tmp_path / "run", 40) == unbroken


def test_forged_checkpoints_are_refused(dynamics_of, tmp_path, run):
    """Whichever byte is changed, removed or added, the run is refused, or continued unchanged."""
    original = run(dynamics_of("langevin"), tmp_path, 10)["checkpoint.json"]
    path, rng = tmp_path / "checkpoint.json", np.random.default_rng(0)
    state = Checkpoint(path).read()
    places = [*rng.integers(len(original), size=60), *range(len(original) - 90, len(original))]
    for place in places:
        byte = bytes([int(rng.choice([x for x in b'0123456789.e-+,"[]{}: ' if x != original[place]]))])
        before, after = original[:place], original[place + 1 :]
        for forged in (before + byte + after, before + after, before + byte + original[place:]):
            path.write_bytes(forged)
            with pytest.raises(ResumeError, match="checkpoint"):
                Checkpoint(path).read()
    path.write_bytes(original)
    assert str(Checkpoint(path).read()) == str(state)
    path.write_bytes(original.replace(b'"step": 10', b'"step": 15'))
    with pytest.raises(ResumeError, match="does not have the checksum"):
        ResumableRun(dynamics_of("langevin"), tmp_path, interval=5, resume=True)


def test_checkpoints_of_earlier_releases_are_read(dynamics_of, tmp_path, run, unbroken):
    """Format 1 had no checksum."""
    run(dynamics_of("langevin"), tmp_path, 20)
    path = tmp_path / "checkpoint.json"
    text = path.read_text()
    path.write_text(text[: text.index(', "sha256"')].replace('"format": 2', '"format": 1') + "}")
    with pytest.warns(RuntimeWarning, match="has no checksum"):
        assert run(dynamics_of("langevin"), tmp_path, 40, resume=True) == unbroken
    for damaged in (text[: text.index(', "sha256"')] + "}", '{"format": 1, "step": 20}'):
        path.write_text(damaged)
        with pytest.raises(ResumeError, match="is incomplete"):
            ResumableRun(dynamics_of("langevin"), tmp_path, interval=5, resume=True)


def test_a_moved_run_is_resumed(dynamics_of, tmp_path, run, unbroken):
    run(dynamics_of("langevin"), tmp_path / "here", 20)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert run(dynamics_of("langevin"), tmp_path / "there", 40, resume=True) == unbroken


def test_a_refusal_names_what_the_user_gave(dynamics_of, tmp_path, run):
    """What follows from it inside the integrator is left out."""
    run(dynamics_of("langevin"), tmp_path, 5, settings={"temperature": 300.0})
    dynamics = dynamics_of("langevin")
    assert isinstance(dynamics, Langevin)
    dynamics.set_temperature(temperature_K=310)
    with pytest.raises(ResumeError) as refused:
        ResumableRun(dynamics, tmp_path, interval=5, resume=True, settings={"temperature": 310.0})
    assert "other settings: temperature was 300.0 and is 310.0. Resume" in str(refused.value)


def test_two_names_of_one_ensemble_are_one_setting(dynamics_of, tmp_path, run, unbroken):
    run(dynamics_of("langevin"), tmp_path, 20, settings={"ensemble": "nvt"})
    files = run(dynamics_of("langevin"), tmp_path, 40, resume=True, settings={"ensemble": "langevin"})
    assert files["trajectory.extxyz"] == unbroken["trajectory.extxyz"]


def test_a_file_in_the_place_of_the_folder_is_refused(dynamics_of, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ResumeError, match="run is a file"):
        ResumableRun(dynamics_of("verlet"), tmp_path / "run")


def test_the_picture(dynamics_of, tmp_path, run):
    pytest.importorskip("matplotlib")
    with ResumableRun(dynamics_of("langevin"), tmp_path, interval=5) as running:
        running.run_to(10)
        assert running.draw().read_bytes().startswith(b"\x89PNG")
        figure = draw_run(running.read_table(), 300.0)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert [label.split()[0] for label in labels] == ["temperature", "energy", "pressure"]
    lines = figure.axes[0].get_lines()
    assert lines[0].get_ydata().tolist() == running.read_table()["temperature_K"].tolist()
    assert lines[2].get_ydata().tolist() == [300.0] * 3
