"""The gates of Kondor 2018, section 4: how the state of a part is made from those of its children.

Both are Clebsch-Gordan products with Gaunt's weights; ``path_gates`` has the same gates with free weights. Powers of a
state are evaluated by exact quadrature on the sphere (``so3.gaunt``). The sum of products over many children uses the
coefficients themselves, once for the whole sum.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from ase_nbody.hierarchy.exchange import gather_children
from ase_nbody.hierarchy.tables import Level
from ase_nbody.nn.weights import Weight
from ase_nbody.so3 import SphereQuadrature, SphericalHarmonics, State, Type, by_degree, gaunt_matrix
from ase_nbody.so3.constants import Constant, ExactConstants


class ZerothOrderGate(nn.Module):
    """A -> [A, d A ⊗ A, d^2 A ⊗ A ⊗ A, ...]: powers of a state, without relative positions.

    The components of A are those of a function on the sphere, A(u) = sum_lm A_lm Y_lm(u), whose powers have the
    components of A ⊗ A, A ⊗ A ⊗ A, ... Each channel is multiplied with itself only. The powers stand side by side as
    channels of the result, for the mixing that follows. Degrees of which A has fewer fragments are filled with zeros.

    ================  =============  ==============================
    symbol            variable       shape
    ================  =============  ==============================
    A_lm              ``state``      (components, parts, channels)
    A(u)              ``field``      (points u, parts, channels)
    d A(u)            ``factor``     (points u, parts, channels)
    d^(k-1) A(u)^k    ``power``      (points u, parts, channels)
    ================  =============  ==============================

    Args:
        tau: type of the state.
        l_out: highest degree that is kept.
        order: highest number of factors, the body order minus one.
        decay: the factor d. Below 1 it makes terms of many bodies smaller, so that they are learnt later.
    """

    def __init__(self, tau: Type, l_out: int, order: int, decay: float = 1.0) -> None:
        super().__init__()
        self.tau, self.order, self.decay = tau, order, decay
        self.tau_out = self.result_type(tau, l_out, order, decay)
        self.quadrature = SphereQuadrature(tau.l_max, self.tau_out.l_max, degree=order * tau.l_max)

    @staticmethod
    def result_type(tau: Type, l_out: int, order: int, decay: float = 1.0) -> Type:
        """Type of the result: the powers side by side, up to the highest degree that they reach."""
        l_max = min(l_out, order * tau.l_max)
        if tau.is_uniform:
            return Type.uniform(order * tau.channels, l_max)
        own = (*tau.tau, *[0] * l_max)[: l_max + 1]  # A itself, without its zeros
        return Type(tuple(count + (order - 1) * tau.channels for count in own))

    def forward(self, state: State) -> State:
        """State of type ``tau`` -> state of type ``tau_out``; uniform: ``(components, parts, order * channels)``."""
        powers = self._powers(self.tau.dense(state))
        if self.tau.is_uniform:
            return powers
        channels, own = self.tau.channels, self.tau.irreps
        pairs = zip(self.tau_out.irreps, by_degree(powers), strict=True)
        return self.tau_out.state(
            tuple(torch.cat([block[..., : own.get(irrep, 0)], block[..., channels:]], dim=-1) for irrep, block in pairs)
        )

    def _powers(self, state: Tensor) -> Tensor:
        """``(components, parts, channels)`` -> ``(components out, parts, order * channels)``."""
        field = power = self.quadrature.evaluate(state)
        factor = field if self.decay == 1.0 else self.decay * field
        # A itself, cut to the degrees that are kept, or padded to them with zeros
        products = [functional.pad(state, (0, 0, 0, 0, 0, self.tau_out.components - state.shape[0]))]
        for _ in range(self.order - 1):
            power = power * factor
            products.append(self.quadrature.project(power))
        return torch.cat(products, dim=-1)


class FirstOrderGate(ExactConstants):
    """A_i = sum_j R_n(r_ij) Y(r_ij) ⊗ psi_j: products of the children's states with their relative positions.

    Each degree l of the harmonics has learned radial functions, and G are Gaunt's coefficients:

        R^l_n(r_ij)   = sum_b w^l_bn B_b(r_ij)
        A_i^lm_nc     = sum_{l'm', l''m''} G^lm_{l'm', l''m''} sum_j R^l'_n(r_ij) Y_l'm'(r_ij) psi_j^l''m''_c

    For children with l = 0 only (the atoms) the product is a plain one, and the radial basis B_n itself stands for R_n:
    the mixing that follows turns it into learned radial functions, at a cost that does not depend on the channels.

    In the table, x counts the components l'm' of the harmonics, y the components l''m'' of the children, and z the
    components lm of the result. There are P parts i with K edges j each.

    =====================  =============  ================================  =======
    symbol                 variable       shape                             indices
    =====================  =============  ================================  =======
    w^l_bn (weights)       ``radial``     (degrees, n_basis, n)             l b n
    G^lm_{l'm', l''m''}    ``gaunt``      (components, components, comp.)   z x y
    B_b(r_ij)              ``basis``      (n_basis, P, K)                   b i j
    R^l_n(r_ij)            ``functions``  (degrees, n, P, K)                l n i j
    Y_l'm'(r_ij)           ``harmonics``  (components, P, K)                x i j
    R^l'_n Y_l'm'          ``fields``     (components, n, P, K)             x n i j
    psi_j^l''m''_c         ``children``   (components, P, K, channels)      y i j c
    sum_j R Y psi          ``products``   (components, comp., P, n, chan.)  x y i n c
    =====================  =============  ================================  =======

    Args:
        tau_child: type of the children's states.
        l_max: highest degree of the harmonics and of the result.
        n_basis: size of the radial basis B_b.
        n_radial: number of learned radial functions R_n; None, for children with l = 0, takes the basis.

    Raises:
        ValueError: children with l > 0 have no learned radial functions.
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
            self.register_constant("coupling", _coupling(l_max, tau_child.l_max))

    @staticmethod
    def result_type(tau_child: Type, l_max: int, n_basis: int, n_radial: int | None = None) -> Type:
        """Type of the result: one fragment for each pair of a radial function and a child's fragment."""
        return Type.uniform((n_radial or n_basis) * tau_child.channels, l_max)

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
        harmonics = self.harmonics(unit)
        children = gather_children(state, level)
        if self.radial is None:
            fields = torch.einsum("nij,xij->xnij", basis, harmonics)
            return torch.einsum("xnij,ijc->xinc", fields, children[0]).flatten(2)
        functions = torch.einsum("lbn,bij->lnij", self.radial, basis)
        by_l = zip(functions, by_degree(harmonics), strict=True)
        fields = torch.cat([torch.einsum("nij,xij->xnij", function, harmonic) for function, harmonic in by_l])
        products = torch.einsum("xnij,yijc->xyinc", fields, children)
        gaunt = self.coupling.unflatten(1, (len(fields), len(children)))
        return torch.einsum("zxy,xyinc->zinc", gaunt, products).flatten(2)


@functools.cache
def _coupling(l_max: int, l_child: int) -> Constant:
    """G of the first-order gate ``(components, components * components of a child)``: megabytes that layers share."""
    return Constant(gaunt_matrix(l_max, l_child, l_max))
