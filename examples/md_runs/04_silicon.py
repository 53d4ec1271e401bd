"""Silicon: lattice constant, equation of state, elastic constants and a run at constant pressure (NPT).

Units: Angstrom, eV, GPa, K, fs. Strains are engineering strains in Voigt's order (xx, yy, zz, yz, xz, xy): a shear
strain is twice the component of the strain tensor.
"""

import time
from pathlib import Path

import ase
import numpy as np
from ase import units
from ase.build import bulk
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.stress import voigt_6_to_full_3x3_strain
from common import calculator_for, command_line, draw_velocities, jackknife, pyplot, relax, run_script, sample, save

PBE = {"a": 5.47, "B": 89.0, "C11": 153.0, "C12": 57.0, "C44": 75.0}  # Angstrom and GPa
STIFFNESSES = ("B", "C11", "C12", "C44")
TEMPERATURE_K = 300.0
TIMESTEP_FS = 2.0  # a thirtieth of the period of the fastest phonon
STEPS_BETWEEN_SAMPLES = 5
OBSERVABLES = {"temperature": "K", "pressure": "GPa", "lattice constant": "Angstrom"}


def relaxed_diamond(model: str) -> ase.Atoms:
    """The primitive cell with its two atoms, relaxed. The edges of the cubic cell lie along the axes."""
    atoms = bulk("Si", "diamond", a=5.43)
    atoms.calc = calculator_for(atoms, model)
    relax(FrechetCellFilter(atoms), fmax=1e-4)
    return atoms


def lattice_constant(atoms: ase.Atoms) -> float:
    """The edge in Angstrom of the cubic cell, which holds eight atoms."""
    return (8 * atoms.get_volume() / len(atoms)) ** (1 / 3)


def strained(atoms: ase.Atoms, strain: np.ndarray, relaxed: bool = True) -> ase.Atoms:
    """The crystal under a Voigt strain (6,). A sheared diamond lattice must be relaxed: its atoms move in the cell."""
    image = atoms.copy()
    image.calc = atoms.calc
    image.set_cell(atoms.cell @ voigt_6_to_full_3x3_strain(strain), scale_atoms=True)
    if relaxed:
        relax(image, fmax=1e-4)
    return image


def elastic_constants(atoms: ase.Atoms, size: float = 0.005, relaxed: bool = True) -> np.ndarray:
    """Elastic constants (6, 6) in GPa of a stress-free crystal, by central differences of the stress."""
    columns = []
    for strain in size * np.eye(6):
        ahead, behind = (strained(atoms, sign * strain, relaxed).get_stress() for sign in (1, -1))
        columns.append((ahead - behind) / (2 * size))
    return np.array(columns).T / units.GPa


def cubic(constants: np.ndarray) -> dict[str, float]:
    """C11, C12 and C44 of a cubic crystal, each the mean over equivalent axes."""
    normal, shear = constants[:3, :3], constants[3:, 3:]
    off_diagonal = normal[~np.eye(3, dtype=bool)]
    return {"C11": np.diag(normal).mean(), "C12": off_diagonal.mean(), "C44": np.diag(shear).mean()}


def equation_of_state(atoms: ase.Atoms, points: int = 9) -> tuple[EquationOfState, np.ndarray]:
    """Birch-Murnaghan fit over strains of -2 to 2 %, and the fitted volumes and energies per atom (2, points)."""
    images = [strained(atoms, strain * np.array([1, 1, 1, 0, 0, 0])) for strain in np.linspace(-0.02, 0.02, points)]
    curve = np.array([(image.get_volume(), image.get_potential_energy()) for image in images]).T / len(atoms)
    return EquationOfState(*curve, eos="birchmurnaghan"), curve


