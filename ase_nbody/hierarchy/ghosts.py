"""Ghosts: atoms, parts and structures that make a batch as large as wanted and change nothing.

Code that is compiled for fixed sizes then serves batches of all smaller sizes, and code for any sizes of at least two
serves a single atom. Ghost atoms have the atomic number 0, which is that of no species. They belong to ghost structures
or, where there are none, to the last real one. Ghost parts are centred at ghost atoms and have no edges. A network has
no bias, so states, energies and derivatives of ghosts are exactly zero.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ase_nbody.hierarchy.tables import Hierarchy, Level

# (B, N, then for each level P, C, K, M) in the letters of ``tables``: structures, atoms, parts, children that parts
# may have, edges of a part, edges that end at a child.
Sizes = tuple[int, ...]
_SIZES_OF_ALL, _SIZES_OF_LEVEL = 2, 4


def sizes_of(hierarchy: Hierarchy) -> Sizes:
    """The sizes of a hierarchy."""
    sizes = [hierarchy.n_structures, len(hierarchy.numbers)]
    for level in hierarchy.levels:
        sizes += [len(level.centre), len(level.children), level.mask.shape[1], len(level.parents)]
    return tuple(sizes)


def of_levels(sizes: Sizes) -> list[Sizes]:
    """The sizes of each level: (P, C, K, M)."""
    return [sizes[start : start + _SIZES_OF_LEVEL] for start in range(_SIZES_OF_ALL, len(sizes), _SIZES_OF_LEVEL)]


def least_with_ghosts(sizes: Sizes) -> Sizes:
    """The smallest sizes of a hierarchy with these sizes and ghosts: one ghost of each kind, and tables as wide."""
    counts = [size + 1 for size in sizes[:_SIZES_OF_ALL]]
    for parts, children, width, parents in of_levels(sizes):
        counts += [parts + 1, children + 1, width, parents]
    return tuple(counts)


def with_ghosts(hierarchy: Hierarchy, sizes: Sizes) -> Hierarchy:
    """The hierarchy, not a labelled one, with ghosts behind everything that is real.

    Args:
        hierarchy: the real atoms and parts.
        sizes: the sizes of the result, each at least that of ``least_with_ghosts``. Where all parts of the level below
            may be children, there are as many of them as children.
    """
    n_structures, n_atoms = sizes[:_SIZES_OF_ALL]
    n_real = n_below = len(hierarchy.numbers)
    levels = []
    for level, (parts, children, width, parents) in zip(hierarchy.levels, of_levels(sizes), strict=True):
        more_parts, more_edges = parts - level.mask.shape[0], width - level.mask.shape[1]
        part = level.parents.div(max(level.mask.shape[1], 1), rounding_mode="floor")
        levels.append(
            Level(
                centre=with_rows(level.centre, parts, n_real),
                own=with_rows(level.own, parts, n_below),
                children=with_rows(level.children, children, n_below),
                child=_wider(level.child, more_parts, more_edges),
                atom=_wider(level.atom, more_parts, more_edges),
                shift=_wider(level.shift, more_parts, more_edges),
                mask=_wider(level.mask, more_parts, more_edges),
                parents=_wider(
                    level.parents + part * more_edges, parents - len(level.parents), children - len(level.children)
                ),
                parents_mask=_wider(level.parents_mask, parents - len(level.parents), children - len(level.children)),
            )
        )
        n_below = len(level.centre)
    return Hierarchy(
        numbers=with_rows(hierarchy.numbers, n_atoms),
        structure=with_rows(hierarchy.structure, n_atoms, n_structures - 1),
        n_structures=n_structures,
        levels=tuple(levels),
    )


def with_sizes_of_two(hierarchy: Hierarchy) -> Hierarchy:
    """A structure, not a labelled one, with ghosts of its own, so that it has at least two of everything."""
    sizes = least_with_ghosts(sizes_of(hierarchy))
    return with_ghosts(hierarchy, (hierarchy.n_structures, *(max(2, size) for size in sizes[1:])))


def with_rows(tensor: Tensor, n_rows: int, value: float = 0.0) -> Tensor:
    """The tensor (n, ...) with more rows behind its own, all filled with ``value``: (n_rows, ...)."""
    return torch.cat([tensor, tensor.new_full((n_rows - len(tensor), *tensor.shape[1:]), value)])


def _wider(table: Tensor, more_rows: int, more_columns: int) -> Tensor:
    """A table (..., rows, columns) with zeros below and at its right."""
    return torch.nn.functional.pad(table, (0, more_columns, 0, more_rows))


def envelope(several: Sequence[Sizes]) -> Sizes:
    """The smallest sizes that are at least as large as each of several."""
    return tuple(map(max, zip(*several, strict=True)))
