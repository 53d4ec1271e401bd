"""The rows of a linear regression on energies, forces and stresses: how they change with the weights of the read-outs.

The energy of a structure is linear in the weights w_k of the read-outs (``nn.heads.ReadOut``),

    E = E_0 + sum_k w_k Phi_k,     Phi_k = energy_scale * sum_i phi_k(i)

with phi_k(i) a feature of part i if k is of its species, and 0 otherwise. So are its derivatives: along a displacement
u of the atoms, or a strain e of the structure,

    -u . F = sum_k w_k dPhi_k/du + ...        V e : stress = sum_k w_k dPhi_k/de + ...

Few directions serve instead of all: for n random orthonormal ones among N, (N/n)^(1/2) times the rows have the same sum
of squares on average, and the same one with n = N. The derivatives are forward differences in float64. With a step of
1e-5 they err by some 1e-5 of themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_nbody.data import Batch
from ase_nbody.hierarchy.reduction import sum_by_structure
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.nn.heads import ReadOut
from ase_nbody.potential import pair_vectors

STEP = 1e-5  # Angstrom for each atom, or of strain


@dataclass(frozen=True)
class Rows:
    """Rows of a regression for one label: R of them with K unknowns, float64.

    Attributes:
        label: name of the label.
        features: derivatives of the predictions by the unknowns (R, K), in the label's unit.
        lacking: reference minus prediction (R,). Their sums of squares are those of the label's errors.
        structure: the structure of the batch that each row belongs to (R,).
    """

    label: str
    features: Tensor
    lacking: Tensor
    structure: Tensor


def read_outs(network: NBodyNetwork) -> list[tuple[int, ReadOut]]:
    """The read-outs whose weights are free, each with the number of its level, from 0."""
    found = ((number, level.read_out) for number, level in enumerate(network.levels))
    return [(number, one) for number, one in found if isinstance(one, ReadOut) and one.linear.requires_grad]


def weights_of(network: NBodyNetwork) -> Tensor:
    """W (K,) in float64: level by level, a row [a(z), b(z)] for each species."""
    rows = [torch.cat([one.linear, one.output], dim=1).detach().flatten() for _, one in read_outs(network)]
    return torch.cat(rows).double() if rows else torch.zeros(0, dtype=torch.float64)


@torch.no_grad()
def set_weights(network: NBodyNetwork, weights: Tensor) -> None:
    """Give the read-outs the weights w (K,), in the order of ``weights_of``."""
    found = [one for _, one in read_outs(network)]
    sizes = [one.linear.numel() + one.output.numel() for one in found]
    for one, own in zip(found, weights.split(sizes), strict=True):
        linear, output = own.view(len(one.linear), -1).split([one.linear.shape[1], one.output.shape[1]], dim=1)
        one.linear.copy_(linear)
        one.output.copy_(output)


def rows_of(network: NBodyNetwork, batch: Batch, n_directions: int, generator: torch.Generator) -> Iterator[Rows]:
    """The rows of a batch: of its energies, and of its forces and stresses along random directions.

    Args:
        network: the network in float64, without gradients.
        batch: labelled structures.
        n_directions: number of directions for each structure, if it has so many; of the strain at most six.
        generator: draws the directions.
    """
    features, energy = _features_and_energy(network, batch, batch.positions, batch.cells)

    def change(positions: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        moved, changed = _features_and_energy(network, batch, positions, cells)
        return (moved - features) / STEP, (changed - energy) / STEP

    yield _known("energy", features, batch.labels["energy"] - energy)
    forces, structure = batch.labels["forces"], batch.hierarchy.structure
    known = torch.isfinite(forces).all(-1)
    for directions in _displacements(structure, known, batch.hierarchy.n_structures, n_directions, generator):
        slope, predicted = change(batch.positions + STEP * directions, batch.cells)
        reference = -(torch.where(known.unsqueeze(-1), forces, 0.0) * directions).sum(-1)
        moves = sum_by_structure(directions.square().sum(-1), structure, len(energy)) > 0.0
        lacking = sum_by_structure(reference, structure, len(energy)) - predicted
        yield _known("forces", slope, torch.where(moves, lacking, torch.nan))
    volume = torch.linalg.det(batch.cells).abs()
    if not torch.isfinite(batch.labels["stress"]).any():
        return
    for strain in _strains(min(6, n_directions), generator):
        moved = batch.positions + STEP * batch.positions @ strain
        slope, predicted = change(moved, batch.cells + STEP * batch.cells @ strain)
        reference = (batch.labels["stress"] * strain).sum((1, 2))
        yield _known("stress", slope / volume.unsqueeze(-1), reference - predicted / volume)


def _known(label: str, features: Tensor, lacking: Tensor) -> Rows:
    """The rows of the structures that have the label."""
    (structure,) = torch.isfinite(lacking).nonzero(as_tuple=True)
    return Rows(label, features[structure], lacking[structure], structure)


def _displacements(
    structure: Tensor, known: Tensor, n_structures: int, n_directions: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Displacements (N, 3) of the atoms with known forces: random and orthonormal in each structure, then scaled.

    A structure with fewer coordinates than ``n_directions`` moves along each of them, and then no more.
    """
    chosen = structure.new_zeros(n_directions, len(structure), 3, dtype=torch.float64)
    for number in range(n_structures):
        (atoms,) = (known & (structure == number)).nonzero(as_tuple=True)
        own = _orthonormal(3 * len(atoms), n_directions, generator)
        chosen[: len(own), atoms] = own.unflatten(1, (-1, 3))
    yield from chosen


