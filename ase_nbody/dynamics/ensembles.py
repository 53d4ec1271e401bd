"""ASE's integrators, chosen by the name of their ensemble or thermostat, each with its usual coupling."""

import math
from typing import Literal, get_args

import ase
import numpy as np
from ase import units
from ase.constraints import FixCom
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ase_nbody.dynamics.constraints import check_constraints, conserve_momentum
from ase_nbody.dynamics.nose_hoover import IsotropicNPT, NoseHooverChain

Ensemble = Literal["nve", "nvt", "langevin", "bussi", "nose-hoover", "npt"]
ENSEMBLES: tuple[str, ...] = get_args(Ensemble)

LANGEVIN_FRICTION_PER_FS = 0.01  # exchanges energy within about 50 fs
BUSSI_TIME_FS = 100.0
THERMOSTAT_PERIOD_STEPS, BAROSTAT_PERIOD_STEPS = 100, 1000  # of the Nose-Hoover chains
MAX_TIMESTEP_FS, MAX_TEMPERATURE_K, MAX_PRESSURE_GPA = 1e3, 1e6, 1e6  # beyond, the number must be in another unit


def make_dynamics(
    atoms: ase.Atoms,
    ensemble: str,
    *,
    timestep: float,
    temperature: float,
    pressure: float = 0.0,
    rng: np.random.Generator,
) -> MolecularDynamics:
    """Make an integrator for ``atoms``.

    If no atom is held in place, this function holds the centre of mass: it sets ``FixCom`` on ``atoms``, and the
    temperature then counts 3 N - 3 momenta, less the fixed bonds. ``"npt"`` holds it without a constraint. Momenta that
    the constraints forbid are removed. ``"bussi"`` and ``"nose-hoover"`` scale all velocities alike and conserve an
    angular momentum of zero: they stop the rotation of a free molecule, and count three less.

    Args:
        atoms: the system, with a calculator and momenta.
        ensemble: ``"nve"``, ``"nvt"`` (the same as ``"langevin"``), ``"bussi"``, ``"nose-hoover"``, or ``"npt"``
            (isotropic; Martyna, Tobias, Klein).
        timestep: in fs.
        temperature: in K; ``"nve"`` ignores it.
        pressure: in GPa; only ``"npt"`` uses it.
        rng: gives the random numbers of the stochastic thermostats.

    Raises:
        ValueError: the ensemble is unknown, a number is out of range, or these atoms cannot be in the ensemble.
    """
    ensemble = named_ensemble(ensemble)
    check_conditions(ensemble, timestep, temperature, pressure)
    _check_masses(atoms)
    check_constraints(atoms)
    if ensemble == "npt":
        _check_npt(atoms)
    elif conserve_momentum(atoms) and len(atoms) > 1:
        others = [constraint for constraint in atoms.constraints if not isinstance(constraint, FixCom)]
        atoms.set_constraint([*others, FixCom()])
    atoms.set_momenta(atoms.get_momenta())
    if ensemble == "bussi" and not atoms.get_kinetic_energy() > 0:
        raise ValueError("bussi scales velocities, but all atoms are at rest: draw velocities first, or take langevin")
    step, kelvin = timestep * units.fs, {"temperature_K": temperature}
    match ensemble:
        case "nve":
            return VelocityVerlet(atoms, step)
        case "bussi":
            freedom = _freedom_without_rotation(atoms)
            bussi = Bussi(atoms, step, **kelvin, taut=BUSSI_TIME_FS * units.fs, rng=rng)
            bussi.ndof, bussi.target_kinetic_energy = freedom, 0.5 * freedom * units.kB * temperature
            return bussi
        case "nose-hoover":
            freedom = _freedom_without_rotation(atoms)
            period = THERMOSTAT_PERIOD_STEPS * step
            return NoseHooverChain(atoms, step, temperature, period, degrees_of_freedom=freedom)
        case "npt":
            times = {"tdamp": THERMOSTAT_PERIOD_STEPS * step, "pdamp": BAROSTAT_PERIOD_STEPS * step}
            return IsotropicNPT(atoms, step, **kelvin, pressure_au=pressure * units.GPa, **times)
    # ``fixcm=True`` does not sample the canonical ensemble (see ASE's docstring of Langevin); ``FixCom`` does.
    return Langevin(atoms, step, **kelvin, friction=LANGEVIN_FRICTION_PER_FS / units.fs, fixcm=False, rng=rng)


