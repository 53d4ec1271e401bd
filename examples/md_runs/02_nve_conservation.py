"""Energy conservation of ethanol at constant energy (NVE): are the forces the gradient of a smooth energy?

The total energy of a velocity Verlet run may fluctuate by an amount that falls as the square of the time step, but it
must not drift. Units: fs, K, eV; the drift in meV per atom and ps.
"""

from pathlib import Path

import ase
import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet
from common import command_line, draw_velocities, ethanol, jackknife, pyplot, run_script, sample, save

TEMPERATURE_K = 300.0
MAX_DRIFT = 0.01  # meV/atom/ps
TIMESTEPS_FS = (0.25, 0.5, 1.0)  # they show how the fluctuation falls


def run_nve(minimum: ase.Atoms, timestep: float, picoseconds: float, folder: Path, resume: bool) -> np.ndarray:
    """Run from the minimum, and return a row about every 2 fs.

    Columns: time in ps, total energy in meV/atom relative to the start, temperature in K.
    """
    atoms = minimum.copy()
    atoms.calc = minimum.calc
    vibrations = 3 * len(atoms) - 6  # the molecule neither moves nor rotates as a whole
    draw_velocities(atoms, TEMPERATURE_K)
    # At the minimum there is no potential energy, and half of the kinetic energy becomes potential: start with twice
    # the mean.
    kinetic = vibrations * units.kB * TEMPERATURE_K
    atoms.set_momenta(atoms.get_momenta() * np.sqrt(kinetic / atoms.get_kinetic_energy()))

    dynamics = VelocityVerlet(atoms, timestep * units.fs)
    every = max(1, round(2.0 / timestep))
    steps = round(1000 * picoseconds / timestep)
    table = sample(dynamics, folder, steps, every, resume)
    per_atom = 1000 * (table["total_eV"] - table["total_eV"][0]) / len(atoms)
    return np.column_stack([table["time_ps"], per_atom, 2 * table["kinetic_eV"] / (vibrations * units.kB)])


def slope(run: np.ndarray) -> float:
    """Drift of the energy in meV/atom/ps, by linear regression."""
    return np.polyfit(run[:, 0], run[:, 1], 1)[0]


def fluctuation(run: np.ndarray) -> float:
    """Root-mean-square deviation of the energy from its regression line in meV/atom."""
    times, energies, _ = run.T
    return (energies - np.polyval(np.polyfit(times, energies, 1), times)).std()


def verdict(drift: float, error: float, picoseconds: float) -> str:
    if picoseconds < 1.0:
        return "TOO SHORT to judge the drift: use at least --ps 1."
    if abs(drift) + 2 * error < MAX_DRIFT:
        return f"PASS: the drift is below {MAX_DRIFT} meV/atom/ps, with two standard errors to spare."
    if abs(drift) - 2 * error > MAX_DRIFT:
        return f"FAIL: the drift is above {MAX_DRIFT} meV/atom/ps."
    return f"TOO SHORT to tell whether the drift is below {MAX_DRIFT} meV/atom/ps: use a longer --ps."


def plot(run: np.ndarray, timesteps: np.ndarray, fluctuations: np.ndarray) -> pyplot.Figure:
    times, energies, temperatures = run.T
    figure, axes = pyplot.subplot_mosaic(
        [["energy", "scaling"], ["temperature", "scaling"]], figsize=(9, 5.5), width_ratios=(2, 1), layout="constrained"
    )
    axes["energy"].plot(times, energies, lw=0.4)
    axes["energy"].plot(times, np.polyval(np.polyfit(times, energies, 1), times), color="C3", label="regression")
    axes["energy"].set(ylabel="total energy / meV per atom")
    axes["energy"].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False)  # above the data
    axes["temperature"].plot(times, temperatures, lw=0.4)
    axes["temperature"].set(xlabel="time / ps", ylabel="temperature / K")
    axes["scaling"].plot(timesteps**2, fluctuations, "o")
    squares = np.array([0.0, 1.05 * timesteps[-1] ** 2])
    axes["scaling"].plot(squares, squares * fluctuations[0] / timesteps[0] ** 2, "k--", zorder=0, label="square law")
    axes["scaling"].set(xlabel="square of the time step / fs$^2$", ylabel="fluctuation / meV per atom")
    axes["scaling"].set(xlim=(0, None), ylim=(0, None))
    axes["scaling"].legend(loc="upper left", frameon=False)
    return figure


def main() -> None:
    parser = command_line(__doc__, model="ethanol")
    parser.add_argument("--ps", type=float, help="length of the run (default: 10, or 0.15 with --quick)")
    parser.add_argument("--timestep", type=float, default=0.5, help="in fs (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="continue a run that was killed")
    options = parser.parse_args()
    picoseconds = options.ps or (0.15 if options.quick else 10.0)

    atoms = ethanol(options.model)
    print(
        f"NVE of ethanol, model {options.model!r}: {picoseconds} ps in steps of {options.timestep} fs ...", flush=True
    )
    folder = options.output / "02_nve_conservation"
    run = run_nve(atoms, options.timestep, picoseconds, folder, options.resume)
    drift, error = jackknife(slope, run)
    temperature, temperature_error = jackknife(np.mean, run[:, 2])
    print(f"Mean temperature: {temperature:.1f} +- {temperature_error:.1f} K.")
    print(f"Fluctuation of the total energy: {fluctuation(run):.4f} meV/atom.")
    print(f"Drift of the total energy: {drift:.5f} +- {error:.5f} meV/atom/ps.")
    print(verdict(drift, error, picoseconds))

    timesteps = np.array(TIMESTEPS_FS)
    short = 0.03 if options.quick else 0.5
    runs = [run_nve(atoms, step, short, folder / f"{step:g}_fs", options.resume) for step in timesteps]
    fluctuations = np.array([fluctuation(run) for run in runs])
    power = np.polyfit(np.log(timesteps), np.log(fluctuations), 1)[0]
    for step, size in zip(timesteps, fluctuations, strict=True):
        print(f"  time step {step:.2f} fs: fluctuation {size:.4f} meV/atom")
    print(f"The fluctuation falls with the time step to the power {power:.2f} (velocity Verlet: 2).")
    save(
        options.output / "02_nve_conservation",
        "time_ps,energy_meV_per_atom,temperature_K",
        run,
        plot(run, timesteps, fluctuations),
    )


if __name__ == "__main__":
    run_script(main)
