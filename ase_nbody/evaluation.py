"""Errors of a model on labelled structures."""

import copy
from collections.abc import Sequence

import torch
from ase.data import chemical_symbols

from ase_nbody.data import DataError, LabelledStructure, collate, prepare
from ase_nbody.loss import Residuals, errors
from ase_nbody.network import NBodyNetwork
from ase_nbody.potential import evaluate

_ATOMS_PER_BATCH = 500


def evaluate_model(
    network: NBodyNetwork, data: Sequence[LabelledStructure], dtype: torch.dtype = torch.float64
) -> dict[str, dict[str, float]]:
    """Mean absolute and root-mean-square errors of a network on reference data.

    Args:
        network: the network; it is evaluated as a copy in ``dtype``.
        data: labelled structures; labels that are missing are left out.
        dtype: precision of the evaluation.

    Returns:
        ``{quantity: {"mae": ..., "rmse": ...}}`` in the units of ``loss.UNITS``.

    Raises:
        DataError: the data contain species that the network does not know.
    """
    occurring = {chemical_symbols[number] for frame in data for number in set(frame.structure.numbers.tolist())}
    unknown = sorted(occurring - set(network.config.species))
    if unknown:
        known = ", ".join(network.config.species)
        raise DataError(f"the model knows {known}, but the data contain {', '.join(unknown)}")
    exact = copy.deepcopy(network).to(dtype).requires_grad_(False)
    residuals = []
    largest = max((len(frame.structure) for frame in data), default=1)
    step = max(1, _ATOMS_PER_BATCH // max(1, largest))
    for start in range(0, len(data), step):
        batch = collate(prepare(data[start : start + step], network.config))
        residuals.append(Residuals.of(evaluate(exact, batch.hierarchy, batch.positions, batch.cells), batch))
    return errors(residuals)