def draw_velocities(atoms: ase.Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Give the atoms Maxwell-Boltzmann velocities at ``temperature`` in K.

    If no atom is held in place, the atoms do not drift; if no direction is periodic either, they do not rotate.
    """
    thermalize_momenta(atoms, temperature, rng=rng)
    if len(atoms) > 1 and conserve_momentum(atoms):
        Stationary(atoms, preserve_temperature=False)
        if not atoms.pbc.any():
            _stop_rotation(atoms)


def named_ensemble(name: str) -> str:
    """The ensemble of this name, in capitals or not; an unknown name as it is."""
    return name.lower() if name.lower() in ENSEMBLES else name


def check_conditions(ensemble: str, timestep: float, temperature: float, pressure: float = 0.0) -> None:
    """Refuse an unknown ensemble, and numbers that are not finite or in another unit.

    Raises:
        ValueError: names the number, its range and its unit.
    """
    if ensemble not in ENSEMBLES:
        raise ValueError(f"the ensemble must be one of {', '.join(ENSEMBLES)}, got {ensemble!r}")
    if not 0 < timestep <= MAX_TIMESTEP_FS:
        raise ValueError(f"the time step must be above 0 and at most {MAX_TIMESTEP_FS:g} fs, got {timestep} fs")
    check_temperature(ensemble, temperature)
    if not abs(pressure) <= MAX_PRESSURE_GPA:
        raise ValueError(f"the pressure must be a number of at most {MAX_PRESSURE_GPA:g} GPa, got {pressure} GPa")


def check_temperature(ensemble: str, temperature: float) -> None:
    """Refuse a temperature that the thermostat cannot hold.

    Raises:
        ValueError: the temperature is not finite, negative, above 1e6 K, or 0 K for a Nose-Hoover chain.
    """
    if not (0 <= temperature <= MAX_TEMPERATURE_K and math.isfinite(temperature)):
        raise ValueError(f"a temperature must be between 0 and {MAX_TEMPERATURE_K:g} K, got {temperature} K")
    if ensemble in ("nose-hoover", "npt") and temperature == 0:
        raise ValueError(f"{ensemble} needs a temperature above 0 K: its thermostat would have no mass. Take langevin.")


def _freedom_without_rotation(atoms: ase.Atoms) -> int:
    """Stop the rotation of a free molecule, and return how many degrees of freedom are left.

    In other systems rotation is no conserved quantity, and the constraints say how many are left.
    """
    freedom = int(atoms.get_number_of_degrees_of_freedom())
    if len(atoms) < 2 or atoms.pbc.any() or not conserve_momentum(atoms):
        return freedom
    freedom -= 3 if len(atoms) > 2 else 2
    if freedom < 1:
        raise ValueError(
            "bussi and nose-hoover stop the rotation of a free molecule, and this one has fixed bonds and no other "
            "motion: take langevin or nve"
        )
    _stop_rotation(atoms)
    return freedom


def _stop_rotation(atoms: ase.Atoms) -> None:
    with np.errstate(invalid="ignore"):  # ASE divides 0 by 0 about the axis of a linear molecule, and takes 0
        ZeroRotation(atoms, preserve_temperature=False)


def _check_masses(atoms: ase.Atoms) -> None:
    masses = atoms.get_masses()
    wrong = np.flatnonzero(~((masses > 0) & np.isfinite(masses)))
    if len(wrong):
        raise ValueError(
            f"atom {wrong[0]} ({atoms.symbols[wrong[0]]}) has a mass of {masses[wrong[0]]:g} u, and an atom that moves "
            "needs one above 0: set it with atoms.set_masses(...)"
        )


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
