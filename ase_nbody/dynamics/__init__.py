"""Molecular dynamics with ASE's integrators: runs that survive a kill, and a monitor that stops a run gone wrong."""

from ase_nbody.dynamics.constraints import check_constraints
from ase_nbody.dynamics.ensembles import draw_velocities, make_dynamics
from ase_nbody.dynamics.files import ResumeError
from ase_nbody.dynamics.monitor import DynamicsStopped, NBodyMonitor
from ase_nbody.dynamics.nose_hoover import IsotropicNPT, NoseHooverChain
from ase_nbody.dynamics.picture import draw_run
from ase_nbody.dynamics.ramp import TemperatureRamp
from ase_nbody.dynamics.resumable import ResumableRun

__all__ = [
    "DynamicsStopped",
    "IsotropicNPT",
    "NBodyMonitor",
    "NoseHooverChain",
    "ResumableRun",
    "ResumeError",
    "TemperatureRamp",
    "check_constraints",
    "draw_run",
    "draw_velocities",
    "make_dynamics",
]
