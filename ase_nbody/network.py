"""The N-body network: atoms -> environments -> clusters -> system, with an energy read out at every level."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from ase_nbody.hierarchy import Hierarchy, Level, LevelLayout, Selection
from ase_nbody.nn.closest_approach import FOLLOWS, ClosestApproach, held_distance
from ase_nbody.nn.gates import FirstOrderGate, ZerothOrderGate
from ase_nbody.nn.mixing import Mixing
from ase_nbody.nn.radial import RadialBasis
from ase_nbody.nn.readout import ReadOut
from ase_nbody.nn.repulsion import ZBLRepulsion
from ase_nbody.nn.species import IsolatedAtoms, SpeciesEmbedding, SpeciesGain
from ase_nbody.so3 import Type

Parts = Literal["all", "heavy"] | tuple[str, ...]


class LevelConfig(BaseModel):
    """One level of the hierarchy.

    Attributes:
        parts: where the parts are: ``"all"`` atoms, ``"heavy"`` (all but hydrogen) or a list of chemical symbols.
        children: which parts of the level below count as children, likewise.
        radius: distance in Angstrom at which a child's weight has faded to zero.
        channels: fragments of each degree in a part's state.
        l_max: highest degree of the aggregated state.
        l_out: highest degree of the state that is handed up.
        body_order: 1 + number of factors in the zeroth-order gate; 4 means triple products.
        product_decay: factor by which each further factor makes a product smaller in the zeroth-order gate.
        n_basis: size of the radial basis.
        radial_decay: power by which rapid functions of the radial basis are smaller.
        n_radial: learned radial functions of the first-order gate (where children have states with l > 0).
        message_channels: fragments of each degree that a child shows to its parents (likewise).
        hidden: width of the hidden layer of the read-out.
        mean_children: typical number of children, by which sums over them are scaled. Measured by the training.
        read_out: whether this level contributes to the energy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    parts: Parts = "all"
    children: Parts = "all"
    radius: float = Field(5.0, gt=0.0, le=100.0)
    channels: int = Field(64, ge=1)
    l_max: int = Field(3, ge=0, le=8)
    l_out: int = Field(2, ge=0, le=8)
    body_order: int = Field(4, ge=2, le=8)
    product_decay: float = Field(1.0, gt=0.0)
    n_basis: int = Field(8, ge=1)
    radial_decay: float = Field(1.0, ge=0.0)
    n_radial: int = Field(8, ge=1)
    message_channels: int = Field(32, ge=1)
    hidden: int = Field(32, ge=1)
    mean_children: float = Field(10.0, gt=0.0)
    read_out: bool = True

    @field_validator("parts", "children")
    @classmethod
    def _known_symbols(cls, parts: Parts) -> Parts:
        if not isinstance(parts, str):
            _check_symbols(parts)
        return parts

    @property
    def layout(self) -> LevelLayout:
        """What the hierarchy needs to know of this level."""
        return LevelLayout(_selection(self.parts), _selection(self.children), self.radius)