def _strains(n_directions: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Symmetric strains (3, 3), random and orthonormal, then scaled."""
    for coordinates in _orthonormal(6, n_directions, generator):
        diagonal, others = coordinates[:3], coordinates[3:] / 2**0.5
        strain = torch.diag(diagonal)
        for value, (row, column) in zip(others, ((0, 1), (1, 2), (2, 0)), strict=True):
            strain[row, column] = strain[column, row] = value
        yield strain


def _orthonormal(dimension: int, number: int, generator: torch.Generator) -> Tensor:
    """Orthonormal rows (at most ``number``, dimension), times (dimension / rows)^(1/2)."""
    if number >= dimension:
        return torch.eye(dimension, dtype=torch.float64)
    drawn = torch.randn(dimension, number, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(drawn).Q.T * (dimension / number) ** 0.5


def _features_and_energy(
    network: NBodyNetwork, batch: Batch, positions: Tensor, cells: Tensor
) -> tuple[Tensor, Tensor]:
    """Phi (B, K) in eV and the whole energies (B,) in eV of the structures with other positions and cells."""
    hierarchy, config = batch.hierarchy, network.config
    one_hot = network.one_hot.index_select(0, hierarchy.numbers)
    state, free = network.embedding(one_hot), dict(read_outs(network))
    energy = sum_by_structure(network.isolated_atoms(one_hot), hierarchy.structure, hierarchy.n_structures)
    found = []
    for number, level in enumerate(hierarchy.levels):
        vectors = pair_vectors(level, config.levels[number].radius, positions, cells, hierarchy.structure)
        state, outputs = network.ascend(number, state, vectors, level, hierarchy.numbers, one_hot)
        structure = hierarchy.structure.index_select(0, level.centre)
        energy = energy + sum_by_structure(outputs["energy"], structure, hierarchy.n_structures)
        if number in free:
            of_parts = free[number].features(state[0, :, : network.taus[number + 1].tau[0]])
            species = network.species_of_parts(level, one_hot)  # (P, species)
            for share in species.T:
                of_species = sum_by_structure(share.unsqueeze(-1) * of_parts, structure, hierarchy.n_structures)
                found.append(config.energy_scale * of_species)
    return torch.cat(found, dim=1), energy
