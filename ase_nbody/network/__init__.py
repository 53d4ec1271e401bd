"""The network: its configuration, and Kondor's levels assembled from the layers of ``nn``."""

from ase_nbody.network.config import LevelConfig, NBodyConfig, Parts
from ase_nbody.network.network import NBodyLevel, NBodyNetwork

__all__ = ["LevelConfig", "NBodyConfig", "NBodyLevel", "NBodyNetwork", "Parts"]
