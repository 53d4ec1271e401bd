"""Build hierarchies: choose the parts of each level, find their children, and follow a structure that moves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_nbody.hierarchy.labelled import Candidates, Membership, build_labelled_level
from ase_nbody.hierarchy.neighbours import Edges, find_edges, still_valid
from ase_nbody.hierarchy.tables import Hierarchy, Level, row_positions
from ase_nbody.structure import Structure

Selection = str | tuple[int, ...]
LABELS = "labels"  # the parts that the structure's labels name, in place of a selection of atoms


@dataclass(frozen=True)
class LevelLayout:
    """The rule that makes one level of the composition scheme.

    Attributes:
        parts: which atoms are centres of parts: ``"all"``, ``"heavy"`` (all but hydrogen), or atomic numbers. Each of
            these atoms must be the centre of a part of the level below as well. ``"labels"``: one part for each label
            of the structure. Only labelled levels stand above such a level, and it is not the lowest.
        children: which parts of the level below may be children, chosen by their central atoms in the same notation.
        radius: distance in Angstrom at which the weight of a child has faded to zero.
        member_weights: of a labelled level, the weights of the members in the position of their part: ``"mass"`` or
            ``"equal"``; None for other levels.
    """

    parts: Selection
    children: Selection
    radius: float
    member_weights: str | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether labels name the parts."""
        return self.parts == LABELS


def select(numbers: NDArray[np.int64], selection: Selection) -> NDArray[np.bool_]:
    """Mask (N,) of the atoms that a selection chooses by their atomic ``numbers`` (N,).

    Raises:
        ValueError: the selection is a word other than ``"all"`` and ``"heavy"``.
    """
    if isinstance(selection, str):
        if selection == "all":
            return np.ones(len(numbers), dtype=np.bool_)
        if selection == "heavy":
            return numbers != 1
        raise ValueError(f"a selection is 'all', 'heavy' or a tuple of atomic numbers, got {selection!r}")
    return np.isin(numbers, list(selection))


@dataclass(frozen=True)
class Members:
    """The atoms that are centres of parts, as masks (N,).

    Attributes:
        above: centres of the parts of this level.
        below: centres of the parts of the level below; for the first level, all atoms.
        children: centres of those parts of the level below that may be children.
    """

    above: NDArray[np.bool_]
    below: NDArray[np.bool_]
    children: NDArray[np.bool_]


def members(numbers: NDArray[np.int64], layout: Sequence[LevelLayout]) -> Iterator[Members]:
    """Apply the rules of a layout to atoms: for each level, which atoms are centres of its parts and of the children.

    Args:
        numbers: atomic numbers (N,); the choice of parts depends on nothing else.
        layout: the levels, the lowest first. Labelled ones are left out.
    """
    below = np.ones(len(numbers), dtype=np.bool_)
    for level in _around_atoms(layout):
        above = select(numbers, level.parts)
        yield Members(above, below, children=below & select(numbers, level.children))
        below = above


def _around_atoms(layout: Sequence[LevelLayout]) -> list[LevelLayout]:
    return [level for level in layout if not level.is_labelled]


def build_level(edges: Edges, above: Tensor, below: Tensor, children: Tensor) -> Level:
    """Build one level: every edge leads from a part to a child, a part of the level below.

    Args:
        edges: the pairs of atoms that may become edges.
        above: which atoms are centres of parts of this level (N,).
        below: which atoms are centres of parts of the level below (N,), including all of ``above`` and ``children``.
        children: which atoms are centres of parts that may be children (N,).
    """
    part_of, part_below, child_of = (atoms.cumsum(0) - 1 for atoms in (above, below, children))
    centre = above.nonzero().squeeze(1)
    wanted = above.index_select(0, edges.first) & children.index_select(0, edges.second)
    kept = edges if wanted.all() else edges.select(wanted.nonzero().squeeze(1))
    place, mask = row_positions(part_of.index_select(0, kept.first), len(centre))
    ends = torch.stack([kept.second, *kept.shift.unbind(1)])  # (4, E)
    tables = ends.new_zeros(len(ends), mask.numel()).index_copy_(1, place, ends).unflatten(1, mask.shape)
    return Level.from_edges(
        centre=centre,
        own=part_below[centre],
        children=part_below[children],
        place=place,
        child=child_of.index_select(0, kept.second),
        atom=tables[0],
        shift=tables[1:],
        mask=mask,
    )


