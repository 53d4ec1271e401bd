"""Code that the scripts share: command line, ethanol, velocities, sampling, errors of averages, and output files."""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import ase
import matplotlib
import numpy as np
import torch
from ase.build import molecule
from ase.calculators.calculator import CalculatorError
from ase.filters import Filter
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.optimize import BFGS
from matplotlib import pyplot
from numpy.typing import NDArray

from ase_nbody import NBodyCalculator
from ase_nbody.dynamics import DynamicsStopped, ResumableRun

matplotlib.use("Agg")  # pictures go to files, so no screen is needed
torch.set_num_threads(1)  # with systems this small, more threads would mostly wait for each other
pyplot.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 150})

HYDROXYL_DIHEDRAL = (0, 1, 2, 3)  # atoms C-C-O-H in the order of ase.build.molecule("CH3CH2OH")
CONFORMERS = {"trans": 180.0, "gauche": 60.0}  # this dihedral angle in degrees


def command_line(description: str | None, model: str) -> argparse.ArgumentParser:
    """The options that every script has."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument(
        "--model", default=model, help="shipped model or model file that knows this system (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="run for a few seconds only, to see that everything works")
    parser.add_argument("--output", type=_folder, default=str(Path(__file__).parent / "output"), help="folder to fill")
    return parser


def _folder(name: str) -> Path:
    folder = Path(name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_script(main: Callable[[], None]) -> None:
    """Run a script. What the user can mend, such as a model that cannot be read, is said in one line."""
    try:
        main()
    except (ValueError, OSError, CalculatorError, DynamicsStopped) as error:
        raise SystemExit(f"error: {error}") from None


def calculator_for(atoms: ase.Atoms, model: str) -> NBodyCalculator:
    """A calculator with the model, in float64, if the model knows the elements of the atoms."""
    calc = NBodyCalculator(model, dtype="float64")
    unknown = sorted(set(atoms.symbols) - set(calc.species))
    if unknown:
        raise SystemExit(
            f"error: this script is about {atoms.get_chemical_formula()}, but {model!r} knows "
            f"{', '.join(calc.species)} and not {', '.join(unknown)}. Give --model a model of this system."
        )
    return calc


def ethanol(model: str, conformer: str = "trans", fmax: float = 0.01) -> ase.Atoms:
    """An ethanol molecule with its calculator, relaxed until no force exceeds ``fmax`` eV/Angstrom."""
    atoms = molecule("CH3CH2OH")
    atoms.set_dihedral(*HYDROXYL_DIHEDRAL, CONFORMERS[conformer], indices=[HYDROXYL_DIHEDRAL[-1]])
    atoms.calc = calculator_for(atoms, model)
    relax(atoms, fmax)
    return atoms


def relax(system: ase.Atoms | Filter, fmax: float) -> None:
    """Move the atoms until no force exceeds ``fmax`` eV/Angstrom; a filter moves the cell, too."""
    if not BFGS(system, logfile=None).run(fmax=fmax, steps=500):
        raise SystemExit(f"The structure did not relax to {fmax} eV/Angstrom in 500 steps: is the model at fault?")


def draw_velocities(atoms: ase.Atoms, temperature: float, seed: int = 0) -> None:
    """Give the atoms Maxwell-Boltzmann velocities at ``temperature`` in K, without drift and overall rotation."""
    thermalize_momenta(atoms, temperature, rng=np.random.default_rng(seed))
    Stationary(atoms, preserve_temperature=False)
    if not atoms.pbc.any():
        ZeroRotation(atoms, preserve_temperature=False)


def sample(dynamics: MolecularDynamics, folder: Path, steps: int, every: int, resume: bool) -> NDArray:
    """Run ``steps`` steps and return the observables as a structured array with a column for each.

    Rows are taken at the start and after every ``every`` steps. With ``resume``, a run that was killed continues after
    the last row in ``folder``; without it, the folder is emptied first. A kill loses at most 100 rows.
    """
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    with ResumableRun(dynamics, folder, interval=every, checkpoint=100 * every, resume=resume) as run:
        run.run_to(steps // every * every)
        return run.read_table()


def jackknife(statistic: Callable[[NDArray], float], samples: NDArray, blocks: int = 10) -> tuple[float, float]:
    """A statistic of a time series and its standard error (R. G. Miller, Biometrika 61, 1 (1974)).

    Neighbouring samples are correlated, so whole blocks are left out in turn. A block must be longer than the
    correlation time of the observable.
    """
    parts = np.array_split(samples, blocks)
    without = [statistic(np.concatenate(parts[:i] + parts[i + 1 :])) for i in range(blocks)]
    return float(statistic(samples)), float(np.sqrt((blocks - 1) * np.var(without)))


def save(path: Path, header: str, data: NDArray, figure: pyplot.Figure) -> None:
    """Write ``path``.csv and ``path``.png, and print their names."""
    np.savetxt(path.with_suffix(".csv"), data, delimiter=",", header=header, comments="", fmt="%.10g")
    figure.savefig(path.with_suffix(".png"))
    print(f"Picture and data: {path}.png, {path.name}.csv")
