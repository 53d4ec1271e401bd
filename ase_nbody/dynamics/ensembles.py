"""ASE's integrators, chosen by the name of their ensemble or thermostat, each with its usual coupling."""

from typing import Literal, get_args

import ase
import numpy as np
from ase import units
from ase.constraints import FixCom
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet

Ensemble = Literal["nve", "nvt", "langevin", "bussi", "nose-hoover", "npt"]
ENSEMBLES: tuple[str, ...] = get_args(Ensemble)

LANGEVIN_FRICTION_PER_FS = 0.01  # exchanges energy within about 50 fs
BUSSI_TIME_FS = 100.0
THERMOSTAT_PERIOD_STEPS, BAROSTAT_PERIOD_STEPS = 100, 1000  # of the Nose-Hoover chains


def make_dynamics(
    atoms: ase.Atoms,
    ensemble: str,
    *,
    timestep: float,
    temperature: float,
    pressure: float = 0.0,
    rng: np.random.Generator,
) -> MolecularDynamics:
    """Make an ASE integrator for ``atoms``.

    If the atoms have no constraint and the integrator allows one, this function holds the centre of mass: it sets
    ``FixCom`` on ``atoms``, and the temperature then counts 3 N - 3 momenta. ASE's Nose-Hoover chains count all 3 N
    and do not hold the centre of mass.

    Args:
        atoms: the system, with a calculator and momenta.
        ensemble: ``"nve"``, ``"nvt"`` (the same as ``"langevin"``), ``"bussi"``, ``"nose-hoover"``, or ``"npt"``
            (isotropic; Martyna, Tobias, Klein).
        timestep: in fs.
        temperature: in K; ``"nve"`` ignores it.
        pressure: in GPa; only ``"npt"`` uses it.
        rng: gives the random numbers of the stochastic thermostats.

    Raises:
        ValueError: the ensemble is unknown, or these atoms cannot be in it.
    """
    if ensemble not in ENSEMBLES:
        raise ValueError(f"the ensemble must be one of {', '.join(ENSEMBLES)}, got {ensemble!r}")
    if ensemble == "npt":
        _check_npt(atoms)
    elif ensemble != "nose-hoover" and not atoms.constraints and len(atoms) > 1:
        atoms.set_constraint(FixCom())
    step, kelvin = timestep * units.fs, {"temperature_K": temperature}
    match ensemble:
        case "nve":
            return VelocityVerlet(atoms, step)
        case "bussi":
            return Bussi(atoms, step, **kelvin, taut=BUSSI_TIME_FS * units.fs, rng=rng)
        case "nose-hoover":
            return NoseHooverChainNVT(atoms, step, **kelvin, tdamp=THERMOSTAT_PERIOD_STEPS * step)
        case "npt":
            times = {"tdamp": THERMOSTAT_PERIOD_STEPS * step, "pdamp": BAROSTAT_PERIOD_STEPS * step}
            return IsotropicMTKNPT(atoms, step, **kelvin, pressure_au=pressure * units.GPa, **times)
    # ``fixcm=True`` does not sample the canonical ensemble (see ASE's docstring of Langevin); ``FixCom`` does.
    return Langevin(atoms, step, **kelvin, friction=LANGEVIN_FRICTION_PER_FS / units.fs, fixcm=False, rng=rng)


def draw_velocities(atoms: ase.Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Give the atoms Maxwell-Boltzmann velocities at ``temperature`` in K.

    Without constraints the atoms do not drift; if no direction is periodic either, they do not rotate.
    """
    thermalize_momenta(atoms, temperature, rng=rng)
    if len(atoms) > 1 and not atoms.constraints:
        Stationary(atoms, preserve_temperature=False)
        if not atoms.pbc.any():
            ZeroRotation(atoms, preserve_temperature=False)


def _check_npt(atoms: ase.Atoms) -> None:
    if not atoms.pbc.all():
        raise ValueError(
            f"npt needs a system that is periodic in three directions, but this one has pbc = {atoms.pbc.tolist()}: "
            "choose an nvt ensemble, or set cell and pbc"
        )
    if atoms.constraints:
        names = ", ".join(type(constraint).__name__ for constraint in atoms.constraints)
        raise ValueError(
            f"npt does not work with constraints, but the structure has {names}: remove them or choose nvt"
        )
