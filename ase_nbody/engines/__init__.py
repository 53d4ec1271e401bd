"""Interfaces through which other programs move atoms: ASE's calculator, for one structure or for many side by side."""

from ase_nbody.engines.calculator import NBodyCalculator, PartEnergies
from ase_nbody.engines.molecules import label_molecules
from ase_nbody.engines.side_by_side import evaluate_together, relax_together

__all__ = ["NBodyCalculator", "PartEnergies", "evaluate_together", "label_molecules", "relax_together"]
