"""What a training writes into the card of its model: the data, the errors, the versions and an example structure."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ase_nbody.data import LabelledStructure
from ase_nbody.files.archive import read_card
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.loss import unit_of
from ase_nbody.training.splits import file_names, sha256_of_files

_LARGEST_EXAMPLE_ATOMS = 500  # positions of larger structures would swamp the card

Errors = Mapping[str, Mapping[str, float]]


def model_card(
    config: TrainingConfig, frames: Mapping[str, Sequence[LabelledStructure]], errors: Mapping[str, Errors]
) -> dict[str, Any]:
    """The card of a model that has been trained, ready to be written as JSON.

    Args:
        config: the configuration of the training, with its number of epochs.
        frames: training, validation and test frames under ``training``, ``validation`` and ``test``; ``test`` is empty
            if there are none.
        errors: errors of the model, as ``evaluate_model`` gives them, under ``validation`` and, if there are test
            frames, ``test``.
    """
    card: dict[str, Any] = {
        **config.card,
        "training data": f"{len(frames['training'])} frames of {file_names(config.data.train)}",
        "training data sha256": sha256_of_files(config.data.train),
        "validation errors": with_units(errors["validation"]),
        "trained with": f"ase-nbody {metadata.version('ase-nbody')}, torch {torch.__version__}, {platform.machine()}",
        "training": config.training.model_dump(mode="json"),
        "example": _example(frames["training"]),
    }
    start = config.network.start_from
    if start is not None:
        card["started from"] = f"{Path(start).name}, {read_card(start)['checksum']}"
    if config.data.test is not None:
        card["test data"] = f"{len(frames['test'])} frames of {file_names(config.data.test)}"
        card["test errors"] = with_units(errors["test"])
    return card


def with_units(errors: Errors) -> dict[str, dict[str, Any]]:
    """The errors of each quantity with their unit, in the form of a model card."""
    return {quantity: {"unit": unit_of(quantity), **measures} for quantity, measures in errors.items()}


def _example(training: Sequence[LabelledStructure]) -> dict[str, Any] | None:
    """A structure that shows what the model is for, as JSON, or None if all structures are too large for a card.

    It is the training structure with the most species and, among those, the one whose largest force is smallest; an
    isolated atom only if there is nothing else.
    """

    def rank(frame: LabelledStructure) -> tuple[bool, int, float]:
        force, structure = float(np.abs(frame.forces).max(initial=0.0)), frame.structure
        return structure.is_isolated_atom(), -len(set(structure.numbers)), force if np.isfinite(force) else np.inf

    small = (frame for frame in training if len(frame.structure) <= _LARGEST_EXAMPLE_ATOMS)
    chosen = min(small, key=rank, default=None)
    if chosen is None:
        return None
    structure = chosen.structure
    charge = {"charge": structure.charge} if structure.charge else {}
    return charge | {
        "numbers": structure.numbers.tolist(),
        "positions": structure.positions.round(6).tolist(),
        "cell": structure.cell.tolist(),
        "pbc": structure.pbc.tolist(),
    }
