"""Building hierarchies: which parts a level has, its edges, and lists that follow a moving structure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_nbody.hierarchy.neighbours import Edges, find_edges, still_valid
from ase_nbody.hierarchy.tables import Hierarchy, Level, group_rows, row_positions
from ase_nbody.structure import Structure

Selection = str | tuple[int, ...]


@dataclass(frozen=True)
class LevelLayout:
    """Which parts a level has, and which of the parts below may be their children.

    Attributes:
        parts: atoms at the centres of the parts: ``"all"``, ``"heavy"`` (all but hydrogen), or atomic numbers; they
            must be centres of parts of the level below.
        children: likewise, the parts below that count as children.
        radius: distance in Angstrom at which a child's weight has faded to zero.
    """

    parts: Selection
    children: Selection
    radius: float


def select(numbers: NDArray[np.int64], selection: Selection) -> NDArray[np.bool_]:
    """Which atoms of the given atomic numbers (N,) a selection means."""
    if isinstance(selection, str):
        if selection == "all":
            return np.ones(len(numbers), dtype=np.bool_)
        if selection == "heavy":
            return numbers != 1
        raise ValueError(f"a selection is 'all', 'heavy' or a tuple of atomic numbers, got {selection!r}")
    return np.isin(numbers, list(selection))


def build_level(edges: Edges, above: Tensor, below: Tensor, children: Tensor) -> Level:
    """One level.

    Args:
        edges: the pairs that may become edges.
        above: whether an atom has a part of this level (N,).
        below: whether an atom has a part of the level below (N,); all of ``above`` and ``children`` have.
        children: whether an atom's part below may be a child (N,).
    """
    part_of, part_below, child_of = (atoms.cumsum(0) - 1 for atoms in (above, below, children))
    centre = above.nonzero().squeeze(1)
    wanted = above.index_select(0, edges.first) & children.index_select(0, edges.second)
    kept = edges if wanted.all() else edges.select(wanted.nonzero().squeeze(1))
    child = child_of.index_select(0, kept.second)
    row, mask = row_positions(part_of.index_select(0, kept.first), len(centre))
    parents, parents_mask = group_rows(child, row, int(children.sum()))
    ends = torch.stack([child, kept.second, *kept.shift.unbind(1)])
    tables = ends.new_zeros(len(ends), mask.numel()).index_copy_(1, row, ends).unflatten(1, mask.shape)
    return Level(
        centre=centre,
        own=part_below[centre],
        children=part_below[children],
        child=tables[0],
        atom=tables[1],
        shift=tables[2:],
        mask=mask,
        parents=parents.T.contiguous(),
        parents_mask=parents_mask.T.contiguous(),
    )


@torch.inference_mode(False)  # tables made in a caller's inference mode could not be differentiated
def build_hierarchy(
    structure: Structure, layout: Sequence[LevelLayout], skin: float = 0.0, device: torch.device | str = "cpu"
) -> Hierarchy:
    """The hierarchy of one structure.

    Args:
        structure: the system.
        layout: the levels from below.
        skin: distance in Angstrom beyond a level's radius up to which children are listed.
        device: where pairs are searched and the hierarchy is kept.

    Raises:
        StructureError: see ``find_pairs``.
    """
    edges = find_edges(structure, max(level.radius for level in layout) + skin, device)
    below = np.ones(len(structure), dtype=np.bool_)
    levels = []
    for level in layout:
        above = select(structure.numbers, level.parts)
        children = below & select(structure.numbers, level.children)
        chosen = (torch.from_numpy(atoms).to(device) for atoms in (above, below, children))
        levels.append(build_level(edges.within(level.radius + skin), *chosen))
        below = above
    numbers = torch.tensor(structure.numbers, device=device)
    return Hierarchy(numbers, torch.zeros_like(numbers), 1, tuple(levels))


class VerletHierarchy:
    """A hierarchy that follows a moving structure: rebuilt only when a child may have come within a radius unlisted.

    Keyed on its own copy of the geometry it was built for, not on what a caller says has changed.

    Args:
        layout: the levels from below.
        skin: extra distance in Angstrom up to which children are listed; 0 rebuilds at every step.
        device: where the hierarchy is kept.
    """

    def __init__(self, layout: Sequence[LevelLayout], skin: float, device: torch.device | str = "cpu") -> None:
        self.layout, self.skin, self.device = tuple(layout), skin, torch.device(device)
        self.builds = 0
        self._built_for: Structure | None = None
        self._hierarchy: Hierarchy | None = None

    @property
    def hierarchy(self) -> Hierarchy:
        """The hierarchy of the last update."""
        if self._hierarchy is None:
            raise RuntimeError("no hierarchy was built yet: call update(structure) first")
        return self._hierarchy

    def forget(self) -> None:
        """Let go of the hierarchy: the next update builds one."""
        self._hierarchy = self._built_for = None

    def update(self, structure: Structure) -> Hierarchy:
        """The hierarchy of ``structure``, a reused one where that is safe."""
        cutoff = max(level.radius for level in self.layout)
        if (
            self._hierarchy is None
            or self._built_for is None
            or not still_valid(self._built_for, structure, cutoff, self.skin)
        ):
            self._hierarchy = build_hierarchy(structure, self.layout, self.skin, self.device)
            self._built_for = structure
            self.builds += 1
        return self._hierarchy
