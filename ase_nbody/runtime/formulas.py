"""The equations of ``nn`` and ``so3`` again, with operations in an order that suits a processor or a compiler.

Each layer here has the weights, the constants and, to round-off, the results of the layer that it derives from; only
its forward pass is written differently. ``for_eager`` and ``for_tracing`` give a network of such layers.
"""

import functools
import math
import operator
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ase_nbody.hierarchy.exchange import gather_children, look_up_children, look_up_parents
from ase_nbody.hierarchy.tables import Level
from ase_nbody.nn.gates import FirstOrderGate
from ase_nbody.nn.path_gates import ChildrenSum, FirstOrderPathGate
from ase_nbody.nn.radial import RadialBasis, cutoff_function
from ase_nbody.so3 import SphericalHarmonics, by_degree

Network = TypeVar("Network", bound=nn.Module)
# Up to this number of edges in a row, ``ShortRowsFirstOrderGate`` is faster (a fifth of a whole step at 16, nothing at
# 24, with 64 channels).
SHORT_ROW = 16


def for_eager(network: Network) -> Network:
    """The network with layers that are fast when torch runs one operation after the other.

    Both networks hold the same tensors under the same names, so training one trains the other. The call copies a few
    dozen small Python objects and no tensor, so a training can make it at every step.
    """
    return _with_formulas(network, _EAGER)


def for_tracing(network: Network, *, short_rows: bool = False) -> Network:
    """The network with layers whose trace suits a compiler. It shares the weights, as in ``for_eager``.

    With ``short_rows`` the layers may look at the length of rows, so the trace is for tables of one size.
    """
    return _with_formulas(network, _TRACED | _SHORT_ROWS if short_rows else _TRACED)


def _with_formulas(module: Any, formulas: Mapping[type[nn.Module], type[nn.Module]]) -> Any:
    """The module with the same weights and buffers, where ``formulas`` replaces the classes of its layers."""
    kind = formulas.get(type(module), type(module))
    other = kind.__new__(kind)
    children = {name: child and _with_formulas(child, formulas) for name, child in module._modules.items()}
    other.__dict__.update(module.__dict__, _modules=children)
    return other


class BatchedFirstOrderGate(FirstOrderGate):
    """The first-order gate as one dense matrix product for each part.

    Its operands are built in the memory order that the product needs. ``einsum`` would copy each of them into it.
    """

    def gather(self, state: Tensor, level: Level) -> Tensor:
        """States of the children (components, C, channels) -> of the edges (components, P, K, channels)."""
        return gather_children(state, level)

    def forward(self, state: Tensor, basis: Tensor, unit: Tensor, level: Level) -> Tensor:
        """Same as in ``FirstOrderGate``."""
        harmonics = self.harmonics(unit)  # (components, P, K)
        if self.radial is None:
            child = self.gather(state[0].T.unsqueeze(-1), level).squeeze(-1)  # (channels, P, K)
            weight = (basis.unsqueeze(1) * child).flatten(0, 1)  # (n * channels, P, K)
            return _SumOverEdges.apply(harmonics.transpose(0, 1), weight.transpose(0, 1)).transpose(0, 1)
        n = self.radial.shape[2]
        left = self.fields(self.radial, basis, harmonics).flatten(1, 2)  # (P, n * components, K)
        (right,) = self.gather(state.transpose(0, 1).flatten(1).unsqueeze(0), level)  # (P, K, components * channels)
        outer = torch.bmm(left, right)  # all products of components, summed over the children
        outer = outer.view(outer.shape[0] * n, self.coupling.shape[1], state.shape[2])
        product = torch.bmm(self.coupling.expand(outer.shape[0], -1, -1), outer)  # (P * n, components, channels)
        return product.unflatten(0, (-1, n)).permute(2, 0, 1, 3).flatten(2)

    def fields(self, weights: Tensor, basis: Tensor, harmonics: Tensor) -> Tensor:
        """R^l_n Y_lm of the edges (P, n, components, K) from the ``weights`` of R and the harmonics."""
        n_degrees, _, n = weights.shape
        mixed = weights.transpose(1, 2).flatten(0, 1) @ basis.flatten(1)  # (degrees * n, P * K)
        radial = mixed.view(n_degrees, n, *basis.shape[1:]).transpose(1, 2).unsqueeze(3)  # (degrees, P, n, 1, K)
        angular = harmonics.transpose(0, 1).unsqueeze(1)  # (P, 1, components, K)
        fields = [function * harmonic for function, harmonic in zip(radial, by_degree(angular, 2), strict=True)]
        return torch.cat(fields, dim=2)


