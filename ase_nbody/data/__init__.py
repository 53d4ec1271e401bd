"""Reference data: reading labelled structures, statistics that a training needs, batches."""

from ase_nbody.data.batch import Batch, Sample, collate, prepare
from ase_nbody.data.reading import DataError, LabelledStructure, Weights, read_labelled
from ase_nbody.data.sampling import AtomBatches
from ase_nbody.data.statistics import DataStatistics, fit_isolated_energies, measure

__all__ = [
    "AtomBatches",
    "Batch",
    "DataError",
    "DataStatistics",
    "LabelledStructure",
    "Sample",
    "Weights",
    "collate",
    "fit_isolated_energies",
    "measure",
    "prepare",
    "read_labelled",
]
