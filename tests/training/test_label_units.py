"""Labels in another unit are named, also where the model knows them only roughly."""

import dataclasses

import numpy as np
import pytest
from ase import units
from ase.build import bulk

from ase_nbody.data import LabelledStructure
from ase_nbody.structure import Structure
from ase_nbody.training.label_units import find_label_units

KBAR = 10.0 / units.GPa
NOISE = 1.0  # of the size of the labels: the cosine between labels and predictions is 0.7


def pairs(n_frames: int, factor: float, noise: float) -> tuple[list[LabelledStructure], list[LabelledStructure]]:
    """Frames with stresses of any unit, and a rough model's predictions of them in eV/Angstrom^3."""
    rng = np.random.default_rng(0)
    structure = Structure.from_atoms(bulk("Si"))
    data, predicted = [], []
    for _ in range(n_frames):
        stress, error = rng.normal(scale=0.01, size=(2, 3, 3))
        model = LabelledStructure(structure, 0.0, np.full((2, 3), np.nan), (stress + stress.T) / 2)
        label = (model.stress + noise * (error + error.T) / 2) / np.hypot(1.0, noise)  # of the size of the prediction
        predicted.append(model)
        data.append(dataclasses.replace(model, stress=factor * label))
    return data, predicted


@pytest.mark.parametrize(
    ("factor", "unit"), [(KBAR, "kbar"), (-KBAR, "kbar with the opposite sign"), (1.0 / units.GPa, "GPa")]
)
def test_a_rough_model_names_the_unit(factor, unit):
    (found,) = find_label_units(*pairs(12, factor, NOISE))
    assert found.label == "stress"
    assert found.unit.startswith(unit)


@pytest.mark.parametrize(
    ("n_frames", "factor", "noise"),
    [
        (12, 1.0, NOISE),  # the model is rough, and the unit is right
        (12, -1.0, NOISE),  # of its own size, a rough model may be wrong about the sign
        (12, KBAR / 3.0, NOISE),  # no unit that we know
        (12, KBAR, 4.0),  # the model knows nothing
        (4, KBAR, 0.0),  # too few frames
    ],
)
def test_nothing_is_said_without_evidence(n_frames, factor, noise):
    assert not find_label_units(*pairs(n_frames, factor, noise))