class NBodyConfig(BaseModel):
    """All that determines a network but its weights.

    Attributes:
        species: chemical symbols that the network knows.
        levels: the levels above the atoms, from below. The parts of each must be among those of the one below.
        embedding: channels of the species embedding; default: one per species, at most 8.
        isolated_atom_energies: energy in eV of each species far from everything, added in float64.
        energy_scale: eV per unit of the network's output. Measured by the training.
        repulsion: add the ZBL repulsion of the nuclei.
        closest_distances: closest distance in Angstrom of each pair of species in the training data, ``{"H-O": 0.9}``,
            lighter element first. Pairs that are closer feel less and less of the network, pairs that are missing here
            feel none of it. Measured by the training; if empty, the network is held nowhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    species: tuple[str, ...] = Field(min_length=1)
    levels: tuple[LevelConfig, ...] = Field(
        default=(LevelConfig(), LevelConfig(parts="heavy", children="heavy", l_out=0)), min_length=1
    )
    embedding: int | None = Field(None, ge=1)
    isolated_atom_energies: dict[str, float] = Field(default_factory=dict)
    energy_scale: float = Field(1.0, gt=0.0)
    repulsion: bool = False
    closest_distances: dict[str, Annotated[float, Field(gt=0.0)]] = Field(default_factory=dict)

    @field_validator("species")
    @classmethod
    def _sorted_species(cls, species: tuple[str, ...]) -> tuple[str, ...]:
        _check_symbols(species)
        return tuple(sorted(set(species), key=atomic_numbers.__getitem__))

    @model_validator(mode="after")
    def _consistent(self) -> "NBodyConfig":
        foreign = set(self.isolated_atom_energies) - set(self.species)
        if foreign:
            raise ValueError(f"isolated_atom_energies names {sorted(foreign)}, which are not among species")
        pairs = {f"{lighter}-{heavier}" for i, lighter in enumerate(self.species) for heavier in self.species[i:]}
        if foreign := set(self.closest_distances) - pairs:
            raise ValueError(f"closest_distances names {sorted(foreign)}; allowed are {', '.join(sorted(pairs))}")
        below = set(self.species)
        for number, level in enumerate(self.levels, start=1):
            centres = self._centres(level.parts)
            # "all" and "heavy" children mean those that there are; symbols must mean something.
            named = set() if isinstance(level.children, str) else set(level.children)
            for kind, chosen in (("parts", centres), ("children", named)):
                if not chosen <= below:
                    raise ValueError(
                        f"level {number} has {kind} at {sorted(chosen - below)}, where the level below has none: "
                        f"each level's {kind} must be among the parts of the level below"
                    )
            below = centres
        first, contact = self.levels[0], 2 * max(covalent_radii[atomic_numbers[symbol]] for symbol in self.species)
        if self.repulsion and (first.parts != "all" or first.children != "all" or first.radius < contact):
            raise ValueError(
                f"repulsion needs level 1 to have parts and children 'all' and a radius of at least {contact:.2f} "
                "Angstrom, the largest sum of covalent radii; mend the level, or set repulsion: false"
            )
        return self

    def _centres(self, parts: Parts) -> set[str]:
        """Species at which the parts of a level are."""
        if isinstance(parts, str):
            return set(self.species) - ({"H"} if parts == "heavy" else set())
        return set(parts)

    @property
    def layout(self) -> tuple[LevelLayout, ...]:
        """What the hierarchy needs to know of the levels."""
        return tuple(level.layout for level in self.levels)

    @property
    def cutoff(self) -> float:
        """Largest radius of the levels in Angstrom."""
        return max(level.radius for level in self.levels)

    @property
    def reach(self) -> float:
        """Distance in Angstrom beyond which atoms do not influence each other's energies: the sum of the radii."""
        return sum(level.radius for level in self.levels)


def _selection(parts: Parts) -> Selection:
    return parts if isinstance(parts, str) else tuple(atomic_numbers[symbol] for symbol in parts)


def _check_symbols(symbols: Sequence[str]) -> None:
    for symbol in symbols:
        if atomic_numbers.get(symbol, 0) < 1:
            raise ValueError(f"{symbol!r} is not a chemical symbol (write them as 'H', 'Si', ...)")


