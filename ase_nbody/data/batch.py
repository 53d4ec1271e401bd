"""Batches: structures side by side in one hierarchy, with their labels."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ase_nbody.data.labels import LABELS, DataError, LabelledStructure
from ase_nbody.data.parts import require_parts
from ase_nbody.hierarchy.build import build_hierarchy
from ase_nbody.hierarchy.tables import Hierarchy, concatenate
from ase_nbody.network.config import NBodyConfig

_SAMPLES_PER_CHUNK = 64  # a worker makes this number at a time
_PROBED_SAMPLES = 32  # at least this number is made to estimate the memory of all samples


@dataclass(frozen=True)
class Batch:
    """B labelled structures with N atoms in all. A sample is a batch of one structure.

    Attributes:
        hierarchy: parts and edges.
        positions: (N, 3) in Angstrom, float64.
        cells: (B, 3, 3) in Angstrom, float64.
        total_charges: (B,) in e, float64.
        labels: values of each label of ``data/labels.py``, by name: one for each structure (B, ...) or atom (N, ...),
            in the unit of the label, float64; NaN where it is missing.
        weights: how much each label counts in the loss, by name: (B,), float64.
    """

    hierarchy: Hierarchy
    positions: Tensor
    cells: Tensor
    total_charges: Tensor
    labels: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]

    @property
    def atoms_per_structure(self) -> Tensor:
        """Number of atoms of each structure (B,), int64."""
        return torch.bincount(self.hierarchy.structure, minlength=self.hierarchy.n_structures)

    @property
    def memory(self) -> int:
        """Size of all tensors in bytes."""
        geometry = (self.positions, self.cells, self.total_charges)
        tensors = [*self.hierarchy.tensors(), *geometry, *self.labels.values(), *self.weights.values()]
        return sum(tensor.element_size() * tensor.numel() for tensor in tensors)

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to another device."""
        return Batch(
            hierarchy=self.hierarchy.to(device),
            positions=self.positions.to(device),
            cells=self.cells.to(device),
            total_charges=self.total_charges.to(device),
            labels={name: values.to(device) for name, values in self.labels.items()},
            weights={name: weights.to(device) for name, weights in self.weights.items()},
        )


Sample = Batch


def prepare(data: Sequence[LabelledStructure], config: NBodyConfig, workers: int = 0) -> list[Sample]:
    """Make samples with the hierarchy that a network of ``config`` needs.

    Args:
        data: labelled structures.
        config: configuration of the network.
        workers: number of processes that make the samples; 0: this one makes them. The samples are the same.

    Raises:
        DataError: the data contain species that the network does not know, or lack labels that it needs.
    """
    samples = LazySamples(data, config)
    if not workers:
        return [samples[index] for index in range(len(samples))]
    # Workers send bytes. Tensors would go through shared memory, which is too small for those of a large set.
    chunks = DataLoader(samples, _SAMPLES_PER_CHUNK, num_workers=workers, collate_fn=pickle.dumps)
    return [sample for chunk in chunks for sample in pickle.loads(chunk)]


class LazySamples(Dataset[Sample]):
    """The samples of ``prepare``, each made only when it is asked for: a large set's tables do not fit into memory."""

    def __init__(self, data: Sequence[LabelledStructure], config: NBodyConfig) -> None:
        occurring = {number for frame in data for number in np.unique(frame.structure.numbers).tolist()}
        unknown = sorted({chemical_symbols[number] for number in occurring} - set(config.species))
        if unknown:
            known = ", ".join(config.species)
            raise DataError(f"the model knows {known}, but the data contain {', '.join(unknown)}")
        require_parts(data, config.layout)
        self.data, self.layout = data, config.layout

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        frame = self.data[index]
        structure = frame.structure
        labels = {}
        for label in LABELS:
            values = torch.tensor(getattr(frame, label.name), dtype=torch.float64)
            labels[label.name] = values if label.per_atom else values.unsqueeze(0)
        weights = frame.weights._asdict()
        return Batch(
            hierarchy=build_hierarchy(structure, self.layout),
            positions=torch.tensor(structure.positions),
            cells=torch.tensor(structure.cell).unsqueeze(0),
            total_charges=torch.tensor([structure.charge], dtype=torch.float64),
            labels=labels,
            weights={name: torch.tensor([weight], dtype=torch.float64) for name, weight in weights.items()},
        )

    @property
    def memory(self) -> int:
        """Size of all samples together in bytes, estimated from some of them."""
        step = max(1, len(self) // _PROBED_SAMPLES)
        sizes = [self[index].memory for index in range(0, len(self), step)]
        return sum(sizes) * len(self) // max(1, len(sizes))


def collate(samples: Sequence[Sample], multiple: int = 1) -> Batch:
    """Join samples into one batch. Widths of neighbour tables are padded to a ``multiple`` (see ``concatenate``)."""

    def joined(select: Callable[[Sample], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.cat([select(sample)[name] for sample in samples]) for name in select(samples[0])}

    return Batch(
        hierarchy=concatenate([sample.hierarchy for sample in samples], multiple),
        positions=torch.cat([sample.positions for sample in samples]),
        cells=torch.cat([sample.cells for sample in samples]),
        total_charges=torch.cat([sample.total_charges for sample in samples]),
        labels=joined(lambda sample: sample.labels),
        weights=joined(lambda sample: sample.weights),
    )
