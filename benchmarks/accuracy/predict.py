"""Errors of a calculator on test frames. As a program it runs in the environment of the calculator's package.

    python predict.py '{"size": "mace runs/price/silicon/mace", "frames": "test.xyz", "dtype": "float32"}'

It prints one line of JSON at the end: the errors, and the number of weights. What ``size`` means says
``make_trained.py``. Calculators are not compiled for this, because compilers would begin anew for each size of system.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import ase
import ase.io
import numpy as np
from numpy.typing import ArrayLike

UNITS = {"energy": "meV/atom", "forces": "meV/Angstrom"}


def errors(
    frames: Sequence[ase.Atoms], energies: Sequence[float], forces: Sequence[ArrayLike]
) -> dict[str, dict[str, float]]:
    """RMSE and MAE of energies in meV/atom, with their constant offset, and of components of forces in meV/Angstrom.

    Args:
        frames: structures with the labels ``REF_energy`` in eV and ``REF_forces`` (N, 3) in eV/Angstrom.
        energies: predicted energy of each structure in eV.
        forces: predicted forces (N, 3) of each structure in eV/Angstrom.
    """
    labels = [(atoms.info["REF_energy"], atoms.arrays["REF_forces"]) for atoms in frames]
    misses = {
        "energy": [(e - there) / len(f) for e, (there, f) in zip(energies, labels, strict=True)],
        "forces": np.concatenate([np.ravel(f - there) for f, (_, there) in zip(forces, labels, strict=True)]),
    }
    return {
        name: {"rmse": 1e3 * float(np.sqrt(np.mean(np.square(miss)))), "mae": 1e3 * float(np.mean(np.abs(miss)))}
        for name, miss in misses.items()
    }


def main() -> None:
    task = json.loads(sys.argv[1])
    sys.path.append(str(Path(__file__).resolve().parents[1] / "speed"))
    from make_trained import make

    frames = ase.io.read(task["frames"], ":")
    species = sorted({symbol for atoms in frames for symbol in atoms.get_chemical_symbols()})
    calculator, weights = make(task["size"], "eager", task["dtype"], "cpu", species, Path())
    energies, forces = [], []
    for atoms in frames:
        bare = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, calculator=calculator)
        energies.append(bare.get_potential_energy())
        forces.append(bare.get_forces())
    print(json.dumps({**errors(frames, energies, forces), "weights": weights}))


if __name__ == "__main__":
    main()
