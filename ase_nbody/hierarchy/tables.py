"""The hierarchy of a system: atoms -> environments -> clusters -> ..., as index sets only.

Kondor 2018, section 2: a composition scheme is a directed acyclic graph whose leaves are the atoms. *Which* parts exist
depends on the chemical composition alone, never on the geometry, and a child's weight fades to zero smoothly at the
part's radius (``nn.radial``); so the energy is a smooth function of the positions, and too many children do no harm.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """The parts of one level and the edges to the children, parts of the level below, that each is made of.

    P parts with K edges each at the most; shorter rows are padded. C parts of the level below may be children.

    Attributes:
        centre: atom at the centre of each part (P,).
        own: part of the level below with the same centre (P,).
        children: parts of the level below that may be children (C,), ascending.
        child: which of the ``children`` is at the end of each edge (P, K).
        atom: atom at the centre of that child (P, K).
        shift: lattice translation of the child in whole lattice vectors (3, P, K).
        mask: True where an edge is real (P, K); the other tables are 0 elsewhere.
        parents: for each of the ``children``, the edges ``p * K + k`` that end there (M, C). By it, derivatives that
            flow from the edges to the children are gathered, not scattered: deterministic on every device.
        parents_mask: True where an entry of ``parents`` is real (M, C); ``parents`` is 0 elsewhere.
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

    def tensors(self) -> list[Tensor]:
        """All tables in the order of the attributes."""
        return [getattr(self, name) for name in Level.__dataclass_fields__]


@dataclass(frozen=True)
class Hierarchy:
    """All levels of one structure or of a batch of them, from environments up.

    Attributes:
        numbers: atomic numbers (N,).
        structure: index of the structure that each atom belongs to (N,), ascending.
        n_structures: number of structures B.
        levels: the levels, from below.
    """

    numbers: Tensor
    structure: Tensor
    n_structures: int
    levels: tuple[Level, ...]

    @functools.cached_property
    def n_edges(self) -> int:
        """Edges of all levels, padded ones included."""
        return sum(level.mask.numel() for level in self.levels)

    def to(self, device: torch.device) -> "Hierarchy":
        """The same on another device; itself if it is there already."""
        if self.numbers.device == device:
            return self
        return Hierarchy.from_tensors([table.to(device) for table in self.tensors()], self.n_structures)

    def tensors(self) -> list[Tensor]:
        """All tables in a fixed order, from which ``from_tensors`` makes the same hierarchy."""
        return [self.numbers, self.structure, *(table for level in self.levels for table in level.tensors())]

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor], n_structures: int) -> "Hierarchy":
        """The hierarchy of the tables that ``tensors`` lists."""
        numbers, structure, *tables = tensors
        width = len(Level.__dataclass_fields__)
        levels = tuple(Level(*tables[start : start + width]) for start in range(0, len(tables), width))
        return cls(numbers, structure, n_structures, levels)


def row_positions(group: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Where items, sorted by their ``group`` (E,), stand in a dense table (n_groups, M) with a row for each group.

    Returns:
        Positions ``row * M + column`` (E,), and the mask of the table.
    """
    count = group.bincount(minlength=n_groups)
    width = int(count.max()) if n_groups else 0
    column = torch.arange(len(group), device=group.device) - (count.cumsum(0) - count).index_select(0, group)
    return group * width + column, torch.arange(width, device=group.device) < count.unsqueeze(1)


def group_rows(group: Tensor, value: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Dense table (n_groups, M) of the ``value`` (E,) of each ``group`` (E,), padded with 0, and its mask."""
    order = stable_order(group)
    position, mask = row_positions(group.index_select(0, order), n_groups)
    table = value.new_zeros(mask.numel()).scatter_(0, position, value.index_select(0, order))
    return table.view(mask.shape), mask


def stable_order(group: Tensor) -> Tensor:
    """The order (E,) by ``group`` (E,), equal ones as they stand. On a CPU numpy sorts four times as fast as torch."""
    if group.device.type != "cpu":
        return group.argsort(stable=True)
    number = len(group)
    return torch.from_numpy(np.sort(group.numpy() * number + np.arange(number)) % max(number, 1))


@torch.inference_mode(False)
def concatenate(hierarchies: Sequence[Hierarchy], multiple: int = 1) -> Hierarchy:
    """One hierarchy that holds all given ones side by side; indices are shifted, rows padded to one width.

    Widths are rounded up to a ``multiple``, so that batches of similar structures have few different shapes.
    """
    atoms = np.cumsum([0] + [len(hierarchy.numbers) for hierarchy in hierarchies])
    below = atoms
    levels = []
    for parallel in zip(*(hierarchy.levels for hierarchy in hierarchies), strict=True):
        width = round_up(max(level.mask.shape[1] for level in parallel), multiple)
        above, children = (
            np.cumsum([0] + [len(getattr(level, name)) for level in parallel]) for name in ("centre", "children")
        )
        fields: dict[str, list[Tensor]] = {name: [] for name in Level.__dataclass_fields__}
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
        across = {name: tables[name].T.contiguous() for name in ("parents", "parents_mask")}
        across["shift"] = tables["shift"].movedim(-1, 0).contiguous()
        levels.append(Level(**{**tables, **across}))
        below = above
    return Hierarchy(
        numbers=torch.cat([hierarchy.numbers for hierarchy in hierarchies]),
        structure=torch.cat([hierarchy.structure + index for index, hierarchy in enumerate(hierarchies)]),
        n_structures=len(hierarchies),
        levels=tuple(levels),
    )


def round_up(width: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``width``."""
    return -(-width // multiple) * multiple


def _stack_rows(tables: list[Tensor], multiple: int) -> Tensor:
    """Concatenate along the first dimension, padding the second with zeros to the widest, rounded up."""
    if tables[0].dim() == 1:
        return torch.cat(tables)
    width = round_up(max(table.shape[1] for table in tables), multiple)
    padded = tables[0].new_zeros((sum(map(len, tables)), width, *tables[0].shape[2:]))
    row = 0
    for table in tables:
        padded[row : row + len(table), : table.shape[1]] = table
        row += len(table)
    return padded
