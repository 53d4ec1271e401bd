"""What a run writes about a step: a frame of the trajectory and a row of the table."""

import io
from collections.abc import Sequence
from typing import Any

import ase.io
import numpy as np
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.md import MolecularDynamics


def has_stress(atoms: ase.Atoms) -> bool:
    """Whether the atoms are periodic in three directions and their calculator offers the stress."""
    return bool(atoms.pbc.all()) and "stress" in atoms.calc.implemented_properties


def has_spread(calculator: Any) -> bool:
    """Whether a calculator is a committee: it offers ``forces_spread``, and if it lists networks, has more than one."""
    networks = getattr(calculator, "networks", None)
    return hasattr(type(calculator), "forces_spread") and (networks is None or len(networks) > 1)


def frame(dynamics: MolecularDynamics) -> str:
    """The step as text in extended XYZ: positions, momenta, unconstrained forces, energy, stress and time."""
    atoms = dynamics.atoms
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(apply_constraint=False)}
    if has_stress(atoms):
        results["stress"] = atoms.get_stress()
    image = atoms.copy()
    image.set_constraint()
    image.info = {"step": dynamics.nsteps, "time_fs": time_fs(dynamics)}
    image.calc = SinglePointCalculator(image, **results)
    text = io.StringIO()
    ase.io.write(text, image, format="extxyz")
    return text.getvalue()


def row(dynamics: MolecularDynamics) -> dict[str, float]:
    """The observables of the step. Each key is the name of a column and ends in the unit.

    Volume and pressure (with the kinetic part) are there for systems that are periodic in three directions. The spread
    is there for committees: it is the largest standard deviation of a force vector over all atoms.
    """
    atoms = dynamics.atoms
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    found = {
        "step": dynamics.nsteps,
        "time_ps": time_fs(dynamics) / 1000,
        "potential_eV": potential,
        "kinetic_eV": kinetic,
        "total_eV": potential + kinetic,
        "temperature_K": atoms.get_temperature(),
    }
    if has_stress(atoms):
        found["volume_A3"] = atoms.get_volume()
        found["pressure_GPa"] = -atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa
    if has_spread(atoms.calc):
        found["spread_eV_per_A"] = np.linalg.norm(atoms.calc.forces_spread, axis=1).max()
    return found


def csv_line(values: Sequence[Any]) -> str:
    """One line of the table; floats keep all their digits."""
    return ",".join(map(str, values)) + "\n"


def time_fs(dynamics: MolecularDynamics) -> float:
    """Time in fs since step 0, rounded so that round-off does not fill the table with digits."""
    return round(dynamics.get_time() / units.fs, 9)
