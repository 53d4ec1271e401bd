"""The potential: the energy and all its derivatives, from one way up the hierarchy and one way down.

With psi the states and epsilon the energies of the parts, the two steps of a block (some parts of a level, or all) are

    up      psi_i, epsilon_i = level(psi_children, r_ij)
    down    g_ij, dE/dpsi_children = d/d(r_ij, psi_children) [ sum_i epsilon_i + sum_i psi_i . dE/dpsi_i ]

The way up begins at the atoms, the way down at the last level, where dE/dpsi_i = 0. The energy depends on the positions
only through the pair vectors r_ij = x_j + S_ij cell - x_i. With g_ij = dE/dr_ij:

    F_i     = sum_j g_ij - sum_j g_ji                        forces
    W       = sum_ij r_ij ⊗ g_ij                             dE/d(strain), the virial; stress = W / volume
    W_i     = 1/2 sum_j (r_ij ⊗ g_ij + r_ji ⊗ g_ji)          per-atom virial: half of each pair's for either end

W_i is the derivative of E under a strain field, r_ij -> (1 + (e_i + e_j) / 2) r_ij, with respect to e_i; hence
sum_i W_i = W exactly. Pair vectors are formed in float64 whatever the network's dtype, so that a system may lie far
from the origin; energies are summed in float64 for the same reason.

A part that labels name has no atom at its centre. Its position X_p = sum_m w_m (x_m + S_m cell), with constant w_m and
S_m (``hierarchy.labelled``), stands for x_i or x_j above. What the way down brings to such a part goes to its members,
the energy in equal shares. With d_m = x_m + S_m cell - X_p, and sum_m w_m d_m = 0,

    F_m     = w_m F_p
    W_m     = w_m (W_p - 1/2 F_p ⊗ d_m)                  X_p moves with the strain at its members; still they sum to W

Only this file differentiates with respect to positions. It knows no ASE, and it does not know how its steps are run:
``runtime`` runs them block by block, on several threads or as compiled code.
"""

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ase_nbody.hierarchy.exchange import sum_over_parents
from ase_nbody.hierarchy.reduction import sum_by_structure
from ase_nbody.hierarchy.tables import Groups, Hierarchy, Labelled, Level
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.nn.charges import conserved_charges, molecular_dipole
from ase_nbody.prediction import Prediction


class System(NamedTuple):
    """What the steps of a block need to know about the atoms.

    Attributes:
        numbers: atomic numbers (N,).
        one_hot: one-hot rows of the atoms (N, species).
        structure: the structure that each atom belongs to (N,).
        positions: (N, 3) in Angstrom, float64.
        cells: lattice vectors of the structures (B, 3, 3) in Angstrom, float64; zeros where a structure has none.
    """

    numbers: Tensor
    one_hot: Tensor
    structure: Tensor
    positions: Tensor
    cells: Tensor

    @classmethod
    def of(cls, network: NBodyNetwork, hierarchy: Hierarchy, positions: Tensor, cells: Tensor) -> "System":
        """The atoms of a hierarchy as a network sees them."""
        one_hot = network.one_hot.index_select(0, hierarchy.numbers)
        return cls(hierarchy.numbers, one_hot, hierarchy.structure, positions, cells)


@dataclass(frozen=True)
class Block:
    """Some parts of a level, or all of them.

    Attributes:
        level: the parts with their edges.
        rows: the parts of the level below that the tables of ``level`` count, ascending (Q,); None: all of them.
    """

    level: Level
    rows: Tensor | None = None

    @property
    def below(self) -> Tensor:
        """The parts of the level below to which derivatives flow from the edges (C,)."""
        return self.level.children if self.rows is None else self.rows


