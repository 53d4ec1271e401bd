"""The hierarchy of a system: atoms -> environments -> clusters -> ..., as tables of indices.

It is the composition scheme of Kondor 2018 (section 2), a directed acyclic graph. Its leaves are the atoms, and each
inner node is a part of the system: an atom with its surroundings, or a molecule that labels name. The children of a
part are parts of the level below that lie within the radius of the part, and in a molecule all its members.

Which parts exist depends on atomic numbers and labels alone, never on the geometry. The weight of a child fades
smoothly to zero at the radius (``nn.radial``). So the energy is a smooth function of the positions, and it does no harm
to list more children than lie within the radius.

Read the files in this order: ``tables`` (levels of parts and edges), ``crowds`` (what is refused), ``neighbours``
(pairs of atoms), ``labelled`` (parts that labels name), ``build`` (from pairs to tables), ``exchange`` (from parts to
edges and back), ``reduction`` (sums over the atoms of a structure).
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
