"""A run that is killed at random, or at every access to the disk, ends with the files of an unbroken run."""

import subprocess
import sys
from pathlib import Path

import ase.io
import pytest

from ase_nbody import save_model

KILLING = Path(__file__).parent / "killing.py"


@pytest.fixture
def inputs(network, systems, tmp_path):
    ase.io.write(tmp_path / "start.extxyz", systems["triclinic"]())
    return [save_model(network, tmp_path / "model.nbody"), tmp_path / "start.extxyz"]


def run(inputs, ensemble: str, steps: int, kills: int | str, folder: Path) -> int:
    """Do the run, and return how often it was killed before it finished."""
    command = [sys.executable, KILLING, *inputs, ensemble, str(steps), str(kills), folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return int(done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
@pytest.mark.parametrize(
    ("ensemble", "steps", "kills"), [("langevin", 120, 8), ("npt", 90, 6), ("nvt", 60, "accesses")]
)
def test_killed_runs_equal_the_unbroken_one(ensemble, steps, kills, inputs, tmp_path, contents):
    """All files are equal byte by byte. "accesses" means before each opening, syncing and replacing of a file."""
    assert run(inputs, ensemble, steps, 0, tmp_path / "unbroken") == 0
    times = run(inputs, ensemble, steps, kills, tmp_path / "killed")
    assert times >= 12 if kills == "accesses" else times == kills
    assert contents(tmp_path / "killed") == contents(tmp_path / "unbroken")
