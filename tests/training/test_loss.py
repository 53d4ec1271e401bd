"""Loss and errors: missing labels count for nothing, measures and units are right."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from ase_nbody.data import LabelledStructure, Weights, collate, prepare
from ase_nbody.data.labels import BY_NAME
from ase_nbody.potential import evaluate
from ase_nbody.structure import Structure
from ase_nbody.training.loss import Residual, Residuals, errors, loss, unit_of

EQUAL = dict.fromkeys(("forces", "energy", "stress", "charges", "dipole"), 1.0)


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
    assert [len(found[name].error) for name in ("energy", "forces", "stress")] == [1, 2, 1]
    assert set(errors([found])) == {"energy", "energy_per_atom", "forces", "forces_Na", "forces_Cl", "stress"}


def test_without_labels_there_is_no_loss_and_no_error(residuals):
    found = residuals(labelled(molecule("CH3OH")))
    assert loss(found, 1.0, EQUAL) == 0.0
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
    assert loss(found, 1.0, EQUAL) < 1e-3


def test_measures_and_units():
    some = made(
        energy=[0.003, -0.004],
        atoms=[3, 4],
        forces=torch.tensor([[0.002, 0.0, -0.001]]),
        charges=torch.tensor([0.002, -0.004]),
        dipole=torch.tensor([[0.003, 0.0, 0.0]]),
    )
    table = errors([some, some])
    assert table["energy"] == pytest.approx({"mae": 3.5, "rmse": 12.5**0.5})
    assert table["energy_per_atom"] == pytest.approx({"mae": 1.0, "rmse": 1.0})
    assert table["forces"] == pytest.approx({"mae": 1.0, "rmse": (5 / 3) ** 0.5})
    assert table["charges"] == pytest.approx({"mae": 3.0, "rmse": 10**0.5})
    assert table["dipole"] == pytest.approx({"mae": 1.0, "rmse": 3**0.5})
    assert "stress" not in table
    assert [unit_of(name) for name in ("charges", "dipole")] == ["me", "me Angstrom"]


def test_forces_by_element():
    forces = torch.tensor([[0.003, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.006, 0.0]])
    table = errors([made(forces=forces, numbers=torch.tensor([1, 8, 1]))])
    assert set(table) == {"forces", "forces_H", "forces_O"}
    assert table["forces_H"] == pytest.approx({"mae": 1.5, "rmse": 7.5**0.5})
    assert table["forces_O"]["mae"] == 0.0
    assert unit_of("forces_H") == unit_of("forces") == "meV/Angstrom"
    assert unit_of("energy_per_atom") == "meV/atom"


def made(energy=(), atoms=(), forces=None, numbers=None, stress=None, **more):
    """Residuals of these errors, all of weight 1."""
    forces = torch.zeros(0, 3) if forces is None else forces
    stress = torch.zeros(0, 3, 3) if stress is None else stress
    found = {"energy": torch.tensor(energy, dtype=torch.float64), "forces": forces, "stress": stress, **more}
    of_label = {}
    for name, error in found.items():
        count = len(error)
        sizes = torch.tensor(atoms, dtype=torch.int64) if name == "energy" else torch.ones(count, dtype=torch.int64)
        elements = numbers if name == "forces" and numbers is not None else torch.ones(count, dtype=torch.int64)
        of_label[name] = Residual(error, torch.ones(count, dtype=torch.float64), sizes, elements)
    return Residuals(of_label)


KINDS = ["norm", "mse", "mae", "huber"]


@pytest.mark.parametrize("kind", KINDS)
def test_energy_weighs_structures_of_independent_atoms_alike(kind):
    small, large = (loss(made([e], [n]), 1.0, EQUAL, kind=kind) for e, n in ((0.2, 4), (2.0, 400)))
    assert float(small) == pytest.approx(float(large))


@pytest.mark.parametrize("label", ["energy", "forces", "stress"])
def test_a_weight_multiplies_the_share_of_its_label(label, residuals):
    methanol, salt = molecule("CH3OH"), bulk("NaCl", "rocksalt", a=5.4)
    salt.rattle(0.1, seed=0)
    methanol.center(vacuum=4.0)
    methanol.pbc = True  # so that it may have a stress
    value = {"energy": 1.0, "forces": 0.3, "stress": 0.01}[label]
    frames = [labelled(atoms, **{label: value}) for atoms in (methanol, salt)]

    def weighed(first, second):
        weights = [Weights(**{label: weight}) for weight in (first, second)]
        chosen = [replace(frame, weights=weight) for frame, weight in zip(frames, weights, strict=True)]
        return float(loss(residuals(*chosen), 1.0, EQUAL))

    whole, first, second = weighed(1.0, 1.0), weighed(1.0, 0.0), weighed(0.0, 1.0)
    assert min(first, second) > 0.01 * whole
    assert first + second == pytest.approx(whole)
    assert weighed(3.0, 0.5) == pytest.approx(3.0 * first + 0.5 * second)


def test_weights_do_not_change_the_errors(residuals):
    frame = labelled(molecule("CH3OH"), energy=1.0, forces=0.0)
    assert errors([residuals(frame)]) == errors([residuals(replace(frame, weights=Weights(0.0, 5.0, 1.0)))])


def test_kinds_of_misfit():
    """By hand: force errors (3, 0, 4) and (0, 0, 0.1) in units of the scale, delta 0.5."""
    forces = 2.0 * torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.1]], dtype=torch.float64)
    expected = {
        "norm": (5.0 + 0.1) / 2,
        "mse": (9.0 + 16.0 + 0.01) / 6,
        "mae": (3.0 + 4.0 + 0.1) / 6,
        "huber": ((3.0 - 0.25) + (4.0 - 0.25) + 0.5 * 0.1**2 / 0.5) / 6,
    }
    for kind, value in expected.items():
        found = loss(made(forces=forces), 2.0, EQUAL, kind=kind, huber_delta=1.0)
        assert float(found) == pytest.approx(value, abs=1e-6), kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_parts_by_their_counts(kind):
    """With the counts of the whole, the losses of uneven parts add up to that of the whole."""
    draw = torch.Generator().manual_seed(0)

    def part(n):
        forces, stress = torch.randn(3 * n, 3, generator=draw), torch.randn(n - 1, 3, 3, generator=draw)
        more = {"charges": torch.randn(n, generator=draw), "dipole": torch.randn(n, 3, generator=draw)}
        return made([0.1 * i for i in range(n)], [i + 2 for i in range(n)], forces, None, stress, **more)

    parts = [part(1), part(4)]
    whole = Residuals.joined(parts)
    counts = whole.counts()
    assert dict(zip(BY_NAME, counts.tolist(), strict=True)) == {
        "forces": 15.0, "energy": 5.0, "stress": 3.0, "charges": 5.0, "dipole": 5.0
    }  # fmt: skip
    weights = {"forces": 1.0, "energy": 2.0, "stress": 3.0, "charges": 0.5, "dipole": 0.2}
    values = [loss(one, 0.7, weights, kind=kind, counts=counts) for one in parts]
    assert float(sum(values)) == pytest.approx(float(loss(whole, 0.7, weights, kind=kind)), rel=1e-6)


def test_a_batch_without_labels_has_a_gradient_of_zero():
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    nothing = made(forces=torch.zeros(0, 3) * weight)
    loss(nothing, 1.0, EQUAL).backward()
    assert weight.grad == 0.0


@pytest.fixture
def with_charges(network):
    """A function from frames to residuals for made charges of 0.1 e and dipole moments (0.3, 0, 0) e Angstrom."""

    def of(*frames):
        batch = collate(prepare(frames, network.config))
        prediction = evaluate(network, batch.hierarchy, batch.positions, batch.cells)
        charges = torch.full((len(batch.positions),), 0.1, dtype=torch.float64)
        dipole = torch.tensor([[0.3, 0.0, 0.0]], dtype=torch.float64).expand(len(batch.cells), 3)
        return Residuals.of(replace(prediction, outputs={"charges": charges, "dipole": dipole}), batch)

    return of


def test_charges_and_dipole_count_where_prediction_and_reference_have_them(with_charges, residuals):
    methanol = labelled(molecule("CH3OH"))
    frame = replace(methanol, charges=np.full(6, 0.08), dipole=np.array([0.3, 0.0, 0.4]))
    assert errors([residuals(frame)]) == {}
    found = with_charges(frame, methanol, labelled(bulk("NaCl", "rocksalt", a=5.4)))
    assert [len(found[name].error) for name in ("charges", "dipole")] == [6, 1]
    table = errors([found])
    assert set(table) == {"charges", "charges_H", "charges_C", "charges_O", "dipole"}
    assert table["charges"] == pytest.approx({"mae": 20.0, "rmse": 20.0})
    assert table["dipole"] == pytest.approx({"mae": 400.0 / 3.0, "rmse": 400.0 / 3**0.5})
    assert unit_of("charges_H") == "me"
    weights = {"charges": 2.0, "dipole": 5.0}
    expected = 2.0 * 0.02 / 0.1 + 5.0 * 0.4 / (0.1 * 6**0.5)
    assert float(loss(found, 17.0, weights)) == pytest.approx(expected, abs=1e-5)
    lighter = with_charges(replace(frame, weights=Weights(charges=0.5, dipole=0.0)))
    assert float(loss(lighter, 17.0, weights)) == pytest.approx(2.0 * 0.5 * 0.2, abs=1e-5)


def test_without_outputs_the_loss_is_that_of_energy_forces_and_stress(residuals):
    """To the last bit, whatever labels the data carry."""
    frame = labelled(molecule("CH3OH"), energy=1.0, forces=0.1)
    more = replace(frame, charges=np.full(6, 0.1), dipole=np.zeros(3))
    few = {name: EQUAL[name] for name in ("forces", "energy", "stress")}
    assert float(loss(residuals(more), 0.7, EQUAL)) == float(loss(residuals(frame), 0.7, few))
