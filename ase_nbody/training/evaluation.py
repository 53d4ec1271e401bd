"""Errors of a model, a network or a committee, on labelled structures."""

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from rich.table import Table

from ase_nbody.data import Batch, LabelledStructure, collate, prepare
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import Prediction, evaluate
from ase_nbody.training.loss import Residuals, errors, unit_of

_ATOMS_PER_BATCH = 500


def evaluate_model(
    network: NBodyNetwork | Sequence[NBodyNetwork],
    data: Sequence[LabelledStructure],
    dtype: torch.dtype = torch.float64,
) -> dict[str, dict[str, float]]:
    """Mean absolute and root-mean-square errors of a network on reference data.

    Args:
        network: the network, or the members of a committee of one configuration, whose mean is taken; evaluated as
            copies in ``dtype``.
        data: labelled structures; labels that are missing are left out.
        dtype: precision of the evaluation.

    Returns:
        ``{quantity: {"mae": ..., "rmse": ...}}`` in the units of ``loss.unit_of``; see ``loss.errors``.

    Raises:
        DataError: the data contain species that the network does not know.
    """
    batches = _batches(network, data, dtype)
    return errors([Residuals.of(prediction, batch) for batch, prediction in batches])


def errors_table(table: Mapping[str, Mapping[str, float]], title: str) -> Table:
    """Errors for people, as ``evaluate_model`` gives them."""
    shown = Table("quantity", "MAE", "RMSE", "unit", title=title)
    for quantity, measures in table.items():
        shown.add_row(
            quantity.replace("_", " "), f"{measures['mae']:.3f}", f"{measures['rmse']:.3f}", unit_of(quantity)
        )
    return shown


def predict(
    network: NBodyNetwork | Sequence[NBodyNetwork],
    data: Sequence[LabelledStructure],
    dtype: torch.dtype = torch.float64,
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
    network: NBodyNetwork | Sequence[NBodyNetwork], data: Sequence[LabelledStructure], dtype: torch.dtype
) -> Iterator[tuple[Batch, Prediction]]:
    """Batches of the data and what the network, or the mean of a committee, says of them."""
    networks = [network] if isinstance(network, NBodyNetwork) else network
    exact = [copy.deepcopy(member).to(dtype).requires_grad_(False) for member in networks]
    largest = max((len(frame.structure) for frame in data), default=1)
    step = max(1, _ATOMS_PER_BATCH // max(1, largest))
    for start in range(0, len(data), step):
        batch = collate(prepare(data[start : start + step], networks[0].config))
        members = [evaluate(member, batch.hierarchy, batch.positions, batch.cells) for member in exact]
        yield batch, Prediction.mean(members)
