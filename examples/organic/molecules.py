"""Aspirin, caffeine and alanine dipeptide with the general organic model: relaxed, and then at 300 K.

    python molecules.py [aspirin caffeine alanine_dipeptide] [--model organic] [--ps 1]

Any other molecule works in the same way. The geometries beside this script are those that RDKit makes of SMILES. It
prints the energy that relaxation gains, and the mean temperature of the run with its highest force.
"""

import argparse
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import units
from ase.calculators.calculator import CalculatorError
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import BFGS

from ase_nbody import NBodyCalculator

HERE = Path(__file__).parent
MOLECULES = ("aspirin", "caffeine", "alanine_dipeptide")
TEMPERATURE_K, TIMESTEP_FS, FRICTION_PER_FS = 300.0, 0.5, 0.02
STEPS_BETWEEN_SAMPLES = 10


def heated(atoms: ase.Atoms, steps: int) -> tuple[float, float]:
    """Mean temperature in K and largest force in eV/Angstrom of a run of Langevin dynamics."""
    rng = np.random.default_rng(0)
    thermalize_momenta(atoms, TEMPERATURE_K, rng=rng)
    settings = {"temperature_K": TEMPERATURE_K, "friction": FRICTION_PER_FS / units.fs, "fixcm": False, "rng": rng}
    dynamics = Langevin(atoms, TIMESTEP_FS * units.fs, **settings)
    seen = []
    for _ in range(max(1, steps // STEPS_BETWEEN_SAMPLES)):
        dynamics.run(STEPS_BETWEEN_SAMPLES)
        seen.append((atoms.get_temperature(), np.linalg.norm(atoms.get_forces(), axis=1).max()))
    temperatures, forces = np.transpose(seen)
    return temperatures.mean(), forces.max()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "molecules", nargs="*", default=MOLECULES, metavar="MOLECULE", help=f"of {', '.join(MOLECULES)}"
    )
    parser.add_argument("--model", default="organic", help="name or file (default: %(default)s)")
    parser.add_argument("--ps", type=float, default=1.0, help="length of each run (default: %(default)s)")
    options = parser.parse_args()
    if unknown := sorted({*options.molecules} - {*MOLECULES}):
        parser.error(f"no molecule {', '.join(unknown)}; there are {', '.join(MOLECULES)}")
    torch.set_num_threads(1)
    calculator = NBodyCalculator(options.model)
    for name in options.molecules:
        atoms = ase.io.read(HERE / f"{name}.xyz")
        atoms.calc = calculator
        before = atoms.get_potential_energy()
        relaxed = BFGS(atoms, logfile=None).run(fmax=0.01, steps=500)
        gained = before - atoms.get_potential_energy()
        outcome = "relaxed" if relaxed else "not relaxed after 500 steps"
        print(f"{name}: {outcome}, {gained:.3f} eV below RDKit's geometry.")
        temperature, force = heated(atoms, round(1000 * options.ps / TIMESTEP_FS))
        print(f"  {options.ps:g} ps: mean temperature {temperature:.0f} K, largest force {force:.1f} eV/Angstrom.")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, CalculatorError) as error:
        raise SystemExit(f"error: {error}") from None
