"""From parts to edges and back: the two linear maps between the states of children and the edges that end at them.

``gather_children`` copies the state of each child to the edges that end at it, and ``sum_over_parents`` adds up the
values on these edges. Each is the transpose of the other, so both can be differentiated any number of times. The
level's table of parents turns the sum into another look-up, which is deterministic on every device.
"""

from typing import Any

import torch
from torch import Tensor

from ase_nbody.hierarchy.tables import Level

LONG_EDGE = 128  # with this many numbers on an edge, a CPU adds edges one by one faster than it looks them up


def gather_children(state: Tensor, level: Level) -> Tensor:
    """States of the level's children ``(components, C, channels)`` -> of the edges ``(components, P, K, channels)``.

    Padded edges get the state of child 0 and must get zero weight.
    """
    return _Gather.apply(state, level.child, level.mask, level.parents, level.parents_mask)


def sum_over_parents(edges: Tensor, level: Level) -> Tensor:
    """Sum over the edges that end at each child: ``(components, P, K, channels)`` -> ``(components, C, channels)``."""
    return _Sum.apply(edges, level.child, level.mask, level.parents, level.parents_mask)


def look_up_children(state: Tensor, child: Tensor) -> Tensor:
    """The forward map of ``gather_children``, from the table ``Level.child``."""
    return state.index_select(1, child.flatten()).unflatten(1, child.shape)


def look_up_parents(edges: Tensor, parents: Tensor, parents_mask: Tensor) -> Tensor:
    """The forward map of ``sum_over_parents``, from the tables ``Level.parents`` and ``Level.parents_mask``."""
    if edges.shape[1] * edges.shape[2] == 0:
        return edges.new_zeros(edges.shape[0], parents.shape[1], edges.shape[-1])
    gathered = edges.flatten(1, 2).index_select(1, parents.flatten()).unflatten(1, parents.shape)
    return (gathered * parents_mask.to(edges.dtype).unsqueeze(-1)).sum(1)  # over (components, M, C, channels)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state: Tensor, child: Tensor, *others: Tensor) -> Tensor:
        ctx.save_for_backward(child, *others)
        return look_up_children(state, child)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return _Sum.apply(grad, *ctx.saved_tensors), None, None, None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: Tensor, child: Tensor, mask: Tensor, parents: Tensor, parents_mask: Tensor) -> Tensor:
        ctx.save_for_backward(child, mask, parents, parents_mask)
        # Adding one by one is deterministic only on a CPU.
        if edges.device.type == "cpu" and edges.shape[0] * edges.shape[-1] >= LONG_EDGE:
            return _add_one_by_one(edges, child, mask, parents.shape[1])
        return look_up_parents(edges, parents, parents_mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return _Gather.apply(grad, *ctx.saved_tensors), None, None, None, None


def _add_one_by_one(edges: Tensor, child: Tensor, mask: Tensor, n_children: int) -> Tensor:
    row = torch.where(mask, child, n_children).flatten()  # padded edges go to an extra row, which is dropped
    sums = edges.new_zeros(edges.shape[0], n_children + 1, edges.shape[-1])
    return sums.index_add_(1, row, edges.flatten(1, 2))[:, :-1]
