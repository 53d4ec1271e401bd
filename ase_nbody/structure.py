"""Structure: what the network is told about a system. Immutable numpy arrays; no other file reads ``ase.Atoms``."""

from dataclasses import dataclass

import ase
import numpy as np
from numpy.typing import NDArray


class StructureError(ValueError):
    """A structure that no potential can be evaluated on; the message says what is wrong and how to mend it."""


@dataclass(frozen=True)
class Structure:
    """Positions, species and periodicity of one system.

    Attributes:
        numbers: atomic numbers (N,), int64.
        positions: Cartesian positions (N, 3) in Angstrom, float64; need not be wrapped into the cell.
        cell: lattice vectors as rows (3, 3) in Angstrom, float64; left-handed and triclinic cells are fine.
        pbc: periodic along each lattice vector (3,), bool.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for array in (self.numbers, self.positions, self.cell, self.pbc):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """Volume of the cell in Angstrom^3, positive for left-handed cells too."""
        return float(abs(np.linalg.det(self.cell)))

    @classmethod
    def from_atoms(cls, atoms: ase.Atoms) -> "Structure":
        """Copy and check what the network needs of ``atoms``.

        Raises:
            StructureError: NaN or infinity in positions or cell, or a periodic direction without a lattice vector.
        """
        structure = cls(
            numbers=atoms.numbers.astype(np.int64),
            positions=np.array(atoms.positions, dtype=np.float64),
            cell=np.array(atoms.cell.array, dtype=np.float64),
            pbc=np.array(atoms.pbc, dtype=np.bool_),
        )
        structure.check()
        return structure

    def check(self) -> None:
        """Refuse what cannot be evaluated, naming the culprit (see ``from_atoms``)."""
        if not np.isfinite(self.positions).all():
            atom, axis = np.argwhere(~np.isfinite(self.positions))[0]
            raise StructureError(
                f"position of atom {atom} is not finite: {'xyz'[axis]} = {self.positions[atom, axis]}. "
                "Check the step before this one: a time step that is too long or overlapping atoms make such positions."
            )
        if not np.isfinite(self.cell).all():
            raise StructureError(f"the cell is not finite: {self.cell.tolist()}. Set it with atoms.set_cell(...).")
        for axis in np.flatnonzero(self.pbc):
            if not np.linalg.norm(self.cell[axis]) > 0.0:
                raise StructureError(
                    f"pbc is set along lattice vector {axis}, but that vector is zero. "
                    "Give the cell with atoms.set_cell(...) or switch pbc off with atoms.pbc = False."
                )
        periodic = self.cell[self.pbc]
        if len(periodic) > 1:
            sines = np.linalg.svd(periodic / np.linalg.norm(periodic, axis=1, keepdims=True), compute_uv=False)
            if sines[-1] < 1e-6:
                raise StructureError(
                    f"the periodic lattice vectors are linearly dependent: {periodic.tolist()}. Correct atoms.cell."
                )
