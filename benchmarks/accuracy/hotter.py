"""Make frames of a molecule that are hotter than its training data, to see how far the accuracy of a model reaches.

    python benchmarks/accuracy/hotter.py FILE OUTPUT.extxyz [--temperatures 600 900 1200] [--frames 10]
    nbody evaluate MODEL OUTPUT_600K.extxyz

The first frame of FILE is the start of Langevin dynamics with GFN1-xTB, a method that no training here uses. After 1 ps
a frame is taken every 100 fs. The frames are labelled with the theory of rMD17, PBE/def2-SVP, by pyscf with density
fitting, grid level 4 and the response of the grid. Its forces agree with rMD17's own to 0.6 meV/Angstrom. The program
needs ``pip install tblite pyscf``; a frame of ethanol takes a quarter of a minute on a busy core.
"""

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from pyscf import dft, gto

from ase_nbody.training.tight_binding import tight_binding


def structures(start: Atoms, temperature: float, frames: int) -> list[Atoms]:
    """Structures from molecular dynamics at a temperature in K."""
    atoms, rng = Atoms(start.numbers, start.positions), np.random.default_rng(int(temperature))
    atoms.calc = tight_binding("GFN1-xTB")
    thermalize_momenta(atoms, temperature, rng=rng)
    dynamics = Langevin(atoms, units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=rng)
    dynamics.run(900)
    found = []
    for _ in range(frames):
        dynamics.run(100)
        found.append(Atoms(atoms.numbers, atoms.positions, info={"temperature": temperature}))
    return found


def label(atoms: Atoms) -> Atoms:
    """Give the structure its energy and forces by PBE/def2-SVP."""
    pairs = list(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True))
    field = dft.RKS(gto.M(atom=pairs, basis="def2-svp", verbose=0)).density_fit()
    field.xc, field.grids.level, field.conv_tol = "pbe", 4, 1e-9
    energy = field.kernel() * units.Hartree
    if not field.converged:
        raise ArithmeticError(f"the self-consistent field of a frame at {atoms.info['temperature']} K did not converge")
    gradient = field.nuc_grad_method()
    gradient.grid_response = True
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=-gradient.kernel() * units.Hartree / units.Bohr)
    return atoms


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[600.0, 900.0, 1200.0])
    parser.add_argument("--frames", type=int, default=10)
    options = parser.parse_args()
    start = ase.io.read(options.file, index=0)
    for temperature in options.temperatures:
        found = [label(atoms) for atoms in structures(start, temperature, options.frames)]
        path = options.output.with_stem(f"{options.output.stem}_{temperature:.0f}K")
        ase.io.write(path, found, format="extxyz")  # whatever the ending: frames take long
        print(path, flush=True)


if __name__ == "__main__":
    main()