@dataclass(frozen=True)
class Ascent:
    """What one step up leaves for the step down.

    Attributes:
        level: the parts of the block.
        vectors: pair vectors (3, P, K) in Angstrom, float64.
        pairs: the same in the network's dtype. The step down differentiates with respect to them.
        rows: states of the level below ``(components, Q, channels)``. It differentiates with respect to these too.
        state: states of the parts ``(components, P, channels)``.
        outputs: outputs of the parts by name, ``energy`` (P,) among them.
    """

    level: Level
    vectors: Tensor
    pairs: Tensor
    rows: Tensor
    state: Tensor
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Descent:
    """Outputs of a block's parts, and the derivatives that flow from them to atoms and to the level below.

    Attributes:
        outputs: outputs of the parts by name, ``energy`` (P,) among them.
        centres: forces and virials of the atoms at the centres of the parts (9, P), or forces alone (3, P), float64;
            see ``sums_over_edges``.
        children: the same for the atoms at the centres of ``Block.below`` (9, C), or (9, Q) where a block counts rows.
        rows: dE/dpsi of the level below ``(components, Q, channels)``; None at the lowest level, because the states of
            the atoms are constants.
    """

    outputs: Mapping[str, Tensor]
    centres: Tensor
    children: Tensor
    rows: Tensor | None = None


def up(
    network: NBodyNetwork, number: int, level: Level, rows: Tensor, system: System, *, connected: bool = False
) -> Ascent:
    """One step up: states and outputs of the parts of a block.

    Args:
        network: the network.
        number: which of its levels, from 0.
        level: the parts of the block.
        rows: states of those parts of the level below that its tables count ``(components, Q, channels)``.
        system: the atoms.
        connected: let the graph reach through ``rows`` to the weights below them; otherwise it begins at ``rows``.
    """
    radius = network.config.levels[number].radius
    vectors = pair_vectors(level, radius, system.positions, system.cells, system.structure)
    return up_from_vectors(network, number, level, rows, vectors, system.numbers, system.one_hot, connected=connected)


def up_from_vectors(
    network: NBodyNetwork,
    number: int,
    level: Level,
    rows: Tensor,
    vectors: Tensor,
    numbers: Tensor,
    one_hot: Tensor,
    *,
    connected: bool = False,
) -> Ascent:
    """The step up of a block whose pair vectors are known; see ``up``.

    Args:
        network: see ``up``.
        number: see ``up``.
        level: see ``up``.
        rows: see ``up``.
        vectors: pair vectors (3, P, K) in Angstrom; padded ones are longer than the radius.
        numbers: atomic numbers (N,) of the atoms that ``level`` counts.
        one_hot: their one-hot rows (N, species).
        connected: see ``up``.
    """
    pairs = vectors.detach().to(rows.dtype).requires_grad_()
    if not connected:
        rows = rows.detach().requires_grad_(number > 0)
    state, outputs = network.ascend(number, rows, pairs, level, numbers, one_hot)
    return Ascent(level, vectors, pairs, rows, state, outputs)


def down(
    ascent: Ascent, slope: Tensor | None, *, lowest: bool, create_graph: bool = False, virials: bool = True
) -> Descent:
    """One step down: derivatives of the energy with respect to pair vectors and states of the level below.

    Args:
        ascent: what the step up left.
        slope: dE/dpsi of the parts ``(components, P, channels)``; None at the last level, where it is zero.
        lowest: whether the level below is that of the atoms, whose states are constants.
        create_graph: keep the graph, so that a loss of the forces has a gradient with respect to the weights.
        virials: also sum the virials.
    """
    by_pairs, by_rows = slopes(ascent, slope, lowest=lowest, create_graph=create_graph)
    at_centres, at_children = sums_over_edges(ascent.level, ascent.vectors, by_pairs, virials)
    outputs = ascent.outputs if create_graph else {name: output.detach() for name, output in ascent.outputs.items()}
    return Descent(outputs, at_centres, at_children, by_rows)


def slopes(
    ascent: Ascent, slope: Tensor | None, *, lowest: bool, create_graph: bool = False
) -> tuple[Tensor, Tensor | None]:
    """What the step down differentiates: dE/dr of the pair vectors (3, P, K), and dE/dpsi of ``rows``, like these.

    The second is None at the lowest level. Arguments as in ``down``.
    """
    variables = (ascent.pairs,) if lowest else (ascent.pairs, ascent.rows)
    energy = ascent.outputs["energy"]
    terms = [(energy, torch.ones_like(energy)), *([] if slope is None else [(ascent.state, slope)])]
    terms = [(term, weight) for term, weight in terms if term.requires_grad]  # without a read-out there is no graph
    if terms:
        given, weights = zip(*terms, strict=True)
        by_pairs, *by_rows = torch.autograd.grad(
            given, variables, weights, create_graph=create_graph, materialize_grads=True
        )
    else:
        by_pairs, *by_rows = (torch.zeros_like(tensor) for tensor in variables)
    return by_pairs, by_rows[0] if by_rows else None


