"""The N-body network: atoms -> environments -> clusters -> system, with an energy read out at every level."""

from collections.abc import Sequence

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor, nn

from ase_nbody.hierarchy.tables import Hierarchy, Level
from ase_nbody.network.config import LevelConfig, NBodyConfig
from ase_nbody.nn.closest_approach import FOLLOWS, ClosestApproach, held_distance
from ase_nbody.nn.gates import FirstOrderGate, ZerothOrderGate
from ase_nbody.nn.heads import ReadOut
from ase_nbody.nn.mixing import Mixing
from ase_nbody.nn.radial import RadialBasis
from ase_nbody.nn.repulsion import ZBLRepulsion
from ase_nbody.nn.species import IsolatedAtoms, SpeciesEmbedding, SpeciesGain
from ase_nbody.so3 import Type


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
            energies.append(energy["energy"])
        return energies

    def ascend(
        self, number: int, state: Tensor, vectors: Tensor, level: Level, numbers: Tensor, species: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
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
        return state, {"energy": energies}
