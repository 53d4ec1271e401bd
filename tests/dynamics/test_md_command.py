"""``nbody md``: what it writes, how it ends, and how it resumes."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.constraints import FixAtoms
from ase.io.jsonio import decode, encode

from ase_nbody import save_model
from ase_nbody.cli.md import _Monitor
from ase_nbody.files.archive import shipped_models


@pytest.fixture
def md(nbody, monkeypatch, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Run ``nbody md`` in an empty folder and return its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    return partial(nbody, "md")


@pytest.fixture
def inputs(network, make_network, systems, tmp_path) -> None:
    """Files of two models (the first holds an example structure), a molecule and a crystal."""
    methanol, crystal = systems["molecule"](), systems["triclinic"]()
    example = {name: np.asarray(getattr(methanol, name)).tolist() for name in ("numbers", "positions", "cell", "pbc")}
    save_model(network, tmp_path / "a.nbody", {"example": example})
    save_model(make_network(seed=1), tmp_path / "b.nbody")
    ase.io.write(tmp_path / "methanol.extxyz", methanol)
    ase.io.write(tmp_path / "crystal.extxyz", crystal)


ENSEMBLES = ["nve", "nvt", "langevin", "bussi", "nose-hoover", "npt"]


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_prolonged_run_equals_a_longer_one_in_each_ensemble(ensemble, md, contents):
    command = ("a.nbody", "crystal.extxyz", "--ensemble", ensemble, "--interval", 5)
    assert md(*command, "--steps", 20, "--output", "long")[0] == 0
    assert md(*command, "--steps", 10, "--output", "short")[0] == 0
    code, out, _ = md(*command, "--steps", 20, "--output", "short", "--resume", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["resumed at"] == 10
    assert report["steps"] == report["last frame"] == 20
    assert report["stopped"] is None
    assert contents("short") == contents("long")
    assert len(ase.io.read("long/trajectory.extxyz", ":")) == 5
    _, out, _ = md(*command, "--steps", 10, "--output", "short", "--resume")
    assert "20 steps, mean temperature" in out
    assert "ns/day" not in out  # nothing was left to do


@pytest.mark.usefixtures("inputs")
def test_the_example_of_a_model(md):
    code, out, _ = md("a.nbody", "--ps", 0.0101, "--interval", 5)
    assert code == 0
    assert "25 steps, mean temperature" in out  # rounded up to whole intervals
    assert ase.io.read("md/trajectory.extxyz").get_chemical_formula() == "CH4O"
    code, _, err = md("b.nbody")
    assert code == 1
    assert "the model b.nbody has no example structure" in err


@pytest.mark.usefixtures("inputs")
def test_a_committee_and_its_bound(md):
    command = ("a.nbody,b.nbody", "methanol.extxyz", "--steps", 20, "--interval", 5, "--max-force", 1e6)
    assert md(*command, "--max-temperature", 1e9, "--max-spread", 1e6)[0] == 0
    spread = np.genfromtxt("md/table.csv", delimiter=",", names=True)["spread_eV_per_A"]
    assert (spread > 0).all()
    frames = ase.io.read("md/trajectory.extxyz", ":")
    largest = [np.linalg.norm(frame.arrays["forces_spread"], axis=1).max() for frame in frames]
    np.testing.assert_allclose(largest, spread, rtol=1e-6)
    assert all(frame.info["energy_spread"] > 0 for frame in frames)
    code, out, err = md(*command, "--max-spread", spread[0] / 2, "--output", "stopped", "--json")
    assert code == 1
    assert "the committee's force spread on atom" in json.loads(out)["stopped"]
    assert "(--max-spread)" in json.loads(out)["stopped"]
    code, _, err = md("a.nbody", "methanol.extxyz", "--max-spread", 1.0, "--output", "single")
    assert code == 1
    assert "--max-spread 1 needs a committee, but a.nbody is a single network: name several models" in err


@pytest.mark.usefixtures("inputs")
def test_bounds_have_the_names_of_their_options(md):
    command = ("a.nbody", "methanol.extxyz", "--steps", 10, "--interval", 5)
    for bound, value in {"--max-temperature": 1e-3, "--max-force": 1e-9, "--max-gap": 0.5}.items():
        code, _, err = md(*command, "--max-force", 1e9, bound, value, "--output", bound.strip("-"))
        assert code == 1
        assert f"({bound}" in err
        assert "max_" not in err
    assert "flew off" in err
    assert md(*command, "--max-force", 1e9, "--max-gap", "inf", "--output", "free")[0] == 0
    code, _, err = md(*command, "--max-gap", 0)
    assert code == 1
    assert "--max-gap must be a number above 0" in err


@pytest.mark.usefixtures("inputs")
@pytest.mark.filterwarnings("default")
def test_a_warning_is_a_sentence(md):
    ion = ase.io.read("methanol.extxyz")
    ion.info["charge"] = 1
    ase.io.write("ion.extxyz", ion)
    code, _, err = md("a.nbody", "ion.extxyz", "--steps", 0)
    assert code == 0
    assert "warning: the structure has a total charge of +1 e" in err
    assert "ChargeWarning" not in err
    assert ".py" not in err


@pytest.mark.usefixtures("inputs")
def test_a_run_that_goes_wrong_ends_and_keeps_its_frames(md):
    code, out, err = md("a.nbody", "methanol.extxyz", "--steps", 100, "--timestep", 30, "--interval", 1)
    assert code == 1
    assert "stopped at step" in err
    assert "Frames are kept up to step" in err
    assert "Traceback" not in out + err
    frames = ase.io.read("md/trajectory.extxyz", ":")
    assert f"kept up to step {len(frames) - 1}" in err


@pytest.mark.usefixtures("inputs")
def test_momenta_of_the_file_are_kept(md):
    assert md("a.nbody", "methanol.extxyz", "--steps", 0, "--output", "drawn")[0] == 0
    drawn = ase.io.read("drawn/trajectory.extxyz")
    assert drawn.get_temperature() > 50
    ase.io.write("moving.extxyz", drawn)
    assert md("a.nbody", "moving.extxyz", "--steps", 0, "--output", "kept", "--temperature", 5)[0] == 0
    np.testing.assert_allclose(ase.io.read("kept/trajectory.extxyz").get_momenta(), drawn.get_momenta(), atol=1e-7)


@pytest.mark.usefixtures("inputs")
def test_zero_velocities_of_a_file_are_none(md):
    """A CONTCAR of a relaxation has them; --velocities keep starts at rest all the same."""
    still = ase.io.read("methanol.extxyz")
    still.set_momenta(np.zeros((6, 3)))
    ase.io.write("still.extxyz", still)
    command = ("a.nbody", "still.extxyz", "--steps", 0, "--ensemble", "nve", "--output")
    assert md(*command, "drawn")[0] == 0
    assert ase.io.read("drawn/trajectory.extxyz").get_temperature() > 50
    assert md(*command, "rest", "--velocities", "keep")[0] == 0
    assert not ase.io.read("rest/trajectory.extxyz").get_momenta().any()
    code, _, err = md(*command[:-3], "--ensemble", "bussi", "--velocities", "keep", "--output", "none")
    assert code == 1
    assert "all atoms are at rest: draw velocities first" in err


@pytest.mark.usefixtures("inputs")
def test_a_structure_that_is_not_finite_is_refused_by_name(md):
    """Drawn velocities must not rotate, and that ended in numpy's "Eigenvalues did not converge"."""
    broken = ase.io.read("methanol.extxyz")
    broken.positions[2, 1] = np.nan
    ase.io.write("broken.extxyz", broken)
    code, _, err = md("a.nbody", "broken.extxyz", "--steps", 20)
    assert code == 1
    assert "broken.extxyz" in err
    assert "position of atom 2 is not finite: y = nan" in " ".join(err.split())
    assert not Path("md").exists()


