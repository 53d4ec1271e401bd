"""The gates of Kondor 2018, section 4: how the state of a part is made from those of its children.

Both are Clebsch-Gordan products with Gaunt's weights: powers of a state are evaluated by exact quadrature on the sphere
(``so3.gaunt``), a sum of products over many children by the coefficients themselves, once for the sum.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ase_nbody.hierarchy.exchange import gather_children
from ase_nbody.hierarchy.tables import Level
from ase_nbody.nn.weights import Weight
from ase_nbody.so3 import SphereQuadrature, SphericalHarmonics, Type, by_degree, gaunt_matrix
from ase_nbody.so3.constants import ExactConstants


class ZerothOrderGate(nn.Module):
    """A -> [A, d A ⊗ A, d^2 A ⊗ A ⊗ A, ...]: powers of a state, without relative positions.

    The powers of each channel stand side by side; the mixing that follows forms general products from them.

    Args:
        tau: type of the state.
        l_out: highest degree that is kept.
        order: highest number of factors, the body order minus one.
        decay: d above. Less than one, it makes terms of many bodies smaller, so that they are learnt later.
    """

    def __init__(self, tau: Type, l_out: int, order: int, decay: float = 1.0) -> None:
        super().__init__()
        self.order, self.decay = order, decay
        self.tau_out = self.result_type(tau, l_out, order)
        self.quadrature = SphereQuadrature(tau.l_max, self.tau_out.l_max, degree=order * tau.l_max)

    @staticmethod
    def result_type(tau: Type, l_out: int, order: int) -> Type:
        """Type of the result: the powers side by side, up to the highest degree that they reach."""
        return Type(order * tau.channels, min(l_out, order * tau.l_max))

    def forward(self, state: Tensor) -> Tensor:
        """``(components, parts, channels)`` -> ``(components out, parts, order * channels)``."""
        field = power = self.quadrature.evaluate(state)  # (points, parts, channels)
        factor = field if self.decay == 1.0 else self.decay * field
        products = [functional.pad(state, (0, 0, 0, 0, 0, self.tau_out.components - state.shape[0]))]
        for _ in range(self.order - 1):
            power = power * factor
            products.append(self.quadrature.project(power))
        return torch.cat(products, dim=-1)


class FirstOrderGate(ExactConstants):
    """A_i = sum_j R_n(r_ij) Y(r_ij) ⊗ psi_j: products of the children's states with their relative positions.

    For children with l = 0 only (the atoms) the product is a plain one, and the radial basis itself stands for R_n: the
    mixing that follows makes learned radial functions of it, at a cost that does not depend on the channels. Else

        R_n(r) Y(r)  has the components  sum_b w^l_bn B_b(r) Y_lm(r),

    and the outer products of all components, summed over the children, are one matrix product for each part:

        A_i^lm = sum G^lm_{l'm', l''m''} [ sum_j (R_n Y_l'm')(r_ij) psi_j^l''m'' ],   G: Gaunt's coefficients.

    Args:
        tau_child: type of the children's states.
        l_max: highest degree of the harmonics and of the result.
        n_basis: size of the radial basis B_b.
        n_radial: number of learned radial functions R_n; None, for children with l = 0, takes the basis.
    """

    coupling: Tensor

    def __init__(self, tau_child: Type, l_max: int, n_basis: int, n_radial: int | None = None) -> None:
        super().__init__()
        if n_radial is None and tau_child.l_max > 0:
            raise ValueError(f"children of type {tau_child} need learned radial functions: give n_radial")
        self.tau_out = self.result_type(tau_child, l_max, n_basis, n_radial)
        self.harmonics = SphericalHarmonics(l_max)
        self.radial: nn.Parameter | None = None
        if n_radial is not None:
            declared = self.weights(tau_child, l_max, n_basis, n_radial)
            self.radial = nn.Parameter(declared["radial"].normal() / n_basis**0.5)
            self.register_constant("coupling", gaunt_matrix(l_max, tau_child.l_max, l_max))

    @staticmethod
    def result_type(tau_child: Type, l_max: int, n_basis: int, n_radial: int | None = None) -> Type:
        """Type of the result: one fragment for each radial function and child's fragment."""
        return Type((n_radial or n_basis) * tau_child.channels, l_max)

    @staticmethod
    def weights(tau_child: Type, l_max: int, n_basis: int, n_radial: int | None = None) -> dict[str, Weight]:
        """w^l_bn of the learned radial functions, if there are any: ``(degrees, n_basis, n_radial)``."""
        return {} if n_radial is None else {"radial": Weight((l_max + 1, n_basis, n_radial), matrix=True)}

    def forward(self, state: Tensor, basis: Tensor, unit: Tensor, level: Level) -> Tensor:
        """Aggregate over the children.

        Args:
            state: states of the level's children (components, C, channels).
            basis: radial basis of the edges (n_basis, P, K).
            unit: directions of the edges (3, P, K).
            level: the edges.

        Returns:
            State ``((l_max + 1)^2, P, n * channels)``.
        """
        harmonics = self.harmonics(unit)  # (components, P, K)
        if self.radial is None:
            child = gather_children(state[0].T.unsqueeze(-1), level).squeeze(-1)  # (channels, P, K)
            weight = (basis.unsqueeze(1) * child).flatten(0, 1)  # (n * channels, P, K)
            return _SumOverEdges.apply(harmonics.transpose(0, 1), weight.transpose(0, 1)).transpose(0, 1)
        degrees, _, n = self.radial.shape
        mixed = self.radial.transpose(1, 2).flatten(0, 1) @ basis.flatten(1)  # (degrees * n, P * K)
        radial = mixed.view(degrees, n, *basis.shape[1:]).transpose(1, 2).unsqueeze(3)  # (degrees, P, n, 1, K)
        angular = harmonics.transpose(0, 1).unsqueeze(1)  # (P, 1, components, K)
        edges = [of_r * of_angles for of_r, of_angles in zip(radial, by_degree(angular, 2), strict=True)]
        left = torch.cat(edges, dim=2).flatten(1, 2)  # (P, n * components, K)
        (right,) = gather_children(state.transpose(0, 1).flatten(1).unsqueeze(0), level)  # (P, K, comp. * channels)
        outer = torch.bmm(left, right)  # all products of components, summed over the children
        outer = outer.view(outer.shape[0] * n, self.coupling.shape[1], state.shape[2])
        product = torch.bmm(self.coupling.expand(outer.shape[0], -1, -1), outer)  # (P * n, components, channels)
        return product.unflatten(0, (-1, n)).permute(2, 0, 1, 3).flatten(2)


class _SumOverEdges(torch.autograd.Function):
    """sum_k a_pik b_pjk, as ``torch.bmm(a, b.mT)``, but derivatives by b stand in memory as b does: edges last."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return torch.bmm(a, b.mT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        a, b = ctx.saved_tensors
        return torch.bmm(grad, b), torch.bmm(grad.mT, a)