class Way(Protocol):
    """A way to run the steps of all blocks of a hierarchy: ``Whole`` here, others in ``runtime``."""

    def up(self, number: int, below: Tensor, system: System) -> Tensor | None:
        """States of all parts of a level from the states ``below``; None at the last level if nothing needs them."""

    def down(
        self, number: int, below: Tensor, slope: Tensor | None, system: System
    ) -> Generator[tuple[Block, Descent], None, None]:
        """The blocks of a level and what flows down from them, with dE/dpsi = ``slope`` of all parts of the level."""


class Whole:
    """Each level is one block, whose graph is kept from the way up to the way down."""

    def __init__(
        self, network: NBodyNetwork, hierarchy: Hierarchy, *, create_graph: bool = False, virials: bool = True
    ) -> None:
        self.network, self.hierarchy = network, hierarchy
        self.create_graph, self.virials = create_graph, virials
        self._ascents: list[Ascent] = []

    def up(self, number: int, below: Tensor, system: System) -> Tensor:
        """See ``Way``."""
        level = self.hierarchy.levels[number]
        self._ascents.append(up(self.network, number, level, below, system, connected=self.create_graph))
        return self._ascents[-1].state

    def down(
        self, number: int, below: Tensor, slope: Tensor | None, system: System
    ) -> Generator[tuple[Block, Descent], None, None]:
        """See ``Way``."""
        ascent = self._ascents.pop()
        found = down(ascent, slope, lowest=number == 0, create_graph=self.create_graph, virials=self.virials)
        yield Block(ascent.level), found


def evaluate(
    network: NBodyNetwork,
    hierarchy: Hierarchy,
    positions: Tensor,
    cells: Tensor,
    total_charges: Tensor | None = None,
    *,
    create_graph: bool = False,
    virials: bool = True,
    way: Way | None = None,
) -> Prediction:
    """Energy, forces, virials and further outputs of the structures of a hierarchy.

    Args:
        network: the trained network, on the device of the other arguments.
        hierarchy: parts and edges; edges beyond a level's radius do no harm.
        positions: (N, 3) in Angstrom, float64.
        cells: (B, 3, 3) in Angstrom, float64; zeros where a structure has none.
        total_charges: charges of the structures (B,) in e, float64; None: all neutral. Only networks that give
            charges look at them.
        create_graph: keep the graph, so that a loss of energies and forces has a gradient with respect to the weights.
        virials: also sum the virials; zeros otherwise.
        way: how the steps of the blocks are run; default: ``Whole``.
    """
    with torch.inference_mode(False), torch.enable_grad():  # forces need gradients in any mode of the caller
        system = System.of(network, hierarchy, positions, cells)
        way = way or Whole(network, hierarchy, create_graph=create_graph, virials=virials)
        below = [network.embedding(system.one_hot)]  # states below each level
        for number in range(len(hierarchy.levels)):
            state = way.up(number, below[-1], system)
            if state is not None:
                below.append(state)
        at_atoms = _AtAtoms(network, hierarchy, system, virials)
        slope = None
        for number in reversed(range(len(hierarchy.levels))):
            with closing(way.down(number, below[number], slope, system)) as descents:
                slope = at_atoms.add(number, below[number], descents)
        return at_atoms.prediction(total_charges)


