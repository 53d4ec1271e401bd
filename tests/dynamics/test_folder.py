"""Other runs, other settings and damage are refused in a sentence, and leave the folder of a run as it is."""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest
from ase import units
from ase.constraints import FixAtoms
from ase.io.jsonio import encode
from ase.md.andersen import Andersen
from ase.md.verlet import VelocityVerlet

from ase_nbody import NBodyCalculator
from ase_nbody.dynamics import ResumableRun, ResumeError
from ase_nbody.dynamics.files import Checkpoint, FolderLock, GrowingFile


def test_a_run_is_never_overwritten(dynamics_of, tmp_path, run):
    before = run(dynamics_of("verlet"), tmp_path, 10)
    with pytest.raises(ResumeError, match="holds a run of 10 steps: continue it with resume"):
        ResumableRun(dynamics_of("verlet"), tmp_path, interval=5)
    assert run(dynamics_of("verlet"), tmp_path, 10, resume=True) == before  # the run is complete, so nothing happens
    (tmp_path / "checkpoint.json").unlink()
    for resume in (False, True):
        with pytest.raises(ResumeError, match="no checkpoint to resume from"):
            ResumableRun(dynamics_of("verlet"), tmp_path, interval=5, resume=resume)


def test_resume_starts_a_run_where_there_is_none(dynamics_of, tmp_path, run):
    assert run(dynamics_of("verlet"), tmp_path / "a", 10, resume=True) == run(dynamics_of("verlet"), tmp_path / "b", 10)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (lambda dynamics: setattr(dynamics, "dt", 0.1), "dt was 0.049"),
        (lambda dynamics: setattr(dynamics, "temp", 0.1), "temp was 0.025"),
        (lambda dynamics: dynamics.atoms.set_masses([1, 12, 17]), "masses was"),
        (lambda dynamics: dynamics.atoms.set_constraint(FixAtoms([0])), r"constraints was \[\] and is"),
        (lambda dynamics: setattr(dynamics.atoms, "numbers", [1, 6, 6]), "atomic numbers was"),
    ],
)
def test_other_settings_are_refused(change, culprit, dynamics_of, tmp_path, run, contents):
    before = run(dynamics_of("langevin"), tmp_path, 5)
    dynamics = dynamics_of("langevin")
    change(dynamics)
    with pytest.raises(ResumeError, match=culprit):
        ResumableRun(dynamics, tmp_path, interval=5, resume=True)
    assert contents(tmp_path) == before


def test_other_integrators_intervals_and_notes_are_refused(dynamics_of, tmp_path, run):
    run(dynamics_of("langevin"), tmp_path, 10, settings={"seed": 1})
    for kind, keywords, culprit in (
        ("verlet", {"settings": {"seed": 1}}, "integrator was Langevin and is VelocityVerlet"),
        ("langevin", {"settings": {"seed": 2}}, "seed was 1 and is 2"),
        ("langevin", {}, "seed was 1 and is not given"),
        ("langevin", {"settings": {"seed": 1}, "interval": 10}, "steps between frames was 5 and is 10"),
    ):
        with pytest.raises(ResumeError, match=culprit):
            ResumableRun(dynamics_of(kind), tmp_path, **{"interval": 5, "resume": True, **keywords})


def test_another_model_is_refused(dynamics_of, make_network, tmp_path, run):
    run(dynamics_of("verlet"), tmp_path, 10)
    dynamics = dynamics_of("verlet")
    dynamics.atoms.calc = NBodyCalculator(make_network(seed=7))
    with pytest.raises(ResumeError, match=r"forces that differ by up to [\d.]+ eV/Angstrom"):
        ResumableRun(dynamics, tmp_path, interval=5, resume=True)


def test_unknown_integrators_and_impossible_intervals_are_refused(dynamics_of, tmp_path):
    atoms = dynamics_of("verlet").atoms

    class Own(VelocityVerlet):
        pass

    andersen = Andersen(atoms, 0.5 * units.fs, temperature_K=300, andersen_prob=0.1, rng=np.random.default_rng(0))
    for dynamics, name in ((Own(atoms, 0.05), "Own"), (andersen, "Andersen")):
        with pytest.raises(TypeError, match=f"what {name} remembers from step to step; it lists VelocityVerlet"):
            ResumableRun(dynamics, tmp_path)
    for keywords in ({"interval": 0}, {"interval": 5, "checkpoint": 12}, {"interval": 5, "checkpoint": -5}):
        with pytest.raises(ValueError, match="give a positive number of steps between frames and a multiple"):
            ResumableRun(dynamics_of("verlet"), tmp_path, **keywords)
    with (
        ResumableRun(dynamics_of("verlet"), tmp_path, interval=5) as running,
        pytest.raises(ValueError, match="take 10 or 15"),
    ):
        running.run_to(12)


