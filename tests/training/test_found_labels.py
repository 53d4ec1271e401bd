"""Training and evaluation say what the data hold, and learn nothing from labels that structures cannot have."""

import io

import ase.io
import numpy as np
import torch
from rich.console import Console

from ase_nbody import load_model
from ase_nbody.data import LabelledStructure, read_labelled
from ase_nbody.structure import Structure
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.evaluation import evaluate_model, predict
from ase_nbody.training.run import train


def trained(path):
    """The model file of a configuration, and what its training printed."""
    text = io.StringIO()
    return train(TrainingConfig.from_yaml(path), console=Console(file=text, width=1000)), text.getvalue()


def test_zeros_for_stresses_of_molecules_change_nothing(configuration, frames, tmp_path):
    path = configuration(epochs=1)
    clean, said = trained(path)
    assert (
        "data.extxyz: 24 frames: 24 with energy (named energy), 24 with forces (named forces), 16 with stress" in said
    )
    assert "Left out" not in said

    spoilt = [atoms.copy() for atoms in frames]
    for atoms, original in zip(spoilt, frames, strict=True):
        atoms.calc = original.calc
        if not atoms.pbc.any():
            atoms.calc.results["stress"] = np.zeros(6)
            atoms.info |= {"charge": 1, "spin": 2}
    path = configuration(output="spoilt", epochs=1)
    ase.io.write(tmp_path / "data.extxyz", spoilt)
    for atoms in frames:  # the calculators are shared
        if not atoms.pbc.any():
            del atoms.calc.results["stress"]
    other, said = trained(path)
    assert said.count("Left out: the stress of 8 frames, because structures that are not periodic in three") == 1
    assert said.count("8 frames with a total charge (charge): the model ignores it.") == 1
    assert said.count("8 frames with spin: it is ignored.") == 1
    one, two = (load_model(model).state_dict() for model in (clean, other))
    assert all(torch.equal(one[name], two[name]) for name in one)

    molecules = read_labelled(tmp_path / "data.extxyz", "16:")
    assert "stress" not in evaluate_model(load_model(clean), molecules)


def test_a_label_that_a_structure_cannot_have_is_never_kept(systems, network):
    for name, has_stress in (("molecule", False), ("wire", False), ("slab in a box", False), ("crystal", True)):
        structure = Structure.from_atoms(systems[name]())
        frame = LabelledStructure(structure, -1.0, np.ones((len(structure), 3)), np.zeros((3, 3)))
        assert np.isfinite(frame.stress).all() == has_stress, name
        assert np.isfinite(predict(network, [frame])[0].stress).all() == has_stress, name
        assert ("stress" in evaluate_model(network, [frame])) == has_stress, name


def test_the_command_line_says_it_once(nbody, tmp_path, frames):
    molecules = [atoms.copy() for atoms in frames[-4:]]
    for atoms, original in zip(molecules, frames[-4:], strict=True):
        atoms.info |= {"REF_energy": original.get_potential_energy(), "REF_stress": np.zeros(9), "charge": 1}
        atoms.arrays["REF_forces"] = original.get_forces()
    ase.io.write(tmp_path / "data.extxyz", molecules)
    for command in (("evaluate", "ethanol"), ("lint",)):
        code, out, _ = nbody(*command, tmp_path / "data.extxyz")
        assert code == 0 or command == ("lint",)
        assert out.count("4 frames: 4 with energy (named REF_energy), 4 with forces (named REF_forces)") == 1
        assert out.count("Left out: the stress of 4 frames") == 1
        assert "stress MAE" not in out
    code, out, err = nbody("evaluate", "ethanol", tmp_path / "data.extxyz", "--json")
    assert '"left_out": {\n    "stress": 4\n  }' in out
    assert "4 frames with a total charge (charge): the model ignores it." in err