class _SumOverEdges(torch.autograd.Function):
    """sum_k a_pik b_pjk, same as ``torch.bmm(a, b.mT)``, whose derivative with respect to b would not have k last."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return torch.bmm(a, b.mT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        a, b = ctx.saved_tensors
        return torch.bmm(grad, b), torch.bmm(grad.mT, a)


class TracedFirstOrderGate(BatchedFirstOrderGate):
    """The first-order gate for a compiler, which is slow at adding edges one by one."""

    def gather(self, state: Tensor, level: Level) -> Tensor:
        """Same as in ``BatchedFirstOrderGate``."""
        return _TracedGather.apply(state, level.child, level.parents, level.parents_mask)


class ShortRowsFirstOrderGate(TracedFirstOrderGate):
    """The first-order gate for rows of a known, small number of edges K.

    It multiplies Gaunt's coefficients with the fields of each edge, before the sum over the edges:

        A_i^z_nc = sum_jy [ sum_x G^z_xy F_ij^x_n ] psi_j^y_c

    in the letters of ``FirstOrderGate``, with F = R Y. The other order, G (sum_j F psi), takes a product of the same
    size for each channel, whatever K is.
    """

    def forward(self, state: Tensor, basis: Tensor, unit: Tensor, level: Level) -> Tensor:
        """Same as in ``FirstOrderGate``."""
        if self.radial is None or unit.shape[-1] > SHORT_ROW:
            return super().forward(state, basis, unit, level)
        n, n_below, n_above = self.radial.shape[2], len(state), len(self.coupling)  # the latter: components y and z
        fields = self.fields(self.radial, basis, self.harmonics(unit)).flatten(0, 1)  # (P * n, x, K)
        gaunt = self.coupling.view(n_above, -1, n_below).transpose(1, 2).flatten(0, 1)  # (z * y, x)
        coupled = torch.bmm(gaunt.expand(len(fields), -1, -1), fields)  # (P * n, z * y, K)
        left = coupled.unflatten(1, (n_above, -1)).flatten(2).unflatten(0, (-1, n)).flatten(1, 2)  # (P, n * z, y * K)
        (rows,) = self.gather(state.transpose(0, 1).flatten(1).unsqueeze(0), level)  # (P, K, y * channels)
        right = rows.unflatten(2, (n_below, -1)).transpose(1, 2).flatten(1, 2)  # (P, y * K, channels)
        product = torch.bmm(left, right)  # (P, n * z, channels)
        return product.unflatten(1, (n, n_above)).permute(2, 0, 1, 3).flatten(2)


class TracedFirstOrderPathGate(FirstOrderPathGate):
    """The first-order gate with free weights for a compiler; see ``TracedFirstOrderGate``."""

    def gather(self, rows: Tensor, level: Level) -> Tensor:
        """Same as in ``FirstOrderPathGate``."""
        return _TracedGather.apply(rows, level.child, level.parents, level.parents_mask)


class TracedChildrenSum(ChildrenSum):
    """The sum over the children for a compiler; see ``TracedFirstOrderGate``."""

    def gather(self, rows: Tensor, level: Level) -> Tensor:
        """Same as in ``ChildrenSum``."""
        return _TracedGather.apply(rows, level.child, level.parents, level.parents_mask)


class _TracedGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state: Tensor, child: Tensor, parents: Tensor, parents_mask: Tensor) -> Tensor:
        ctx.save_for_backward(child, parents, parents_mask)
        edges = look_up_children(state, child)
        # ``as_strided`` needs the edges in memory. Without it, a compiler would gather them for each radial function.
        return edges.as_strided(edges.size(), edges.stride())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return _TracedSum.apply(grad, *ctx.saved_tensors), None, None, None


class _TracedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: Tensor, child: Tensor, parents: Tensor, parents_mask: Tensor) -> Tensor:
        ctx.save_for_backward(child, parents, parents_mask)
        return look_up_parents(edges, parents, parents_mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return _TracedGather.apply(grad, *ctx.saved_tensors), None, None, None


class TracedHarmonics(SphericalHarmonics):
    """The harmonics for a compiler, which fuses the few products with nonzero coefficients into one loop."""

    def forward(self, unit: Tensor) -> Tensor:
        """Same as in ``SphericalHarmonics``."""
        vector = math.sqrt(3) * unit
        blocks = [torch.ones_like(vector[:1]), vector]
        for degree in range(2, self.l_max + 1):
            coupling = self.exact(f"raise_{degree}").reshape(2 * degree + 1, -1)  # (2l + 1, (2l - 1) * 3)
            below, axes = blocks[-1].unbind(0), vector.unbind(0)
            terms = [
                [float(row[k]) * (below[k // 3] * axes[k % 3]) for k in np.flatnonzero(abs(row) > 1e-12)]
                for row in coupling
            ]
            blocks.append(torch.stack([functools.reduce(operator.add, row) for row in terms]))
        return torch.cat(blocks[: self.l_max + 1])


class TracedRadialBasis(RadialBasis):
    """The radial basis for a compiler, which needs one sine and one cosine for all functions.

    It uses the recurrence sin((n + 1) x) = 2 cos(x) sin(n x) - sin((n - 1) x).
    """

    def forward(self, distance: Tensor) -> Tensor:
        """Same as in ``RadialBasis``."""
        x, fading = torch.pi / self.radius * distance, cutoff_function(distance, self.radius) / distance
        first, twice_cosine = torch.stack([x.sin() * fading, 2.0 * x.cos()])
        waves = [torch.zeros_like(first), first]
        while len(waves) <= len(self.number):
            waves.append(twice_cosine * waves[-1] - waves[-2])
        amplitudes = self.exact("amplitude").tolist()
        return torch.stack([amplitude * wave for amplitude, wave in zip(amplitudes, waves[1:], strict=True)])


_EAGER: dict[type[nn.Module], type[nn.Module]] = {FirstOrderGate: BatchedFirstOrderGate}
_SHORT_ROWS: dict[type[nn.Module], type[nn.Module]] = dict.fromkeys(
    (FirstOrderGate, BatchedFirstOrderGate), ShortRowsFirstOrderGate
)
_TRACED: dict[type[nn.Module], type[nn.Module]] = {
    FirstOrderGate: TracedFirstOrderGate,
    BatchedFirstOrderGate: TracedFirstOrderGate,
    FirstOrderPathGate: TracedFirstOrderPathGate,
    ChildrenSum: TracedChildrenSum,
    SphericalHarmonics: TracedHarmonics,
    RadialBasis: TracedRadialBasis,
}
