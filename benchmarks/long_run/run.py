"""A long run of ethanol at constant energy: does the energy drift, does memory grow, do the steps slow down?

    python benchmarks/long_run/run.py [--model NAME] [--steps N] [--output FOLDER]

The run starts from the relaxed molecule and uses ASE's velocity Verlet at 300 K with 0.5 fs on one thread. Every 50
steps it records the total energy, the resident memory, the number of open files and the CPU time. The records go to
long_run.csv and are drawn in long_run.png. Units: fs, K, meV per atom, MB. It reads /proc, so it needs Linux.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import ase
import matplotlib
import numpy as np
import torch
from ase import units
from ase.build import molecule
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from matplotlib import pyplot
from numpy.typing import NDArray

from ase_nbody import NBodyCalculator

TEMPERATURE_K = 300.0
TIMESTEP_FS = 0.5
STEPS_BETWEEN_RECORDS = 50
SETTLING_STEPS = 1000  # after these, memory must not grow: allocators and caches have filled by then
COLUMNS = ("step", "energy_meV_per_atom", "memory_MB", "open_files", "cpu_ms_per_step")


def ethanol(model: str) -> ase.Atoms:
    """The relaxed molecule with velocities for a mean temperature of 300 K, without drift and rotation."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = NBodyCalculator(model)
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=500)
    thermalize_momenta(atoms, TEMPERATURE_K, rng=np.random.default_rng(0))
    Stationary(atoms, preserve_temperature=False)
    ZeroRotation(atoms, preserve_temperature=False)
    # At the minimum there is no potential energy, and half of the kinetic energy becomes potential: start with twice
    # the mean of 3 N - 6 vibrations.
    kinetic = (3 * len(atoms) - 6) * units.kB * TEMPERATURE_K
    atoms.set_momenta(atoms.get_momenta() * np.sqrt(kinetic / atoms.get_kinetic_energy()))
    return atoms


def resident_memory() -> float:
    """The memory of this process that is in RAM, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(atoms: ase.Atoms, steps: int) -> NDArray:
    """Run, and return the records (samples, columns). The table has its full size from the start, so it cannot grow."""
    dynamics = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)
    records = np.zeros((steps // STEPS_BETWEEN_RECORDS, len(COLUMNS)))
    start = atoms.get_total_energy()
    for row, record in enumerate(records):
        began = time.process_time()
        dynamics.run(STEPS_BETWEEN_RECORDS)
        duration = 1e3 * (time.process_time() - began) / STEPS_BETWEEN_RECORDS
        energy = 1e3 * (atoms.get_total_energy() - start) / len(atoms)
        record[:] = (
            (row + 1) * STEPS_BETWEEN_RECORDS,
            energy,
            resident_memory(),
            len(os.listdir("/proc/self/fd")),
            duration,
        )
    return records


def drift(records: NDArray) -> float:
    """The drift of the total energy in meV/atom/ps, by linear regression."""
    return float(np.polyfit(records[:, 0] * TIMESTEP_FS / 1000, records[:, 1], 1)[0])


def jackknife(statistic: Callable[[NDArray], float], records: NDArray, blocks: int = 10) -> float:
    """Standard error of a statistic of a time series, by leaving out blocks in turn.

    The blocks must be longer than the correlation time of the series.
    """
    parts = np.array_split(records, blocks)
    without = [statistic(np.concatenate(parts[:i] + parts[i + 1 :])) for i in range(blocks)]
    return float(np.sqrt((blocks - 1) * np.var(without)))


def report(records: NDArray) -> None:
    """Print drift, memory, open files and CPU time."""
    steps, _, memory, files, duration = records.T
    tenth = max(1, len(records) // 10)
    settled = records[steps >= SETTLING_STEPS] if steps[-1] > SETTLING_STEPS else records
    print(f"{steps[-1]:.0f} steps of {TIMESTEP_FS} fs:")
    print(f"  drift of the total energy  {drift(records):.5f} +- {jackknife(drift, records):.5f} meV/atom/ps")
    print(
        f"  resident memory            {memory[-1] - settled[0, 2]:+.1f} MB "
        f"from step {settled[0, 0]:.0f} to the end, at most {memory.max():.0f} MB"
    )
    print(f"  open files                 {files[0]:.0f} at the beginning, {files[-1]:.0f} at the end")
    print(
        f"  CPU time of a step         {np.median(duration[:tenth]):.2f} ms in the first tenth, "
        f"{np.median(duration[-tenth:]):.2f} ms in the last (medians)"
    )


def draw(records: NDArray, path: Path) -> None:
    """Draw energy, memory and time per step over the run."""
    steps, energies, memory, _, duration = records.T
    picoseconds = steps * TIMESTEP_FS / 1000
    figure, axes = pyplot.subplots(3, sharex=True, figsize=(7, 6), layout="constrained")
    axes[0].plot(picoseconds, energies, lw=0.5)
    axes[0].plot(picoseconds, np.polyval(np.polyfit(picoseconds, energies, 1), picoseconds), color="C3")
    axes[0].set(ylabel="energy / meV per atom")
    axes[1].plot(picoseconds, memory)
    axes[1].set(ylabel="resident memory / MB", ylim=(0, 1.2 * memory.max()))
    axes[2].plot(picoseconds, duration, ".", ms=2)
    axes[2].set(ylabel="CPU time of a step / ms", xlabel="time / ps", ylim=(0, 3 * np.median(duration)))
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="ethanol", help="shipped model or model file (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=100_000, help="at least 1000 (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parents[2] / "docs", help="folder (default: docs)"
    )
    options = parser.parse_args()
    if options.steps < SETTLING_STEPS:
        parser.error(f"--steps {options.steps} is too short to tell anything: give at least {SETTLING_STEPS}")

    matplotlib.use("Agg")  # pictures go to files, so no screen is needed
    torch.set_num_threads(1)  # a molecule this small keeps one core busy
    records = run(ethanol(options.model), options.steps)
    report(records)
    options.output.mkdir(parents=True, exist_ok=True)
    table = options.output / "long_run.csv"
    np.savetxt(table, records, delimiter=",", header=",".join(COLUMNS), comments="", fmt="%.8g")
    draw(records, table.with_suffix(".png"))
    print(f"Wrote {table} and {table.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