LOCKING = """
import sys
from pathlib import Path
from ase_nbody.dynamics.files import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_files_of_the_user_stay(dynamics_of, tmp_path, run):
    """A run removes only temporary files that it may have written, and draws over no picture but its own."""
    mine = [tmp_path / name for name in (".checkpoint.json.bak", ".run.png.xcf", ".run.png.0123456789")]
    for path in (*mine, tmp_path / "run.png"):
        path.write_text("mine")
    with pytest.raises(ResumeError, match=r"run\.png exists, but no checkpoint"):
        ResumableRun(dynamics_of("verlet"), tmp_path)
    (tmp_path / "run.png").unlink()
    with ResumableRun(dynamics_of("verlet"), tmp_path, interval=5) as running:
        running.run_to(5)
        running.draw()
        running.draw()  # over its own
        (tmp_path / "run.png").write_text("mine")
        with pytest.raises(FileExistsError, match="not a picture of a run"):
            running.draw()
    assert all(path.read_text() == "mine" for path in (*mine, tmp_path / "run.png"))


def test_a_picture_of_the_user_in_the_way_of_a_run_without_steps(dynamics_of, tmp_path, run):
    run(dynamics_of("verlet"), tmp_path, 0)
    (tmp_path / "run.png").write_text("mine")
    for resume in (False, True):
        with pytest.raises(ResumeError, match="not the picture of a run"):
            ResumableRun(dynamics_of("verlet"), tmp_path, resume=resume)
    assert (tmp_path / "run.png").read_text() == "mine"


@pytest.mark.parametrize("where", ["link", "link/run"])
def test_a_folder_under_a_link_that_leads_nowhere_is_refused(where, dynamics_of, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ResumeError, match=r"a link at .* or above it leads nowhere"):
        ResumableRun(dynamics_of("verlet"), tmp_path / where)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder"])
@pytest.mark.parametrize("name", [".lock", "checkpoint.json", "trajectory.extxyz", "table.csv"])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_refused_at_once(name, kind, dynamics_of, tmp_path, run):
    run(dynamics_of("verlet"), tmp_path, 5)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name) if kind == "pipe" else (tmp_path / name).mkdir()
    with pytest.raises(ResumeError, match=rf"{name} is a {kind}.*, but must be a file"):
        ResumableRun(dynamics_of("verlet"), tmp_path, interval=5, resume=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(step="12a"),
        lambda state: state.update(step=-1),
        lambda state: state.update(settings=[]),
        lambda state: state.update(positions=state["momenta"][:1]),
        lambda state: state.update(momenta=3),
        lambda state: state.update(cell=None),
        lambda state: state["files"].pop("table.csv"),
        lambda state: state["files"].update({"table.csv": {"length": "long", "crc32": 0}}),
        lambda state: state.update(files={"table.csv": 3}),
        lambda state: state.update(variables={}),
        lambda state: state["variables"].update(rng={"bit_generator": "PCG64"}),
        lambda state: state["variables"].update(rng=5),
        lambda state: state["results"].pop("forces"),
        lambda state: state.update(step=0),
        lambda state: state.update(momenta=1.01 * state["momenta"]),
        lambda state: state["files"].update({"table.csv": {"length": 0, "crc32": 0}}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*has no checksum:RuntimeWarning")
def test_a_forged_checkpoint_is_refused(change, dynamics_of, tmp_path, run):
    """Format 1 has no checksum, so anything can stand there."""
    run(dynamics_of("langevin"), tmp_path, 5)
    path = tmp_path / "checkpoint.json"
    state = Checkpoint(path).read()
    del state["format"]
    change(state)
    path.write_text(encode({"format": 1, **state}))
    with pytest.raises(ResumeError, match=r"checkpoint\.json is damaged"):
        ResumableRun(dynamics_of("langevin"), tmp_path, interval=5, resume=True)


def test_atoms_that_others_move_between_two_calls(dynamics_of, tmp_path):
    """A run that went on would have a jump in its trajectory that nothing explains."""
    with ResumableRun(dynamics_of("verlet"), tmp_path, interval=5) as running:
        running.run_to(5)
        atoms = running.dynamics.atoms
        for name, change in (
            ("positions", lambda: atoms.positions.__setitem__((0, 0), atoms.positions[0, 0] + 1e-6)),
            ("momenta", lambda: atoms.set_momenta(1.001 * atoms.get_momenta())),
            ("cell", lambda: atoms.set_cell(1.001 * atoms.cell)),
        ):
            before = atoms.positions.copy(), atoms.get_momenta(), atoms.cell.array.copy()
            change()
            with pytest.raises(ResumeError, match=f"something changed the {name} of the atoms"):
                running.run_to(10)
            atoms.positions, atoms.cell = before[0], before[2]
            atoms.set_momenta(before[1])
        assert running.run_to(10)


def test_one_run_at_a_time(dynamics_of, tmp_path, run):
    """A lock that another process holds keeps a run out; a killed process leaves no lock behind."""
    command = [sys.executable, "-c", LOCKING, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ResumeError, match="another run is using"):
            ResumableRun(dynamics_of("verlet"), tmp_path)
        other.kill()
    run(dynamics_of("verlet"), tmp_path, 5)


@pytest.mark.parametrize("moved", [True, False])
def test_a_run_whose_folder_was_moved_leaves_the_next_one_alone(moved, dynamics_of, tmp_path, run, contents):
    """It wrote into the files of a run that had taken its place, and neither could be resumed."""
    folder = tmp_path / "run"
    with ResumableRun(dynamics_of("verlet"), folder, interval=5) as first:
        first.run_to(10)
        before = contents(folder)
        folder.rename(tmp_path / "moved") if moved else shutil.rmtree(folder)
        with pytest.raises(ResumeError, match=r"run was moved or removed while a run was using it"):
            first.run_to(20)
        assert not folder.exists()
        other = run(dynamics_of("verlet", 1), folder, 10)
        for _ in range(2):
            with pytest.raises(ResumeError, match=r"run was moved or removed while a run was using it"):
                first.run_to(20)
    assert contents(folder) == other
    if moved:
        assert contents(tmp_path / "moved") == before
        run(dynamics_of("verlet"), tmp_path / "moved", 20, resume=True)


def test_a_folder_that_moves_between_two_checkpoints(dynamics_of, tmp_path):
    """The frame that is not saved yet goes nowhere."""
    folder, dynamics = tmp_path / "run", dynamics_of("verlet")
    with ResumableRun(dynamics, folder, interval=5) as running:
        dynamics.attach(lambda: dynamics.nsteps == 7 and folder.rename(tmp_path / "moved"), interval=1)
        with pytest.raises(ResumeError, match="was moved or removed"):
            running.run_to(20)
    assert not folder.exists()


def test_a_lock_that_was_removed_does_not_end_a_run(dynamics_of, tmp_path):
    with ResumableRun(dynamics_of("verlet"), tmp_path, interval=5) as running:
        (tmp_path / ".lock").unlink()
        assert running.run_to(10)
        (tmp_path / ".lock").touch()  # of another run
        with pytest.raises(ResumeError, match="was moved or removed"):
            running.run_to(20)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_other_run(number, tmp_path, monkeypatch):
    """As Lustre is where it is mounted without them. Waiting for the other run would never end."""
    fcntl = pytest.importorskip("fcntl")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.warns(RuntimeWarning, match="has no locks .*: start no other run in this folder"):
        FolderLock(tmp_path).release()


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*table\.csv'"):
        GrowingFile(tmp_path / "table.csv").append(b"1")


def test_a_failed_start_leaves_no_lock(dynamics_of, tmp_path, run):
    run(dynamics_of("verlet"), tmp_path, 5)
    with pytest.raises(ResumeError):
        ResumableRun(dynamics_of("langevin"), tmp_path, interval=5, resume=True)
    run(dynamics_of("verlet"), tmp_path, 10, resume=True)


def test_garbage_is_cut_off_and_damage_is_refused(dynamics_of, tmp_path, run):
    unbroken = run(dynamics_of("langevin"), tmp_path / "unbroken", 20)
    folder = tmp_path / "broken"
    half = run(dynamics_of("langevin"), folder, 10)
    for name in ("trajectory.extxyz", "table.csv"):
        damaged = [half[name][:-1], half[name][: len(half[name]) // 2], b"", half[name].replace(b"0", b"1", 1)]
        for content in damaged:
            (folder / name).write_bytes(content)
            with pytest.raises(ResumeError, match=rf"{name} was \d+ bytes long at the checkpoint"):
                ResumableRun(dynamics_of("langevin"), folder, interval=5, resume=True)
        (folder / name).write_bytes(half[name] + half[name][:200] + b"\xff\x00 garbage")
    for name in (".checkpoint.json.0a1b2c3d", ".run.png.01234567"):  # as kills in the middle of writing leave them
        (folder / name).write_bytes(b"{")
    assert run(dynamics_of("langevin"), folder, 20, resume=True) == unbroken
    assert sorted(os.listdir(folder)) == sorted([".lock", "trajectory.extxyz", "table.csv", "checkpoint.json"])


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 2}', "\x00"])
def test_a_foreign_checkpoint_is_refused(content, dynamics_of, tmp_path):
    (tmp_path / "checkpoint.json").write_text(content)
    with pytest.raises(ResumeError, match="checkpoint"):
        ResumableRun(dynamics_of("verlet"), tmp_path, resume=True)


def test_the_checkpoint_is_plain_json(dynamics_of, tmp_path, run):
    state = json.loads(run(dynamics_of("langevin"), tmp_path, 5)["checkpoint.json"])
    assert state["step"] == 5
    assert state["settings"]["integrator"] == "Langevin"


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_files_of_a_run_have_the_mode_that_the_umask_allows(dynamics_of, tmp_path, run):
    """A group that shares a folder may continue each other's runs: trajectory and table were never group-writable."""
    before = os.umask(0o002)
    try:
        run(dynamics_of("langevin"), tmp_path / "run", 5)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").iterdir()}
    assert set(modes.values()) == {0o664}, modes
