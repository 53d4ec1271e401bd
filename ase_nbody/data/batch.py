"""Batches: structures side by side in one hierarchy, with their labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from ase.data import chemical_symbols
from torch import Tensor

from ase_nbody.data.reading import DataError, LabelledStructure
from ase_nbody.hierarchy import Hierarchy, build_hierarchy, concatenate
from ase_nbody.neighbours import find_pairs
from ase_nbody.network import NBodyConfig

_TENSORS = ("positions", "cells", "energy", "forces", "stress", "weights")


@dataclass(frozen=True)
class Batch:
    """B labelled structures with N atoms in all; a sample is a batch of one. Missing labels are NaN.

    Attributes:
        hierarchy: parts and edges.
        positions: (N, 3) in Angstrom, float64.
        cells: (B, 3, 3) in Angstrom, float64.
        energy: (B,) in eV, float64.
        forces: (N, 3) in eV/Angstrom, float64.
        stress: (B, 3, 3) in eV/Angstrom^3, float64.
        weights: of energy, forces and stress in the loss (B, 3), float64.
    """

    hierarchy: Hierarchy
    positions: Tensor
    cells: Tensor
    energy: Tensor
    forces: Tensor
    stress: Tensor
    weights: Tensor

    @property
    def atoms_per_structure(self) -> Tensor:
        """Number of atoms of each structure (B,), int64."""
        return torch.bincount(self.hierarchy.structure, minlength=self.hierarchy.n_structures)

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(
            self.hierarchy.to(device),
            *(getattr(self, name).to(device) for name in _TENSORS),
        )


Sample = Batch


def prepare(data: Sequence[LabelledStructure], config: NBodyConfig) -> list[Sample]:
    """Samples with the hierarchy that a network of ``config`` needs.

    Raises:
        DataError: the data contain species that the network does not know.
    """
    occurring = {chemical_symbols[number] for frame in data for number in set(frame.structure.numbers.tolist())}
    unknown = sorted(occurring - set(config.species))
    if unknown:
        known = ", ".join(config.species)
        raise DataError(f"the model knows {known}, but the data contain {', '.join(unknown)}")
    samples = []
    for frame in data:
        structure = frame.structure
        samples.append(
            Batch(
                hierarchy=build_hierarchy(structure, find_pairs(structure, config.cutoff), config.layout),
                positions=torch.tensor(structure.positions),
                cells=torch.tensor(structure.cell).unsqueeze(0),
                energy=torch.tensor([frame.energy], dtype=torch.float64),
                forces=torch.tensor(frame.forces),
                stress=torch.tensor(frame.stress).unsqueeze(0),
                weights=torch.tensor([frame.weights], dtype=torch.float64),
            )
        )
    return samples


def collate(samples: Sequence[Sample], multiple: int = 1) -> Batch:
    """One batch of several samples; neighbour tables are padded to a ``multiple`` (see ``concatenate``)."""
    return Batch(
        concatenate([sample.hierarchy for sample in samples], multiple),
        *(torch.cat([getattr(sample, name) for sample in samples]) for name in _TENSORS),
    )
