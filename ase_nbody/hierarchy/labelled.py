"""Levels whose parts are named by labels: molecules, residues, or whatever an array of the structure tells apart.

Membership comes from the labels alone, so it never changes while the structure moves. With w_m the weights of the
members m of a part p, which sum to 1, and S_m the lattice translation that makes the part whole,

    X_p = sum_m w_m (x_m + S_m cell)                         position of the part

Each member is taken at the image that is nearest to the member before it, in the order of the atoms. The children of
the part are those parts of the level below that are its members, at any distance, and all others within the radius.
Images of its own members count as others: in a larger cell they would have labels of their own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_nbody.hierarchy.crowds import cell_heights
from ase_nbody.hierarchy.neighbours import complete_cell, find_edges
from ase_nbody.hierarchy.tables import Groups, Labelled, Level, row_positions, stable_order
from ase_nbody.structure import LABEL_ARRAYS, LABEL_TOO_LARGE, Structure, StructureError

# Up to half the smallest height of the cell the nearest image is unique. The rest is a margin for atoms that move.
LARGEST_STEP_IN_HEIGHTS = 0.45


@dataclass(frozen=True)
class Membership:
    """Which labelled part each atom belongs to, and where.

    Attributes:
        n_parts: number of parts P. Their order is that of their labels.
        part: the part of each atom (N,); -1: none.
        shift: lattice translation S_m of each atom that makes its part whole, in whole lattice vectors (N, 3).
    """

    n_parts: int
    part: NDArray[np.int64]
    shift: NDArray[np.int64]

    @classmethod
    def of(cls, structure: Structure) -> "Membership":
        """Read the labels of a structure and make its parts whole.

        Raises:
            StructureError: there are no labels, one is below -1 or too large, or two members of a part that follow each
                other are farther apart than 0.45 of the smallest height of the cell.
        """
        if structure.labels is None:
            raise StructureError(
                f"the model has parts that labels name, but the structure has no integer array {LABEL_ARRAYS[0]!r} "
                f"(nor {' or '.join(map(repr, LABEL_ARRAYS[1:]))} in its place; numbers of residues that come back, as "
                "in each chain of a PDB file, name no parts). Set it with "
                f"atoms.set_array({LABEL_ARRAYS[0]!r}, labels), one label for each atom, -1 for none; "
                "ase_nbody.label_molecules(atoms) gives the labels of molecules."
            )
        if (structure.labels < -1).any():
            atom = int(np.argmax(structure.labels < -1))
            label = structure.labels[atom]
            if label == LABEL_TOO_LARGE:
                raise StructureError(f"atom {atom} has a label of 2^63 or more; labels are smaller, and -1 means none")
            raise StructureError(f"atom {atom} has the label {label}; labels are at least 0, and -1 means none")
        named = structure.labels >= 0
        labels, numbered = np.unique(structure.labels[named], return_inverse=True)
        part = np.full(len(structure), -1)
        part[named] = numbered
        return cls(len(labels), part, _whole(structure, part))

    def same_as(self, other: "Membership | None") -> bool:
        """Whether both have the same members at the same images."""
        return other is not None and np.array_equal(self.part, other.part) and np.array_equal(self.shift, other.shift)

    @property
    def members(self) -> NDArray[np.int64]:
        """The atoms that belong to a part, part by part, each in the order of the atoms."""
        return _members(self.part)

    def groups(self, structure: Structure, weights: str) -> Groups:
        """The members of each part with their weights in its position, by ``"mass"`` or ``"equal"``."""
        atoms = self.members
        part, shift = torch.from_numpy(self.part[atoms]), torch.from_numpy(self.shift[atoms])
        place, mask = row_positions(part, self.n_parts)
        size = structure.masses[atoms] if weights == "mass" else np.ones(len(atoms))
        share = torch.from_numpy(size / np.bincount(self.part[atoms], size, self.n_parts)[self.part[atoms]])
        return Groups(
            atom=place.new_zeros(mask.numel()).index_copy_(0, place, torch.from_numpy(atoms)).view(mask.shape),
            shift=place.new_zeros(3, mask.numel()).index_copy_(1, place, shift.T).unflatten(1, mask.shape),
            weight=share.new_zeros(mask.numel()).index_copy_(0, place, share).view(mask.shape),
            mask=mask,
        )

    def positions(self, structure: Structure, weights: str) -> NDArray[np.float64]:
        """X_p of each part (P, 3) in Angstrom; weights as in ``groups``."""
        whole = structure.positions + self.shift @ structure.cell
        groups = self.groups(structure, weights)
        return np.einsum("pm,pmx->px", groups.weight.numpy(), whole[groups.atom.numpy()])


def _members(part: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(part, kind="stable")
    return order[part[order] >= 0]


def _whole(structure: Structure, part: NDArray[np.int64]) -> NDArray[np.int64]:
    """The lattice translations (N, 3) that take each member to the image nearest to the member before it."""
    shift = np.zeros((len(structure), 3), dtype=np.int64)
    atoms = _members(part)
    if not structure.pbc.any() or len(atoms) < 2:
        return shift
    before, after = atoms[:-1], atoms[1:]
    follows = part[before] == part[after]
    steps = structure.positions[after] - structure.positions[before]
    cell = complete_cell(structure)
    # A vector of less than half the smallest height has coordinates of less than half, so rounding finds it.
    wraps = np.where(structure.pbc, -np.rint(np.linalg.solve(cell.T, steps.T).T), 0.0)
    lengths = np.linalg.norm(steps + wraps @ cell, axis=1)
    allowed = LARGEST_STEP_IN_HEIGHTS * cell_heights(cell)[structure.pbc].min()
    if (far := follows & ~(lengths <= allowed)).any():
        worst = int(np.argmax(np.where(far, lengths, 0.0)))
        label = structure.labels[after[worst]] if structure.labels is not None else part[after[worst]]
        raise StructureError(
            f"atoms {before[worst]} and {after[worst]}, which follow each other in the part with the label {label}, "
            f"are {lengths[worst]:.4g} Angstrom apart. Beyond {allowed:.4g} Angstrom ({LARGEST_STEP_IN_HEIGHTS:g} of "
            "the smallest height of the cell) it is not clear which of their images belong together. Give each "
            "molecule a label of its own (after atoms.repeat, label anew), list bonded atoms one after the other, or "
            "take a larger cell."
        )
    counted = np.cumsum(np.concatenate([np.zeros((1, 3)), wraps * follows[:, None]]), axis=0)
    first = np.flatnonzero(np.concatenate([[True], ~follows]))
    start = np.repeat(counted[first], np.diff(np.append(first, len(atoms))), axis=0)
    shift[atoms] = (counted - start).astype(np.int64)
    return shift


@dataclass(frozen=True)
class Candidates:
    """The C parts of the level below that may be children of labelled parts.

    Attributes:
        row: their rows in the table of the level below (C,), ascending.
        atom: the atom at the centre of each, or the first member of a labelled one (C,).
        position: where they are (C, 3), in Angstrom.
        part: the labelled part that each belongs to (C,); -1: none.
        shift: lattice translation of each with its part (C, 3).
        groups: the members of all parts of the level below; None where these are around atoms.
    """

    row: NDArray[np.int64]
    atom: NDArray[np.int64]
    position: NDArray[np.float64]
    part: NDArray[np.int64]
    shift: NDArray[np.int64]
    groups: Groups | None

    @classmethod
    def around_atoms(
        cls, structure: Structure, membership: Membership, below: NDArray[np.bool_], children: NDArray[np.bool_]
    ) -> "Candidates":
        """Parts around the atoms of the mask ``below`` (N,), of which those in ``children`` (N,) may be children."""
        atom = np.flatnonzero(children)
        row = (np.cumsum(below) - 1)[atom]
        return cls(row, atom, structure.positions[atom], membership.part[atom], membership.shift[atom], None)

    @classmethod
    def labelled(cls, structure: Structure, membership: Membership, weights: str) -> "Candidates":
        """The labelled parts themselves, where a labelled level stands on another."""
        row = np.arange(membership.n_parts)
        groups = membership.groups(structure, weights)
        first = groups.atom[:, 0].numpy() if len(row) else row
        position = membership.positions(structure, weights)
        return cls(row, first, position, row, np.zeros((len(row), 3), dtype=np.int64), groups)


def build_labelled_level(
    structure: Structure,
    membership: Membership,
    candidates: Candidates,
    *,
    weights: str,
    radius: float,
    device: torch.device | str = "cpu",
) -> Level:
    """Build one level of labelled parts.

    Args:
        structure: the system.
        membership: which atoms make each part.
        candidates: which parts of the level below may be children.
        weights: ``"mass"`` or ``"equal"``, the weights of the members in a part's position.
        radius: other children are listed up to this distance in Angstrom.
        device: where to search and to keep the level.
    """
    groups, n_parts = membership.groups(structure, weights), membership.n_parts
    positions = membership.positions(structure, weights)
    part, child, shift, is_member = _edges(structure, positions, candidates, radius, device)
    place, mask = row_positions(part, n_parts)
    row, atom = (torch.from_numpy(array).to(device) for array in (candidates.row, candidates.atom))

    def table(values: Tensor) -> Tensor:
        empty = values.new_zeros(*values.shape[:-1], mask.numel())
        return empty.index_copy_(-1, place, values).unflatten(-1, mask.shape)

    level = Level.from_edges(
        centre=groups.atom[:, 0].to(device) if n_parts else place.new_zeros(0),
        own=torch.arange(n_parts, device=device) if candidates.groups is not None else place.new_zeros(n_parts),
        children=row,
        place=place,
        child=child,
        atom=table(atom.index_select(0, child)),
        shift=table(shift.T),
        mask=mask,
    )
    below = None if candidates.groups is None else candidates.groups.to(device)
    return level.with_labels(Labelled(groups.to(device), table(is_member), below))


def _edges(
    structure: Structure,
    positions: NDArray[np.float64],
    candidates: Candidates,
    radius: float,
    device: torch.device | str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Edges from parts at ``positions`` (P, 3) to candidates, sorted by part, members first.

    Returns:
        The part of each edge (E,), the child's number among the candidates (E,), its shift (E, 3), and whether it is a
        member (E,).
    """
    n_parts = len(positions)
    points = np.concatenate([positions, candidates.position])
    edges = find_edges(
        Structure(np.ones(len(points), dtype=np.int64), points, structure.cell, structure.pbc), radius, device
    )
    part, shift = (torch.from_numpy(array).to(device) for array in (candidates.part, candidates.shift))
    edges = edges.select(((edges.first < n_parts) & (edges.second >= n_parts)).nonzero().squeeze(1))
    child = edges.second - n_parts
    of_part = part.index_select(0, child) == edges.first
    is_other = ~(of_part & (shift.index_select(0, child) == edges.shift).all(1))
    others = is_other.nonzero().squeeze(1)
    members = (part >= 0).nonzero().squeeze(1)
    first = torch.cat([part.index_select(0, members), edges.first.index_select(0, others)])
    order = stable_order(first)
    children = torch.cat([members, child.index_select(0, others)])
    shifts = torch.cat([shift.index_select(0, members), edges.shift.index_select(0, others)])
    is_member = torch.arange(len(first), device=first.device) < len(members)
    return tuple(values.index_select(0, order) for values in (first, children, shifts, is_member))  # type: ignore[return-value]
