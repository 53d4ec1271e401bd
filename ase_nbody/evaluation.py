"""Errors of a model on labelled structures."""

import copy
from collections.abc import Iterator, Sequence

import torch

from ase_nbody.data import Batch, LabelledStructure, collate, prepare
from ase_nbody.loss import Residuals, errors
from ase_nbody.network import NBodyNetwork
from ase_nbody.potential import Prediction, evaluate

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
    batches = _batches(network, data, dtype)
    return errors([Residuals.of(prediction, batch) for batch, prediction in batches])


def predict(
    network: NBodyNetwork, data: Sequence[LabelledStructure], dtype: torch.dtype = torch.float64
) -> list[LabelledStructure]:
    """The same structures, labelled by the network; arguments and errors as of ``evaluate_model``."""
    labelled: list[LabelledStructure] = []
    for batch, prediction in _batches(network, data, dtype):
        sizes = batch.atoms_per_structure.tolist()
        pieces = zip(
            data[len(labelled) : len(labelled) + len(sizes)],
            prediction.energy.tolist(),
            prediction.forces.double().split(sizes),
            prediction.virials.split(sizes),
            strict=True,
        )
        for frame, energy, forces, virials in pieces:
            volume = frame.structure.volume if frame.structure.pbc.all() else float("nan")
            stress = virials.sum(0).numpy() / volume
            labelled.append(LabelledStructure(frame.structure, energy, forces.numpy(), stress))
    return labelled


def _batches(
    network: NBodyNetwork, data: Sequence[LabelledStructure], dtype: torch.dtype
) -> Iterator[tuple[Batch, Prediction]]:
    """Batches of the data and what the network says of them."""
    exact = copy.deepcopy(network).to(dtype).requires_grad_(False)
    largest = max((len(frame.structure) for frame in data), default=1)
    step = max(1, _ATOMS_PER_BATCH // max(1, largest))
    for start in range(0, len(data), step):
        batch = collate(prepare(data[start : start + step], network.config))
        yield batch, evaluate(exact, batch.hierarchy, batch.positions, batch.cells)
