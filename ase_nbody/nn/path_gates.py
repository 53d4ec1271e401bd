"""The gates of Kondor 2018, section 4, with free weights: each path (l1, l2) -> l keeps fragments of its own.

The gates of ``gates`` add up all paths to a degree l with Gaunt's fixed weights. Here the paths stand side by side as
fragments of the result, and the mixing that follows weighs them freely (Proposition 1). Paths of odd l1 + l2 + l make
pseudo-tensors, which a level may keep. Both gates return a state of type ``tau_out``.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn

from ase_nbody.hierarchy.exchange import gather_children
from ase_nbody.hierarchy.tables import Level
from ase_nbody.nn.weights import Weight
from ase_nbody.so3 import Irrep, SphericalHarmonics, State, Type, by_degree, clebsch_gordan
from ase_nbody.so3.constants import ExactConstants
from ase_nbody.so3.powers import power_couplings, power_type, product_irreps


class _Couplings(ExactConstants):
    """A layer that couples fragments: it keeps one matrix of coefficients for each (l1, l2) and set of degrees l."""

    def _register_coupling(self, first: Irrep, second: Irrep, results: tuple[Irrep, ...]) -> None:
        """Make the matrix C^lm_{l1 m1, l2 m2}: (components of all results, components of first * second)."""
        name = _name(first, second, results)
        if not hasattr(self, name):
            blocks = [clebsch_gordan(first.degree, second.degree, irrep.degree).flatten(0, 1).T for irrep in results]
            self.register_constant(name, torch.cat(blocks))

    def _coupled(self, outer: Tensor, first: Irrep, second: Irrep, results: tuple[Irrep, ...]) -> dict[Irrep, Tensor]:
        """All products x_m1 y_m2 ``(2 l1 + 1, 2 l2 + 1, ...)`` -> fragments ``(2 l + 1, ...)`` of each result."""
        outer = outer.flatten(0, 1)
        if first.degree > 0 and second.degree > 0:  # with a scalar the coefficients are 1
            coefficients = getattr(self, _name(first, second, results))
            outer = (coefficients @ outer.flatten(1)).unflatten(1, outer.shape[1:])
        return dict(zip(results, outer.split([irrep.components for irrep in results]), strict=True))


def _name(first: Irrep, second: Irrep, results: tuple[Irrep, ...]) -> str:
    return "coupling_" + "_".join(str(irrep.degree) for irrep in (first, second, *results))


class ZerothOrderPathGate(_Couplings):
    """A -> [A, d A ⊗ A, d^2 A ⊗ A ⊗ A, ...] with all independent fragments of each power.

        (A ⊗ A)^l_m = sum_{m1 m2} C^lm_{l1 m1, l2 m2} A^l1_m1 A^l2_m2         a fragment for each path (l1, l2) -> l

    Further factors are coupled in the same way, one at a time. Equal factors make many paths dependent; see
    ``so3.powers`` for those that remain.

    ===================  ===========  ======================================================
    symbol               variable     shape
    ===================  ===========  ======================================================
    d A^l2               ``factors``  (2 l2 + 1, parts, channels) by irrep
    A^(n-1) of one irrep ``below``    (2 l1 + 1, parts, fragments * channels) by irrep
    A^l1_m1 A^l2_m2      ``outer``    (2 l1 + 1, 2 l2 + 1, parts, fragments, channels)
    ===================  ===========  ======================================================

    Args:
        tau: type of the state.
        l_out: highest degree that is kept.
        order: highest number of factors, the body order minus one.
        decay: the factor d.
        pseudo: whether pseudo-tensors are kept.
        all_pairs: whether a product pairs all channels, as in the paper, and not only equal ones.

    Raises:
        ValueError: there are too many fragments.
    """

    def __init__(
        self,
        tau: Type,
        l_out: int,
        order: int,
        decay: float = 1.0,
        pseudo: bool = False,
        all_pairs: bool = False,
    ) -> None:
        super().__init__()
        self.tau, self.decay = tau, decay
        self.tau_out = self.result_type(tau, l_out, order, decay, pseudo, all_pairs)
        self.powers = power_couplings(tau, l_out, order, pseudo=pseudo, all_pairs=all_pairs)
        for couplings in self.powers:
            for coupling in couplings:
                self._register_coupling(coupling.parent, coupling.factor, coupling.results)

    @staticmethod
    def result_type(
        tau: Type, l_out: int, order: int, decay: float = 1.0, pseudo: bool = False, all_pairs: bool = False
    ) -> Type:
        """Type of the result: the fragments of all powers side by side."""
        return power_type(tau, l_out, order, pseudo=pseudo, all_pairs=all_pairs)

    def forward(self, state: State) -> State:
        """State of type ``tau`` -> state of type ``tau_out``."""
        below = dict(zip(self.tau.irreps, self.tau.blocks(state), strict=True))
        factors = below if self.decay == 1.0 else {irrep: self.decay * block for irrep, block in below.items()}
        kept = {irrep: [below[irrep]] if irrep in below else [] for irrep in self.tau_out.irreps}
        for couplings in self.powers:
            above: dict[Irrep, list[Tensor]] = defaultdict(list)
            for each in couplings:
                fragments = below[each.parent].narrow(2, each.start, each.count * each.width)
                left = fragments.unflatten(2, (each.count, each.width))[..., : each.used]
                right = factors[each.factor].narrow(2, each.channel, each.used).unsqueeze(2)
                outer = left.unsqueeze(1) * right
                for irrep, block in self._coupled(outer, each.parent, each.factor, each.results).items():
                    above[irrep].append(block.flatten(2))
            below = {irrep: torch.cat(blocks, dim=2) for irrep, blocks in above.items()}
            for irrep, blocks in kept.items():
                blocks += [below[irrep]] if irrep in below else []
        return self.tau_out.state(tuple(torch.cat(blocks, dim=2) for blocks in kept.values()))


class FirstOrderPathGate(_Couplings):
    """A_i = sum_j R_n(r_ij) Y(r_ij) ⊗ psi_j, with fragments of their own for each path and each radial function.

        A_i^{l, (l' l'') n c}_m = sum_{m' m''} C^lm_{l'm', l''m''} sum_j R^l'_n(r_ij) Y_l'm'(r_ij) psi_j^l''m''_c

    The sum over the children is one matrix product for each part, and the coefficients are applied once to the sum. The
    symbols are those of ``gates.FirstOrderGate``; N counts all components and channels of a child.

    =====================  ============  ====================================
    symbol                 variable      shape
    =====================  ============  ====================================
    w^l_bn (weights)       ``radial``    (degrees, n_basis, n)
    R^l'_n Y_l'm'          ``left``      (P, n * components, K)
    psi_j                  ``right``     (P, K, N)
    sum_j R Y psi          ``products``  (P, n, components, N)
    =====================  ============  ====================================

    Args:
        tau_child: type of the children's states.
        l_max: highest degree of the harmonics and of the result.
        n_basis: size of the radial basis B_b.
        n_radial: number of learned radial functions R_n of each degree.
        pseudo: whether pseudo-tensors are kept.
    """

    def __init__(self, tau_child: Type, l_max: int, n_basis: int, n_radial: int, pseudo: bool = False) -> None:
        super().__init__()
        self.tau_child = tau_child
        self.tau_out = self.result_type(tau_child, l_max, n_basis, n_radial, pseudo)
        self.paths = _paths(tau_child, l_max, pseudo)
        self.harmonics = SphericalHarmonics(l_max)
        declared = self.weights(tau_child, l_max, n_basis, n_radial, pseudo)
        self.radial = nn.Parameter(declared["radial"].normal() / n_basis**0.5)
        for (harmonic, child), results in self.paths.items():
            self._register_coupling(harmonic, child, results)

    @staticmethod
    def result_type(tau_child: Type, l_max: int, n_basis: int, n_radial: int, pseudo: bool = False) -> Type:
        """Type of the result: a fragment for each path, radial function and fragment of the child."""
        count: dict[Irrep, int] = defaultdict(int)
        for (_, child), results in _paths(tau_child, l_max, pseudo).items():
            for irrep in results:
                count[irrep] += n_radial * tau_child.irreps[child]
        return Type.counting(count)

    @staticmethod
    def weights(tau_child: Type, l_max: int, n_basis: int, n_radial: int, pseudo: bool = False) -> dict[str, Weight]:
        """w^l_bn of the learned radial functions: ``(degrees, n_basis, n_radial)``."""
        return {"radial": Weight((l_max + 1, n_basis, n_radial), matrix=True)}

    def gather(self, rows: Tensor, level: Level) -> Tensor:
        """Rows of the children (1, C, N) -> of the edges (1, P, K, N)."""
        return gather_children(rows, level)

    def forward(self, state: State, basis: Tensor, unit: Tensor, level: Level) -> State:
        """Aggregate over the children.

        Args:
            state: states of the level's children, of type ``tau_child``.
            basis: radial basis of the edges (n_basis, P, K).
            unit: directions of the edges (3, P, K).
            level: the edges.
        """
        n_degrees, _, n = self.radial.shape
        mixed = self.radial.transpose(1, 2).flatten(0, 1) @ basis.flatten(1)  # (degrees * n, P * K)
        radial = mixed.view(n_degrees, n, *basis.shape[1:]).transpose(1, 2).unsqueeze(3)  # (degrees, P, n, 1, K)
        angular = self.harmonics(unit).transpose(0, 1).unsqueeze(1)  # (P, 1, components, K)
        fields = [function * harmonic for function, harmonic in zip(radial, by_degree(angular, 2), strict=True)]
        left = torch.cat(fields, dim=2).flatten(1, 2)
        (right,) = self.gather(_rows(self.tau_child.blocks(state)), level)
        products = torch.bmm(left, right).unflatten(1, (n, -1))
        sizes = [irrep.components * count for irrep, count in self.tau_child.irreps.items()]
        by_child = dict(zip(self.tau_child.irreps, products.split(sizes, dim=3), strict=True))
        found: dict[Irrep, list[Tensor]] = {irrep: [] for irrep in self.tau_out.irreps}
        for (harmonic, child), results in self.paths.items():
            part = by_child[child].narrow(2, harmonic.degree**2, harmonic.components)
            outer = part.unflatten(3, (child.components, -1)).permute(2, 3, 0, 1, 4)  # (2l' + 1, 2l'' + 1, P, n, c)
            for irrep, block in self._coupled(outer, harmonic, child, results).items():
                found[irrep].append(block.flatten(2))
        return self.tau_out.state(tuple(torch.cat(blocks, dim=2) for blocks in found.values()))


def _rows(blocks: tuple[Tensor, ...]) -> Tensor:
    """All components and channels of each part side by side: (1, parts, N)."""
    return torch.cat([block.transpose(0, 1).flatten(1) for block in blocks], dim=1).unsqueeze(0)


def _paths(tau_child: Type, l_max: int, pseudo: bool) -> dict[tuple[Irrep, Irrep], tuple[Irrep, ...]]:
    """The irreps that each pair of a harmonic and a child's irrep is coupled to."""
    pairs = [(Irrep(degree), child) for degree in range(l_max + 1) for child in tau_child.irreps]
    found = {pair: tuple(product_irreps(*pair, l_max, pseudo=pseudo)) for pair in pairs}
    return {pair: results for pair, results in found.items() if results}


class ChildrenSum(ExactConstants):
    """B_i = sum_j B_n(r_ij) psi_j: the children's own states, without directions, and zero with their weights.

    It has no weights: the mixing that follows makes learned radial functions of the basis B_n. The powers of the mixed
    state are the products of the children's states, (sum_j psi_j) ⊗ (sum_k psi_k) = sum_jk psi_j ⊗ psi_k.

    Args:
        tau_child: type of the children's states.
        n_basis: size of the radial basis.
    """

    def __init__(self, tau_child: Type, n_basis: int) -> None:
        super().__init__()
        self.tau_child, self.tau_out = tau_child, self.result_type(tau_child, n_basis)

    @staticmethod
    def result_type(tau_child: Type, n_basis: int) -> Type:
        """Type of the result: one fragment for each pair of a radial function and a child's fragment."""
        return Type.counting({irrep: n_basis * count for irrep, count in tau_child.irreps.items()})

    def gather(self, rows: Tensor, level: Level) -> Tensor:
        """Rows of the children (1, C, N) -> of the edges (1, P, K, N)."""
        return gather_children(rows, level)

    def forward(self, state: State, basis: Tensor, level: Level) -> State:
        """States of the children, of type ``tau_child``, and the radial basis (n_basis, P, K) -> B_i."""
        (right,) = self.gather(_rows(self.tau_child.blocks(state)), level)
        sums = torch.bmm(basis.transpose(0, 1), right)  # (P, n, N)
        sizes = [irrep.components * count for irrep, count in self.tau_child.irreps.items()]
        blocks = [
            block.unflatten(2, (irrep.components, -1)).permute(2, 0, 1, 3).flatten(2)
            for irrep, block in zip(self.tau_child.irreps, sums.split(sizes, dim=2), strict=True)
        ]
        return self.tau_out.state(tuple(blocks))
