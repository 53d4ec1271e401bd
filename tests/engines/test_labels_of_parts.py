"""Labels of parts on their way through calculators, files, data sets, dynamics and checks."""

import json
import re

import ase
import ase.build
import ase.io
import numpy as np
import pytest
import torch
from ase import units
from ase.calculators.calculator import CalculatorSetupError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet
from torch.fx.experimental.proxy_tensor import make_fx

from ase_nbody import LevelConfig, NBodyCalculator, NBodyConfig, PartsWarning, label_molecules, load_model, save_model
from ase_nbody.checks import run_checks
from ase_nbody.data import DataError, FrameStore, LabelledStructure, collate, measure, prepare, read_labelled
from ase_nbody.dynamics import ResumableRun
from ase_nbody.dynamics.files import ResumeError
from ase_nbody.engines import evaluate_together
from ase_nbody.files.archive import read_card
from ase_nbody.files.example import example_structure
from ase_nbody.files.tensor_file import ModelFileError
from ase_nbody.potential import evaluate
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.compiled import pure_evaluation
from ase_nbody.runtime.memory import MostMemory, needed_memory, too_large
from ase_nbody.structure import Structure
from ase_nbody.testing import assert_conservative
from ase_nbody.training.said import said_of_parts

# --- the calculator --------------------------------------------------------------------------------------------------


def test_the_labels_are_watched(labelled_network, network, liquid):
    """New labels are a new calculation, alone and beside others; other models do not look at them."""
    other = liquid.copy()
    other.arrays["parts"][0] = -1
    energies = [NBodyCalculator(labelled_network).get_potential_energy(atoms) for atoms in (liquid, other)]
    assert abs(energies[0] - energies[1]) > 1e-3
    atoms = liquid.copy()
    atoms.calc = NBodyCalculator(labelled_network)
    found = [atoms.get_potential_energy()]
    atoms.arrays["parts"][0] = -1
    found.append(atoms.get_potential_energy())
    evaluate_together(NBodyCalculator(labelled_network), [atoms])
    atoms.arrays["parts"][0] = 0
    found.append(atoms.get_potential_energy())
    atoms.arrays["parts"][0] = -1
    found.append(atoms.get_potential_energy())
    assert found == pytest.approx([*energies, *energies], rel=1e-10)

    atoms.calc = NBodyCalculator(network)
    atoms.get_potential_energy()
    atoms.arrays["parts"][0] = 0
    assert not atoms.calc.calculation_required(atoms, ["energy"])


def test_labels_without_a_sign_are_taken_as_they_are_or_refused(labelled_network, network, liquid):
    """The largest one became -1, and its atoms belonged to no part."""
    atoms, expected = liquid.copy(), NBodyCalculator(labelled_network).get_potential_energy(liquid)
    atoms.arrays["parts"] = atoms.arrays["parts"].astype(np.uint64)
    assert NBodyCalculator(labelled_network).get_potential_energy(atoms) == expected
    atoms.arrays["parts"][1] = 2**64 - 1
    with pytest.raises(CalculatorSetupError, match=r"atom 1 has a label of 2\^63 or more"):
        NBodyCalculator(labelled_network).get_potential_energy(atoms)
    NBodyCalculator(network).get_potential_energy(atoms)  # looks at no labels


@pytest.mark.parametrize("change", ["removed", "other array"])
def test_labels_that_go_are_noticed(labelled_network, liquid, change):
    liquid.calc = NBodyCalculator(labelled_network)
    energy = liquid.get_potential_energy()
    labels = liquid.arrays.pop("parts")
    if change == "other array":
        liquid.set_array("mol-id", labels)
        assert liquid.get_potential_energy() == energy
        return
    with pytest.raises(CalculatorSetupError, match="no integer array 'parts'"):
        liquid.get_potential_energy()