@pytest.mark.usefixtures("inputs")
def test_linear_molecules_run_without_numpys_warnings(md):
    ase.io.write("oh.xyz", ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for ensemble in ("nve", "bussi"):
            assert (
                md("a.nbody", "oh.xyz", "--steps", 5, "--interval", 5, "--output", ensemble, "--ensemble", ensemble)[0]
                == 0
            )


@pytest.mark.usefixtures("inputs")
def test_velocities_of_another_temperature(md):
    """The message names the cause, and each of its remedies works."""
    hot = ase.io.read("methanol.extxyz")
    hot.set_velocities(np.random.default_rng(0).normal(scale=0.6, size=(6, 3)))
    ase.io.write("hot.extxyz", hot)
    command = ("a.nbody", "hot.extxyz", "--steps", 20, "--interval", 10, "--max-force", "inf")
    code, _, err = md(*command)
    assert code == 1
    assert "the velocities of the structure file have" in err
    assert not Path("md").exists()
    constant = md(*command, "--ensemble", "nve", "--max-temperature", 1000)[2]
    assert ("lets them be" in constant, "--ramp-to" in constant) == (True, False)  # there is no thermostat
    kelvin = int(err.split("--temperature ")[1].split()[0])
    assert kelvin > 3000
    assert md(*command, "--velocities", "new")[0] == 0
    kept = md(*command, "--max-temperature", 1e5, "--output", "kept")
    assert kept[0] == 0
    assert f"are kept: {kelvin} K" in kept[2]
    ramp = ("--temperature", kelvin, "--ramp-to", 300, "--output")
    assert md(*command, *ramp, "ramp")[0] == 0
    table = np.genfromtxt("ramp/table.csv", delimiter=",", names=True)
    assert table["temperature_K"][0] == pytest.approx(kelvin, abs=1)


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("ensemble", ["langevin", "bussi", "nose-hoover", "npt"])
def test_a_ramp_is_continued(ensemble, md, contents):
    command = ("a.nbody", "crystal.extxyz", "--ensemble", ensemble, "--interval", 5, "--ramp-to", 900, "--timestep", 1)
    assert md(*command, "--steps", 20, "--output", "long", "--ramp-ps", 0.015)[0] == 0
    assert md(*command, "--steps", 10, "--output", "short", "--ramp-ps", 0.015)[0] == 0
    assert md(*command, "--steps", 20, "--output", "short", "--ramp-ps", 0.015, "--resume")[0] == 0
    assert contents("short") == contents("long")
    code, _, err = md(*command, "--steps", 20, "--output", "short", "--resume")
    assert code == 1
    assert "ramp was to 900 K in 15 steps and is to 900 K in 20 steps" in err
    assert "give the ramp the length that it had (nbody md: --ramp-ps)" in err  # by default it grows with the run
    code, _, err = md(*command[:6], "--timestep", 1, "--steps", 20, "--output", "short", "--resume")
    assert code == 1
    assert "ramp was to 900 K in 15 steps and is not given" in err


@pytest.mark.usefixtures("inputs")
def test_a_moved_run_is_continued(md, contents):
    """Run, model and structure may lie elsewhere: what counts is what is in the files."""
    assert md("a.nbody", "methanol.extxyz", "--steps", 20, "--output", "unbroken")[0] == 0
    assert md("a.nbody", "methanol.extxyz", "--steps", 0, "--output", "here")[0] == 0
    Path("there").mkdir()
    for before, after in (("here", "run"), ("a.nbody", "model.nbody"), ("methanol.extxyz", "start.extxyz")):
        os.rename(before, f"there/{after}")
    command = ("there/model.nbody", "there/start.extxyz", "--steps", 20, "--output", "there/run", "--resume")
    assert md(*command)[0] == 0
    assert contents("there/run") == contents("unbroken")


@pytest.mark.usefixtures("inputs")
def test_lengths_are_kept_to_the_step(md, contents):
    command = ("a.nbody", "methanol.extxyz", "--velocities", "new", "--output")
    for options, steps, interval in (
        (("--ps", 0.01, "--timestep", 0.4), 25, 5),
        (("--steps", 5), 5, 5),
        (("--steps", 22), 22, 11),
        (("--ps", 0.02), 40, 20),
    ):
        folder = f"run{steps}"
        code, out, _ = md(*command, folder, *options, "--json")
        assert (code, json.loads(out)["steps"]) == (0, steps)
        assert np.genfromtxt(f"{folder}/table.csv", delimiter=",", names=True)["step"].tolist()[1] == interval
    assert md(*command, "run22", "--steps", 33, "--resume")[0] == 0  # eleven steps apart, as before
    code, _, err = md(*command, "prime", "--steps", 1429)
    assert code == 1
    assert "take 1420 or 1440 steps, or give --interval" in err
    assert not Path("prime").exists()


@pytest.mark.usefixtures("inputs")
def test_the_way_on_after_the_monitor(md):
    """The same command would stop again."""
    command = ("a.nbody", "methanol.extxyz", "--steps", 10, "--interval", 1, "--output")
    assert md(*command, "free")[0] == 0
    forces = [np.linalg.norm(f.get_forces(), axis=1).max() for f in ase.io.read("free/trajectory.extxyz", ":")]
    code, _, err = md(*command, "start", "--max-force", forces[0] / 2)
    assert (code, "--resume" in err, "The same command would stop again: change" in err) == (1, False, True)
    later = next(f for f in forces if f > forces[0])
    code, _, err = md(*command, "later", "--max-force", (later + forces[0]) / 2)
    assert code == 1
    assert "would make the same steps and stop again. To go on from there, raise the bound (--max-force" in err
    assert md(*command, "later", "--max-force", 1e6, "--resume")[0] == 0


@pytest.mark.usefixtures("inputs")
def test_escapes_in_the_name_of_the_folder_are_shown(md):
    code, out, _ = md("a.nbody", "methanol.extxyz", "--steps", 0, "--output", "a\x1b[31mb")
    assert (code, "\x1b" in out, "a\\x1b[31mb/table.csv" in out) == (0, False, True)


@pytest.mark.usefixtures("inputs")
def test_names_of_ensembles_in_capitals(md):
    assert md("a.nbody", "methanol.extxyz", "--steps", 10, "--ensemble", "NVT")[0] == 0
    assert md("a.nbody", "methanol.extxyz", "--steps", 20, "--ensemble", "nvt", "--resume", "--interval", 10)[0] == 0


@pytest.mark.usefixtures("inputs")
def test_the_folder_of_other_work(md):
    """A run in the user's own folder leaves what is there, and refuses a picture in the way of its own."""
    mine = [Path(name) for name in ("run.png", ".checkpoint.json.bak", ".run.png.xcf")]
    for path in mine:
        path.write_text("mine")
    command = ("a.nbody", "methanol.extxyz", "--steps", 5, "--output", ".")
    code, _, err = md(*command)
    assert (code, "run.png exists, but no checkpoint" in err) == (1, True)
    assert [path.read_text() for path in mine] == ["mine"] * 3


@pytest.mark.usefixtures("inputs")
@pytest.mark.filterwarnings("ignore:.*has no checksum:RuntimeWarning")
@pytest.mark.parametrize("interval", [None, "12a", 0, [20]])
def test_a_forged_distance_of_frames(interval, md):
    command = ("a.nbody", "methanol.extxyz", "--steps", 10)
    assert md(*command)[0] == 0
    state = decode(Path("md/checkpoint.json").read_text(), always_array=False)
    del state["sha256"]
    state["settings"].pop("steps between frames")
    state["settings"] |= {} if interval is None else {"steps between frames": interval}
    Path("md/checkpoint.json").write_text(encode({**state, "format": 1}))
    code, _, err = md(*command, "--resume")
    assert (code, "checkpoint.json is damaged" in err) == (1, True), err


@pytest.mark.usefixtures("inputs")
def test_a_refused_command_is_not_in_the_way(md):
    command = ("a.nbody", "methanol.extxyz", "--steps", 10)
    ase.io.write("foreign.xyz", ase.Atoms("Xe"))
    code, _, err = md("a.nbody", "foreign.xyz", *command[2:])
    assert (code, "Xe" in err) == (1, True)
    assert md(*command, "--interval", 4)[0] == 1
    assert md(*command, "--max-force", 1e-6)[0] == 1  # the monitor ends it at step 0
    assert md(*command)[0] == 0
    assert Path("md/run.png").exists()
    assert sorted(path.name for path in Path("md").iterdir()) == [
        ".lock",
        "checkpoint.json",
        "run.png",
        "table.csv",
        "trajectory.extxyz",
    ]


@pytest.mark.usefixtures("inputs")
def test_fixed_atoms_stay_and_are_recorded(md):
    atoms = ase.io.read("methanol.extxyz")
    atoms.set_constraint(FixAtoms([0, 1]))
    atoms.arrays["REF_forces"] = np.ones((6, 3))  # of this structure, not of the frames
    ase.io.write("fixed.extxyz", atoms)
    code, _, err = md("a.nbody", "fixed.extxyz", "--steps", 10, "--ensemble", "nose-hoover")
    assert code == 0
    assert "The trajectory leaves out 'REF_forces'" in err
    frames = ase.io.read("md/trajectory.extxyz", ":")
    for frame in frames:
        assert frame.constraints[0].index.tolist() == [0, 1]
        np.testing.assert_allclose(frame.positions[:2], atoms.positions[:2], atol=1e-8)
    assert np.abs(frames[-1].positions - atoms.positions)[2:].max() > 1e-3


@pytest.mark.usefixtures("inputs")
def test_options_out_of_range(md):
    """Each is refused in a sentence that shows the value, and no folder is made."""
    Path("empty.xyz").write_text("0\n\n")
    Path("words.xyz").write_text("no structure\n")
    for arguments, culprit in (
        *(((option, value), "got " + value) for option in ("--temperature", "--ps") for value in ("nan", "inf")),
        *(
            (("--timestep", value), f"time step must be above 0 and at most 1000 fs, got {value}")
            for value in ("nan", "inf")
        ),
        *((("--ensemble", "npt", "--pressure", value), f"GPa, got {value}") for value in ("nan", "-inf")),
        (("--pressure", 1), "--pressure 1 has no effect on --ensemble langevin"),
        (("--timestep", 1e4), "at most 1000 fs"),
        (("--temperature", 1e9), "between 0 and 1e+06 K, got 1000000000.0"),
        (("--ensemble", "nose-hoover", "--temperature", 0), "needs a temperature above 0 K"),
        *(
            ((f"--max-{what}", value), "above 0, got")
            for what in ("force", "temperature", "spread")
            for value in ("nan", 0)
        ),
        (("--velocities", "old"), "--velocities must be one of auto, keep, new"),
        (("--ramp-to", "nan"), "got nan K"),
        (("--ramp-to", 500, "--ramp-ps", "inf"), "--ramp-ps must be a length above 0 ps"),
        (("--ramp-to", 500, "--ramp-ps", "1e306"), "--ramp-ps must be a length above 0 ps and at most 1e12 steps"),
        (("--ramp-ps", 1), "give its final temperature, --ramp-to"),
        (("--ramp-to", 500, "--ensemble", "nve"), "nve has none"),
        (("--threads", 10**6), "--threads 1000000 is more than the"),
        (("--ps", 1e300), "at most 1e12 steps"),
        (("--steps", 10**15), "at most 1e12"),
        (("--checkpoint", 7, "--interval", 5), "multiple"),
    ):
        code, _, err = md("a.nbody", "methanol.extxyz", *arguments)
        assert (code, culprit in " ".join(err.split())) == (1, True), (arguments, err)
        assert not Path("md").exists()
    for structure, culprit in (
        ("missing.xyz", "there is no structure file missing.xyz"),
        ("empty.xyz", "must hold a structure"),
        ("words.xyz", "words.xyz cannot be read as structures"),
        (".", ". is a directory"),
    ):
        code, _, err = md("a.nbody", structure)
        assert (code, culprit in " ".join(err.split())) == (1, True), err
    Path("file").write_text("")
    code, _, err = md("a.nbody", "methanol.extxyz", "--steps", 5, "--output", "file")
    assert (code, "file is a file: name another folder" in err) == (1, True)


@pytest.mark.skipif("ethanol" not in shipped_models(), reason="the model 'ethanol' is not shipped")
def test_relaxation(md, contents):
    ase.io.write("start.xyz", molecule("CH3CH2OH"))
    command = ("ethanol", "start.xyz", "--relax", "--interval", 2, "--output")
    assert md(*command, "broken", "--steps", 0)[0] == 0
    assert np.linalg.norm(ase.io.read("broken/trajectory.extxyz").get_forces(), axis=1).max() < 0.05
    assert md(*command, "broken", "--steps", 4, "--resume")[0] == 0
    assert md(*command, "unbroken", "--steps", 4)[0] == 0
    assert contents("broken") == contents("unbroken")


@pytest.mark.usefixtures("inputs")
def test_the_monitor_of_a_resumed_run_knows_the_relaxed_structure(md, monkeypatch):
    """What the relaxation has parted may drift apart, before a kill and after it."""
    found = []

    class Monitor(_Monitor):
        def __call__(self):
            found.append([fragment.tolist() for fragment in self.fragments])

    def part(atoms):
        atoms.positions[0] += 4.0

    monkeypatch.setattr("ase_nbody.cli.md._Monitor", Monitor)
    monkeypatch.setattr("ase_nbody.cli.md._relax", part)
    for steps in ("--steps", 2), ("--steps", 4, "--resume"):
        code, _, err = md("a.nbody", "methanol.extxyz", "--relax", "--interval", 2, *steps)
        assert code == 0, err
    assert 0 not in found[0][0]
    assert found[-1] == found[0]


@pytest.mark.usefixtures("inputs")
def test_refusals(md, contents):
    command = ("a.nbody", "methanol.extxyz", "--steps", 20)
    assert md(*command)[0] == 0
    before = contents("md")
    for arguments, culprit in (
        ((), "md holds a run of 20 steps: continue it with resume=True (--resume)"),
        (("--resume", "--temperature", 310), "temperature was 300.0 and is 310.0"),
        (("--resume", "--seed", 3), "seed was 0 and is 3"),
        (("--resume", "--ensemble", "nve"), "integrator was Langevin and is VelocityVerlet"),
        (("--ensemble", "nvp"), "the ensemble must be one of nve, nvt"),
        (("--ensemble", "npt", "--output", "new"), "npt needs a system that is periodic"),
        (("--ps", 1), "--ps and --steps both set the length"),
        (("--resume", "--steps", 21), "take 20 or 40"),
        (("--resume", "--interval", 10), "steps between frames was 20 and is 10"),
    ):
        code, _, err = md(*command, *arguments)
        assert code == 1
        assert culprit in " ".join(err.split())
    code, _, err = md("b.nbody", *command[1:], "--resume")
    assert "models was" in err
    code, _, err = md("a.nbody", "crystal.extxyz", "--steps", 20, "--resume")
    assert "structure was" in err
    atoms = ase.io.read("methanol.extxyz")
    atoms.info["spin_multiplicity"] = 3
    ase.io.write("triplet.extxyz", atoms)
    code, _, err = md("a.nbody", "triplet.extxyz", "--steps", 20, "--resume")
    assert "structure was" in err
    assert contents("md") == before
    assert not Path("new/checkpoint.json").exists()


def started(arguments: list[str], steps: int) -> subprocess.Popen:
    """Start a run in a process of its own, and return the process once it has written at least ``steps`` steps."""
    command = [sys.executable, "-W", "error", "-m", "ase_nbody.cli", "md", *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=_in_the_foreground)
    table = Path("md/table.csv")
    while process.poll() is None:
        if table.exists() and table.read_bytes().count(b"\n") > 1 + steps // 5:
            break
        time.sleep(0.02)
    return process


def _in_the_foreground():
    """Neither nohup nor a background job, which ignore signals."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.usefixtures("inputs")
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals(name, md, contents):
    """A run that is ended by a signal, then by SIGKILL, and then resumed gives the files of an unbroken run."""
    arguments = ["a.nbody", "methanol.extxyz", "--interval", "5", "--checkpoint", "10", "--steps"]
    process = started([*arguments, "100000"], 10)
    process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.Signals[name]
    assert f"interrupted by {name}" in err
    assert "the same command with --resume continues from there" in err
    made = int(out.split()[0])
    assert made >= 10
    assert made % 5 == 0

    process = started([*arguments, "100000", "--resume"], made + 10)
    process.kill()
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL

    end = json.loads((Path("md") / "checkpoint.json").read_text())["step"] + 20
    assert md(*arguments, end, "--resume")[0] == 0
    assert md(*arguments, end, "--output", "unbroken")[0] == 0
    assert contents("md") == contents("unbroken")
