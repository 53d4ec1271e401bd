"""The scripts in ``examples/md_runs`` run, warn of nothing, draw their picture and find what physics says."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.tersoff import Tersoff, TersoffParameters
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from ase_nbody.files.archive import shipped_models

SCRIPTS = Path(__file__).resolve().parent.parent / "examples" / "md_runs"
NUMBER = r"(-?\d+(?:\.\d+)?)"

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a script with ``--quick``; what it printed, in one line."""

    def run(script: str, model: str, *options: str) -> str:
        if model not in shipped_models():
            pytest.skip(f"the model {model!r} is not shipped")
        command = [sys.executable, "-W", "error", SCRIPTS / f"{script}.py", "--quick", "--output", tmp_path, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert (tmp_path / f"{script}.png").read_bytes().startswith(b"\x89PNG")
        assert np.isfinite(np.loadtxt(tmp_path / f"{script}.csv", delimiter=",", skiprows=1)).all()
        return " ".join(done.stdout.split())

    return run


def numbers(sentence: str, printed: str) -> list[float]:
    """The numbers in the place of every ``#`` of a sentence that was printed."""
    pattern = re.escape(sentence).replace(r"\#", NUMBER)
    found = re.search(pattern, printed)
    assert found, f"{sentence!r} is not in:\n{printed}"
    return [float(group) for group in found.groups()]


def test_langevin(run: Run, tmp_path: Path) -> None:
    printed = run("01_langevin_nvt", "ethanol")
    mean, error = numbers("Mean temperature: # +- # K (target 300 K)", printed)
    assert 150 < mean < 450
    assert 0 < error < 100
    assert numbers("heat capacity of # +- # kB (classical oscillators: 22.5 kB)", printed)[0] > 0
    assert numbers("Speed: # ms per step", printed)[0] > 0
    trajectory = ase.io.read(tmp_path / "01_langevin_nvt.traj", ":")
    assert len(trajectory) > 20
    assert np.isfinite([frame.get_potential_energy() for frame in trajectory]).all()


def test_nve(run: Run) -> None:
    printed = run("02_nve_conservation", "ethanol")
    assert 200 < numbers("Mean temperature: # +- # K", printed)[0] < 400
    drift, error = numbers("Drift of the total energy: # +- # meV/atom/ps", printed)
    assert abs(drift) < 1
    assert 0 < error < 1
    assert "TOO SHORT to judge the drift" in printed
    assert numbers("time step to the power # (velocity Verlet: 2)", printed)[0] == pytest.approx(2, abs=0.3)


def test_vibrations_of_a_model_in_a_file(run: Run, tmp_path: Path) -> None:
    own = shutil.copy(SCRIPTS.parents[1] / "models" / "ethanol.nbody", tmp_path / "mine.nbody")
    printed = run("03_vibrations", "ethanol", "--model", own)
    for conformer in ("trans", "gauche"):
        energy, lowest, highest, free = numbers(
            f"{conformer}: # eV, vibrations from # to # cm^-1, free motions within # cm^-1", printed
        )
        assert energy == pytest.approx(-4210, abs=2)
        assert 150 < lowest < 350
        assert 3500 < highest < 3900
        assert free < 30
    difference, with_zero_point = numbers("trans: # meV, with zero-point energies # meV", printed)
    assert abs(difference) < 50
    assert abs(with_zero_point) < 50
    assert numbers("Mean absolute difference from experiment: # cm^-1", printed)[0] < 60
    assert "Mean absolute errors on" in printed or "No reference data found" in printed


def test_silicon(run: Run) -> None:
    printed = run("04_silicon", "silicon")
    assert numbers(" a # Angstrom (PBE", printed)[0] == pytest.approx(5.47, rel=0.02)
    bulk_modulus = numbers(" B # GPa (PBE", printed)[0]
    assert bulk_modulus == pytest.approx(89, rel=0.2)
    assert numbers("(C11 + 2 C12) / 3: # GPa", printed)[0] == pytest.approx(bulk_modulus, rel=0.05)
    for name, reference in {"C11": 153, "C12": 57, "C44": 75}.items():
        assert numbers(f" {name} # GPa (PBE", printed)[0] == pytest.approx(reference, rel=0.25)
    assert 50 < numbers("Mean temperature: # +- # K", printed)[0] < 600
    assert abs(numbers("Mean pressure: # +- # GPa", printed)[0]) < 2
    assert numbers("Mean lattice constant: # +- # Angstrom", printed)[0] == pytest.approx(5.47, rel=0.02)


@pytest.mark.parametrize(
    ("model", "molecules"), [("aspirin", ["aspirin"]), ("organic", ["aspirin", "caffeine", "alanine_dipeptide"])]
)
def test_organic_molecules(model: str, molecules: list[str]) -> None:
    """They relax from geometries of RDKit, and keep together for some steps."""
    if model not in shipped_models():
        pytest.skip(f"the model {model!r} is not shipped")
    script = SCRIPTS.parent / "organic" / "molecules.py"
    command = [sys.executable, "-W", "error", script, *molecules, "--model", model, "--ps", "0.02"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    printed = " ".join(done.stdout.split())
    for molecule in molecules:
        gained, temperature, force = numbers(
            f"{molecule}: relaxed, # eV below RDKit's geometry. 0.02 ps: mean temperature # K, largest force # eV/Ang",
            printed,
        )
        assert 0 < gained < 3
        assert 50 < temperature < 900
        assert force < 30


def test_elastic_constants_of_a_known_potential(script: Callable[[Path], ModuleType]) -> None:
    """Tersoff's silicon: H. Balamane et al., Phys. Rev. B 46, 2250 (1992), its internal strain included."""
    example = script(SCRIPTS / "04_silicon.py")
    parameters = TersoffParameters(
        m=3, gamma=1, lambda3=0, c=1.0039e5, d=16.217, h=-0.59825, n=0.78734, beta=1.1e-6, lambda2=1.73222, B=471.18,
        R=2.85, D=0.15, lambda1=2.4799, A=1830.8,
    )  # fmt: skip
    silicon = ase.build.bulk("Si")
    silicon.calc = Tersoff({("Si", "Si", "Si"): parameters})
    BFGS(FrechetCellFilter(silicon), logfile=None).run(fmax=1e-5)
    assert example.lattice_constant(silicon) == pytest.approx(5.432, abs=0.001)
    constants = example.elastic_constants(silicon)
    assert example.cubic(constants) == pytest.approx({"C11": 142.5, "C12": 75.4, "C44": 69.0}, rel=0.002)
    clamped = example.elastic_constants(silicon, relaxed=False)
    assert example.cubic(clamped)["C44"] == pytest.approx(118.8, rel=0.002)
