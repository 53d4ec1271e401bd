"""Structure: what the network is told about a system. Immutable numpy arrays; no other file reads ``ase.Atoms``."""

import math
from dataclasses import dataclass

import ase
import numpy as np
from numpy.typing import NDArray

FARTHEST = 1e9  # Angstrom; there a float64 resolves 1e-7 Angstrom, and forces are right to 1e-5 eV/Angstrom
SHORTEST = 1e-3  # Angstrom


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
            StructureError: NaN, infinity or more than 1e9 Angstrom in positions or cell, a periodic direction without a
                lattice vector, periodic lattice vectors that are shorter than 1e-3 Angstrom or linearly dependent.
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
        self._check_positions()
        if not np.abs(self.cell).max() < np.inf:  # NaN compares as wrong
            raise StructureError(f"the cell is not finite: {self.cell.tolist()}. Set it with atoms.set_cell(...).")
        if not self.pbc.any():
            return
        for axis in np.flatnonzero(self.pbc).tolist():
            self._check_lattice_vector(axis)
        periodic = self.cell[self.pbc]
        if len(periodic) > 1:
            sines = np.linalg.svd(periodic / np.linalg.norm(periodic, axis=1, keepdims=True), compute_uv=False)
            if sines[-1] < 1e-6:
                raise StructureError(
                    f"the periodic lattice vectors are linearly dependent: {periodic.tolist()}. Correct atoms.cell."
                )

    def _check_positions(self) -> None:
        far = np.abs(self.positions)
        if far.max(initial=0.0) < FARTHEST:  # NaN compares as wrong
            return
        atom, axis = np.argwhere(~(far < FARTHEST))[0]
        value = self.positions[atom, axis]
        if not np.isfinite(value):
            raise StructureError(
                f"position of atom {atom} is not finite: {'xyz'[axis]} = {value}. "
                "Check the step before this one: a time step that is too long or overlapping atoms make such positions."
            )
        raise StructureError(
            f"position of atom {atom} is too far from the origin: {'xyz'[axis]} = {value:.6g} Angstrom (allowed: "
            f"{FARTHEST:g}), where a float64 has a resolution of {np.spacing(abs(value)):.1g} Angstrom only. "
            "Move the system with atoms.positions -= atoms.positions.mean(axis=0), and look for atoms that fly off."
        )

    def _check_lattice_vector(self, axis: int) -> None:
        length = math.hypot(*self.cell[axis])
        if length == 0.0:
            raise StructureError(
                f"pbc is set along lattice vector {axis}, but that vector is zero. "
                "Give the cell with atoms.set_cell(...) or switch pbc off with atoms.pbc = False."
            )
        if not SHORTEST < length < FARTHEST:
            raise StructureError(
                f"lattice vector {axis} is {length:.3g} Angstrom long (allowed: {SHORTEST:g} to {FARTHEST:g}). "
                "Correct atoms.cell, or switch pbc off along it with atoms.pbc."
            )
