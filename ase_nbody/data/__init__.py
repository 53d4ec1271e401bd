"""Reference data: the labels, reading labelled structures, the statistics that a training needs, and batches."""

from ase_nbody.data.batch import Batch, LazySamples, Sample, collate, prepare
from ase_nbody.data.found import Found
from ase_nbody.data.labels import LABELS, DataError, Label, LabelledStructure, Weights
from ase_nbody.data.parts import require_parts
from ase_nbody.data.reading import iterate_labelled, read_labelled
from ase_nbody.data.sampling import AtomBatches
from ase_nbody.data.statistics import (
    DataStatistics,
    energies_of_isolated_atoms,
    fit_isolated_energies,
    measure,
)
from ase_nbody.data.store import FrameStore

__all__ = [
    "LABELS",
    "AtomBatches",
    "Batch",
    "DataError",
    "DataStatistics",
    "Found",
    "FrameStore",
    "Label",
    "LabelledStructure",
    "LazySamples",
    "Sample",
    "Weights",
    "collate",
    "energies_of_isolated_atoms",
    "fit_isolated_energies",
    "iterate_labelled",
    "measure",
    "prepare",
    "read_labelled",
    "require_parts",
]