def test_structures_in_a_batch_are_refused_by_number(labelled_network, liquid):
    with pytest.raises(CalculatorSetupError, match=r"structure 1: .*no integer array 'parts'"):
        NBodyCalculator(labelled_network).evaluate([liquid, ase.build.molecule("H2O")])


def test_native_code_is_equal(make_labelled_network, liquid, tmp_path, monkeypatch):
    """One labelled level above atoms and one above that, each compiled for any number of members."""
    monkeypatch.setenv("NBODY_CACHE", str(tmp_path))
    small = {"channels": 4, "l_max": 1, "body_order": 2, "hidden": 4, "n_basis": 4, "mean_children": 2.0}
    levels = (
        LevelConfig(radius=3.4, l_out=1, **small),
        LevelConfig(parts="labels", radius=3.0, l_out=1, **small),
        LevelConfig(parts="labels", radius=4.5, l_out=0, member_weights="equal", **small),
    )
    network = make_labelled_network(levels=levels)
    eager, compiled = (NBodyCalculator(network, compile=wanted) for wanted in (False, True))
    twice = liquid.repeat((2, 1, 1))
    twice.set_array("parts", label_molecules(twice))
    for atoms in (liquid, twice):
        expected = eager.get_forces(atoms)
        found = compiled.get_forces(atoms)
        assert found == pytest.approx(expected, abs=1e-10 * np.abs(expected).max())
        assert compiled.get_stress(atoms) == pytest.approx(eager.get_stress(atoms), rel=1e-9, abs=1e-12)
    (runner,) = compiled.evaluator._runners
    assert runner.compiled_calls == 2


def test_traced_as_it_is_evaluated(labelled_network, liquid, hierarchy_of, predict):
    """Its trace is what compiled trainings and compiled evaluations run."""
    tables = hierarchy_of(labelled_network, liquid).tensors()
    geometry = torch.from_numpy(liquid.positions), torch.from_numpy(liquid.cell.array).unsqueeze(0)
    arguments = (list(labelled_network.parameters()), tables, *geometry)
    found = make_fx(pure_evaluation(labelled_network, create_graph=True))(*arguments)(*arguments)
    expected = predict(labelled_network, liquid).named()
    for name, one in zip(Prediction.names(labelled_network.config), found, strict=True):
        torch.testing.assert_close(one, expected[name], rtol=1e-12, atol=1e-11)


def test_parts_of_one_member_each_need_no_native_code(labelled_network, liquid, recwarn):
    """Compiled code needs at least two on every axis."""
    liquid.set_array("parts", np.arange(len(liquid)))
    atoms = [NBodyCalculator(labelled_network, compile=compiled).get_forces(liquid) for compiled in (False, True)]
    assert np.array_equal(*atoms)
    assert not recwarn.list


@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, False)])
def test_slabs_and_wires(labelled_network, liquid, pbc):
    """Atoms may lie in any image along the periodic directions."""
    liquid.pbc = pbc
    expected = NBodyCalculator(labelled_network).get_forces(liquid)
    moves = np.random.default_rng(0).integers(-2, 3, (len(liquid), 3)) * np.array(pbc)
    liquid.positions += moves @ liquid.cell.array
    scale = np.abs(expected).max()
    assert NBodyCalculator(labelled_network).get_forces(liquid) == pytest.approx(expected, abs=1e-10 * scale)
    assert_conservative(NBodyCalculator(labelled_network), liquid[:6], step=3e-4)


def test_a_structure_whose_atoms_all_have_no_label(labelled_network, liquid):
    liquid.arrays["parts"][:] = -1
    assert NBodyCalculator(labelled_network).get_potential_energy(liquid) == 0.0


def test_the_memory_is_counted(labelled_network, hierarchy_of, liquid):
    """The quick bound and the count on tensors without contents, both before anything is evaluated."""
    hierarchy = hierarchy_of(labelled_network, liquid)
    assert 1e5 < needed_memory(labelled_network, hierarchy) < MostMemory(labelled_network)(hierarchy) < 1e9
    assert "16 atoms" in too_large(labelled_network, hierarchy)


