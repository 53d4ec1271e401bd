"""CPU milliseconds of an evaluation of general models, compiled, in float32, on one core.

    python benchmarks/organic/times.py [organic organic-small ...] [--water 192 648] [--rounds 60]

The molecules are those of ``examples/organic`` and 3BPA, of 27 atoms; water has the density of the liquid. Each
evaluation has energies and forces, after a move that leaves the neighbour list as it is. The models take turns, and the
fastest round counts: machines are shared, and other programs disturb them in phases. Prints Markdown.
"""

import argparse
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import torch
from judging import table

from ase_nbody import NBodyCalculator

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks" / "speed"))
MOVE_ANGSTROM = 1e-4


def systems(water: list[int]) -> dict[str, ase.Atoms]:
    """What is timed, by name."""
    from structures import structure

    files = sorted((ROOT / "examples" / "organic").glob("*.xyz"))
    found = {path.stem.replace("_", " "): ase.io.read(path) for path in files}
    return {**found, "3BPA": structure("3BPA"), **{f"water {n}": structure(f"water {n}") for n in water}}


def fastest(copies: dict[str, ase.Atoms], rounds: int) -> dict[str, float]:
    """CPU seconds of the fastest evaluation of each of some equal systems, which differ by their calculators."""
    best = dict.fromkeys(copies, np.inf)
    for number in range(rounds):
        for name, atoms in copies.items():
            began = atoms.positions.copy()
            atoms.positions = began + np.random.default_rng(number).normal(scale=MOVE_ANGSTROM, size=began.shape)
            start = time.process_time()  # of this process alone, which has one thread
            atoms.get_forces()
            best[name] = min(best[name], time.process_time() - start)
            atoms.positions = began
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=["organic", "organic-small"])
    parser.add_argument("--water", type=int, nargs="*", default=[192, 648], help="numbers of atoms")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[list[object]] = []
    for name, atoms in systems(options.water).items():
        copies = {}
        for model in options.models:
            copies[model] = atoms.copy()
            copies[model].calc = NBodyCalculator(model, dtype="float32", compile=True, threads=1)
            copies[model].get_forces()
        best = fastest(copies, options.rounds)
        rows.append([name, len(atoms), *(f"{1e3 * best[model]:.2f}" for model in options.models)])
    print(table(["system", "atoms", *(f"{model}, ms" for model in options.models)], rows))


if __name__ == "__main__":
    main()
