"""Large systems, block by block: memory that grows by the atom, not by the edge, and data that stay in the cache.

A block is some of a level's parts, with the edges to their children. What is kept between blocks are the states psi of
all parts and the derivatives dE/dpsi; all else, pair vectors included, exists for one block at a time:

    upwards, for every level but the last:   psi_i = level(psi_children)
    downwards, for every level:              d/d(psi_children, r_ij) of  sum_i (epsilon_i + psi_i . dE/dpsi_i)

Upwards nothing is kept for derivatives, so the states of the lower levels are computed twice. On a CPU blocks that fit
its cache more than make up for that (docs/design.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ase_nbody.hierarchy import Hierarchy, Level, group_rows
from ase_nbody.network import NBodyNetwork
from ase_nbody.potential import (
    Prediction,
    evaluate,
    isolated_energies,
    pair_vectors,
    sum_over_atoms,
    sums_over_edges,
)

PARTS = {"cpu": 256, "cuda": 16384}  # of a block, by the kind of device; so many that they keep it busy


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
    mask = level.mask[parts].cpu().numpy()
    width = int(mask.sum(axis=1).max(initial=0))
    mask = mask[:, :width]
    own = level.own[parts].cpu().numpy()
    child = np.zeros(mask.shape, dtype=np.int64)
    child[mask] = level.children.cpu().numpy()[level.child[parts, :width].cpu().numpy()[mask]]
    rows = np.unique(np.concatenate([child[mask], own]))
    child[mask] = np.searchsorted(rows, child[mask])
    parents, parents_mask = group_rows(child[mask], np.flatnonzero(mask), len(rows))
    tables = {
        "own": np.searchsorted(rows, own),
        "children": np.arange(len(rows)),
        "child": child,
        "mask": mask,
        "parents": parents,
        "parents_mask": parents_mask,
    }
    here = {name: torch.from_numpy(table).to(level.mask.device) for name, table in tables.items()}
    atom, shift = (table[parts, :width].contiguous() for table in (level.atom, level.shift))
    return Block(
        torch.from_numpy(rows).to(level.mask.device),
        Level(centre=level.centre[parts], atom=atom, shift=shift, **here),
    )


class BlockwiseEvaluation:
    """``potential.evaluate`` block by block where the system is large. Keeps the blocks of the last hierarchy.

    Args:
        network: the network, whose weights are not differentiated.
    """

    def __init__(self, network: NBodyNetwork) -> None:
        self.network = network
        self._split: tuple[Hierarchy, list[list[Block]]] | None = None

    @property
    def size(self) -> int:
        """Parts in a block."""
        return PARTS.get(self.network.one_hot.device.type, PARTS["cuda"])

    def pays(self, hierarchy: Hierarchy) -> bool:
        """Whether the hierarchy is so large that blocks are of use."""
        return len(hierarchy.numbers) > 2 * self.size

    def blocks(self, hierarchy: Hierarchy) -> list[list[Block]]:
        """The blocks of every level."""
        if self._split is None or self._split[0] is not hierarchy:
            self._split = hierarchy, [split_level(level, self.size) for level in hierarchy.levels]
        return self._split[1]

    def __call__(self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor) -> Prediction:
        """Energy, forces and virials; arguments as of ``potential.evaluate``, which small systems are left to."""
        if not self.pays(hierarchy):
            return evaluate(self.network, hierarchy, positions, cells)
        network, numbers, levels = self.network, hierarchy.numbers, self.blocks(hierarchy)

        def vectors_of(number: int, block: Block) -> Tensor:
            radius = network.config.levels[number].radius
            return pair_vectors(block.level, radius, positions, cells, hierarchy.structure)

        def ascend(number: int, block: Block, rows: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
            return network.ascend(number, rows, vectors, block.level, numbers, species)

        with torch.inference_mode(False), torch.no_grad():
            species = network.one_hot[numbers]
            states = [network.embedding(species)]
            for number, blocks in enumerate(levels[:-1]):
                above = []
                for block in blocks:
                    vectors = vectors_of(number, block).to(network.dtype)
                    above.append(ascend(number, block, states[-1].index_select(1, block.rows), vectors)[0])
                states.append(torch.cat(above, dim=1))

            energies, parts = isolated_energies(network, numbers), []
            forces, virials = energies.new_zeros(len(energies), 3), energies.new_zeros(len(energies), 9)
            slopes: list[Tensor | None] = [None] * len(levels[-1])  # dE/dpsi of the parts, by block
            for number in reversed(range(len(levels))):
                below = states[number]
                slope_below = torch.zeros_like(below)
                centre_below = hierarchy.levels[number - 1].centre if number else torch.arange(len(numbers)).to(numbers)
                part: list[Tensor] = []
                for block, slope in zip(levels[number], slopes, strict=True):
                    vectors = vectors_of(number, block)
                    rows = below.index_select(1, block.rows)
                    energy, by_vectors, by_state = _slopes(partial(ascend, number, block), rows, vectors, slope)
                    slope_below.index_add_(1, block.rows, by_state)
                    at_centres, at_children = sums_over_edges(block.level, vectors, by_vectors)
                    centre, child_atom = block.level.centre, centre_below[block.rows]
                    forces.index_add_(0, centre, at_centres[0]).index_add_(0, child_atom, at_children[0])
                    virials.index_add_(0, centre, at_centres[1]).index_add_(0, child_atom, at_children[1])
                    part.append(energy)
                parts.append(torch.cat(part))
                energies.index_add_(0, hierarchy.levels[number].centre, parts[-1].to(torch.float64))
                if number:
                    slopes = list(slope_below.split(self.size, dim=1))
            return sum_over_atoms(hierarchy, energies, forces, virials, parts[::-1])


def _slopes(
    ascend: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], rows: Tensor, vectors: Tensor, slope: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Energies of a block's parts, and dE/dr_ij and dE/dpsi of its edges and rows, given dE/dpsi of its parts."""
    with torch.enable_grad():
        rows, pairs = rows.requires_grad_(), vectors.to(rows.dtype, copy=True).requires_grad_()
        states, energies = ascend(rows, pairs)
        total = energies.sum() if slope is None else energies.sum() + (states * slope).sum()
        by_vectors, by_state = torch.autograd.grad(total, (pairs, rows), materialize_grads=True)
    return energies.detach(), by_vectors, by_state
