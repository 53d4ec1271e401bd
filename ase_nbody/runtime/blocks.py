"""Large systems, block by block: memory that grows by the atom, not by the edge, and data that stay in the cache.

A block is some of a level's parts, with the edges to their children. What is kept between blocks are the states psi of
all parts and the derivatives dE/dpsi; all else, pair vectors included, exists for one block at a time:

    upwards, for every level but the last:   psi_i = level(psi_children)
    downwards, for every level:              d/d(psi_children, r_ij) of  sum_i (epsilon_i + psi_i . dE/dpsi_i)

Upwards nothing is kept for derivatives, so the states of the lower levels are computed twice. On a CPU blocks that fit
its cache more than make up for that, and several are evaluated at a time (docs/design.md).
"""

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ase_nbody.hierarchy.tables import Hierarchy, Level, group_rows
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import Prediction, evaluate, pair_vectors, sum_over_atoms, sums_over_edges
from ase_nbody.runtime.cuda_graph import Replay
from ase_nbody.runtime.threads import in_order, torch_threads

# By the kind of device: parts of a block, so many that they keep it busy, of the lowest level and of those above it,
# whose children have directions; atoms of the largest system taken as a whole.
PARTS = {"cpu": (192, 64), "cuda": (16384, 16384)}
WHOLE = {"cpu": 2048, "cuda": 32768}
WHOLE_COMPILED = 640  # for each thread of a CPU: of compiled code blocks cost less, of several threads at a time more


@dataclass(frozen=True)
class Block:
    """Some parts of a level.

    Attributes:
        rows: parts of the level below that are children of, or have the same centre as, one of these parts (Q,).
        level: the parts with their edges; ``own``, ``children`` and ``child`` count among the ``rows``.
    """

    rows: Tensor
    level: Level


def split_level(level: Level, size: int) -> list[Block]:
    """Blocks of ``size`` parts each, the last one smaller; at least one."""
    return [_block(level, slice(first, first + size)) for first in range(0, max(len(level.centre), 1), size)]


def _block(level: Level, parts: slice) -> Block:
    mask = level.mask[parts]
    width = int(mask.sum(1).max()) if len(mask) else 0
    mask = mask[:, :width].contiguous()
    edges = mask.flatten().nonzero().squeeze(1)  # that are real
    child = level.child[parts, :width].flatten().index_select(0, edges)
    below = level.children.index_select(0, child)  # at the end of each edge
    ends = torch.cat([below, level.own[parts]])
    needed = torch.zeros(int(ends.max()) + 1 if len(ends) else 0, dtype=torch.bool, device=ends.device)
    needed[ends] = True
    rows, place = needed.nonzero().squeeze(1), (needed.cumsum(0) - 1).index_select(0, ends)
    parents, parents_mask = group_rows(place[: len(below)], edges, len(rows))
    here = Level(
        centre=level.centre[parts],
        own=place[len(below) :],
        children=torch.arange(len(rows), device=rows.device),
        child=place.new_zeros(mask.numel()).scatter_(0, edges, place[: len(below)]).view(mask.shape),
        atom=level.atom[parts, :width].contiguous(),
        shift=level.shift[:, parts, :width].contiguous(),
        mask=mask,
        parents=parents.T.contiguous(),
        parents_mask=parents_mask.T.contiguous(),
    )
    return Block(rows, here)


class System(NamedTuple):
    """What a block is told about the atoms.

    Attributes:
        numbers: atomic numbers (N,).
        species: likewise, one-hot (N, species).
        structure: the structure that each atom belongs to (N,).
        positions: (N, 3) in Angstrom, float64.
        cells: (B, 3, 3) in Angstrom, float64.
    """

    numbers: Tensor
    species: Tensor
    structure: Tensor
    positions: Tensor
    cells: Tensor


class Slopes(NamedTuple):
    """Energies of a block's parts and their derivatives, which flow to the parts' centres, their rows and children.

    Attributes:
        energies: of the parts in eV (P,).
        centres: forces and virials of the atoms at the centres of the parts (9, P), float64 (``sums_over_edges``).
        children: likewise of those at the centres of the rows (9, Q).
        states: dE/dpsi of the rows ``(components, Q, channels)``, None at the first level.
    """

    energies: Tensor
    centres: Tensor
    children: Tensor
    states: Tensor | None = None


class Steps:
    """Both steps of a block, equations above.

    Args:
        network: the network, whose weights are not differentiated.
    """

    def __init__(self, network: NBodyNetwork) -> None:
        self.network = network

    def load(self) -> None:
        """Have at hand what the steps need, before several threads ask for it."""

    @torch.no_grad()
    def up(self, number: int, level: Level, rows: Tensor, system: System) -> Tensor:
        """States psi_i of the parts ``(components, P, channels)``.

        Args:
            number: which level of the network, from 0.
            level: the parts.
            rows: states of the rows that their tables count among ``(components, Q, channels)``.
            system: the atoms.
        """
        vectors = self._vectors(number, level, system)
        return self._ascend(number, level, rows, vectors.to(rows.dtype), system)[0]

    def down(self, number: int, level: Level, rows: Tensor, slope: Tensor | None, system: System) -> Slopes:
        """Energies and derivatives; arguments as of ``up``, and dE/dpsi_i of the parts, None at the last level."""
        vectors = self._vectors(number, level, system)
        with torch.enable_grad():
            rows = rows.detach().requires_grad_(number > 0)
            pairs = vectors.to(rows.dtype, copy=True).requires_grad_()
            states, energies = self._ascend(number, level, rows, pairs, system)
            total = energies.sum() if slope is None else energies.sum() + (states * slope).sum()
            of = (pairs, rows) if number else (pairs,)  # atoms' states are constants
            by_vectors, *by_state = torch.autograd.grad(total, of, materialize_grads=True)
        at_centres, at_children = sums_over_edges(level, vectors, by_vectors)
        return Slopes(energies.detach(), at_centres, at_children, *by_state)

    def _vectors(self, number: int, level: Level, system: System) -> Tensor:
        radius = self.network.config.levels[number].radius
        return pair_vectors(level, radius, system.positions, system.cells, system.structure)

    def _ascend(
        self, number: int, level: Level, rows: Tensor, vectors: Tensor, system: System
    ) -> tuple[Tensor, Tensor]:
        return self.network.ascend(number, rows, vectors, level, system.numbers, system.species)


