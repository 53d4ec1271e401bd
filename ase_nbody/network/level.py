"""One level of the network, and the types of all states in it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ase_nbody.hierarchy.tables import Level
from ase_nbody.network.config import LevelConfig
from ase_nbody.nn.closest_approach import held_distance
from ase_nbody.nn.gates import FirstOrderGate, ZerothOrderGate
from ase_nbody.nn.heads import ReadOut
from ase_nbody.nn.mixing import Mixing
from ase_nbody.nn.radial import RadialBasis
from ase_nbody.nn.species import SpeciesGain
from ase_nbody.nn.weights import Plan, Weight, prefixed
from ase_nbody.so3 import Type


@dataclass(frozen=True)
class LevelTypes:
    """Types of the states in a level, in the order in which they are made.

    Attributes:
        below: psi_j, states of the level below.
        message: V psi_j, what a child shows to its parents. Children that have only l = 0 show their whole state.
        gathered: sum_j R Y ⊗ V psi_j.
        state: A_i.
        products: [A_i, A_i ⊗ A_i, ...].
        handed_up: psi'_i, states of this level.
        n_radial: number of learned radial functions; None where the radial basis itself stands for them.
    """

    below: Type
    message: Type
    gathered: Type
    state: Type
    products: Type
    handed_up: Type
    n_radial: int | None

    @classmethod
    def of(cls, below: Type, config: LevelConfig) -> "LevelTypes":
        """The types of a level above states of the type ``below``."""
        scalar = below.l_max == 0
        message = below if scalar else Type(config.message_channels, below.l_max)
        n_radial = None if scalar else config.n_radial
        gathered = FirstOrderGate.result_type(message, config.l_max, config.n_basis, n_radial)
        state = Type(config.channels, config.l_max)
        products = ZerothOrderGate.result_type(state, config.l_out, config.body_order - 1)
        return cls(below, message, gathered, state, products, Type(config.channels, products.l_max), n_radial)


class NBodyLevel(nn.Module):
    """One level: first-order gate over the children, mixing, zeroth-order gate, mixing, read-out.

    With psi the states of the level below, z the species at the centres, and a part i with children j:

        A_i = g(z_i) * [ W sum_j R(r_ij) Y(r_ij) ⊗ V psi_j + U psi_i ]       first-order gate
        psi'_i = W' g'(z_i) * [A_i, d A_i ⊗ A_i, d^2 A_i ⊗ A_i ⊗ A_i, ...]   zeroth-order gate
        epsilon_i = read-out of the degree-0 fragments of psi'_i

    Attributes:
        message: V; None where the children have only l = 0.
        first_order: the sum over the children, with R.
        aggregate: W.
        inherit: U; None where the level below has only l = 0.
        state_gain: g.
        zeroth_order: the products of A_i.
        product_gain: g'.
        hand_up: W'.
        read_out: the read-out of the energy; None where the level has none.

    Args:
        below: type of psi.
        n_species: number of species that the network knows.
        config: the level.
    """

    message: Mixing | None
    first_order: FirstOrderGate
    aggregate: Mixing
    inherit: Mixing | None
    state_gain: SpeciesGain
    product_gain: SpeciesGain
    hand_up: Mixing
    read_out: ReadOut | None

    def __init__(self, below: Type, n_species: int, config: LevelConfig) -> None:
        super().__init__()
        types = LevelTypes.of(below, config)
        self.tau_out = types.handed_up
        self.all_children = config.children == "all"
        self.basis = RadialBasis(config.radius, config.n_basis, config.radial_decay, config.mean_children**-0.5)
        for name, layer in self._layers(below, n_species, config).items():
            setattr(self, name, None if layer is None else layer.build())
        self.zeroth_order = ZerothOrderGate(types.state, config.l_out, config.body_order - 1, config.product_decay)

    @classmethod
    def weights(cls, below: Type, n_species: int, config: LevelConfig) -> dict[str, Weight]:
        """All weights of the level, by the names that they have in it."""
        layers = cls._layers(below, n_species, config).items()
        return {
            full: weight
            for name, layer in layers
            if layer is not None
            for full, weight in prefixed(name, layer.weights()).items()
        }

    @staticmethod
    def _layers(below: Type, n_species: int, config: LevelConfig) -> dict[str, Plan | None]:
        """The layers that have weights, in the order in which these are drawn; None for layers that are missing."""
        types = LevelTypes.of(below, config)
        has_directions = below.l_max > 0
        shared = min(below.l_max, types.state.l_max)  # highest degree that psi_i and A_i both have
        return {
            "message": Plan(Mixing, below, types.message) if has_directions else None,
            "first_order": Plan(FirstOrderGate, types.message, config.l_max, config.n_basis, types.n_radial),
            "aggregate": Plan(Mixing, types.gathered, types.state),
            "inherit": Plan(Mixing, below.truncate(shared), types.state.truncate(shared)) if has_directions else None,
            "state_gain": Plan(SpeciesGain, n_species, types.state),
            "product_gain": Plan(SpeciesGain, n_species, types.products),
            "hand_up": Plan(Mixing, types.products, types.handed_up),
            "read_out": Plan(ReadOut, n_species, config.channels, config.hidden) if config.read_out else None,
        }

    def forward(
        self,
        state: Tensor,
        vectors: Tensor,
        distance: Tensor,
        level: Level,
        one_hot: Tensor,
        closest: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """State of the level below -> state of this level ``(components, P, channels)`` and epsilon ``(P,)``.

        Args:
            state: state of the level below ``(components, Q, channels)``.
            vectors: pair vectors ``(3, P, K)`` in Angstrom.
            distance: their lengths ``(P, K)``.
            level: the edges.
            one_hot: one-hot rows of the atoms at the centres ``(P, species)``.
            closest: distances ``(P, K)`` in Angstrom below which the radial functions hold still.
        """
        basis = self.basis(distance if closest is None else held_distance(distance, closest))  # (n_basis, P, K)
        unit = vectors / distance
        children = state if self.all_children else state.index_select(1, level.children)
        message = children if self.message is None else self.message(children)
        aggregated = self.aggregate(self.first_order(message, basis, unit, level))
        if self.inherit is not None:
            own = self.inherit(state.index_select(1, level.own))
            low, high = aggregated.split([own.shape[0], aggregated.shape[0] - own.shape[0]])
            aggregated = torch.cat([low + own, high])
        products = self.zeroth_order(self.state_gain(aggregated, one_hot))
        state = self.hand_up(self.product_gain(products, one_hot))
        return state, None if self.read_out is None else self.read_out(state[0], one_hot)
