"""Milliseconds per velocity Verlet step through ASE: 9, 27, 64 and 192 atoms, one thread, both precisions, eager and
compiled.

    python benchmarks/speed/md_step.py [--threads N] [--rounds N]

The cases are timed alternately in one run, and medians over the rounds are shown: machines are shared and noisy. The
water model has random weights: speed does not depend on them.
"""

import argparse
import itertools
import time

import ase
import numpy as np
import torch
from ase import units
from ase.build import bulk, molecule
from ase.md.verlet import VelocityVerlet

from ase_nbody import NBodyCalculator, NBodyConfig, NBodyNetwork, load_model

STEPS = 10


def three_ethanols() -> ase.Atoms:
    atoms = molecule("CH3CH2OH")
    for shift in (4.0, 8.0):
        other = molecule("CH3CH2OH")
        other.translate((0.0, 0.0, shift))
        atoms += other
    return atoms


def water_box() -> ase.Atoms:
    """64 molecules at the density of the liquid."""
    box = molecule("H2O", cell=[3.105] * 3, pbc=True).repeat(4)
    box.rattle(0.05, seed=0)
    return box


def silicon() -> ase.Atoms:
    crystal = bulk("Si", cubic=True).repeat(2)
    crystal.rattle(0.05, seed=0)
    return crystal


def cases() -> dict[str, tuple[ase.Atoms, NBodyNetwork]]:
    torch.manual_seed(0)
    ethanol = load_model("ethanol")
    water = NBodyNetwork(NBodyConfig(species=("H", "O"), energy_scale=1e-3)).requires_grad_(False)
    return {
        "9 atoms, ethanol": (molecule("CH3CH2OH"), ethanol),
        "27 atoms, three ethanols": (three_ethanols(), ethanol),
        "64 atoms, silicon": (silicon(), load_model("silicon")),
        "192 atoms, water, default network": (water_box(), water),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()

    dynamics = {}
    for name, (atoms, network) in cases().items():
        for dtype, compiled in itertools.product(("float64", "float32"), (False, True)):
            copy = atoms.copy()
            copy.calc = NBodyCalculator(network, dtype=dtype, compile=compiled, threads=options.threads)
            key = (name, dtype, "compiled" if compiled else "eager")
            dynamics[key] = VelocityVerlet(copy, 0.5 * units.fs)
            dynamics[key].run(2)
    samples: dict[tuple[str, str, str], list[float]] = {key: [] for key in dynamics}
    for _ in range(options.rounds):
        for key, one in dynamics.items():
            began = time.perf_counter()
            one.run(STEPS)
            samples[key].append(1e3 * (time.perf_counter() - began) / STEPS)
    for (name, dtype, way), times in samples.items():
        low, high = np.percentile(times, [25, 75])
        print(f"{name:36s} {dtype} {way:8s}  {np.median(times):7.2f} ms per step  (quartiles {low:.2f} ... {high:.2f})")


if __name__ == "__main__":
    main()
