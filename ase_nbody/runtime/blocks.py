"""Large systems block by block: memory grows with the atoms, not with the edges, and the data stay in the cache.

A block is some of a level's parts, with the edges to their children. Only the states psi of all parts and the
derivatives dE/dpsi are kept between blocks; all else, pair vectors included, exists only while its block runs. The way
up keeps no graph, so the way down makes each block's graph anew, as checkpointing does: the states of the lower levels
are computed twice. On a CPU, blocks that fit into the cache more than make up for that, and several run at the same
time (docs/measurements.md).
"""

from collections.abc import Generator
from contextlib import closing
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ase_nbody.hierarchy.tables import Hierarchy, Level
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import Block, Descent, System, down, up
from ase_nbody.runtime.threads import in_order

# Parts in a block, by the kind of device: enough to keep it busy. The first number is for the lowest level, the second
# for the levels above it, whose edges hold more numbers.
BLOCK_PARTS = {"cpu": (192, 64), "cuda": (16384, 16384)}


def split_level(level: Level, n_parts: int) -> list[Block]:
    """Blocks of ``n_parts`` parts each; the last one is smaller. There is at least one.

    Raises:
        ValueError: labels name the parts; a block has no room for their members.
    """
    if level.labelled is not None:
        raise ValueError("a level of labelled parts is evaluated whole, not in blocks")
    return [_block(level, slice(first, first + n_parts)) for first in range(0, max(len(level.centre), 1), n_parts)]


def _block(level: Level, parts: slice) -> Block:
    """The block of consecutive parts. Its tables count only those parts of the level below that it needs."""
    mask = level.mask[parts]
    width = int(mask.sum(1).max()) if len(mask) else 0
    mask = mask[:, :width].contiguous()
    edges = mask.flatten().nonzero().squeeze(1)  # the real ones
    child = level.child[parts, :width].flatten().index_select(0, edges)
    below = level.children.index_select(0, child)  # at the end of each edge
    ends = torch.cat([below, level.own[parts]])
    needed = torch.zeros(int(ends.max()) + 1 if len(ends) else 0, dtype=torch.bool, device=ends.device)
    needed[ends] = True
    rows, place = needed.nonzero().squeeze(1), (needed.cumsum(0) - 1).index_select(0, ends)
    here = Level.from_edges(
        centre=level.centre[parts],
        own=place[len(below) :],
        children=torch.arange(len(rows), device=rows.device),
        place=edges,
        child=place[: len(below)],
        atom=level.atom[parts, :width].contiguous(),
        shift=level.shift[:, parts, :width].contiguous(),
        mask=mask,
    )
    return Block(here, rows)


class SplitHierarchy:
    """The blocks of a hierarchy, kept until another hierarchy comes.

    Args:
        device: where the hierarchies are; the size of the blocks depends on its kind.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._split: tuple[Hierarchy, list[list[Block]]] | None = None

    @property
    def n_parts(self) -> tuple[int, int]:
        """Parts in a block of the lowest level, and in one of the levels above."""
        return BLOCK_PARTS.get(self.device.type, BLOCK_PARTS["cuda"])

    def __call__(self, hierarchy: Hierarchy) -> list[list[Block]]:
        """The blocks of every level."""
        if self._split is None or self._split[0] is not hierarchy:
            self._split = None  # free the old blocks before new ones are made
            lowest, above = self.n_parts
            sizes = [lowest, *(above for _ in hierarchy.levels[1:])]
            self._split = hierarchy, list(map(split_level, hierarchy.levels, sizes))
        return self._split[1]


class Steps:
    """The two steps of a block, run eagerly; see ``potential.up`` and ``potential.down``.

    Args:
        network: the network; its weights get no gradients.
    """

    def __init__(self, network: NBodyNetwork) -> None:
        self.network = network

    def up(self, number: int, level: Level, rows: Tensor, system: System) -> Tensor:
        """States of the parts ``(components, P, channels)``, without a graph."""
        with torch.no_grad():
            return up(self.network, number, level, rows, system).state

    def down(self, number: int, level: Level, rows: Tensor, slope: Tensor | None, system: System) -> Descent:
        """Outputs and derivatives; the graph is made anew from the states ``rows`` of the level below."""
        with torch.enable_grad():
            return down(up(self.network, number, level, rows, system), slope, lowest=number == 0)


class InBlocks:
    """The ``Way`` of large systems: block by block, several blocks at the same time.

    Args:
        blocks: the blocks of every level.
        steps: how the steps of a block are run.
        threads: how many blocks are evaluated at the same time.
    """

    def __init__(self, blocks: list[list[Block]], steps: Steps, threads: int) -> None:
        self.blocks, self.steps, self.threads = blocks, steps, threads

    def up(self, number: int, below: Tensor, system: System) -> Tensor | None:
        """States of all parts of a level; None at the last level, because nothing needs its states."""
        if number == len(self.blocks) - 1:
            return None
        run = partial(_up, self.steps, number, below, system)
        return torch.cat(list(in_order(run, self.blocks[number], self.threads)), dim=1)

    def down(
        self, number: int, below: Tensor, slope: Tensor | None, system: System
    ) -> Generator[tuple[Block, Descent], None, None]:
        """The blocks of a level in order, and what flows down from each."""
        blocks = self.blocks[number]
        sizes = [len(block.level.centre) for block in blocks]
        slopes: list[Tensor | None] = [None] * len(blocks) if slope is None else list(slope.split(sizes, dim=1))
        tasks = list(map(_Task, blocks, slopes))
        run = partial(_down, self.steps, number, below, system)
        with closing(in_order(run, tasks, self.threads)) as descents:
            yield from zip(blocks, descents, strict=True)


class _Task(NamedTuple):
    block: Block
    slope: Tensor | None


def _up(steps: Steps, number: int, below: Tensor, system: System, block: Block) -> Tensor:
    return steps.up(number, block.level, below.index_select(1, block.below), system)


def _down(steps: Steps, number: int, below: Tensor, system: System, task: _Task) -> Descent:
    block, slope = task
    return steps.down(number, block.level, below.index_select(1, block.below), slope, system)
