"""The N-body network: atoms -> environments -> clusters -> system, with named outputs read at every level."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor, nn

from ase_nbody.hierarchy.build import LABELS
from ase_nbody.hierarchy.tables import Hierarchy, Labelled, Level
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.level import NBodyLevel
from ase_nbody.network.types import LevelTypes
from ase_nbody.nn.charges import AtomicMasses
from ase_nbody.nn.closest_approach import FOLLOWS, ClosestApproach
from ase_nbody.nn.density import DensityFade
from ase_nbody.nn.embedded_atom import EmbeddedAtom
from ase_nbody.nn.heads import ReadOut, VectorHead
from ase_nbody.nn.repulsion import ZBLRepulsion
from ase_nbody.nn.species import IsolatedAtoms, SpeciesEmbedding
from ase_nbody.nn.weights import Plan, Weight, prefixed
from ase_nbody.so3 import Type
from ase_nbody.undisturbed import undisturbed

# The components of a state that the head of an output needs, and their degree: 0, or 1 (x, y and z).
_FRAGMENTS: dict[str, tuple[int | slice, int]] = {"charge": (0, 0), "dipole": (slice(1, 4), 1)}


class NBodyNetwork(nn.Module):
    """Kondor's network from its configuration. It is in float64 until ``.to(torch.float32)``.

    Weights are drawn from torch's global generator: ``torch.manual_seed`` makes them reproducible. Heads of optional
    outputs are drawn last, so that the other weights do not depend on them.

    Attributes:
        taus: types of the states, from the atoms up.
        heads: for each level, heads of its optional outputs by their names.
        one_hot: one-hot rows by atomic number (119, species).
    """

    one_hot: Tensor
    embedding: SpeciesEmbedding

    @undisturbed()
    def __init__(self, config: NBodyConfig) -> None:
        super().__init__()
        self.config = config
        self.taus = self.taus_of(config)
        self.isolated_atoms = IsolatedAtoms(config.species, config.isolated_atom_energies)
        self.embedding = _embedding(config).build()
        self.levels = nn.ModuleList(level.build() for level in _levels(config))
        self.heads = nn.ModuleList(
            nn.ModuleDict({name: head.build() for name, head in _heads(config, number).items()})
            for number in range(len(config.levels))
        )
        self.closest_approach = ClosestApproach(config.closest_distances) if config.closest_distances else None
        self.repulsion = ZBLRepulsion() if config.repulsion else None
        self.embedded_atom = _embedded_atom(config)
        self.fades = nn.ModuleList(map(DensityFade, config.densest, (level.radius for level in config.levels)))
        self.atomic_masses = AtomicMasses()
        one_hot = torch.zeros(len(chemical_symbols), len(config.species), dtype=torch.float64)
        one_hot[[atomic_numbers[symbol] for symbol in config.species], range(len(config.species))] = 1.0
        self.register_buffer("one_hot", one_hot, persistent=False)

    @staticmethod
    def taus_of(config: NBodyConfig) -> list[Type]:
        """Types of the states from the atoms up, without building anything: level n, from 0, makes number n + 1."""
        taus = [Type.uniform(_embedding_channels(config), 0)]
        for level in config.levels:
            taus.append(LevelTypes.of(taus[-1], level).handed_up)
        return taus

    @staticmethod
    def declared_weights(config: NBodyConfig) -> dict[str, Weight]:
        """All weights by their names in ``state_dict``, without building anything, for they may be terabytes."""
        declared = prefixed("embedding", _embedding(config).weights())
        for number, level in enumerate(_levels(config)):
            declared |= prefixed(f"levels.{number}", level.weights())
        for number in range(len(config.levels)):
            for name, head in _heads(config, number).items():
                declared |= prefixed(f"heads.{number}.{name}", head.weights())
        return declared

    @staticmethod
    def declared_read_outs(config: NBodyConfig) -> dict[str, Weight]:
        """Those of ``declared_weights`` that turn the states into the energy: a head for a theory has its own."""
        read_outs = tuple(f"levels.{number}.read_out." for number in range(len(config.levels)))
        return {name: one for name, one in NBodyNetwork.declared_weights(config).items() if name.startswith(read_outs)}

    @staticmethod
    def output_names(config: NBodyConfig, number: int) -> tuple[str, ...]:
        """Names of the outputs of level ``number``, from 0, in the order in which ``ascend`` returns them."""
        return ("energy", *_heads(config, number))

    def set_isolated_atom_energies(self, energies: Mapping[str, float]) -> None:
        """Give the network another zero of energy, in place. A calculator that shares the network needs a ``reset``.

        Args:
            energies: in eV by chemical symbol; 0 for species that it does not name.
        """
        self.config = self.config.model_copy(update={"isolated_atom_energies": dict(energies)})
        self.isolated_atoms = IsolatedAtoms(self.config.species, energies)

    @property
    def masses(self) -> Tensor:
        """Atomic masses in u by atomic number (119,), float64: dipole moments are about centres of mass."""
        return self.atomic_masses.table

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.embedding.weight.dtype

    @staticmethod
    def species_of_parts(level: Level, one_hot: Tensor) -> Tensor:
        """One-hot rows of the atoms at the centres of parts, or the compositions of labelled ones ``(P, species)``.

        Args:
            level: the parts.
            one_hot: one-hot rows of all atoms ``(N, species)``.
        """
        if level.labelled is None:
            return one_hot.index_select(0, level.centre)
        return _composition(level.labelled, one_hot)

    def forward(self, hierarchy: Hierarchy, vectors: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Outputs of the parts of each level (see ``ascend``).

        Args:
            hierarchy: the parts and edges.
            vectors: for each level, the pair vectors (3, P, K) in Angstrom; padded ones longer than the radius.
        """
        one_hot = self.one_hot[hierarchy.numbers]
        state = self.embedding(one_hot)
        found = []
        for number, (level, pairs) in enumerate(zip(hierarchy.levels, vectors, strict=True)):
            state, outputs = self.ascend(number, state, pairs, level, hierarchy.numbers, one_hot)
            found.append(outputs)
        return found

    def ascend(
        self, number: int, state: Tensor, vectors: Tensor, level: Level, numbers: Tensor, one_hot: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One level up: the states ``(components, P, channels)`` and the outputs of its parts.

        Args:
            number: which of ``levels``, from 0.
            state: state of the level below ``(components, Q, channels)``.
            vectors: pair vectors (3, P, K) in Angstrom.
            level: the edges.
            numbers: atomic numbers of all atoms (N,).
            one_hot: one-hot rows of all atoms ``(N, species)``.

        Returns:
            The states, and outputs by name (see ``output_names``):

            * ``energy`` (P,) in eV, without isolated-atom energies: the read-out, if the level has one, and at the
              lowest level the repulsion.
            * ``charge`` (P,) in e, before they are made to sum to the total charge (see ``nn.charges``).
            * ``dipole`` (3, P) in e Angstrom, about the parts' centres, where the level hands up a state with l = 1.
        """
        radius, centre, atom = (
            self.config.levels[number].radius,
            numbers.index_select(0, level.centre),
            numbers.take(level.atom),
        )
        one_hot_centres, closest = self.species_of_parts(level, one_hot), None
        if level.labelled is None and self.closest_approach is not None:
            closest = self.closest_approach(centre, atom, radius)
        distance = vectors.square().sum(0).sqrt()  # torch.linalg.vector_norm takes ten times as long
        fade = self.fades[number](centre, distance) if number < len(self.fades) else None
        state, energy = self.levels[number](state, vectors, distance, level, one_hot_centres, closest, fade)
        energies = state.new_zeros(state.shape[1]) if energy is None else self.config.energy_scale * energy
        if self.repulsion is not None and number == 0:
            reach = None if closest is None else FOLLOWS * closest.clamp(max=radius)
            energies = energies + self.repulsion(centre, atom, distance, reach)
        if self.embedded_atom is not None and number == 0:
            energies = energies + self.embedded_atom(centre, atom, distance)
        outputs = {"energy": energies}
        heads: Any = self.heads[number]
        for name, head in heads.items():
            fragments, degree = _FRAGMENTS[name]
            outputs[name] = head(state[fragments][..., : self.taus[number + 1].tau[degree]], one_hot_centres)
        return state, outputs


def _composition(labelled: Labelled, one_hot: Tensor) -> Tensor:
    """The mean of the one-hot rows of the members of each part ``(P, species)``."""
    groups = labelled.groups
    rows = one_hot.index_select(0, groups.atom.flatten()).unflatten(0, groups.atom.shape)
    return (rows * groups.shares.to(one_hot.dtype).unsqueeze(-1)).sum(1)


def _heads(config: NBodyConfig, number: int) -> dict[str, Plan]:
    """Heads of the optional outputs of a level by the names of the outputs, in order."""
    level, tau = config.levels[number], NBodyNetwork.taus_of(config)[number + 1]
    heads = {}
    if "charges" in config.outputs and level.read_out and level.parts != LABELS:
        heads["charge"] = Plan(ReadOut, len(config.species), tau.tau[0], level.hidden)
        if tau.l_max > 0:
            heads["dipole"] = Plan(VectorHead, len(config.species), tau.tau[1])
    return heads


def _levels(config: NBodyConfig) -> list[Plan]:
    """The levels, the lowest first."""
    pairs = zip(NBodyNetwork.taus_of(config), config.levels, strict=False)  # nothing is above the last type
    return [Plan(NBodyLevel, below, len(config.species), level) for below, level in pairs]


def _embedded_atom(config: NBodyConfig) -> EmbeddedAtom | None:
    given = config.embedded_atom
    if given is None:
        return None
    return EmbeddedAtom(given.lengths, given.repulsion, given.binding, given.decay, config.levels[0].radius)


def _embedding(config: NBodyConfig) -> Plan:
    return Plan(SpeciesEmbedding, len(config.species), _embedding_channels(config))


def _embedding_channels(config: NBodyConfig) -> int:
    return config.embedding or min(len(config.species), 8)
