"""N-body networks (Kondor 2018) as an ASE calculator: covariant, hierarchical interatomic potentials."""

from ase_nbody.archive import load_model, save_model
from ase_nbody.calculator import NBodyCalculator
from ase_nbody.dynamics import NBodyMonitor
from ase_nbody.network import LevelConfig, NBodyConfig, NBodyNetwork

__all__ = ["LevelConfig", "NBodyCalculator", "NBodyConfig", "NBodyMonitor", "NBodyNetwork", "load_model", "save_model"]
