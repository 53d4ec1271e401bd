"""The gates of Kondor 2018, section 4: how the state of a part is made from those of its children.

Both are Clebsch-Gordan products, evaluated as Gaunt products by exact quadrature on the sphere (``so3.gaunt``).
"""

import torch
from torch import Tensor, nn

from ase_nbody.hierarchy import Level
from ase_nbody.nn.exchange import gather_children
from ase_nbody.so3 import SphereQuadrature, SphericalHarmonics, Type


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
        self.tau_out = Type(order * tau.channels, min(l_out, order * tau.l_max))
        self.quadrature = SphereQuadrature(tau.l_max, self.tau_out.l_max, degree=order * tau.l_max)

    def forward(self, state: Tensor) -> Tensor:
        """``(components, parts, channels)`` -> ``(components out, parts, order * channels)``."""
        field = self.quadrature.evaluate(state)  # (points, parts, channels)
        power, powers = field, [field]
        for _ in range(self.order - 1):
            power = power * (self.decay * field)
            powers.append(power)
        return self.quadrature.project(torch.cat(powers, dim=-1))


class FirstOrderGate(nn.Module):
    """A_i = sum_j R_n(r_ij) Y(r_ij) ⊗ psi_j: products of the children's states with their relative positions.

    For children with l = 0 only (the atoms) the product is a plain one, and the radial basis itself stands for R_n: the
    mixing that follows makes learned radial functions of it, at a cost that does not depend on the channels. Else

        R_n(r) Y(r)  has the components  sum_b w^l_bn B_b(r) Y_lm(r),

    and the product is evaluated on the points u of a quadrature, where it is a matrix product over the children.

    Args:
        tau_child: type of the children's states.
        l_max: highest degree of the harmonics and of the result.
        n_basis: size of the radial basis B_b.
        n_radial: number of learned radial functions R_n; None, for children with l = 0, takes the basis.
    """

    def __init__(self, tau_child: Type, l_max: int, n_basis: int, n_radial: int | None = None) -> None:
        super().__init__()
        if n_radial is None and tau_child.l_max > 0:
            raise ValueError(f"children of type {tau_child} need learned radial functions: give n_radial")
        self.tau_out = Type((n_radial or n_basis) * tau_child.channels, l_max)
        self.harmonics = SphericalHarmonics(l_max)
        self.radial: nn.Parameter | None = None
        if n_radial is not None:
            self.radial = nn.Parameter(torch.randn(l_max + 1, n_basis, n_radial, dtype=torch.float64) / n_basis**0.5)
            self.quadrature = SphereQuadrature(max(l_max, tau_child.l_max), l_max, degree=l_max + tau_child.l_max)

    def forward(self, state: Tensor, basis: Tensor, unit: Tensor, level: Level) -> Tensor:
        """Aggregate over the children.

        Args:
            state: states of the level's children (components, C, channels).
            basis: radial basis of the edges (P, K, n_basis).
            unit: directions of the edges (P, K, 3).
            level: the edges.

        Returns:
            State ``((l_max + 1)^2, P, n * channels)``.
        """
        harmonics = self.harmonics(unit)  # (components, P, K)
        if self.radial is None:
            child = gather_children(state, level)[0]  # (P, K, channels)
            weight = (basis.unsqueeze(-1) * child.unsqueeze(-2)).flatten(2)  # (P, K, n * channels)
            return torch.bmm(harmonics.transpose(0, 1), weight).transpose(0, 1)
        # Children stand last in the fields of the edges: small matrix products are fastest so, derivatives above all.
        radial = torch.einsum("pkb,lbn->lpnk", basis, self.radial)
        angular = harmonics.unsqueeze(2)  # (components, P, 1, K)
        edges = torch.cat([one * angular[degree**2 : (degree + 1) ** 2] for degree, one in enumerate(radial)])
        edge_field = self.quadrature.evaluate(edges)  # (points, P, n, K)
        child_field = gather_children(self.quadrature.evaluate(state), level)  # (points, P, K, channels)
        product = edge_field @ child_field  # (points, P, n, channels), summed over the children
        return self.quadrature.project(product.flatten(2))
