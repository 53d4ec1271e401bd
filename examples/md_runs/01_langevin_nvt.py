"""Langevin dynamics of ethanol at constant temperature (NVT): does the temperature stay right, and how fast is a step?

Relax the molecule, give it velocities, let it equilibrate, and then observe it. Units: fs, K, eV.
"""

import time

import ase
import numpy as np
from ase import units
from ase.constraints import FixCom
from ase.io import read, write
from ase.md.langevin import Langevin
from common import command_line, draw_velocities, ethanol, jackknife, run_script, sample, save

from ase_nbody import NBodyMonitor
from ase_nbody.dynamics import draw_run

TEMPERATURE_K = 300.0
TIMESTEP_FS = 0.5  # a twentieth of the period of the O-H vibration
FRICTION_PER_FS = 0.02  # the molecule forgets its energy within about 0.1 ps
STEPS_BETWEEN_SAMPLES = 10


def heat_capacity(energies: np.ndarray) -> float:
    """Heat capacity at constant volume in kB: var(E) / (kB T)^2 from the total energies E in eV."""
    return energies.var() / (units.kB * TEMPERATURE_K) ** 2


def equipartition(atoms: ase.Atoms) -> float:
    """Heat capacity in kB of classical oscillators: each momentum and each vibration contributes half a kB."""
    momenta = atoms.get_number_of_degrees_of_freedom()  # 3 N - 3: the centre of mass is held
    vibrations = 3 * len(atoms) - 6
    return (momenta + vibrations) / 2


def main() -> None:
    parser = command_line(__doc__, model="ethanol")
    parser.add_argument("--ps", type=float, help="length of the run (default: 1, or 0.2 with --quick)")
    parser.add_argument("--resume", action="store_true", help="continue a run that was killed")
    options = parser.parse_args()
    picoseconds = options.ps or (0.2 if options.quick else 1.0)
    steps, steps_before = round(1000 * picoseconds / TIMESTEP_FS), round(100 * picoseconds / TIMESTEP_FS)

    atoms = ethanol(options.model)
    minimum = atoms.get_potential_energy()
    print(f"Ethanol from the model {options.model!r}: relaxed to {minimum:.4f} eV.")
    print(f"Langevin dynamics: {steps_before} steps to equilibrate, then {steps}, of {TIMESTEP_FS} fs ...", flush=True)

    atoms.set_constraint(FixCom())
    draw_velocities(atoms, TEMPERATURE_K)
    dynamics = Langevin(
        atoms,
        TIMESTEP_FS * units.fs,
        temperature_K=TEMPERATURE_K,
        friction=FRICTION_PER_FS / units.fs,
        fixcm=False,  # FixCom holds the centre of mass
        rng=np.random.default_rng(1),
    )
    dynamics.attach(NBodyMonitor(dynamics), interval=STEPS_BETWEEN_SAMPLES)

    began = time.perf_counter()
    folder = options.output / "01_langevin_nvt"
    table = sample(dynamics, folder, steps_before + steps, STEPS_BETWEEN_SAMPLES, options.resume)[
        steps_before // STEPS_BETWEEN_SAMPLES :
    ]
    milliseconds = 1000 * (time.perf_counter() - began) / (steps_before + steps)
    write(f"{folder}.traj", read(folder / "trajectory.extxyz", f"{steps_before // STEPS_BETWEEN_SAMPLES}:"))

    temperatures, potential, total = (
        table["temperature_K"],
        table["potential_eV"] - minimum,
        table["total_eV"] - minimum,
    )
    times = table["time_ps"] - table["time_ps"][0]
    mean, error = jackknife(np.mean, temperatures)
    capacity, capacity_error = jackknife(heat_capacity, total)
    print(f"Mean temperature: {mean:.1f} +- {error:.1f} K (target {TEMPERATURE_K:.0f} K).")
    print(f"Fluctuation of the total energy: {total.std():.3f} eV, that is a heat capacity of", end=" ")
    print(f"{capacity:.1f} +- {capacity_error:.1f} kB (classical oscillators: {equipartition(atoms):.1f} kB).")
    print(f"Speed: {milliseconds:.2f} ms per step, {0.0864 * TIMESTEP_FS / milliseconds * 1000:.1f} ns per day.")
    save(
        options.output / "01_langevin_nvt",
        "time_ps,temperature_K,potential_eV,total_eV",
        np.column_stack([times, temperatures, potential, total]),
        draw_run(table, TEMPERATURE_K),
    )


if __name__ == "__main__":
    run_script(main)
