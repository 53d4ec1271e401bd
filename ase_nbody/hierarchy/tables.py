"""The tables of a hierarchy (see ``ase_nbody.hierarchy``): ``Level``, ``Hierarchy``, and batches of hierarchies.

A node nu of the composition scheme (Kondor 2018, section 2) is a part P_nu of the system. Here a part is a row of a
table, and its edges to its children are the columns. All parts of a level have equally long rows; a mask tells which
edges are real. Dense tables let a gate treat all parts of a level in one operation.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """The members of labelled parts, with their weights in the parts' positions (see ``hierarchy.labelled``).

    Attributes:
        atom: the members of each part (P, M); shorter rows are padded with 0.
        shift: lattice translation of each member that makes its part whole (3, P, M).
        weight: weight of each member in the position of its part (P, M), float64; 0 where padded. Rows sum to 1.
        mask: True where a member is real (P, M).
    """

    atom: Tensor
    shift: Tensor
    weight: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> "Groups":
        """The same groups on a device."""
        return Groups(*(getattr(self, each.name).to(device) for each in fields(self)))

    def take(self, rows: Tensor) -> "Groups":
        """Some of the groups, by their rows."""
        return Groups(
            self.atom.index_select(0, rows),
            self.shift.index_select(1, rows),
            self.weight.index_select(0, rows),
            self.mask.index_select(0, rows),
        )

    @property
    def shares(self) -> Tensor:
        """Equal weights (P, M), float64: the share of each member in what its part gives; 0 where padded."""
        return self.mask.double() / self.mask.sum(1, keepdim=True)

    @staticmethod
    def concatenate(several: "Sequence[Groups]", first_atoms: Sequence[int]) -> "Groups":
        """The groups of several structures below each other; ``first_atoms`` tells where the atoms of each begin."""
        firsts = list(zip(several, first_atoms, strict=False))
        return Groups(
            _stack_rows([(groups.atom + first) * groups.mask for groups, first in firsts], 1),
            _stack_rows([groups.shift.movedim(0, -1) for groups, _ in firsts], 1).movedim(-1, 0).contiguous(),
            _stack_rows([groups.weight for groups, _ in firsts], 1),
            _stack_rows([groups.mask for groups, _ in firsts], 1),
        )


@dataclass(frozen=True)
class Labelled:
    """What a level of labelled parts knows beyond the tables of ``Level``.

    Attributes:
        groups: the members of its P parts.
        is_member: True where an edge leads to a member of the part (P, K); False where padded.
        below: members of the parts of the level below; None where these are around atoms.
    """

    groups: Groups
    is_member: Tensor
    below: Groups | None

    def tensors(self) -> list[Tensor]:
        """All tensors."""
        tables = [self.groups] if self.below is None else [self.groups, self.below]
        return [self.is_member, *(getattr(groups, each.name) for groups in tables for each in fields(groups))]

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor]) -> "Labelled":
        """The inverse of ``tensors``."""
        is_member, *tables = tensors
        size = len(fields(Groups))
        below = Groups(*tables[size:]) if len(tables) > size else None
        return cls(Groups(*tables[:size]), is_member, below)


@dataclass(frozen=True)
class Level:
    """The P parts of one level, and the edges from each part to its children, which are parts of the level below.

    A part has at most K edges; shorter rows are padded. C parts of the level below may be children, and at most M edges
    end at each of them.

    Attributes:
        centre: the atom at the centre of each part (P,); of a labelled part the first member.
        own: the part of the level below that has the same centre (P,); of a labelled part that with the same label, or
            0 where the level below has none.
        children: the parts of the level below that may be children (C,), ascending.
        child: index into ``children`` of the child at the end of each edge (P, K).
        atom: the atom at the centre of that child (P, K).
        shift: lattice translation of that child in whole lattice vectors (3, P, K).
        mask: True where an edge is real (P, K); ``child``, ``atom`` and ``shift`` are 0 elsewhere.
        parents: for each of the ``children``, the places ``p * K + k`` of the edges that end there (M, C). With this
            table, derivatives that flow from edges to children are gathered, not scattered, so they are
            deterministic on every device.
        parents_mask: True where an entry of ``parents`` is real (M, C); ``parents`` is 0 elsewhere.
        labelled: members of the parts, where labels name them; None where the parts are around atoms.
    """

    centre: Tensor
    own: Tensor
    children: Tensor
    child: Tensor
    atom: Tensor
    shift: Tensor
    mask: Tensor
    parents: Tensor
    parents_mask: Tensor
    labelled: Labelled | None = None

    @classmethod
    def from_edges(
        cls,
        *,
        centre: Tensor,
        own: Tensor,
        children: Tensor,
        place: Tensor,
        child: Tensor,
        atom: Tensor,
        shift: Tensor,
        mask: Tensor,
    ) -> "Level":
        """Make a level from the list of its E real edges, and add the table of parents.

        Args:
            centre: as in ``Level`` (P,).
            own: as in ``Level`` (P,).
            children: as in ``Level`` (C,).
            place: the place ``p * K + k`` of each real edge in the tables (E,), ascending.
            child: index into ``children`` of the child at the end of each real edge (E,).
            atom: as in ``Level`` (P, K).
            shift: as in ``Level`` (3, P, K).
            mask: as in ``Level`` (P, K).
        """
        parents, parents_mask = group_rows(child, place, len(children))
        return cls(
            centre=centre,
            own=own,
            children=children,
            child=child.new_zeros(mask.numel()).scatter_(0, place, child).view(mask.shape),
            atom=atom,
            shift=shift,
            mask=mask,
            parents=parents.T.contiguous(),
            parents_mask=parents_mask.T.contiguous(),
        )

    def tensors(self) -> list[Tensor]:
        """All tables in the order of the attributes; see ``n_tables`` for their number."""
        return [getattr(self, name) for name in _TABLES] + ([] if self.labelled is None else self.labelled.tensors())

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor]) -> "Level":
        """Make the level whose ``tensors`` these are."""
        tables, of_labels = tensors[: len(_TABLES)], tensors[len(_TABLES) :]
        labelled = Labelled.from_tensors(of_labels) if of_labels else None
        return cls(**dict(zip(_TABLES, tables, strict=True)), labelled=labelled)  # type: ignore[arg-type]

    @staticmethod
    def n_tables(labelled: bool = False, above_labelled: bool = False) -> int:
        """The number of ``tensors`` of a level around atoms, or of a labelled one, which may be above another."""
        n_groups = len(fields(Groups))
        return len(_TABLES) + ((1 + n_groups) if labelled else 0) + (n_groups if labelled and above_labelled else 0)

    def with_labels(self, labelled: Labelled | None) -> "Level":
        """The same level as one of labelled parts."""
        return self if labelled is None else replace(self, labelled=labelled)


_TABLES = tuple(each.name for each in fields(Level) if each.name != "labelled")


@dataclass(frozen=True)
class Hierarchy:
    """All levels of one structure, or of a batch of structures.

    Attributes:
        numbers: atomic numbers (N,).
        structure: index of the structure that each atom belongs to (N,), ascending.
        n_structures: the number B of structures.
        levels: the levels, the lowest first.
    """

    numbers: Tensor
    structure: Tensor
    n_structures: int
    levels: tuple[Level, ...]

    @functools.cached_property
    def n_edges(self) -> int:
        """The number of edges of all levels, including padded ones."""
        return sum(level.mask.numel() for level in self.levels)

    @functools.cached_property
    def n_bytes(self) -> int:
        """The memory of all tables in bytes."""
        return sum(table.nbytes for table in self.tensors())

    @functools.cached_property
    def smallest_size(self) -> int:
        """The smallest size of any axis of the tables."""
        return min(min(table.shape) for table in self.tensors())

    def to(self, device: torch.device) -> "Hierarchy":
        """The same hierarchy on a device; ``self`` if it is there already."""
        if self.numbers.device == device:
            return self
        moved = [table.to(device) for table in self.tensors()]
        return Hierarchy.from_tensors(moved, self.n_structures, [len(level.tensors()) for level in self.levels])

    @functools.cached_property
    def is_labelled(self) -> bool:
        """Whether labels name the parts of a level."""
        return any(level.labelled is not None for level in self.levels)

    def tensors(self) -> list[Tensor]:
        """All tables in a fixed order; ``from_tensors`` makes the same hierarchy from them."""
        return [self.numbers, self.structure, *(table for level in self.levels for table in level.tensors())]

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor], n_structures: int, n_tables: Sequence[int]) -> "Hierarchy":
        """Make the hierarchy whose ``tensors`` these are; ``n_tables`` says how many each level has."""
        numbers, structure, *tables = tensors
        ends = list(itertools.accumulate(n_tables))
        levels = [Level.from_tensors(tables[end - count : end]) for count, end in zip(n_tables, ends, strict=True)]
        return cls(numbers, structure, n_structures, tuple(levels))


def row_positions(group: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Place items in a dense table that has one row for each group.

    Args:
        group: the group of each item (E,), ascending.
        n_groups: the number of groups.

    Returns:
        The place ``row * M + column`` of each item (E,), and the mask of the table (n_groups, M), which is True at
        these places. M is the size of the largest group.
    """
    count = group.bincount(minlength=n_groups)
    width = int(count.max()) if n_groups else 0
    column = torch.arange(len(group), device=group.device) - (count.cumsum(0) - count).index_select(0, group)
    return group * width + column, torch.arange(width, device=group.device) < count.unsqueeze(1)


