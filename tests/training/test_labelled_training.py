"""Networks with levels of labelled parts are trained like others."""

import ase.io
import numpy as np
import pytest
import yaml

from ase_nbody import load_model
from ase_nbody.data import DataError, collate, prepare, read_labelled
from ase_nbody.files.archive import read_card
from ase_nbody.potential import evaluate
from ase_nbody.training.compiled_step import CompiledPotential
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.evaluation import evaluate_model
from ase_nbody.training.molecules import free_molecule
from ase_nbody.training.run import train


@pytest.fixture
def labelled(configuration, frames, tmp_path, tiny):
    """The path of a configuration: environments, then molecules. Each methanol is one, and crystals have none."""
    path = configuration(batch_size=4, epochs=4, compile=True)
    content = yaml.safe_load(path.read_text())
    content["network"]["levels"] = [tiny, {**tiny, "parts": "labels", "l_out": 0}]
    path.write_text(yaml.safe_dump(content))
    copies = []
    for atoms in frames:
        copy = atoms.copy()
        copy.calc = atoms.calc
        copy.set_array("parts", np.full(len(copy), -1 if copy.pbc.any() else 0))
        copies.append(copy)
    ase.io.write(tmp_path / "data.extxyz", copies)
    return path


def test_molecules_are_a_level_that_is_trained(labelled, tmp_path, frames):
    model = train(TrainingConfig.from_yaml(labelled))
    config = load_model(model).config
    assert config.levels[1].mean_children == 6.0
    assert config.levels[1].member_weights == "mass"
    card = read_card(model)
    assert card["features"] == ["contacts", "coverage", "fading", "intermolecular", "labels"]
    assert len(card["card"]["example"]["labels"]) == len(card["card"]["example"]["numbers"])
    errors = evaluate_model([load_model(model)], read_labelled(tmp_path / "data.extxyz"))
    typical = np.concatenate([np.abs(atoms.get_forces()).ravel() for atoms in frames]).mean() * 1000
    assert errors["forces"]["mae"] < typical


@pytest.mark.long
def test_the_compiled_step_is_the_eager_one(labelled, tmp_path, make_labelled_network):
    """There are no ghosts for labelled parts, so the shapes of the batch are compiled as they are."""
    frames = read_labelled(tmp_path / "data.extxyz")[-4:]
    network = make_labelled_network().requires_grad_(True)
    batch = collate(prepare(frames, network.config))
    potential = CompiledPotential(network, virials=True, patience=1)
    found = potential(batch.hierarchy, batch.positions, batch.cells)
    expected = evaluate(network, batch.hierarchy, batch.positions, batch.cells)
    assert potential.failure is None
    assert found.forces.requires_grad
    assert found.forces.detach().numpy() == pytest.approx(expected.forces.numpy(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["training", "validation"])
def test_data_without_labels_are_refused_before_the_training(labelled, frames, name, tmp_path):
    content = yaml.safe_load(labelled.read_text())
    ase.io.write(tmp_path / "plain.extxyz", frames[-4:])
    content["data"]["train" if name == "training" else "validation"] = "plain.extxyz"
    if name == "training":
        content["data"]["validation"] = 1
    labelled.write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match=r"plain\.extxyz, frame 0 \(CH4O\): .*no integer array 'parts'"):
        train(TrainingConfig.from_yaml(labelled))


def test_a_frame_is_named_whatever_batch_it_is_in(labelled, make_labelled_network, tmp_path, monkeypatch):
    monkeypatch.setattr("ase_nbody.training.evaluation._ATOMS_PER_BATCH", 6)
    frames = read_labelled(tmp_path / "data.extxyz")[-4:]
    object.__setattr__(frames[3].structure, "labels", None)
    with pytest.raises(DataError, match="frame 23"):
        evaluate_model(make_labelled_network(), frames)


def test_molecules_for_tight_binding_keep_their_labels(labelled, tmp_path):
    structure = read_labelled(tmp_path / "data.extxyz")[-1].structure
    assert free_molecule(structure).arrays["parts"].tolist() == structure.labels.tolist()