def test_energies_of_parts(labelled_network, liquid):
    calculator = NBodyCalculator(labelled_network)
    energy = calculator.get_potential_energy(liquid)
    molecules = calculator.part_energies[2]
    assert molecules.centres.tolist() == [0, 3, 6, 12, 13]  # the first member of each
    assert sum(level.energies.sum() for level in calculator.part_energies) == pytest.approx(energy, rel=1e-10)


def test_checks_know_of_labels(labelled_network, liquid):
    names = ("permutation", "translation", "stress", "stresses", "supercell", "parts", "determinism", "float32")
    findings = list(run_checks(NBodyCalculator(labelled_network), [liquid], only=names))
    assert {finding.check for finding in findings} == set(names)
    assert [finding for finding in findings if finding.outcome != "passed"] == []
    molecule = liquid[:6]
    molecule.pbc = False
    (copies,) = run_checks(NBodyCalculator(labelled_network), [molecule], only=["far copies"])
    assert copies.outcome == "passed"


# --- configurations and files ----------------------------------------------------------------------------------------

ALL = {"parts": "all"}
LABELS = {"parts": "labels"}


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([LABELS], "level 1 has parts: labels, but the lowest level"),
        ([ALL, LABELS, ALL], "level 3 has parts around atoms"),
        ([ALL, LABELS, {**LABELS, "children": "heavy"}], "level 3 stands on a labelled level"),
        ([{**ALL, "parts": ["O"]}, {**LABELS, "children": ["H"]}], "level 2 has children at ['H']"),
        ([{**ALL, "member_weights": "mass"}], "member_weights is for parts: labels"),
        ([ALL, {**LABELS, "member_weights": "charge"}], "'mass' or 'equal'"),
        ([ALL, {**LABELS, "children": "labels"}], "'all' or 'heavy'"),
    ],
)
def test_wrong_levels_are_refused_by_name(levels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        NBodyConfig(species=("H", "O"), levels=levels)


def test_labelled_levels_give_the_energy_alone():
    levels = [{**ALL, "read_out": False}, LABELS]
    with pytest.raises(ValueError, match="and here is none around atoms"):
        NBodyConfig(species=("H", "O"), levels=levels, outputs=("charges",))
    NBodyConfig(species=("H", "O"), levels=[ALL, LABELS], outputs=("charges",))


def test_mass_is_the_default_and_is_said(make_config):
    config = make_config(levels=(LevelConfig(), LevelConfig(parts="labels")))
    assert config.levels[1].member_weights == "mass"
    assert "member_weights" not in config.model_dump()["levels"][0]
    assert NBodyConfig.model_validate_json(config.model_dump_json(), strict=True) == config


def test_a_model_file_names_the_feature(labelled_network, network, liquid, tmp_path):
    """A release that does not know it refuses the file; files without labelled levels stay as they were."""
    structure = {
        "numbers": [8, 1],
        "positions": [[0.0, 0, 0], [0, 0, 1.0]],
        "cell": [[0.0, 0, 0]] * 3,
        "pbc": [False] * 3,
    }
    path = save_model(labelled_network, tmp_path / "labelled.nbody", card={"example": {**structure, "labels": [4, 4]}})
    assert read_card(path)["features"] == ["labels"]
    assert example_structure(read_card(path)["card"]).labels.tolist() == [4, 4]
    expected = NBodyCalculator(labelled_network).get_forces(liquid)
    assert np.array_equal(NBodyCalculator(load_model(path)).get_forces(liquid), expected)
    assert "features" not in read_card(save_model(network, tmp_path / "plain.nbody"))
    for labels in ([4], [4, 4.0], [4, -2], "44", [4, True]):
        with pytest.raises(ModelFileError, match=r"example\.labels"):
            example_structure({"example": {**structure, "labels": labels}})


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(liquid, labelled_network, tmp_path):
    """Frames of the liquid and of one of its molecules, with labels, in an extxyz file."""
    frames = []
    for seed, atoms in enumerate((liquid, liquid[6:12], liquid)):
        atoms = atoms.copy()
        atoms.rattle(0.02, seed=seed)
        calculator = NBodyCalculator(labelled_network)
        results = {name: calculator.get_property(name, atoms) for name in ("energy", "forces")}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    path = tmp_path / "data.extxyz"
    ase.io.write(path, frames)
    return path


def test_reading_and_the_store_carry_labels(data, liquid, tmp_path):
    frames = read_labelled(data)
    assert [frame.structure.labels.tolist() for frame in frames] == [
        liquid.arrays["parts"].tolist(),
        [2] * 6,
        liquid.arrays["parts"].tolist(),
    ]
    unlabelled = ase.build.molecule("H2O")
    unlabelled.calc = SinglePointCalculator(unlabelled, energy=1.0, forces=np.ones((3, 3)))
    ase.io.write(tmp_path / "plain.extxyz", unlabelled)
    frames += read_labelled(tmp_path / "plain.extxyz")
    store = FrameStore.write(frames, tmp_path / "store", {})
    assert [frame.structure.labels is None for frame in store] == [False, False, False, True]
    for stored, frame in zip(store[:3], frames, strict=False):
        assert np.array_equal(stored.structure.labels, frame.structure.labels)
    assert np.array_equal(store[1].structure.to_atoms().arrays["parts"], [2] * 6)


def test_batches_of_data_give_the_labels_energies(data, labelled_network):
    frames = read_labelled(data)
    samples = prepare(frames, labelled_network.config, workers=1)
    batch = collate(samples, multiple=4)
    found = evaluate(labelled_network, batch.hierarchy, batch.positions, batch.cells)
    assert found.energy.numpy() == pytest.approx([frame.energy for frame in frames], rel=1e-6)
    assert batch.hierarchy.levels[2].mask.shape[1] % 4 == 0
    assert batch.memory > sum(tensor.nbytes for tensor in batch.hierarchy.tensors())


def test_data_without_labels_are_refused_by_frame(data, labelled_network):
    frames = read_labelled(data)
    object.__setattr__(frames[1].structure, "labels", None)
    message = r"data\.extxyz, frame 1 \(CH4O\): the model has parts that labels name, but the structure has no integer"
    with pytest.raises(DataError, match=message):
        prepare(frames, labelled_network.config)
    frames[1] = LabelledStructure(frames[1].structure, 0.0, np.ones((6, 3)), np.full((3, 3), np.nan))
    with pytest.raises(DataError, match=r"frame 1 of the training data \(CH4O\)"):
        measure(frames, labelled_network.config.levels)


def test_children_of_labelled_parts_are_counted(data, labelled_network, liquid):
    """All members and whatever is near: in the frame of one molecule, its two clusters, and then itself."""
    found = measure(read_labelled(data)[1:2], labelled_network.config.levels).mean_children
    assert found[2:] == (2.0, 1.0)


# --- dynamics --------------------------------------------------------------------------------------------------------


def _dynamics(network, atoms):
    atoms.calc = NBodyCalculator(network)
    return VelocityVerlet(atoms, 0.2 * units.fs)


def test_a_run_carries_labels_and_resumes_with_the_same_alone(labelled_network, liquid, tmp_path):
    with ResumableRun(_dynamics(labelled_network, liquid.copy()), tmp_path / "run", interval=1) as run:
        run.run_to(2)
    for frame in ase.io.read(tmp_path / "run/trajectory.extxyz", ":"):
        assert np.array_equal(frame.arrays["parts"], liquid.arrays["parts"])
    other = liquid.copy()
    other.arrays["parts"][0] = -1
    with pytest.raises(ResumeError, match="labels of parts"):
        ResumableRun(_dynamics(labelled_network, other), tmp_path / "run", interval=1, resume=True)
    with ResumableRun(_dynamics(labelled_network, liquid), tmp_path / "run", interval=1, resume=True) as run:
        run.run_to(3)
    assert "labels of parts" in json.loads((tmp_path / "run/checkpoint.json").read_text())["settings"]


def test_energy_is_conserved_while_lists_are_made_anew(make_labelled_network, liquid):
    network = make_labelled_network(energy_scale=3.0)  # a random network would tear the molecules apart
    liquid.set_velocities(np.random.default_rng(0).normal(scale=0.02, size=(len(liquid), 3)))
    liquid.calc = NBodyCalculator(network, skin=0.02)
    start, change = liquid.get_total_energy(), []
    for _ in VelocityVerlet(liquid, 0.3 * units.fs).irun(40):
        change.append((liquid.get_total_energy() - start, liquid.get_potential_energy()))
    total, potential = np.ptp(change, axis=0)
    assert liquid.calc.evaluator.followed[0].builds > 3
    assert total < 2e-3 * potential


# --- parts of several molecules --------------------------------------------------------------------------------------


@pytest.fixture
def waters():
    """Two waters as a PDB file of ASE has them: with the same number of the residue."""
    water = ase.build.molecule("H2O")
    other = water.copy()
    other.positions += [3.0, 0.5, 0.0]
    atoms = water + other
    atoms.set_array("residuenumbers", np.ones(6, dtype=int))
    return atoms


def test_a_part_of_several_molecules_is_named(labelled_network, waters, tmp_path):
    """Files that ASE writes give all molecules one number of a residue, and all were one part without a word."""
    for name in ("waters.pdb", "waters.gro"):
        ase.io.write(tmp_path / name, waters)
        atoms = ase.io.read(tmp_path / name)
        atoms.pbc = False
        calculator = NBodyCalculator(labelled_network)
        with pytest.warns(PartsWarning, match=r"label 1 has atoms of several molecules, such as 2 \(H\) and 3 \(O\)\."):
            calculator.get_potential_energy(atoms)
        atoms.rattle(0.01)
        calculator.get_potential_energy(atoms)  # once is enough
        atoms.set_array("parts", label_molecules(atoms))
        NBodyCalculator(labelled_network).get_potential_energy(atoms)


def test_copies_that_were_not_labelled_anew_are_named(labelled_network):
    """Their images in a large cell are no farther apart than members of a part may be."""
    atoms = ase.build.molecule("H2O", cell=[4.0, 4.0, 4.0], pbc=True)
    atoms.set_array("parts", label_molecules(atoms))
    with pytest.warns(PartsWarning, match=r"after atoms\.repeat"):
        NBodyCalculator(labelled_network).get_potential_energy(atoms.repeat((5, 5, 5)))


def test_molecules_may_come_apart_while_they_move(labelled_network, waters):
    waters.set_array("parts", label_molecules(waters))
    waters.calc = NBodyCalculator(labelled_network)
    waters.get_potential_energy()
    waters.positions[1] += 2.0
    waters.get_potential_energy()


def test_atoms_without_a_part_connect_a_part(labelled_network, waters):
    waters.set_array("parts", np.array([-1, 0, 0, 1, 1, 1]))
    NBodyCalculator(labelled_network).get_potential_energy(waters)


def test_training_frames_with_parts_of_several_molecules_are_counted(waters):
    frames = [
        LabelledStructure(Structure.from_atoms(waters), 0.0, np.zeros((6, 3)), np.full((3, 3), np.nan))
        for _ in range(3)
    ]
    (sentence,) = said_of_parts({"training": frames[:2], "validation": frames[2:]})
    assert "in frame 0 of the training frames, the part with the label 1 has atoms of several molecules" in sentence
    assert "So do 2 others" in sentence
    assert "label_molecules" in sentence
    waters.set_array("parts", label_molecules(waters))
    frames = [LabelledStructure(Structure.from_atoms(waters), 0.0, np.zeros((6, 3)), np.full((3, 3), np.nan))]
    assert list(said_of_parts({"training": frames})) == []
