"""A stand-in for the package asap3, whose EMT (in C++) ASE's longer tests use; here it is ``ase.calculators.emt``'s."""

from ase.calculators.emt import EMT

__all__ = ["EMT"]
__version__ = "0"