class BlockwiseEvaluation:
    """``potential.evaluate`` block by block where the system is large. Keeps the blocks of the last hierarchy.

    Args:
        network: the network, whose weights are not differentiated.
    """

    def __init__(self, network: NBodyNetwork) -> None:
        self.network = network
        self._small = Replay(self._whole)
        self._split: tuple[Hierarchy, list[list[Block]]] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Parts in a block of the lowest level, and of those above it."""
        return PARTS.get(self.network.one_hot.device.type, PARTS["cuda"])

    def pays(self, hierarchy: Hierarchy, *, compiled: bool = False) -> bool:
        """Whether the hierarchy is so large that blocks are of use, eagerly or by compiled code."""
        kind = self.network.one_hot.device.type
        most = WHOLE.get(kind, WHOLE["cuda"])
        if compiled and kind == "cpu":
            most = min(most, WHOLE_COMPILED * torch.get_num_threads())
        return len(hierarchy.numbers) > most

    def blocks(self, hierarchy: Hierarchy) -> list[list[Block]]:
        """The blocks of every level."""
        if self._split is None or self._split[0] is not hierarchy:
            self._split = None  # first let go of the old ones
            lowest, above = self.size
            sizes = [lowest, *(above for _ in hierarchy.levels[1:])]
            self._split = hierarchy, list(map(split_level, hierarchy.levels, sizes))
        return self._split[1]

    def __call__(
        self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor, steps: Steps | None = None
    ) -> Prediction:
        """Energy, forces and virials; arguments as of ``potential.evaluate``, which small systems are left to.

        ``steps`` says how the steps of a block are evaluated, if not eagerly.
        """
        if not self.pays(hierarchy, compiled=steps is not None):
            return self._small(hierarchy, positions, cells)
        steps = steps or Steps(self.network)
        steps.load()
        with torch.inference_mode(False), torch.no_grad(), torch_threads(1) as threads:
            species = self.network.one_hot[hierarchy.numbers]
            system = System(hierarchy.numbers, species, hierarchy.structure, positions, cells)
            states = self._ascend(hierarchy, system, steps, threads)
            return self._descend(hierarchy, system, steps, states, threads)

    def _whole(self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor) -> Prediction:
        return evaluate(self.network, hierarchy, positions, cells)

    def _ascend(self, hierarchy: Hierarchy, system: System, steps: Steps, threads: int) -> list[Tensor]:
        """States below each level."""
        states = [self.network.embedding(system.species)]
        for number, blocks in enumerate(self.blocks(hierarchy)[:-1]):
            up = partial(_up, steps, number, states[-1], system)
            states.append(torch.cat(list(in_order(up, blocks, threads)), dim=1))
        return states

    def _descend(
        self, hierarchy: Hierarchy, system: System, steps: Steps, states: list[Tensor], threads: int
    ) -> Prediction:
        """Derivatives, from the last level down."""
        numbers, levels = hierarchy.numbers, self.blocks(hierarchy)
        energies, parts = self.network.isolated_atoms(system.species), []
        sums = energies.new_zeros(9, len(energies))
        slopes: list[Tensor | None] = [None] * len(levels[-1])  # dE/dpsi of the parts, by block
        for number in reversed(range(len(levels))):
            below, slope_below = states[number], torch.zeros_like(states[number])
            centre_below = hierarchy.levels[number - 1].centre if number else torch.arange(len(numbers)).to(numbers)
            down = partial(_down, steps, number, below, system)
            tasks, part = list(zip(levels[number], slopes, strict=True)), []
            with closing(in_order(down, tasks, threads)) as slopes_in_order:
                for (block, _), found in zip(tasks, slopes_in_order, strict=True):
                    if found.states is not None:
                        slope_below.index_add_(1, block.rows, found.states)
                    sums.index_add_(1, block.level.centre, found.centres)
                    sums.index_add_(1, centre_below[block.rows], found.children)
                    part.append(found.energies)
            parts.append(torch.cat(part))
            energies.index_add_(0, hierarchy.levels[number].centre, parts[-1].to(torch.float64))
            if number:
                slopes = list(slope_below.split([len(block.level.centre) for block in levels[number - 1]], dim=1))
        return sum_over_atoms(hierarchy, energies, sums, parts[::-1])


def _up(steps: Steps, number: int, below: Tensor, system: System, block: Block) -> Tensor:
    return steps.up(number, block.level, below.index_select(1, block.rows), system)


def _down(steps: Steps, number: int, below: Tensor, system: System, task: tuple[Block, Tensor | None]) -> Slopes:
    block, slope = task
    return steps.down(number, block.level, below.index_select(1, block.rows), slope, system)