class _AtAtoms:
    """What the way down brings to the atoms: energies, forces, virials and further outputs, summed in float64."""

    def __init__(self, network: NBodyNetwork, hierarchy: Hierarchy, system: System, virials: bool) -> None:
        self.network, self.hierarchy, self.system = network, hierarchy, system
        self.energies = network.isolated_atoms(system.one_hot)
        n_atoms = self.energies.shape[0]  # not len(), which compilers take for a constant
        self.sums = self.energies.new_zeros(9 if virials else 3, n_atoms)
        self.parts: list[Tensor] = []
        self.outputs: dict[str, Tensor] = {}

    def add(self, number: int, below: Tensor, descents: Generator[tuple[Block, Descent], None, None]) -> Tensor | None:
        """Add what flows down from the blocks of a level, and return dE/dpsi of the level below, like ``below``."""
        levels = self.hierarchy.levels
        slope = None
        outputs: dict[str, list[Tensor]] = {}
        for block, found in descents:
            labelled = block.level.labelled
            if labelled is None:
                self.sums.index_add_(1, block.level.centre, found.centres)
            else:
                self._add_to_members(labelled.groups, found.centres)
            if labelled is None or labelled.below is None:
                atoms_below = levels[number - 1].centre.index_select(0, block.below) if number else block.below
                self.sums.index_add_(1, atoms_below, found.children)
            else:
                self._add_to_members(labelled.below.take(block.below), found.children)
            for name, output in found.outputs.items():
                outputs.setdefault(name, []).append(output)
            if block.rows is None:
                slope = found.rows
            elif found.rows is not None:
                slope = torch.zeros_like(below) if slope is None else slope
                slope.index_add_(1, block.rows, found.rows)
        joined = {name: pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1) for name, pieces in outputs.items()}
        self.parts.insert(0, joined.pop("energy"))
        whole = levels[number].labelled
        if whole is None:
            self.energies.index_add_(0, levels[number].centre, self.parts[0].double())
        else:
            shared = whole.groups.shares * self.parts[0].double().unsqueeze(-1)
            self.energies.index_add_(0, whole.groups.atom.flatten(), shared.flatten())
        for name, output in joined.items():
            zeros = self.energies.new_zeros(*output.shape[:-1], self.energies.shape[0])
            self.outputs.setdefault(name, zeros).index_add_(-1, levels[number].centre, output.double())
        return slope

    def _add_to_members(self, groups: Groups, of_parts: Tensor) -> None:
        """Add the forces (3, P), or forces and virials (9, P), of labelled parts to their members."""
        system, of_members = self.system, of_parts.unsqueeze(-1) * groups.weight
        if len(of_parts) > 3 and groups.atom.numel():
            arms = group_members(groups, system.positions, system.cells, system.structure)
            arms = arms - (groups.weight * arms).sum(-1, keepdim=True)  # (3, P, M)
            forces = of_members[:3]
            mixed = 0.25 * (arms * forces.roll(-1, 0) + arms.roll(-1, 0) * forces)
            of_members = of_members - torch.cat([torch.zeros_like(forces), 0.5 * arms * forces, mixed])
        self.sums.index_add_(1, groups.atom.flatten(), of_members.flatten(1))

    def prediction(self, total_charges: Tensor | None) -> Prediction:
        """The root of the hierarchy: sums over the atoms of each structure."""
        structure, n_structures = self.system.structure, self.hierarchy.n_structures
        forces, virials = self.sums[:3].T.contiguous(), self.sums[3:]
        full = virials.T[:, _SYMMETRIC] if len(virials) else virials.new_zeros(virials.shape[1], 3, 3)
        energy = sum_by_structure(self.energies, structure, n_structures)
        return Prediction(energy, self.energies, forces, full, tuple(self.parts), self._charges(total_charges))

    def _charges(self, total_charges: Tensor | None) -> dict[str, Tensor]:
        """Partial charges and dipole moments, where the network gives them."""
        if "charges" not in self.network.config.outputs:
            return {}
        structure, n_structures = self.system.structure, self.hierarchy.n_structures
        total = self.energies.new_zeros(n_structures) if total_charges is None else total_charges
        charges = conserved_charges(self.outputs["charge"], structure, total)
        dipoles = self.outputs.get("dipole", self.sums.new_zeros(3, self.sums.shape[1]))
        masses = self.network.masses[self.system.numbers]
        dipole = molecular_dipole(charges, dipoles, self.system.positions, masses, structure, n_structures)
        return {"charges": charges, "dipole": dipole}


