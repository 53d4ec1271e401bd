"""The hierarchy of a system: atoms -> environments -> clusters -> ..., as index sets only.

Kondor 2018, section 2: a composition scheme is a directed acyclic graph whose leaves are the atoms. *Which* parts exist
depends on the chemical composition alone, never on the geometry, and a child's weight fades to zero smoothly at the
part's radius (``nn.radial``); so the energy is a smooth function of the positions, and too many children do no harm.
"""

from ase_nbody.hierarchy.build import LevelLayout, Selection, VerletHierarchy, build_hierarchy, select
from ase_nbody.hierarchy.tables import Hierarchy, Level, concatenate

__all__ = [
    "Hierarchy",
    "Level",
    "LevelLayout",
    "Selection",
    "VerletHierarchy",
    "build_hierarchy",
    "concatenate",
    "select",
]