def run_npt(primitive: ase.Atoms, picoseconds: float, folder: Path, resume: bool) -> np.ndarray:
    """Run 64 atoms at 300 K and zero pressure. Columns: time in ps, then the ``OBSERVABLES``."""
    atoms = bulk("Si", "diamond", a=lattice_constant(primitive), cubic=True) * (2, 2, 2)
    atoms.calc = primitive.calc
    draw_velocities(atoms, 2 * TEMPERATURE_K)  # half of the kinetic energy becomes potential energy
    dynamics = IsotropicMTKNPT(
        atoms,
        TIMESTEP_FS * units.fs,
        temperature_K=TEMPERATURE_K,
        pressure_au=0.0,
        tdamp=100 * TIMESTEP_FS * units.fs,
        pdamp=500 * TIMESTEP_FS * units.fs,
    )
    table = sample(dynamics, folder, round(1000 * picoseconds / TIMESTEP_FS), STEPS_BETWEEN_SAMPLES, resume)
    lattice_constants = (8 * table["volume_A3"] / len(atoms)) ** (1 / 3)
    return np.column_stack([table["time_ps"], table["temperature_K"], table["pressure_GPa"], lattice_constants])


def plot(eos: EquationOfState, curve: np.ndarray, values: dict[str, float], run: np.ndarray) -> pyplot.Figure:
    layout = [["curve", "temperature"], ["curve", "pressure"], ["constants", "lattice constant"]]
    figure, axes = pyplot.subplot_mosaic(layout, figsize=(9, 6.5), layout="constrained")
    volumes = np.linspace(*curve[0, [0, -1]], 100)
    energies = eos.func(volumes, *eos.eos_parameters)
    axes["curve"].plot(volumes, energies - energies.min())
    axes["curve"].plot(curve[0], curve[1] - energies.min(), "o", color="C0")
    axes["curve"].set(xlabel="volume / Angstrom$^3$ per atom", ylabel="energy / eV per atom")
    for offset, (label, constants) in zip((-0.2, 0.2), {"model": values, "PBE": PBE}.items(), strict=True):
        axes["constants"].bar(np.arange(4) + offset, [constants[name] for name in STIFFNESSES], 0.4, label=label)
    axes["constants"].set(ylabel="GPa", xticks=range(4), xticklabels=STIFFNESSES)
    axes["constants"].legend()
    for column, (name, unit) in enumerate(OBSERVABLES.items(), start=1):
        axes[name].plot(run[:, 0], run[:, column], lw=0.7)
        axes[name].set(ylabel=f"{name} / {unit}")
    axes["lattice constant"].set(xlabel="time / ps")
    return figure


def main() -> None:
    parser = command_line(__doc__, model="silicon")
    parser.add_argument("--ps", type=float, help="length of the run (default: 3, or 0.06 with --quick)")
    parser.add_argument("--resume", action="store_true", help="continue a run at 300 K that was killed")
    options = parser.parse_args()
    picoseconds = options.ps or (0.06 if options.quick else 3.0)

    crystal = relaxed_diamond(options.model)
    eos, curve = equation_of_state(crystal)
    bulk_modulus = eos.fit()[2] / units.GPa
    values = {"a": lattice_constant(crystal), "B": bulk_modulus} | cubic(elastic_constants(crystal))
    print(f"Silicon from the model {options.model!r}, compared with PBE:")
    for name, value in values.items():
        unit = "Angstrom" if name == "a" else "GPa"
        print(f"  {name:4} {value:8.3f} {unit} (PBE {PBE[name]:g} {unit}: {100 * (value / PBE[name] - 1):+.1f} %)")
    from_constants = (values["C11"] + 2 * values["C12"]) / 3
    print(f"Bulk modulus from the elastic constants, (C11 + 2 C12) / 3: {from_constants:.1f} GPa.")

    print(f"64 atoms at {TEMPERATURE_K:.0f} K and zero pressure for {picoseconds} ps ...", flush=True)
    began = time.perf_counter()
    run = run_npt(crystal, picoseconds, options.output / "04_silicon", options.resume)
    milliseconds = 1000 * (time.perf_counter() - began) / (1000 * picoseconds / TIMESTEP_FS)
    settled = run[len(run) // 5 :]
    for column, (name, unit) in enumerate(OBSERVABLES.items(), start=1):
        mean, error = jackknife(np.mean, settled[:, column], blocks=5)
        print(f"Mean {name}: {mean:.4f} +- {error:.4f} {unit}.")
    print(f"Speed: {milliseconds:.1f} ms per step of 64 atoms.")
    save(
        options.output / "04_silicon",
        "time_ps,temperature_K,pressure_GPa,lattice_constant_Angstrom",
        run,
        plot(eos, curve, values, run),
    )


if __name__ == "__main__":
    run_script(main)
