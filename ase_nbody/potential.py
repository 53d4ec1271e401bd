"""The potential: energy, and all its derivatives from one backward pass. The only file that differentiates.

The energy depends on the positions only through the pair vectors r_ij = x_j + S_ij cell - x_i. With g_ij = dE/dr_ij:

    F_i     = sum_j g_ij - sum_j g_ji                        forces
    W       = sum_ij r_ij ⊗ g_ij                             dE/d(strain), the virial; stress = W / volume
    W_i     = 1/2 sum_j (r_ij ⊗ g_ij + r_ji ⊗ g_ji)          per-atom virial: half of each pair to either end

W_i is the derivative of E under a strain field, r_ij -> (1 + (e_i + e_j) / 2) r_ij, with respect to e_i; hence
sum_i W_i = W exactly. Pair vectors are formed in float64 whatever the network's dtype, so that a system may lie far
from the origin; energies are summed in float64 for the same reason. Knows no ASE.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_nbody.hierarchy.exchange import sum_over_parents
from ase_nbody.hierarchy.reduction import sum_by_structure
from ase_nbody.hierarchy.tables import Hierarchy, Level
from ase_nbody.network.network import NBodyNetwork


@dataclass(frozen=True)
class Prediction:
    """Energy and derivatives of a batch of B structures with N atoms in all. Units: eV, Angstrom.

    Attributes:
        energy: total energies (B,), float64.
        energies: per-atom energies (N,), float64; of one structure they sum to its energy.
        forces: (N, 3).
        virials: per-atom virials (N, 3, 3), symmetric; of one structure they sum to dE/d(strain).
        parts: for each level the energies of its parts (P,), without isolated-atom energies.
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor
    virials: Tensor
    parts: tuple[Tensor, ...]

    def tensors(self) -> list[Tensor]:
        """All of them in the order of the attributes."""
        return [self.energy, self.energies, self.forces, self.virials, *self.parts]

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor]) -> "Prediction":
        """The prediction that ``tensors`` lists."""
        energy, energies, forces, virials, *parts = tensors
        return cls(energy, energies, forces, virials, tuple(parts))


def pair_vectors(level: Level, radius: float, positions: Tensor, cells: Tensor, structure: Tensor) -> Tensor:
    """Pair vectors (3, P, K) in Angstrom of a level's edges; padded ones are longer than the ``radius``.

    Args:
        level: the edges.
        radius: radius of the level in Angstrom.
        positions: (N, 3), float64.
        cells: lattice vectors of the structures (B, 3, 3), float64.
        structure: the structure that each atom belongs to (N,).
    """
    lattice = cells[structure[level.centre]].permute(1, 2, 0).unsqueeze(-1)  # (3, 3, P, 1)
    offsets = (level.shift.to(cells.dtype).unsqueeze(1) * lattice).sum(0)
    vectors = positions.T[:, level.atom] + offsets - positions.T[:, level.centre].unsqueeze(-1)
    return torch.where(level.mask, vectors, 2.0 * radius)


def evaluate(
    network: NBodyNetwork,
    hierarchy: Hierarchy,
    positions: Tensor,
    cells: Tensor,
    *,
    create_graph: bool = False,
    virials: bool = True,
) -> Prediction:
    """Energy, forces and virials of the structures of a hierarchy.

    Args:
        network: the trained network, on the device of the other arguments.
        hierarchy: parts and edges; edges beyond a level's radius do no harm.
        positions: (N, 3) in Angstrom, float64.
        cells: (B, 3, 3) in Angstrom, float64; zeros where a structure has none.
        create_graph: keep the graph, so that a loss of the forces can be differentiated by the weights.
        virials: also sum the virials; zeros otherwise.
    """
    with torch.inference_mode(False), torch.enable_grad():  # forces come in whatever mode the caller is
        exact = [
            pair_vectors(level, config.radius, positions, cells, hierarchy.structure)
            for level, config in zip(hierarchy.levels, network.config.levels, strict=True)
        ]
        vectors = [vector.detach().to(network.dtype).requires_grad_() for vector in exact]
        parts = network(hierarchy, vectors)
        total = torch.stack([part.sum() for part in parts]).sum()
        gradients = torch.autograd.grad(total, vectors, create_graph=create_graph, materialize_grads=True)
        if not create_graph:
            parts = [part.detach() for part in parts]
        return _assemble(network, hierarchy, exact, parts, gradients, virials)


def _assemble(
    network: NBodyNetwork,
    hierarchy: Hierarchy,
    vectors: Sequence[Tensor],
    parts: Sequence[Tensor],
    gradients: Sequence[Tensor],
    with_virials: bool,
) -> Prediction:
    """Sum part energies and pair gradients to atoms and structures (equations above), in float64."""
    energies = network.isolated_atoms(network.one_hot[hierarchy.numbers])
    n_atoms = energies.shape[0]  # not len(), which compilers take for a constant
    sums = energies.new_zeros(9 if with_virials else 3, n_atoms)
    below = torch.arange(n_atoms, device=energies.device)
    for level, vector, part, gradient in zip(hierarchy.levels, vectors, parts, gradients, strict=True):
        energies = energies.index_add(0, level.centre, part.to(torch.float64))
        at_centres, at_children = sums_over_edges(level, vector, gradient, with_virials)
        sums = sums.index_add(1, level.centre, at_centres).index_add(1, below[level.children], at_children)
        below = level.centre
    return sum_over_atoms(hierarchy, energies, sums, parts)


# Where the components xx, yy, zz, xy, yz, zx of a symmetric matrix stand in it.
_SYMMETRIC = ((0, 3, 5), (3, 1, 4), (5, 4, 2))


def sums_over_edges(level: Level, vectors: Tensor, gradient: Tensor, virials: bool = True) -> tuple[Tensor, Tensor]:
    """What the edges of a level add to forces and per-atom virials (equations above), in float64.

    Args:
        level: the edges.
        vectors: pair vectors (3, P, K) in Angstrom, float64.
        gradient: of the energy by them (3, P, K).
        virials: sum virials too.

    Returns:
        Three components of the forces and six of the symmetric virials, of the parts' centres (9, P) and of the
        children (9, C); without virials (3, P) and (3, C).
    """
    gradient = gradient.to(torch.float64) * level.mask
    components = [gradient]
    if virials:  # for x, y, z the next one is y, z, x
        mixed = vectors * gradient.roll(-1, 0) + vectors.roll(-1, 0) * gradient
        components += [0.5 * vectors * gradient, 0.25 * mixed]
    edges = torch.stack([axis for each in components for axis in each], dim=-1)  # (P, K, 9), of an edge side by side
    at_centres, at_children = edges.sum(1).T, sum_over_parents(edges.unsqueeze(0), level)[0].T
    return at_centres, torch.cat([-at_children[:3], at_children[3:]])


def sum_over_atoms(hierarchy: Hierarchy, energies: Tensor, sums: Tensor, parts: Sequence[Tensor]) -> Prediction:
    """The prediction from what belongs to the atoms: energies (N,), and forces and virials (9, N) or forces (3, N)."""
    energy = sum_by_structure(energies, hierarchy.structure, hierarchy.n_structures)
    virials = sums[3:].T[:, _SYMMETRIC] if len(sums) > 3 else sums.new_zeros(sums.shape[1], 3, 3)
    return Prediction(energy, energies, sums[:3].T.contiguous(), virials, tuple(parts))
