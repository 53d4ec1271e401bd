"""The tutorials run from top to bottom, shortened, and turn into pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = {path.name: path for path in sorted((ROOT / "examples" / "tutorials").glob("[0-9]*.py"))}


def run(name: str, folder: Path) -> str:
    """Run a tutorial, shortened, without the environment activated; what it printed, warnings included."""
    environment = {**os.environ, "NBODY_TUTORIAL": "short", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, str(TUTORIALS[name])]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_own_molecule_and_its_learning_curve(tmp_path: Path) -> None:
    assert "energy of the relaxed molecule" in run("01_own_molecule.py", tmp_path)
    model = tmp_path / "own_molecule_short" / "runs" / "train" / "model.nbody"
    trained = model.read_bytes()
    assert "energy of the relaxed molecule" in run("01_own_molecule.py", tmp_path)  # again: what is done is kept
    assert model.read_bytes() == trained
    assert run("04_learning_curve.py", tmp_path).count("meV/Angstrom") >= 2
    assert (tmp_path / "learning_curve_short" / "learning_curve.png").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"own_molecule_short", "learning_curve_short"}  # no full run's


def test_crystal(tmp_path: Path) -> None:
    printed = run("02_crystal.py", tmp_path)
    assert "lattice constant 5.4" in printed
    assert "phonons at Gamma" in printed
    assert "ExtrapolationWarning" not in printed
    surface = float(printed.split("surface (1, 1, 1): ")[1].split()[0])
    assert 1.2 < surface < 1.6  # J/m^2; 1.8 before relaxation if the cut leaves atoms with one bond


def test_reaction_path(tmp_path: Path) -> None:
    printed = run("03_reaction_path.py", tmp_path)
    assert "the two ends differ by 0.0" in printed
    barrier = float(printed.split("barrier: ")[1].split()[0])
    assert 0.0 < barrier < 0.3


def test_fine_tuning(tmp_path: Path) -> None:
    printed = run("05_fine_tuning.py", tmp_path)
    assert "new: " in printed
    assert "fine_tuned: " in printed
    assert [path.name for path in tmp_path.iterdir()] == ["fine_tuning_short"]  # not a folder of the full run


@pytest.fixture
def page_of(script):
    """The function of ``docs/build.py`` that turns a script into a page."""
    return script(ROOT / "docs" / "build.py").page_of


def test_comments_become_text_and_code_stays_code(page_of) -> None:
    script = '"""# Title\n\nFirst.\n"""\n\n# %%\n# ## Step\n#\n# Why.\nx = 1\n\n# a comment\ny = 2\n\n# %%\n# End.\n'
    expected = "# Title\n\nFirst.\n\n## Step\n\nWhy.\n\n```python\nx = 1\n\n# a comment\ny = 2\n```\n\nEnd.\n"
    assert page_of(script) == expected


@pytest.mark.parametrize("name", TUTORIALS)
def test_every_tutorial_is_a_page_with_text_and_code(name: str, page_of) -> None:
    page = page_of(TUTORIALS[name].read_text())
    assert page.startswith("# ")
    assert page.count("```python") >= 2
    assert "# %%" not in page
