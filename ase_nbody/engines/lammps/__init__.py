"""LAMMPS: the plugin with ``pair_style nbody``, built on the machine that runs it, and models exported for it."""

from ase_nbody.engines.lammps.build import build_plugin
from ase_nbody.engines.lammps.export import export_model

__all__ = ["build_plugin", "export_model"]
