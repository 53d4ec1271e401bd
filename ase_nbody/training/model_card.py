"""What a training writes into the card of its model: the data, the errors, the versions and an example structure."""

import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ase_nbody.data import LabelledStructure
from ase_nbody.electrons import lowest_multiplicity
from ase_nbody.text import count_of
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.loss import unit_of
from ase_nbody.training.origin import Origin
from ase_nbody.training.splits import file_names

_LARGEST_EXAMPLE_ATOMS = 500  # positions of larger structures would swamp the card

Errors = Mapping[str, Mapping[str, float]]


def model_card(
    config: TrainingConfig, frames: Mapping[str, Sequence[LabelledStructure]], origin: Origin, validation: Errors
) -> dict[str, Any]:
    """The card of a model that has been trained, ready to be written as JSON.

    Args:
        config: the configuration of the training, with its number of epochs.
        frames: training frames under ``training``.
        origin: the digests of the files, taken when they were read.
        validation: errors on the validation frames, as ``evaluate_model`` gives them.
    """
    card: dict[str, Any] = {
        **config.card,
        "training data": f"{count_of(len(frames['training']), 'frame')} of {file_names(config.data.train)}",
        "training data sha256": origin.digests["data.train"],
        "validation errors": with_units(validation),
        "trained with": f"ase-nbody {metadata.version('ase-nbody')}, torch {torch.__version__}, {platform.machine()}",
        "training": config.training.model_dump(mode="json"),
    }
    if config.network.head is None:  # otherwise the model has an example
        with_labels = any(level.is_labelled for level in config.network.levels)
        card["example"] = _example(frames["training"], with_labels=with_labels)
    if config.data.replay:
        card["replayed"] = f"{file_names(config.data.replay)}, a share of at most {config.data.replay_share:g}"
    if config.network.has_start:
        card["started from"] = f"{Path(str(config.network.start_from)).name}, {origin.digests['network.start_from']}"
    return card


def with_test_errors(card: Mapping[str, Any], config: TrainingConfig, n_frames: int, errors: Errors) -> dict[str, Any]:
    """The card with the errors on ``n_frames`` frames of ``data.test``."""
    data = f"{count_of(n_frames, 'frame')} of {file_names(config.data.test or ())}"
    return {**card, "test data": data, "test errors": with_units(errors)}


def with_units(errors: Errors) -> dict[str, dict[str, Any]]:
    """The errors of each quantity with their unit, in the form of a model card. JSON has no NaN and no infinity."""
    return {
        quantity: {"unit": unit_of(quantity), **measures}
        for quantity, measures in errors.items()
        if all(map(math.isfinite, measures.values()))
    }


def _example(training: Sequence[LabelledStructure], *, with_labels: bool) -> dict[str, Any] | None:
    """A structure that shows what the model is for, as JSON, or None if all structures are too large for a card.

    It is the training structure with the most species and, among those, the one whose largest force is smallest; an
    isolated atom only if there is nothing else. Its labels are there if the network needs them, and its spin if it is
    not the lowest: earlier releases do not know them.
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
    labels = {"labels": structure.labels.tolist()} if with_labels and structure.labels is not None else {}
    has_spin = structure.spin_multiplicity != lowest_multiplicity(structure.electrons)
    spin = {"multiplicity": structure.multiplicity} if has_spin else {}
    return (
        charge
        | labels
        | spin
        | {
            "numbers": structure.numbers.tolist(),
            "positions": structure.positions.round(6).tolist(),
            "cell": structure.cell.tolist(),
            "pbc": structure.pbc.tolist(),
        }
    )
