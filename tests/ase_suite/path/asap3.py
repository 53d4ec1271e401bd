"""ASE's longer tests take EMT from the package asap3, in C++: here it is the one of ``ase.calculators.emt``."""

from ase.calculators.emt import EMT

__all__ = ["EMT"]
__version__ = "0"