def group_rows(group: Tensor, value: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Dense table (n_groups, M) whose rows hold the ``value`` (E,) of the items of each ``group`` (E,), and its mask.

    The rows are padded with 0.
    """
    order = stable_order(group)
    position, mask = row_positions(group.index_select(0, order), n_groups)
    table = value.new_zeros(mask.numel()).scatter_(0, position, value.index_select(0, order))
    return table.view(mask.shape), mask


def stable_order(group: Tensor) -> Tensor:
    """The order (E,) that sorts ``group`` (E,); items of one group stay in their order.

    On a CPU numpy sorts four times as fast as torch.
    """
    if group.device.type != "cpu":
        return group.argsort(stable=True)
    n_items = len(group)
    keys = group.numpy() * n_items + np.arange(n_items)  # unique, and sorted by group and then by item
    return torch.from_numpy(np.sort(keys) % max(n_items, 1))


@torch.inference_mode(False)
def concatenate(hierarchies: Sequence[Hierarchy], multiple: int = 1) -> Hierarchy:
    """One hierarchy that holds all given ones side by side. Indices are shifted and rows are padded to one width.

    Widths are rounded up to a ``multiple``, so that batches of similar structures have only a few different shapes.
    """
    # Offsets: the index that the first atom, part or child of each hierarchy has in the result.
    atoms = np.cumsum([0] + [len(hierarchy.numbers) for hierarchy in hierarchies])
    below = atoms
    levels = []
    for parallel in zip(*(hierarchy.levels for hierarchy in hierarchies), strict=True):
        width = round_up(max(level.mask.shape[1] for level in parallel), multiple)
        above, children = (
            np.cumsum([0] + [len(getattr(level, name)) for level in parallel]) for name in ("centre", "children")
        )
        fields: dict[str, list[Tensor]] = {name: [] for name in _TABLES}
        firsts = zip(parallel, atoms, below, above, children, strict=False)
        for level, first_atom, first_below, first_part, first_child in firsts:
            part = level.parents.div(max(level.mask.shape[1], 1), rounding_mode="floor")
            slot = level.parents - part * level.mask.shape[1]
            fields["centre"].append(level.centre + first_atom)
            fields["own"].append(level.own + first_below)
            fields["children"].append(level.children + first_below)
            fields["child"].append((level.child + first_child) * level.mask)
            fields["atom"].append((level.atom + first_atom) * level.mask)
            fields["shift"].append(level.shift.movedim(0, -1))
            fields["mask"].append(level.mask)
            fields["parents"].append((((part + first_part) * width + slot) * level.parents_mask).T)
            fields["parents_mask"].append(level.parents_mask.T)
        tables = {name: _stack_rows(rows, multiple) for name, rows in fields.items()}
        turned = {name: tables[name].T.contiguous() for name in ("parents", "parents_mask")}
        turned["shift"] = tables["shift"].movedim(-1, 0).contiguous()
        joined = Level.from_tensors([{**tables, **turned}[name] for name in _TABLES])
        levels.append(joined.with_labels(_labels_together(parallel, atoms.tolist(), width)))
        below = above
    return Hierarchy(
        numbers=torch.cat([hierarchy.numbers for hierarchy in hierarchies]),
        structure=torch.cat([hierarchy.structure + index for index, hierarchy in enumerate(hierarchies)]),
        n_structures=len(hierarchies),
        levels=tuple(levels),
    )


def _labels_together(levels: Sequence[Level], first_atoms: Sequence[int], width: int) -> Labelled | None:
    """What one level of several hierarchies knows of its labels; ``width`` is the new length of the rows."""
    labelled = [level.labelled for level in levels if level.labelled is not None]
    if not labelled:
        return None
    below = [one.below for one in labelled if one.below is not None]
    rows = [torch.nn.functional.pad(one.is_member, (0, width - one.is_member.shape[1])) for one in labelled]
    return Labelled(
        Groups.concatenate([one.groups for one in labelled], first_atoms),
        torch.cat(rows),
        Groups.concatenate(below, first_atoms) if below else None,
    )


def round_up(width: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``width``."""
    return -(-width // multiple) * multiple


def _stack_rows(tables: list[Tensor], multiple: int) -> Tensor:
    """Concatenate tables along the first dimension; pad the second with zeros to the largest width, rounded up."""
    if tables[0].dim() == 1:
        return torch.cat(tables)
    width = round_up(max(table.shape[1] for table in tables), multiple)
    padded = tables[0].new_zeros((sum(map(len, tables)), width, *tables[0].shape[2:]))
    row = 0
    for table in tables:
        padded[row : row + len(table), : table.shape[1]] = table
        row += len(table)
    return padded
