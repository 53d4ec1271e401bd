"""ASE's integrators by the name of what they hold constant, with the coupling that is usual for each."""

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

FRICTION = 0.01  # 1/fs, of Langevin: energy is exchanged within about 50 fs
BUSSI_TIME = 100.0  # fs
CHAIN_STEPS, BAROSTAT_STEPS = 100, 1000  # periods of the Nose-Hoover chains in time steps


def make_dynamics(
    atoms: ase.Atoms,
    ensemble: str,
    *,
    timestep: float,
    temperature: float,
    pressure: float = 0.0,
    rng: np.random.Generator,
) -> MolecularDynamics:
    """An integrator of ASE for atoms with a calculator and momenta.

    Where no constraint is set and the integrator allows it, the centre of mass is held (``FixCom``, set on ``atoms``),
    so that the temperature counts 3 N - 3 momenta. The Nose-Hoover chains of ASE count 3 N and hold nothing.

    Args:
        atoms: the system.
        ensemble: ``"nve"``, ``"nvt"`` (the same as ``"langevin"``), ``"bussi"``, ``"nose-hoover"``, or ``"npt"``
            (isotropic; Martyna, Tobias, Klein).
        timestep: in fs.
        temperature: in K; of no meaning for ``"nve"``.
        pressure: in GPa, for ``"npt"``.
        rng: random numbers of the stochastic thermostats.

    Raises:
        ValueError: an unknown ensemble, or one that these atoms cannot be in.
    """
    if ensemble not in ENSEMBLES:
        raise ValueError(f"the ensemble is one of {', '.join(ENSEMBLES)}, got {ensemble!r}")
    if ensemble == "npt":
        _check_npt(atoms)
    elif ensemble != "nose-hoover" and not atoms.constraints and len(atoms) > 1:
        atoms.set_constraint(FixCom())
    step, kelvin = timestep * units.fs, {"temperature_K": temperature}
    match ensemble:
        case "nve":
            return VelocityVerlet(atoms, step)
        case "bussi":
            return Bussi(atoms, step, **kelvin, taut=BUSSI_TIME * units.fs, rng=rng)
        case "nose-hoover":
            return NoseHooverChainNVT(atoms, step, **kelvin, tdamp=CHAIN_STEPS * step)
        case "npt":
            times = {"tdamp": CHAIN_STEPS * step, "pdamp": BAROSTAT_STEPS * step}
            return IsotropicMTKNPT(atoms, step, **kelvin, pressure_au=pressure * units.GPa, **times)
    # fixcm does not sample the canonical ensemble (its docstring); FixCom does.
    return Langevin(atoms, step, **kelvin, friction=FRICTION / units.fs, fixcm=False, rng=rng)


def draw_velocities(atoms: ase.Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Maxwell-Boltzmann velocities at ``temperature`` in K, without drift, and rotation of what is not periodic."""
    thermalize_momenta(atoms, temperature, rng=rng)
    if len(atoms) > 1 and not atoms.constraints:
        Stationary(atoms, preserve_temperature=False)
        if not atoms.pbc.any():
            ZeroRotation(atoms, preserve_temperature=False)


def _check_npt(atoms: ase.Atoms) -> None:
    if not atoms.pbc.all():
        raise ValueError(
            f"npt needs a system that is periodic in three directions, this one has pbc = {atoms.pbc.tolist()}: "
            "take an nvt ensemble, or set cell and pbc"
        )
    if atoms.constraints:
        names = ", ".join(type(constraint).__name__ for constraint in atoms.constraints)
        raise ValueError(f"npt cannot hold constraints, the structure has {names}: remove them or take nvt")