@torch.inference_mode(False)  # autograd could not use tables made in inference mode
def build_hierarchy(
    structure: Structure, layout: Sequence[LevelLayout], skin: float = 0.0, device: torch.device | str = "cpu"
) -> Hierarchy:
    """Build the hierarchy of one structure.

    Args:
        structure: the system.
        layout: the levels, the lowest first.
        skin: children are listed up to this distance in Angstrom beyond the radius of their level.
        device: where to search for pairs and to keep the hierarchy.

    Raises:
        StructureError: see ``find_pairs``, and with labelled levels ``Membership.of``.
    """
    around_atoms = _around_atoms(layout)
    labelled = layout[len(around_atoms) :]
    membership = Membership.of(structure) if labelled else None
    edges = find_edges(structure, max(level.radius for level in around_atoms) + skin, device)
    levels = []
    for level, chosen in zip(around_atoms, members(structure.numbers, layout), strict=True):
        masks = (torch.from_numpy(mask).to(device) for mask in (chosen.above, chosen.below, chosen.children))
        levels.append(build_level(edges.within(level.radius + skin), *masks))
    if membership is not None:
        below = select(structure.numbers, around_atoms[-1].parts)
        levels += _labelled_levels(structure, membership, labelled, below, skin, device)
    numbers = torch.tensor(structure.numbers, device=device)
    return Hierarchy(numbers, torch.zeros_like(numbers), 1, tuple(levels))


def _labelled_levels(
    structure: Structure,
    membership: Membership,
    layout: Sequence[LevelLayout],
    below: NDArray[np.bool_],
    skin: float,
    device: torch.device | str,
) -> list[Level]:
    """The labelled levels of a layout, above parts around the atoms of the mask ``below`` (N,)."""
    children = below & select(structure.numbers, layout[0].children)
    candidates = Candidates.around_atoms(structure, membership, below, children)
    levels = []
    for level in layout:
        weights = level.member_weights or "mass"
        radius = level.radius + skin
        levels.append(
            build_labelled_level(structure, membership, candidates, weights=weights, radius=radius, device=device)
        )
        candidates = Candidates.labelled(structure, membership, weights)
    return levels


class VerletHierarchy:
    """A hierarchy that follows a moving structure.

    It is built anew only if a child that is not listed may have come within a radius. To decide this, it compares the
    structure with its own copy of the one that it was built for, and does not rely on what a caller says has changed.
    With labelled levels it also compares the members and images that the labels give; a part moves no farther than the
    farthest of its members, so the criterion for atoms holds for parts.

    Args:
        layout: the levels, the lowest first.
        skin: children are listed up to this distance in Angstrom beyond the radius; 0 builds anew at every step.
        device: where the hierarchy is kept.
    """

    def __init__(self, layout: Sequence[LevelLayout], skin: float, device: torch.device | str = "cpu") -> None:
        self.layout, self.skin, self.device = tuple(layout), skin, torch.device(device)
        self.builds = 0
        self._is_labelled = any(level.is_labelled for level in self.layout)
        self._built_for: Structure | None = None
        self._membership: Membership | None = None
        self._hierarchy: Hierarchy | None = None

    @property
    def hierarchy(self) -> Hierarchy:
        """The hierarchy of the last update.

        Raises:
            RuntimeError: there has been no update yet.
        """
        if self._hierarchy is None:
            raise RuntimeError("no hierarchy has been built yet: call update(structure) first")
        return self._hierarchy

    def forget(self) -> None:
        """Drop the hierarchy, so that the next update builds one anew."""
        self._hierarchy = self._built_for = self._membership = None

    def update(self, structure: Structure) -> Hierarchy:
        """Return the hierarchy of ``structure``. The last one is reused if it still lists all children."""
        cutoff = max(level.radius for level in self.layout)
        membership = Membership.of(structure) if self._is_labelled else None
        if (
            self._hierarchy is None
            or self._built_for is None
            or (membership is not None and not membership.same_as(self._membership))
            or not still_valid(self._built_for, structure, cutoff, self.skin)
        ):
            self._hierarchy = build_hierarchy(structure, self.layout, self.skin, self.device)
            self._built_for, self._membership = structure, membership
            self.builds += 1
        return self._hierarchy
