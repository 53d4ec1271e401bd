"""``Structure``: all that a network is told about a system, copied from ASE's atoms. Its arrays are immutable."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ase
import numpy as np
from ase.data import atomic_masses, chemical_symbols
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from ase_nbody.electrons import lowest_multiplicity, multiplicity_of, one_number
from ase_nbody.text import printable

# At this distance from the origin a float64 resolves 1e-7 Angstrom, and forces are right to 1e-5 eV/Angstrom.
LARGEST_COORDINATE_ANGSTROM = 1e9
SHORTEST_LATTICE_VECTOR_ANGSTROM = 1e-3
# Names of the array that tells which part each atom belongs to, in the order in which they are tried.
RESIDUES = "residuenumbers"
LABEL_ARRAYS = ("parts", RESIDUES, "mol-id")
# An atom whose periodic images are at least as far away as this is isolated, where no network says how far it looks.
ISOLATED_ATOM_ANGSTROM = 10.0
_LARGEST_INTEGER = np.iinfo(np.int64).max
LABEL_TOO_LARGE = np.iinfo(np.int64).min  # stands for labels beyond the largest integer; no part is called so
SMALLEST_SINE = 1e-6  # of the angles between lattice vectors; below, they count as linearly dependent


class StructureError(ValueError):
    """A structure that no potential can be evaluated on; the message says what is wrong and how to correct it."""


@dataclass(frozen=True)
class Structure:
    """Positions, species, periodicity and total charge of one system. It can be evaluated, or it cannot be made.

    Its arrays are copies that nobody can change, in the dtypes below; those that are given stay as they are.

    Raises:
        StructureError: see ``from_atoms``; or an array of another shape, or with values of another kind.

    Attributes:
        numbers: atomic numbers (N,), int64.
        positions: Cartesian positions (N, 3) in Angstrom, float64; need not be wrapped into the cell.
        cell: lattice vectors as rows (3, 3) in Angstrom, float64; left-handed and triclinic cells are fine.
        pbc: periodic along each lattice vector (3,), bool.
        charge: total charge in e. Only networks that predict partial charges look at it.
        labels: the part, such as a molecule, that each atom belongs to (N,), int64; -1: none. None: there are no
            labels. Only networks that have levels of labelled parts look at them.
        multiplicity: spin multiplicity 2S + 1; None: nothing is said of the spin. No network looks at it, but models
            that learnt certain multiplicities alone refuse others (see ``network.electronic_states``).
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    charge: float = 0.0
    labels: NDArray[np.int64] | None = None
    multiplicity: int | None = None

    def __post_init__(self) -> None:
        arrays = {
            "numbers": ((len(self),), np.int64),
            "positions": ((len(self), 3), np.float64),
            "cell": ((3, 3), np.float64),
            "pbc": ((3,), np.bool_),
            **({} if self.labels is None else {"labels": ((len(self),), np.int64)}),
        }
        for name, (shape, dtype) in arrays.items():
            object.__setattr__(self, name, _own(name, getattr(self, name), shape, dtype))
        self.check()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """Volume of the cell in Angstrom^3, positive for left-handed cells too."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def masses(self) -> NDArray[np.float64]:
        """Standard atomic masses in u (N,). Isotopes that ``ase.Atoms`` may hold do not count."""
        return np.asarray(atomic_masses[self.numbers], dtype=np.float64)

    @property
    def electrons(self) -> float:
        """Number of electrons: the atomic numbers minus the total charge."""
        return float(self.numbers.sum()) - self.charge

    @property
    def spin_multiplicity(self) -> int:
        """``multiplicity`` or, where nothing is said, the lowest one: a singlet or a doublet."""
        return lowest_multiplicity(self.electrons) if self.multiplicity is None else self.multiplicity

    def is_isolated_atom(self, reach: float = ISOLATED_ATOM_ANGSTROM) -> bool:
        """Whether this is one atom without an image nearer than ``reach``: plane-wave codes put free atoms in a box.

        Args:
            reach: distance in Angstrom; where a network is known, the sum of the radii of its levels.
        """
        if len(self) != 1 or not self.pbc.any():
            return len(self) == 1
        reduced, _ = minkowski_reduce(self.cell, self.pbc)  # has the shortest lattice vectors
        return bool(np.linalg.norm(reduced[self.pbc], axis=1).min() >= reach - 1e-6)  # cells in files are rounded

    @property
    def has_volume(self) -> bool:
        """Whether the cell has three independent vectors, so that a stress is defined (see ``volume``)."""
        lengths = np.linalg.norm(self.cell, axis=1)
        if not 0.0 < lengths.min() <= lengths.max() < LARGEST_COORDINATE_ANGSTROM:
            return False
        return bool(abs(np.linalg.det(self.cell / lengths[:, None])) > SMALLEST_SINE)

    @classmethod
    def from_atoms(cls, atoms: ase.Atoms) -> "Structure":
        """Copy what the network needs of ``atoms``, and check it.

        The charge is ``atoms.info["charge"]``, 0 if absent. Where a spin is looked for, ``electrons.multiplicity_of``
        says. The labels are the first of ``LABEL_ARRAYS`` among ``atoms.arrays``; an array that does not hold integers
        is no array of labels, nor are numbers of residues that several residues share (see ``labels_of``).

        Raises:
            StructureError: a dummy atom or an atomic number that is no element's; NaN, infinity or more than 1e9
                Angstrom in positions or cell; a periodic direction without a lattice vector; periodic lattice vectors
                that are shorter than 1e-3 Angstrom or linearly dependent; or a charge that is not one finite number.
        """
        _require_plain_numbers(atoms)
        charge = _total_charge(atoms.info)
        moments = atoms.get_initial_magnetic_moments() if atoms.has("initial_magmoms") else None
        return cls(
            numbers=atoms.numbers.astype(np.int64, copy=False),
            positions=np.asarray(atoms.positions, dtype=np.float64),
            cell=atoms.cell.array,
            pbc=np.asarray(atoms.pbc, dtype=np.bool_),
            charge=charge,
            labels=labels_of(atoms),
            multiplicity=multiplicity_of(atoms.info, moments, float(atoms.numbers.sum()) - charge),
        )

    def to_atoms(self) -> ase.Atoms:
        """The same system as ``ase.Atoms``.

        The charge of an ion is in ``atoms.info["charge"]``, a multiplicity in ``atoms.info["spin_multiplicity"]``, and
        labels are in ``atoms.arrays["parts"]``.
        """
        info: dict[str, Any] = {"charge": self.charge} if self.charge else {}
        info |= {} if self.multiplicity is None else {"spin_multiplicity": self.multiplicity}
        atoms = ase.Atoms(self.numbers, self.positions, cell=self.cell, pbc=self.pbc, info=info)
        if self.labels is not None:
            atoms.set_array(LABEL_ARRAYS[0], self.labels)
        return atoms

    def with_short_lattice_vectors(self) -> "tuple[Structure, NDArray[np.int64]]":
        """The same system with the shortest periodic lattice vectors (Minkowski's).

        Returns:
            The structure, and an integer matrix (3, 3) whose product with ``cell`` gives its lattice vectors.
        """
        cell, combinations = minkowski_reduce(self.cell, self.pbc)
        return replace(self, cell=np.asarray(cell)), combinations.astype(np.int64)

    def check(self) -> None:
        """Refuse what cannot be evaluated, and name the culprit (see ``from_atoms``)."""
        self._check_numbers()
        self._check_positions()
        if not np.abs(self.cell).max() < np.inf:  # false for NaN too
            raise StructureError(f"the cell is not finite: {self.cell.tolist()}. Set it with atoms.set_cell(...).")
        if not math.isfinite(self.charge):
            raise StructureError(f"the total charge is {self.charge}, but must be a finite number in e")
        if not self.pbc.any():
            return
        for axis in np.flatnonzero(self.pbc).tolist():
            self._check_lattice_vector(axis)
        periodic = self.cell[self.pbc]
        if len(periodic) > 1:
            sines = np.linalg.svd(periodic / np.linalg.norm(periodic, axis=1, keepdims=True), compute_uv=False)
            if sines[-1] < SMALLEST_SINE:
                raise StructureError(
                    f"the periodic lattice vectors are linearly dependent: {periodic.tolist()}. Correct atoms.cell."
                )

    def _check_numbers(self) -> None:
        if not len(self.numbers) or (self.numbers.min() > 0 and self.numbers.max() < len(chemical_symbols)):
            return
        atom = np.flatnonzero((self.numbers <= 0) | (self.numbers >= len(chemical_symbols)))[0]
        number = self.numbers[atom]
        what = "is a dummy: the structure contains X" if number == 0 else f"has atomic number {number}"
        raise StructureError(
            f"atom {atom} {what} (allowed: 1 to {len(chemical_symbols) - 1}). Remove it, or give it its element."
        )

    def _check_positions(self) -> None:
        magnitude = np.abs(self.positions)
        if magnitude.max(initial=0.0) < LARGEST_COORDINATE_ANGSTROM:  # false for NaN too
            return
        atom, axis = np.argwhere(~(magnitude < LARGEST_COORDINATE_ANGSTROM))[0]
        value = self.positions[atom, axis]
        if not np.isfinite(value):
            raise StructureError(
                f"position of atom {atom} is not finite: {'xyz'[axis]} = {value}. "
                "Check the step before this one: a time step that is too long or overlapping atoms make such positions."
            )
        raise StructureError(
            f"position of atom {atom} is too far from the origin: {'xyz'[axis]} = {value:.6g} Angstrom (allowed: "
            f"{LARGEST_COORDINATE_ANGSTROM:g}), where a float64 resolves only {np.spacing(abs(value)):.1g} Angstrom. "
            "Move the system with atoms.positions -= atoms.positions.mean(axis=0), and look for atoms that fly off."
        )

    def _check_lattice_vector(self, axis: int) -> None:
        length = math.hypot(*self.cell[axis])
        if length == 0.0:
            raise StructureError(
                f"pbc is set along lattice vector {axis}, but that vector is zero. "
                "Give the cell with atoms.set_cell(...) or switch pbc off with atoms.pbc = False."
            )
        if not SHORTEST_LATTICE_VECTOR_ANGSTROM < length < LARGEST_COORDINATE_ANGSTROM:
            raise StructureError(
                f"lattice vector {axis} is {length:.3g} Angstrom long (allowed: {SHORTEST_LATTICE_VECTOR_ANGSTROM:g} "
                f"to {LARGEST_COORDINATE_ANGSTROM:g}). Correct atoms.cell, or switch pbc off along it with atoms.pbc."
            )


def _own(name: str, given: Any, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """A copy of an array in the given dtype that nobody can change; the array itself if it is one already.

    A view can be changed through the array that it shows.
    """
    if not isinstance(given, np.ndarray) or given.shape != shape:
        found = given.shape if isinstance(given, np.ndarray) else type(given).__name__
        raise StructureError(f"{name} must be an array of numpy of shape {shape}, got {found}")
    if given.dtype == dtype and given.base is None and not given.flags.writeable:
        return given
    if not np.can_cast(given.dtype, dtype, "same_kind"):
        raise StructureError(f"{name} must be an array of {np.dtype(dtype)}, got {given.dtype}")
    if given.dtype == np.uint64 and given.max(initial=0) > _LARGEST_INTEGER:  # numpy makes -1 of 2^64 - 1
        raise StructureError(f"{name} must be less than 2^63, got {given.max()}")
    own = np.array(given, dtype=dtype, order="C")
    own.setflags(write=False)
    return own


def _require_plain_numbers(atoms: ase.Atoms) -> None:
    """Refuse what numpy would round to something else without a word."""
    if atoms.numbers.dtype.kind not in "iu" and not np.array_equal(atoms.numbers, atoms.numbers.astype(np.int64)):
        raise StructureError(f"atomic numbers must be whole numbers, got {atoms.numbers.dtype}. Correct atoms.numbers.")
    if atoms.positions.dtype.kind == "c":
        raise StructureError("the positions are complex numbers. Take their real part if that is meant.")


def labels_of(atoms: ase.Atoms) -> NDArray[np.int64] | None:
    """A copy of the labels of the atoms (N,), or None if they have none (see ``Structure.from_atoms``).

    Labels of 2^63 and more become ``LABEL_TOO_LARGE``, which networks with labelled parts refuse.

    Each chain of a PDB file counts its residues anew, large files begin again after 9,999, and ASE keeps no names of
    chains. So a number of a residue that comes back after others stands for two residues, and labels nothing.
    """
    for name in LABEL_ARRAYS:
        if name in atoms.arrays:
            given = atoms.arrays[name]
            if given.dtype.kind not in "iu" or given.ndim != 1 or (name == RESIDUES and _come_back(given)):
                return None
            labels = given.astype(np.int64)
            if given.dtype == np.uint64:  # 2^64 - 1 would become -1, and its atoms belong to no part
                labels[given > _LARGEST_INTEGER] = LABEL_TOO_LARGE
            return labels
    return None


def _come_back(numbers: NDArray[Any]) -> bool:
    """Whether a number stands in two places with others in between."""
    firsts = numbers[np.flatnonzero(np.diff(numbers, prepend=numbers[:1] + 1))]
    return len(np.unique(firsts)) < len(firsts)


def _total_charge(info: Mapping[str, Any]) -> float:
    """The charge in e: None means neutral, and an array of one number, as some readers give it, that number."""
    given = info.get("charge")
    value = 0.0 if given is None else one_number(given)
    if value is None:
        raise StructureError(
            f"atoms.info['charge'] is {printable(repr(given))}, but the total charge must be one finite number in e. "
            "Set atoms.info['charge'] = 0 for a neutral system, or remove the entry."
        )
    return value
