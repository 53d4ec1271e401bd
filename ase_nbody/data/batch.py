"""Batches: structures side by side in one hierarchy, with their labels."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ase_nbody.data.reading import DataError, LabelledStructure
from ase_nbody.hierarchy.build import build_hierarchy
from ase_nbody.hierarchy.tables import Hierarchy, concatenate
from ase_nbody.network.config import NBodyConfig

_CHUNK = 64  # samples that a worker makes at a time
_PROBES = 32  # samples from which the memory of all is estimated
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

    @property
    def memory(self) -> int:
        """Bytes of all tensors."""
        tensors = [*self.hierarchy.tensors(), *(getattr(self, name) for name in _TENSORS)]
        return sum(tensor.element_size() * tensor.numel() for tensor in tensors)

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(
            self.hierarchy.to(device),
            *(getattr(self, name).to(device) for name in _TENSORS),
        )


Sample = Batch


def prepare(data: Sequence[LabelledStructure], config: NBodyConfig, workers: int = 0) -> list[Sample]:
    """Samples with the hierarchy that a network of ``config`` needs.

    Args:
        data: labelled structures.
        config: of the network.
        workers: processes that make them; the samples do not depend on it.

    Raises:
        DataError: the data contain species that the network does not know.
    """
    samples = LazySamples(data, config)
    if not workers:
        return [samples[index] for index in range(len(samples))]
    # As bytes, since tensors would come in shared memory, of which there is not enough for so many.
    chunks = DataLoader(samples, _CHUNK, num_workers=workers, collate_fn=pickle.dumps)
    return [sample for chunk in chunks for sample in pickle.loads(chunk)]


class LazySamples(Dataset[Sample]):
    """The same samples, each made when it is asked for: for sets whose neighbour tables do not fit into memory."""

    def __init__(self, data: Sequence[LabelledStructure], config: NBodyConfig) -> None:
        occurring = {number for frame in data for number in np.unique(frame.structure.numbers).tolist()}
        unknown = sorted({chemical_symbols[number] for number in occurring} - set(config.species))
        if unknown:
            known = ", ".join(config.species)
            raise DataError(f"the model knows {known}, but the data contain {', '.join(unknown)}")
        self.data, self.layout = data, config.layout

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        frame = self.data[index]
        structure = frame.structure
        return Batch(
            hierarchy=build_hierarchy(structure, self.layout),
            positions=torch.tensor(structure.positions),
            cells=torch.tensor(structure.cell).unsqueeze(0),
            energy=torch.tensor([frame.energy], dtype=torch.float64),
            forces=torch.tensor(frame.forces),
            stress=torch.tensor(frame.stress).unsqueeze(0),
            weights=torch.tensor([frame.weights], dtype=torch.float64),
        )

    @property
    def memory(self) -> int:
        """Bytes that all samples would take, estimated from some."""
        step = max(1, len(self) // _PROBES)
        sizes = [self[index].memory for index in range(0, len(self), step)]
        return sum(sizes) * len(self) // max(1, len(sizes))


def collate(samples: Sequence[Sample], multiple: int = 1) -> Batch:
    """One batch of several samples; neighbour tables are padded to a ``multiple`` (see ``concatenate``)."""
    return Batch(
        concatenate([sample.hierarchy for sample in samples], multiple),
        *(torch.cat([getattr(sample, name) for sample in samples]) for name in _TENSORS),
    )