class NBodyLevel(nn.Module):
    """One level: first-order gate over the children, mixing, zeroth-order gate, mixing, read-out.

    With psi the states of the level below, at the part i and its children j:

        A_i = g(z_i) * [ W sum_j R(r_ij) Y(r_ij) ⊗ V psi_j + U psi_i ]       first-order gate
        psi'_i = W' g'(z_i) * [A_i, d A_i ⊗ A_i, d^2 A_i ⊗ A_i ⊗ A_i, ...]   zeroth-order gate
        epsilon_i = read-out of the degree-0 fragments of psi'_i
    """

    def __init__(self, tau: Type, n_species: int, config: LevelConfig) -> None:
        super().__init__()
        scalar_children = tau.l_max == 0
        tau_message = tau if scalar_children else Type(config.message_channels, tau.l_max)
        n_radial = None if scalar_children else config.n_radial
        tau_state = Type(config.channels, config.l_max)

        self.all_children = config.children == "all"
        self.basis = RadialBasis(config.radius, config.n_basis, config.radial_decay, config.mean_children**-0.5)
        self.message = None if scalar_children else Mixing(tau, tau_message)
        self.first_order = FirstOrderGate(tau_message, config.l_max, config.n_basis, n_radial)
        self.aggregate = Mixing(self.first_order.tau_out, tau_state)
        self.inherit = None if scalar_children else Mixing(tau.truncate(config.l_max), tau_state.truncate(tau.l_max))
        self.state_gain = SpeciesGain(n_species, tau_state)
        self.zeroth_order = ZerothOrderGate(tau_state, config.l_out, config.body_order - 1, config.product_decay)
        self.product_gain = SpeciesGain(n_species, self.zeroth_order.tau_out)
        self.tau_out = Type(config.channels, self.zeroth_order.tau_out.l_max)
        self.hand_up = Mixing(self.zeroth_order.tau_out, self.tau_out)
        self.read_out = ReadOut(n_species, config.channels, config.hidden) if config.read_out else None

    def forward(
        self,
        state: Tensor,
        vectors: Tensor,
        distance: Tensor,
        level: Level,
        species: Tensor,
        closest: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """State of the level below -> state of this one and energies of its parts ``(P,)``.

        Args:
            state: state of the level below ``(components, Q, channels)``.
            vectors: pair vectors ``(3, P, K)`` in Angstrom.
            distance: their lengths ``(P, K)``.
            level: the edges.
            species: of the atoms at the centres, one-hot ``(P, species)``.
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
        products = self.zeroth_order(self.state_gain(aggregated, species))
        state = self.hand_up(self.product_gain(products, species))
        return state, None if self.read_out is None else self.read_out(state[0], species)


class NBodyNetwork(nn.Module):
    """Kondor's network from its configuration; float64 until ``.to(torch.float32)``. Knows no units but its scale.

    Weights are drawn from torch's global generator: ``torch.manual_seed`` makes them reproducible.
    """

    one_hot: Tensor

    def __init__(self, config: NBodyConfig) -> None:
        super().__init__()
        self.config = config
        n_species = len(config.species)
        self.isolated_atoms = IsolatedAtoms(config.species, config.isolated_atom_energies)
        self.embedding = SpeciesEmbedding(n_species, config.embedding or min(n_species, 8))
        self.levels = nn.ModuleList()
        self.taus = [self.embedding.tau_out]  # types of the states, from the atoms up
        for level_config in config.levels:
            level = NBodyLevel(self.taus[-1], n_species, level_config)
            self.levels.append(level)
            self.taus.append(level.tau_out)
        self.closest_approach = ClosestApproach(config.closest_distances) if config.closest_distances else None
        self.repulsion = ZBLRepulsion() if config.repulsion else None
        one_hot = torch.zeros(len(chemical_symbols), n_species, dtype=torch.float64)
        one_hot[[atomic_numbers[symbol] for symbol in config.species], range(n_species)] = 1.0
        self.register_buffer("one_hot", one_hot, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.embedding.weight.dtype

    def forward(self, hierarchy: Hierarchy, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Energies in eV of the parts of each level, without the isolated-atom energies.

        Args:
            hierarchy: the parts and edges.
            vectors: for each level, the pair vectors (3, P, K) in Angstrom; padded ones longer than the radius.

        Returns:
            For each level the energies (P,); zero where the level is not read out.
        """
        species = self.one_hot[hierarchy.numbers]
        state = self.embedding(species)
        energies = []
        for number, (level, pairs) in enumerate(zip(hierarchy.levels, vectors, strict=True)):
            state, energy = self.ascend(number, state, pairs, level, hierarchy.numbers, species)
            energies.append(energy)
        return energies

    def ascend(
        self, number: int, state: Tensor, vectors: Tensor, level: Level, numbers: Tensor, species: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One level up: states of the parts ``(components, P, channels)`` and their energies in eV (P,).

        Args:
            number: which of ``levels``, from 0.
            state: state of the level below ``(components, Q, channels)``.
            vectors: pair vectors (3, P, K) in Angstrom.
            level: the edges.
            numbers: atomic numbers of all atoms (N,).
            species: likewise, one-hot ``(N, species)``.
        """
        radius, centre, atom = self.config.levels[number].radius, numbers[level.centre], numbers[level.atom]
        closest = None if self.closest_approach is None else self.closest_approach(centre, atom, radius)
        distance = vectors.square().sum(0).sqrt()  # torch.linalg.vector_norm takes ten times as long
        state, energy = self.levels[number](state, vectors, distance, level, species[level.centre], closest)
        energies = state.new_zeros(state.shape[1]) if energy is None else self.config.energy_scale * energy
        if self.repulsion is not None and number == 0:
            reach = None if closest is None else FOLLOWS * closest.clamp(max=radius)
            energies = energies + self.repulsion(centre, atom, distance, reach)
        return state, energies