def pair_vectors(level: Level, radius: float, positions: Tensor, cells: Tensor, structure: Tensor) -> Tensor:
    """Pair vectors (3, P, K) in Angstrom of a level's edges; padded ones are longer than the ``radius``.

    Args:
        level: the edges.
        radius: radius of the level in Angstrom.
        positions: (N, 3), float64.
        cells: lattice vectors of the structures (B, 3, 3), float64.
        structure: the structure that each atom belongs to (N,).
    """
    structure_of_part = structure.index_select(0, level.centre)
    lattice = cells.index_select(0, structure_of_part).permute(1, 2, 0).unsqueeze(-1)  # (3, 3, P, 1)
    offsets = (level.shift.to(cells.dtype).unsqueeze(1) * lattice).sum(0)
    if level.labelled is None:
        vectors = positions.T[:, level.atom] + offsets - positions.index_select(0, level.centre).T.unsqueeze(-1)
    else:
        from_parts, to_children = _ends(level, level.labelled, positions, cells, structure)
        vectors = to_children + offsets - from_parts.unsqueeze(-1)
    return torch.where(level.mask, vectors, 2.0 * radius)


def _ends(
    level: Level, labelled: Labelled, positions: Tensor, cells: Tensor, structure: Tensor
) -> tuple[Tensor, Tensor]:
    """Positions of labelled parts (3, P) and of the children at the ends of their edges (3, P, K) in Angstrom."""
    parts = group_positions(labelled.groups, positions, cells, structure)
    if labelled.below is None:
        return parts, positions.T[:, level.atom]
    below = group_positions(labelled.below, positions, cells, structure)
    return parts, below.index_select(1, level.children)[:, level.child]


def group_positions(groups: Groups, positions: Tensor, cells: Tensor, structure: Tensor) -> Tensor:
    """X_p = sum_m w_m (x_m + S_m cell) of groups (3, P) in Angstrom, float64; arguments as in ``pair_vectors``."""
    return (groups.weight * group_members(groups, positions, cells, structure)).sum(-1)


def group_members(groups: Groups, positions: Tensor, cells: Tensor, structure: Tensor) -> Tensor:
    """x_m + S_m cell of the members of groups (3, P, M) in Angstrom, float64; padded ones lie anywhere."""
    if groups.atom.numel() == 0:  # there are no parts
        return positions.new_zeros(3, *groups.atom.shape)
    lattice = cells.index_select(0, structure.index_select(0, groups.atom[:, 0])).permute(1, 2, 0).unsqueeze(-1)
    return positions.T[:, groups.atom] + (groups.shift.to(cells.dtype).unsqueeze(1) * lattice).sum(0)


# Where the components xx, yy, zz, xy, yz, zx of a symmetric matrix stand in it.
_SYMMETRIC = ((0, 3, 5), (3, 1, 4), (5, 4, 2))


def sums_over_edges(level: Level, vectors: Tensor, gradient: Tensor, virials: bool = True) -> tuple[Tensor, Tensor]:
    """What the edges of a level add to forces and per-atom virials (equations above), in float64.

    Args:
        level: the edges.
        vectors: pair vectors (3, P, K) in Angstrom, float64.
        gradient: the gradient of the energy with respect to them (3, P, K).
        virials: also sum the virials.

    Returns:
        Three components of the forces and six of the symmetric virials, of the atoms at the centres of the parts (9, P)
        and of the children (9, C); without virials (3, P) and (3, C).
    """
    gradient = gradient.to(torch.float64) * level.mask
    components = [gradient]
    if virials:  # for x, y, z the next one is y, z, x
        mixed = vectors * gradient.roll(-1, 0) + vectors.roll(-1, 0) * gradient
        components += [0.5 * vectors * gradient, 0.25 * mixed]
    # (P, K, 9), the numbers of an edge side by side. Compiled, ``cat`` and a transpose take 1.4 times as long.
    edges = torch.stack([axis for each in components for axis in each], dim=-1)
    at_centres, at_children = edges.sum(1).T, sum_over_parents(edges.unsqueeze(0), level)[0].T
    return at_centres, torch.cat([-at_children[:3], at_children[3:]])
