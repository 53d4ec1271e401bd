"""Loss and errors: missing labels count for nothing, measures and units are right."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from ase_nbody.data import LabelledStructure, Weights, collate, prepare
from ase_nbody.loss import Residuals, errors, loss
from ase_nbody.potential import evaluate
from ase_nbody.structure import Structure


def labelled(atoms, energy=np.nan, forces=np.nan, stress=np.nan):
    structure = Structure.from_atoms(atoms)
    return LabelledStructure(structure, energy, np.full((len(atoms), 3), forces), np.full((3, 3), stress))


@pytest.fixture
def residuals(network):
    """A function from labelled frames to the network's residuals."""

    def of(*frames):
        batch = collate(prepare(frames, network.config))
        return Residuals.of(evaluate(network, batch.hierarchy, batch.positions, batch.cells), batch)

    return of


def test_missing_labels_are_left_out(residuals):
    methanol, salt = molecule("CH3OH"), bulk("NaCl", "rocksalt", a=5.4)
    found = residuals(labelled(methanol, energy=1.0), labelled(salt, forces=0.0), labelled(salt, stress=0.0))
    assert (len(found.energy), len(found.forces), len(found.stress)) == (1, 2, 1)
    assert set(errors([found])) == {"energy", "energy_per_atom", "forces", "stress"}


def test_without_labels_there_is_no_loss_and_no_error(residuals):
    found = residuals(labelled(molecule("CH3OH")))
    assert loss(found, 1.0, 1.0, 1.0) == 0.0
    assert errors([found]) == {}


def test_residuals_vanish_for_the_prediction_itself(residuals, predict, network):
    salt = bulk("NaCl", "rocksalt", a=5.4)
    salt.rattle(0.1, seed=0)
    prediction = predict(network, salt)
    stress = prediction.virials.sum(0).numpy() / salt.get_volume()
    frame = LabelledStructure(Structure.from_atoms(salt), float(prediction.energy), prediction.forces.numpy(), stress)
    found = residuals(frame)
    for quantity, measures in errors([found]).items():
        assert measures["rmse"] < 1e-8, quantity
    assert loss(found, 1.0, 1.0, 1.0) < 1e-3


def test_measures_and_units():
    made = Residuals(
        energy=torch.tensor([0.003, -0.004]),
        energy_per_atom=torch.tensor([0.001, -0.001]),
        forces=torch.tensor([[0.002, 0.0, -0.001]]),
        stress=torch.zeros(0, 3, 3),
    )
    table = errors([made, made])
    assert table["energy"] == pytest.approx({"mae": 3.5, "rmse": 12.5**0.5})
    assert table["forces"] == pytest.approx({"mae": 1.0, "rmse": (5 / 3) ** 0.5})
    assert "stress" not in table


def test_energy_weighs_structures_of_independent_atoms_alike():
    def one(count, error):
        empty = torch.zeros(0, 3)
        return Residuals(torch.tensor([error]), torch.tensor([error / count]), empty, torch.zeros(0, 3, 3))

    small, large = loss(one(4, 0.2), 1.0, 1.0, 1.0), loss(one(400, 2.0), 1.0, 1.0, 1.0)
    assert float(small) == pytest.approx(float(large))


@pytest.mark.parametrize("label", ["energy", "forces", "stress"])
def test_a_weight_multiplies_the_share_of_its_label(label, residuals):
    methanol, salt = molecule("CH3OH"), bulk("NaCl", "rocksalt", a=5.4)
    salt.rattle(0.1, seed=0)
    value = {"energy": 1.0, "forces": 0.3, "stress": 0.01}[label]
    frames = [labelled(atoms, **{label: value}) for atoms in (methanol, salt)]

    def weighed(first, second):
        weights = [Weights(**{label: weight}) for weight in (first, second)]
        chosen = [replace(frame, weights=weight) for frame, weight in zip(frames, weights, strict=True)]
        return float(loss(residuals(*chosen), 1.0, 1.0, 1.0))

    whole, first, second = weighed(1.0, 1.0), weighed(1.0, 0.0), weighed(0.0, 1.0)
    assert min(first, second) > 0.01 * whole
    assert first + second == pytest.approx(whole)
    assert weighed(3.0, 0.5) == pytest.approx(3.0 * first + 0.5 * second)


def test_weights_do_not_change_the_errors(residuals):
    frame = labelled(molecule("CH3OH"), energy=1.0, forces=0.0)
    assert errors([residuals(frame)]) == errors([residuals(replace(frame, weights=Weights(0.0, 5.0, 1.0)))])
