"""From parts to edges and back, without scatters: derivatives gather through the level's table of parents.

``gather_children`` copies the state of each child to its edges; its adjoint sums over the edges that end at a child.
Each is the derivative of the other, so they can be differentiated any number of times, deterministically everywhere.
"""

from typing import Any

import torch
from torch import Tensor

from ase_nbody.hierarchy import Level


def gather_children(state: Tensor, level: Level) -> Tensor:
    """States of the level's children ``(components, C, channels)`` -> of the edges ``(components, P, K, channels)``.

    Padded edges get the state of child 0 and must be given zero weight.
    """
    return _Gather.apply(state, level.child, level.parents, level.parents_mask)


def sum_over_parents(edges: Tensor, level: Level) -> Tensor:
    """Sum over the edges that end at each child: ``(components, P, K, channels)`` -> ``(components, C, channels)``."""
    return _Sum.apply(edges, level.child, level.parents, level.parents_mask)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state: Tensor, child: Tensor, parents: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(child, parents, mask)
        return state.index_select(1, child.flatten()).unflatten(1, child.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return _Sum.apply(grad, *ctx.saved_tensors), None, None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: Tensor, child: Tensor, parents: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(child, parents, mask)
        if child.numel() == 0:
            return edges.new_zeros(edges.shape[0], parents.shape[0], edges.shape[-1])
        gathered = edges.flatten(1, 2).index_select(1, parents.flatten()).unflatten(1, parents.shape)  # (., C, M, c)
        return (mask.to(edges.dtype).unsqueeze(1) @ gathered).squeeze(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return _Gather.apply(grad, *ctx.saved_tensors), None, None, None
