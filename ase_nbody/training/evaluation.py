"""The errors that a network or a committee makes on labelled structures, and its predictions for them."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from rich.table import Table

from ase_nbody.data import LABELS, Batch, DataError, LabelledStructure, collate, prepare, require_parts
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import evaluate
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.evaluation import LARGEST_RESULT, EvaluationError
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.runtime.memory import MemoryGuard, too_large
from ase_nbody.runtime.threads import fitting_threads, warm_up_vector_functions
from ase_nbody.terminal import plain
from ase_nbody.training.loss import Residuals, errors, predicted_labels, unit_of
from ase_nbody.undisturbed import torch_threads, undisturbed

_ATOMS_PER_BATCH = 500


@undisturbed()
def evaluate_model(
    network: NBodyNetwork | Sequence[NBodyNetwork],
    data: Sequence[LabelledStructure],
    dtype: torch.dtype = torch.float64,
) -> dict[str, dict[str, float]]:
    """Mean absolute and root-mean-square errors of a network on reference data.

    Args:
        network: the network, or the members of a committee with one configuration; their mean is taken. Copies in
            ``dtype`` are evaluated.
        data: labelled structures. Labels that they lack, or that the network does not predict, are left out.
        dtype: precision of the evaluation.

    Returns:
        ``{quantity: {"mae": ..., "rmse": ...}}`` in the units of ``loss.unit_of``; see ``loss.errors``.

    Raises:
        DataError: the data contain species that the network does not know, or lack labels that it needs.
        EvaluationError: a batch of structures does not fit into memory.
    """
    batches = predictions(network, data, dtype)
    return errors([Residuals.of(prediction, batch) for batch, prediction in batches])


def errors_table(table: Mapping[str, Mapping[str, float]], title: str) -> Table:
    """A table to print, with the errors that ``evaluate_model`` returned."""
    shown = Table("quantity", "MAE", "RMSE", "unit", title=plain(title))
    for quantity, measures in table.items():
        shown.add_row(
            quantity.replace("_", " "), f"{measures['mae']:.3f}", f"{measures['rmse']:.3f}", unit_of(quantity)
        )
    return shown


@undisturbed()
def predict(
    network: NBodyNetwork | Sequence[NBodyNetwork],
    data: Sequence[LabelledStructure],
    dtype: torch.dtype = torch.float64,
) -> list[LabelledStructure]:
    """Label structures with the network's predictions; arguments and errors are the same as in ``evaluate_model``."""
    labelled: list[LabelledStructure] = []
    for batch, prediction in predictions(network, data, dtype):
        labelled += _labelled(data, len(labelled), batch, prediction)
    return labelled


@undisturbed()
def evaluate_and_predict(
    network: NBodyNetwork | Sequence[NBodyNetwork],
    data: Sequence[LabelledStructure],
    dtype: torch.dtype = torch.float64,
) -> tuple[dict[str, dict[str, float]], list[LabelledStructure]]:
    """What ``evaluate_model`` and ``predict`` return, from one pass over the data."""
    residuals: list[Residuals] = []
    labelled: list[LabelledStructure] = []
    for batch, prediction in predictions(network, data, dtype):
        residuals.append(Residuals.of(prediction, batch))
        labelled += _labelled(data, len(labelled), batch, prediction)
    return errors(residuals), labelled


def require_finite(model: str, predicted: Sequence[LabelledStructure], places: Sequence[str]) -> None:
    """Refuse a model that gives no numbers, or absurd ones, before any errors are shown: tables would leave them out.

    Args:
        model: its name, for the message.
        predicted: structures with its energies and forces.
        places: what the message calls each of them.

    Raises:
        DataError: a value is not finite or above 1e30.
    """
    for place, frame in zip(places, predicted, strict=True):
        largest = np.max([abs(frame.energy), np.abs(frame.forces).max(initial=0.0)])  # NaN if there is one
        if not largest < LARGEST_RESULT:
            what = f"values above {LARGEST_RESULT:g}" if np.isfinite(largest) else "NaN or infinite values"
            raise DataError(
                f"{model} gives {what} for {place}: look at this structure (nbody lint), and if it is sound, do not "
                "use the model"
            )


def _labelled(
    data: Sequence[LabelledStructure], first: int, batch: Batch, prediction: Prediction
) -> Iterator[LabelledStructure]:
    """The frames of a batch, which begins with frame ``first`` of the data, with the predicted labels."""
    predicted, sizes = predicted_labels(prediction, batch), batch.atoms_per_structure.tolist()
    pieces = {
        label.name: predicted[label.name].detach().double().split(sizes if label.per_atom else 1)
        for label in LABELS
        if label.name in predicted
    }
    for index, frame in enumerate(data[first : first + len(batch.cells)]):
        values: dict[str, Any] = {
            label.name: pieces[label.name][index].numpy().reshape(label.full_shape(len(frame.structure)))
            if label.name in pieces
            else label.missing(len(frame.structure))
            for label in LABELS
        }
        yield LabelledStructure(frame.structure, **values | {"energy": float(values["energy"])})


def predictions(
    network: NBodyNetwork | Sequence[NBodyNetwork], data: Sequence[LabelledStructure], dtype: torch.dtype
) -> Iterator[tuple[Batch, Prediction]]:
    """Each batch of the data with the prediction of the network, or with the mean prediction of a committee.

    Arguments and errors are the same as in ``evaluate_model``.
    """
    warm_up_vector_functions()
    networks = [network] if isinstance(network, NBodyNetwork) else network
    require_parts(data, networks[0].config.layout)
    copies = [for_eager(copy.deepcopy(member).to(dtype).requires_grad_(False)) for member in networks]
    guards = [MemoryGuard(member) for member in copies]
    largest = max((len(frame.structure) for frame in data), default=1)
    step = max(1, _ATOMS_PER_BATCH // max(1, largest))
    for start in range(0, len(data), step):
        batch = collate(prepare(data[start : start + step], networks[0].config))
        system = (batch.hierarchy, batch.positions, batch.cells, batch.total_charges)
        for member, guard in zip(copies, guards, strict=True):
            if guard.foresees_failure(batch.hierarchy):
                last = min(start + step, len(data)) - 1
                raise EvaluationError(f"frames {start} to {last}: {too_large(member, batch.hierarchy)}")
        with torch_threads(fitting_threads(batch.hierarchy)):
            members = [evaluate(member, *system) for member in copies]
        yield batch, Prediction.mean(members)
