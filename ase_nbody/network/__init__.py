"""The network: its configuration, and Kondor's levels assembled from the layers of ``nn``."""

from ase_nbody.network.config import LevelConfig, NBodyConfig, Parts
from ase_nbody.network.level import NBodyLevel
from ase_nbody.network.network import NBodyNetwork

__all__ = ["LevelConfig", "NBodyConfig", "NBodyLevel", "NBodyNetwork", "Parts"]
