"""The types of all states in a level, and the gates that lead from one to the next."""

from dataclasses import dataclass

from ase_nbody.hierarchy.build import LABELS
from ase_nbody.network.config import LevelConfig
from ase_nbody.nn.gates import FirstOrderGate, ZerothOrderGate
from ase_nbody.nn.path_gates import ChildrenSum, FirstOrderPathGate, ZerothOrderPathGate
from ase_nbody.nn.weights import Plan
from ase_nbody.so3 import Irrep, Type


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
        message = below if scalar else _message(below, config)
        n_radial = None if scalar else config.n_radial
        gathered = first_order_gate(message, config).result_type()
        state = _state(gathered, config)
        products = zeroth_order_gate(state, config).result_type()
        return cls(below, message, gathered, state, products, _handed_up(products, config), n_radial)


@dataclass(frozen=True)
class ChildrenTypes:
    """Types of the states that the zeroth-order gate of the children makes, in their order.

    Attributes:
        message: V psi_j.
        gathered: sum_j B_n V psi_j.
        state: B_i, which has the multiplicities of A_i, for the irreps of the children.
        products: [B_i, B_i ⊗ B_i, ...].
        handed_up: what it adds to psi'_i.
    """

    message: Type
    gathered: Type
    state: Type
    products: Type
    handed_up: Type

    @classmethod
    def of(cls, below: Type, config: LevelConfig) -> "ChildrenTypes":
        """The types in a level above states of the type ``below``."""
        types = LevelTypes.of(below, config)
        gathered = ChildrenSum.result_type(types.message, n_functions(config))
        state = _state(gathered, config)
        products = zeroth_order_gate(state, config).result_type()
        return cls(types.message, gathered, state, products, types.handed_up.within(products))


def n_functions(config: LevelConfig) -> int:
    """Number of functions in the radial basis of a level; see ``LabelledRadialBasis`` for those of labelled parts."""
    return 2 * config.n_basis if config.parts == LABELS else config.n_basis


def first_order_gate(message: Type, config: LevelConfig) -> Plan:
    """The first-order gate over children of type ``message``. Scalars are multiplied in one way only."""
    if message.l_max == 0:
        return Plan(FirstOrderGate, message, config.l_max, n_functions(config), None)
    sizes = (message, config.l_max, n_functions(config), config.n_radial)
    if config.product.first_order == "gaunt":
        return Plan(FirstOrderGate, *sizes)
    return Plan(FirstOrderPathGate, *sizes, config.parity == "both")


def zeroth_order_gate(state: Type, config: LevelConfig) -> Plan:
    """The powers of a state. With a type, nothing above its highest degree is handed up."""
    l_out = config.l_out if config.tau is None else min(config.l_out, config.l_max)
    sizes = (state, l_out, config.body_order - 1, config.product_decay)
    if config.product.zeroth_order == "gaunt":
        return Plan(ZerothOrderGate, *sizes)
    return Plan(ZerothOrderPathGate, *sizes, config.parity == "both", config.channel_pairs == "all")


def _message(below: Type, config: LevelConfig) -> Type:
    """``message_channels`` fragments of degree 0, and of others in proportion to those of the state below."""
    source = below if config.parity == "both" else below.without_pseudo()
    shown, all_of_them = config.message_channels, below.tau[0]

    def rounded(count: int) -> int:
        return max(1, (2 * shown * count + all_of_them) // (2 * all_of_them))

    return Type.counting({irrep: rounded(count) for irrep, count in source.irreps.items()})


def _state(gathered: Type, config: LevelConfig) -> Type:
    """The multiplicities that the configuration gives, for the irreps that are there."""
    own = dict(enumerate(config.tau or (config.channels,) * (config.l_max + 1)))
    return Type.counting({irrep: own[irrep.degree] for irrep in gathered.irreps if irrep.degree in own})


def _handed_up(products: Type, config: LevelConfig) -> Type:
    """The same for the state that is handed up. Without a type, degrees above ``l_max`` have all channels too."""

    def multiplicity(irrep: Irrep) -> int:
        if config.tau is None:
            return config.channels
        return config.tau[irrep.degree] if irrep.degree < len(config.tau) else 0

    return Type.counting({irrep: multiplicity(irrep) for irrep in products.irreps})
