"""One level of the network: how its layers follow each other."""

from torch import Tensor, nn

from ase_nbody.hierarchy.build import LABELS
from ase_nbody.hierarchy.tables import Level
from ase_nbody.network.config import LevelConfig
from ase_nbody.network.types import ChildrenTypes, LevelTypes, first_order_gate, n_functions, zeroth_order_gate
from ase_nbody.nn.closest_approach import held_distance
from ase_nbody.nn.heads import ReadOut
from ase_nbody.nn.mixing import mixing
from ase_nbody.nn.path_gates import ChildrenSum
from ase_nbody.nn.radial import LabelledRadialBasis, RadialBasis
from ase_nbody.nn.species import species_gain
from ase_nbody.nn.weights import Plan, Weight, build_into, declared_by
from ase_nbody.so3 import State, Type, added


class NBodyLevel(nn.Module):
    """One level: first-order gate over the children, mixing, zeroth-order gate, mixing, read-out.

    With psi the states of the level below, z the species at the centres, and a part i with children j:

        A_i = g(z_i) * [ W sum_j R(r_ij) Y(r_ij) ⊗ V psi_j + U psi_i ]       first-order gate
        psi'_i = W' g'(z_i) * [A_i, d A_i ⊗ A_i, d^2 A_i ⊗ A_i ⊗ A_i, ...]   zeroth-order gate
        epsilon_i = read-out of the degree-0 fragments of psi'_i

    Where states fade, A_i is multiplied by a factor first (see ``nn.density``). A part that labels
    name has no species and nothing to inherit, because its members are among its children. Then z_i stands for its
    composition, and R and Y for those of ``LabelledRadialBasis``.

    The configuration may leave out the gains, and may add the zeroth-order gate of the children to psi'_i (see
    ``ChildrenGate``).

    Attributes:
        message: V; None where the children have only l = 0.
        first_order: the sum over the children, with R.
        aggregate: W.
        inherit: U; None where the level below has only l = 0, and in a labelled level.
        state_gain: g; None without gains.
        zeroth_order: the products of A_i.
        product_gain: g'; None without gains.
        hand_up: W'.
        read_out: the read-out of the energy; None where the level has none.
        children_gate: what the children's own states add to psi'_i; None where the level has no such gate.

    Args:
        below: type of psi.
        n_species: number of species that the network knows.
        config: the level.
    """

    message: nn.Module | None
    first_order: nn.Module
    aggregate: nn.Module
    inherit: nn.Module | None
    state_gain: nn.Module | None
    product_gain: nn.Module | None
    hand_up: nn.Module
    read_out: ReadOut | None
    children_gate: "ChildrenGate | None"

    def __init__(self, below: Type, n_species: int, config: LevelConfig) -> None:
        super().__init__()
        self.types = LevelTypes.of(below, config)
        self.tau_out = self.types.handed_up
        self.all_children = config.children == "all"
        radial = LabelledRadialBasis if config.parts == LABELS else RadialBasis
        self.basis = radial(config.radius, config.n_basis, config.radial_decay, config.mean_children**-0.5)
        build_into(self, self._layers(below, n_species, config))
        self.zeroth_order = zeroth_order_gate(self.types.state, config).build()

    @classmethod
    def weights(cls, below: Type, n_species: int, config: LevelConfig) -> dict[str, Weight]:
        """All weights of the level, by the names that they have in it."""
        return declared_by(cls._layers(below, n_species, config))

    @staticmethod
    def _layers(below: Type, n_species: int, config: LevelConfig) -> dict[str, Plan | None]:
        """The layers that have weights, in the order in which these are drawn; None for layers that are missing."""
        types = LevelTypes.of(below, config)
        has_directions = below.l_max > 0
        inherits = has_directions and config.parts != LABELS
        return {
            "message": mixing(below, types.message) if has_directions else None,
            "first_order": first_order_gate(types.message, config),
            "aggregate": mixing(types.gathered, types.state),
            "inherit": mixing(below, types.state.within(below)) if inherits else None,
            "state_gain": species_gain(n_species, types.state) if config.species_gains else None,
            "product_gain": species_gain(n_species, types.products) if config.species_gains else None,
            "hand_up": mixing(types.products, types.handed_up),
            "read_out": Plan(ReadOut, n_species, types.handed_up.tau[0], config.hidden) if config.read_out else None,
            "children_gate": Plan(ChildrenGate, below, n_species, config) if config.children_gate else None,
        }

    def forward(
        self,
        state: Tensor,
        vectors: Tensor,
        distance: Tensor,
        level: Level,
        one_hot: Tensor,
        closest: Tensor | None = None,
        fade: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """State of the level below -> state of this level ``(components, P, channels)`` and epsilon ``(P,)``.

        Args:
            state: state of the level below ``(components, Q, channels)``.
            vectors: pair vectors ``(3, P, K)`` in Angstrom.
            distance: their lengths ``(P, K)``.
            level: the edges.
            one_hot: one-hot rows of the atoms at the centres ``(P, species)``; of labelled parts, their composition.
            closest: distances ``(P, K)`` in Angstrom below which the radial functions hold still.
            fade: factors of the aggregated states ``(P,)``.
        """
        if level.labelled is not None and isinstance(self.basis, LabelledRadialBasis):
            basis, unit = self.basis.of_vectors(vectors, level.labelled.is_member)
        else:
            basis = self.basis(distance if closest is None else held_distance(distance, closest))  # (n_basis, P, K)
            unit = vectors / distance
        children = state if self.all_children else state.index_select(1, level.children)
        message = self.types.message.dense(children if self.message is None else self.message(children))
        aggregated: State = self.aggregate(self.first_order(message, basis, unit, level))
        if self.inherit is not None:
            own = self.inherit(state.index_select(1, level.own))
            aggregated = added(self.types.state, aggregated, self.types.state.within(self.types.below), own)
        if self.state_gain is not None:
            aggregated = self.state_gain(aggregated, one_hot)
        if fade is not None:
            aggregated = _faded(aggregated, fade)
        products: State = self.zeroth_order(aggregated)
        if self.product_gain is not None:
            products = self.product_gain(products, one_hot)
        handed_up: State = self.hand_up(products)
        if self.children_gate is not None:
            more = self.children_gate(message, basis, level, one_hot, fade)
            handed_up = added(self.tau_out, handed_up, self.children_gate.tau_out, more)
        state = self.tau_out.dense(handed_up)
        scalars = state[0] if self.tau_out.is_uniform else state[0, :, : self.tau_out.tau[0]]
        return state, None if self.read_out is None else self.read_out(scalars, one_hot)


class ChildrenGate(nn.Module):
    """The zeroth-order gate of the children: products of their own states, without their directions.

    With V psi_j of the children, as the first-order gate has them, and B_n the radial basis:

        B_i = g(z_i) * W sum_j B_n(r_ij) V psi_j
        psi'_i gets  W' g'(z_i) * [B_i, d B_i ⊗ B_i, d^2 B_i ⊗ B_i ⊗ B_i, ...]

    The first-order gate contains B_i itself, with its harmonic of degree 0, but there B_i is mixed into A_i before
    powers are taken. Here the powers are those of the children's states alone (Kondor 2018, section 4).

    Args:
        below: type of the states of the level below.
        n_species: number of species that the network knows.
        config: the level.
    """

    aggregate: nn.Module
    state_gain: nn.Module | None
    product_gain: nn.Module | None
    hand_up: nn.Module

    def __init__(self, below: Type, n_species: int, config: LevelConfig) -> None:
        super().__init__()
        types = ChildrenTypes.of(below, config)
        self.tau_out = types.handed_up
        self.total = ChildrenSum(types.message, n_functions(config))
        build_into(self, self._layers(below, n_species, config))
        self.zeroth_order = zeroth_order_gate(types.state, config).build()

    @classmethod
    def weights(cls, below: Type, n_species: int, config: LevelConfig) -> dict[str, Weight]:
        """All weights of the gate, by the names that they have in it."""
        return declared_by(cls._layers(below, n_species, config))

    @staticmethod
    def _layers(below: Type, n_species: int, config: LevelConfig) -> dict[str, Plan | None]:
        types = ChildrenTypes.of(below, config)
        return {
            "aggregate": mixing(types.gathered, types.state),
            "state_gain": species_gain(n_species, types.state) if config.species_gains else None,
            "product_gain": species_gain(n_species, types.products) if config.species_gains else None,
            "hand_up": mixing(types.products, types.handed_up),
        }

    def forward(
        self, message: Tensor, basis: Tensor, level: Level, one_hot: Tensor, fade: Tensor | None = None
    ) -> State:
        """What is added to psi'_i.

        Args:
            message: V psi_j of the level's children, dense.
            basis: radial basis of the edges (n_basis, P, K).
            level: the edges.
            one_hot: one-hot rows of the atoms at the centres ``(P, species)``.
            fade: factors of the states B_i ``(P,)``.
        """
        state: State = self.aggregate(self.total(message, basis, level))
        if self.state_gain is not None:
            state = self.state_gain(state, one_hot)
        if fade is not None:
            state = _faded(state, fade)
        products: State = self.zeroth_order(state)
        if self.product_gain is not None:
            products = self.product_gain(products, one_hot)
        added_up: State = self.hand_up(products)
        return added_up


def _faded(state: State, fade: Tensor) -> State:
    """The state with all fragments of each part multiplied by the factor ``fade`` (P,) of the part."""
    factor = fade.unsqueeze(-1)
    return state * factor if isinstance(state, Tensor) else tuple(block * factor for block in state)
