"""From parts to edges and back. Derivatives gather through the level's table of parents, and scatter on a CPU only.

``gather_children`` copies the state of each child to its edges; its adjoint sums over the edges that end at a child.
Each is the derivative of the other, so they can be differentiated any number of times, deterministically everywhere.
"""

from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ase_nbody.hierarchy.tables import Level

_LONG = 128  # numbers of an edge, from which on it pays to add edges one by one


def gather_children(state: Tensor, level: Level) -> Tensor:
    """States of the level's children ``(components, C, channels)`` -> of the edges ``(components, P, K, channels)``.

    Padded edges get the state of child 0 and must be given zero weight.
    """
    return _Gather.apply(state, level.child, level.mask, level.parents, level.parents_mask)


def sum_over_parents(edges: Tensor, level: Level) -> Tensor:
    """Sum over the edges that end at each child: ``(components, P, K, channels)`` -> ``(components, C, channels)``."""
    return _Sum.apply(edges, level.child, level.mask, level.parents, level.parents_mask)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state: Tensor, child: Tensor, *others: Tensor) -> Tensor:
        ctx.save_for_backward(child, *others)
        edges = state.index_select(1, child.flatten()).unflatten(1, child.shape)
        # A compiler would gather anew for each radial function that it multiplies: ``as_strided`` needs it in memory.
        return edges if get_proxy_mode() is None else edges.as_strided(edges.size(), edges.stride())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return _Sum.apply(grad, *ctx.saved_tensors), None, None, None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: Tensor, child: Tensor, real: Tensor, parents: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(child, real, parents, mask)
        n_children, rows = parents.shape[1], edges.flatten(1, 2)
        if child.numel() == 0:
            return edges.new_zeros(edges.shape[0], n_children, edges.shape[-1])
        if _adds_one_by_one(edges):
            row = torch.where(real, child, n_children).flatten()  # padded edges go to one row more
            return edges.new_zeros(edges.shape[0], n_children + 1, edges.shape[-1]).index_add_(1, row, rows)[:, :-1]
        gathered = rows.index_select(1, parents.flatten()).unflatten(1, parents.shape)  # (., M, C, c)
        return (gathered * mask.to(edges.dtype).unsqueeze(-1)).sum(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return _Gather.apply(grad, *ctx.saved_tensors), None, None, None, None


def _adds_one_by_one(edges: Tensor) -> bool:
    """Whether edges ``(components, P, K, channels)`` are added to their children one after the other: fastest on a CPU
    if they are long, and deterministic there, but not on a GPU. Compiled it is slow, so it is not when traced.
    """
    return edges.device.type == "cpu" and edges.shape[0] * edges.shape[-1] >= _LONG and get_proxy_mode() is None
