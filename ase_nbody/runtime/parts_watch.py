"""Notice labelled parts that have atoms of several molecules, and warn once."""

import warnings

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_nbody.network.surroundings import of_several_molecules
from ase_nbody.structure import Structure

REMEDY = (
    "Molecules have one label in common where they share the number of a residue, as in PDB and Gromacs files that ASE "
    "wrote, or after atoms.repeat. Label each by its bonds: atoms.set_array('parts', ase_nbody.label_molecules(atoms))."
)


class PartsWarning(UserWarning):
    """A part that labels name has atoms of several molecules."""


class PartsWatch:
    """Warns once about a part with atoms of several molecules, which is a part like no other if each molecule is one.

    It looks at a structure when labels are new, so molecules may come apart while they move.
    If the user has made the warning an error, it is raised for every such structure with new labels.

    Args:
        active: whether the networks have levels of labelled parts; otherwise nothing is said.
    """

    def __init__(self, active: bool) -> None:
        self._active = active
        self._seen: NDArray | None = None

    def check(self, structure: Structure) -> None:
        """Warn about the first such part.

        Warns:
            PartsWarning: there is one, and there has been no such warning before.
        """
        labels = structure.labels
        if not self._active or labels is None:
            return
        if self._seen is not None and np.array_equal(labels, self._seen):
            return
        if (sentence := said_of_part(structure)) is not None:
            warnings.warn(f"{sentence}. {REMEDY} This warning comes only once.", PartsWarning, 2)
            self._active = False  # reached only if the warning is not an error
        self._seen = labels


def said_of_part(structure: Structure) -> str | None:
    """The first part of a structure that has atoms of several molecules, in words; None if there is none."""
    if (found := of_several_molecules(structure)) is None:
        return None
    label, *ends = found
    first, second = (f"{atom} ({chemical_symbols[structure.numbers[atom]]})" for atom in ends)
    return f"the part with the label {label} has atoms of several molecules, such as {first} and {second}"
