"""Data as a user would make them: acetamide from molecular dynamics at 500 K, labelled by GFN2-xTB (tblite).

    pip install tblite && python benchmarks/own_data/label.py acetamide.extxyz test.extxyz

200 frames, 20 fs apart, for training, and 100 of another run for the test.
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

TEMPERATURE = 500.0  # K
APART = 20  # steps of 1 fs
FIRST = 500  # steps before the first frame


def frames(number: int, seed: int) -> list[Atoms]:
    """So many labelled frames of a run."""
    rng = np.random.default_rng(seed)
    atoms = molecule("CH3CONH2")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    thermalize_momenta(atoms, TEMPERATURE, rng=rng)
    dynamics = Langevin(
        atoms, 1.0 * units.fs, temperature_K=TEMPERATURE, friction=0.02 / units.fs, fixcm=False, rng=rng
    )
    dynamics.run(FIRST)
    found = []
    for _ in range(number):
        dynamics.run(APART)
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
