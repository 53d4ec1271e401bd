"""Partial charges and dipole moments are learnt, conserve charge, and show up wherever errors do."""

import csv

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import LevelConfig, NBodyConfig, NBodyNetwork, load_model
from ase_nbody.data import collate, prepare, read_labelled
from ase_nbody.potential import evaluate
from ase_nbody.training.compiled_step import CompiledPotential
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.evaluation import evaluate_model, predict
from ase_nbody.training.loss import Residuals, loss
from ase_nbody.training.run import train

ELECTRONEGATIVITY = {1: 2.2, 6: 2.55, 8: 3.44}


def made_charges_and_dipole(atoms):
    """A made model: charge flows along pairs towards the more electronegative atom, and pairs polarise both ends."""
    vectors = atoms.positions[None, :, :] - atoms.positions[:, None, :]  # [i, j] from i to j
    nearness = np.exp(-((vectors**2).sum(-1)))
    np.fill_diagonal(nearness, 0.0)
    strength = np.array([ELECTRONEGATIVITY[number] for number in atoms.numbers])
    charges = (nearness * (strength[None, :] - strength[:, None])).sum(1) + atoms.info["charge"] / len(atoms)
    polarisation = 0.3 * (strength[:, None, None] * nearness[:, :, None] * vectors).sum(1)
    arms = atoms.positions - atoms.get_center_of_mass()
    return charges, (charges[:, None] * arms + polarisation).sum(0)


def labelled(name, charge, seed):
    atoms = molecule(name)
    atoms.rattle(0.06, seed=seed)
    atoms.rotate(73.0 * seed, (1, seed, 2), center="COM")
    atoms.info["charge"] = charge
    charges, dipole = made_charges_and_dipole(atoms)
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, charges=charges, dipole=dipole, **results)
    return atoms


@pytest.fixture(scope="module")
def molecules():
    """Twenty rattled molecules of water and methanol, every fourth of them an ion."""
    return [labelled(("H2O", "CH3OH")[seed % 2], (0, 0, 0, 1)[seed % 4], seed) for seed in range(20)]


@pytest.fixture
def trained(configuration, molecules, tmp_path):
    """Trains a tiny network on the molecules and returns the path of its model."""

    def run(output, **training):
        options = {"epochs": 2, "batch_size": 1, "charges_weight": 1.0, "dipole_weight": 1.0, **training}
        path = configuration(output=output, **options)
        ase.io.write(tmp_path / "data.extxyz", molecules)
        content = yaml.safe_load(path.read_text()) | {"report": True}
        content["network"]["outputs"] = ["charges"]
        path.write_text(yaml.safe_dump(content))
        return train(TrainingConfig.from_yaml(path))

    return run


def test_the_made_charges_are_those_of_a_molecule(molecules):
    for atoms in molecules:
        assert atoms.get_charges().sum() == pytest.approx(atoms.info["charge"], abs=1e-12)
    assert max(np.abs(atoms.get_charges()).max() for atoms in molecules) > 0.2
    assert min(np.linalg.norm(atoms.get_dipole_moment()) for atoms in molecules) > 0.1


def test_training_halves_the_errors_of_charges_and_dipole(trained, tmp_path):
    start = load_model(trained("start", muon_rate=1e-6, adam_rate=1e-6))
    end = load_model(trained("end", muon_rate=0.02, adam_rate=0.02))
    frames = read_labelled(tmp_path / "data.extxyz")
    before, after = evaluate_model(start, frames), evaluate_model(end, frames)
    for quantity in ("charges", "dipole"):
        assert after[quantity]["mae"] < 0.5 * before[quantity]["mae"], quantity
    assert after["forces"]["mae"] < before["forces"]["mae"]

    for frame, found in zip(frames, predict(end, frames), strict=True):
        assert found.charges.sum() == pytest.approx(frame.structure.charge, abs=1e-10)
        assert found.dipole.shape == (3,)
    assert sum(frame.structure.charge == 1.0 for frame in frames) == 5
    committee = evaluate_model([start, end], frames)
    assert after["charges"]["mae"] < committee["charges"]["mae"] < before["charges"]["mae"]

    with open(tmp_path / "end" / "metrics.csv", newline="") as file:
        columns = next(csv.reader(file))
    assert {"charges mae (me)", "charges_O rmse (me)", "dipole mae (me Angstrom)"} < set(columns)
    assert {path.stem for path in (tmp_path / "end" / "figures").glob("*.png")} > {"parity_charges", "parity_dipole"}
    assert "<td>me Angstrom</td>" in (tmp_path / "end" / "report.html").read_text()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_compiled_step_has_the_charges_of_the_eager_one(molecules, tiny, tmp_path):
    ase.io.write(tmp_path / "data.extxyz", molecules[:4])
    torch.manual_seed(0)
    config = NBodyConfig(species=("H", "C", "O"), levels=(LevelConfig(**tiny),), outputs=("charges",))
    network = NBodyNetwork(config).to(torch.float32)
    batch = collate(prepare(read_labelled(tmp_path / "data.extxyz"), network.config))
    system = (batch.hierarchy, batch.positions, batch.cells, batch.total_charges)

    def gradients(prediction):
        network.zero_grad()
        loss(Residuals.of(prediction, batch), 1.0, {"forces": 1.0, "charges": 1.0, "dipole": 1.0}).backward()
        return [weight.grad.clone() for weight in network.parameters()]

    compiled = CompiledPotential(network, virials=False, patience=1)
    found, eager = compiled(*system), evaluate(network, *system, create_graph=True, virials=False)
    assert len(compiled._compiled) == 1
    for name in ("charges", "dipole"):
        torch.testing.assert_close(found.outputs[name], eager.outputs[name], rtol=1e-4, atol=1e-5)
    for of_compiled, of_eager in zip(gradients(found), gradients(eager), strict=True):
        torch.testing.assert_close(of_compiled, of_eager, rtol=1e-3, atol=1e-4)
