"""Make data as a user would: acetamide from molecular dynamics at 500 K, labelled by GFN2-xTB (tblite).

    pip install tblite && python benchmarks/own_data/label.py acetamide.extxyz test.extxyz

The first file gets 200 frames for training, 20 fs apart, and the second gets 100 test frames from another run.
"""

import sys

import ase.io
import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from tblite.ase import TBLite

TEMPERATURE_K = 500.0
STEPS_BETWEEN_FRAMES = 20  # of 1 fs each
STEPS_BEFORE_FIRST = 500


def frames(number: int, seed: int) -> list[Atoms]:
    """Run molecular dynamics, and return that number of labelled frames."""
    rng = np.random.default_rng(seed)
    atoms = molecule("CH3CONH2")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    thermalize_momenta(atoms, TEMPERATURE_K, rng=rng)
    dynamics = Langevin(
        atoms, 1.0 * units.fs, temperature_K=TEMPERATURE_K, friction=0.02 / units.fs, fixcm=False, rng=rng
    )
    dynamics.run(STEPS_BEFORE_FIRST)
    found = []
    for _ in range(number):
        dynamics.run(STEPS_BETWEEN_FRAMES)
        labelled = Atoms(atoms.numbers, atoms.positions)
        labelled.calc = SinglePointCalculator(labelled, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        found.append(labelled)
    return found


def main() -> None:
    train, test = sys.argv[1:]
    ase.io.write(train, frames(200, seed=0))
    ase.io.write(test, frames(100, seed=1))


if __name__ == "__main__":
    main()
