"""Pretraining on structures of tight binding: the structures, the training that follows, and resuming after a kill."""

import io
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from rich.console import Console

from ase_nbody import load_model, save_model
from ase_nbody.data import DataError, LabelledStructure, read_labelled
from ase_nbody.files.archive import load_members, read_card
from ase_nbody.structure import Structure
from ase_nbody.training import tight_binding
from ase_nbody.training.config import ConfigError, FreezeConfig, PretrainingConfig, TrainingConfig
from ase_nbody.training.pretraining import _first_stage, pretrain, train_in_stages
from ase_nbody.training.progress import Progress
from ase_nbody.training.run import train
from ase_nbody.training.seeds import train_committee
from ase_nbody.training.tight_binding import energy_shift, write_frames

pytest.importorskip("tblite", reason="pretraining needs tblite")


@pytest.fixture
def water(tmp_path):
    """A file of water and methanol molecules, labelled by EMT: another theory, with another zero of energy."""
    frames = [molecule(name) for name in ("H2O", "CH3OH") for _ in range(6)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        atoms.get_forces()
    path = tmp_path / "molecules.extxyz"
    ase.io.write(path, frames)
    return path


@pytest.fixture
def configure(water, tiny, tmp_path):
    """A function that writes a configuration with a pretraining and reads it."""

    def make(output="run", data=None, **pretraining):
        content = {
            "data": {"train": "molecules.extxyz", "validation": 4, **(data or {})},
            "network": {"levels": [tiny, {**tiny, "parts": "heavy", "l_out": 0}]},
            "training": {"epochs": 2, "batch_size": 4, "warmup": 3, "compile": False},
            "pretraining": {"frames": 100, "epochs": 2, **pretraining},
            "report": False,
            "output": output,
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(content))
        return TrainingConfig.from_yaml(path)

    return make


def labelled(atoms, calculator, shift=0.0):
    """The structure with the energy and forces of a calculator, and with its charge in ``info``."""
    given = atoms.copy()
    given.calc = calculator
    results = {"energy": given.get_potential_energy() + shift, "forces": given.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_structures_have_the_forces_of_the_method_and_the_energy_zero_of_the_data(water, tmp_path):
    data = read_labelled(water)
    options = PretrainingConfig(frames=100, temperatures=(500.0, 900.0))
    frames = ase.io.read(write_frames(data, options, tmp_path), ":")
    assert 80 <= len(frames) <= 120
    calculator = tight_binding.tight_binding("GFN2-xTB")
    shift = energy_shift(data, calculator)
    for atoms in frames[::30]:
        free = Atoms(atoms.numbers, atoms.positions, calculator=calculator)
        zero = sum(shift.elements[number] for number in atoms.numbers.tolist())
        assert atoms.get_potential_energy() == pytest.approx(free.get_potential_energy() + zero, abs=1e-5)
        assert np.abs(atoms.get_forces() - free.get_forces()).max() < 1e-4
    assert not (tmp_path / "nbody_pretraining_runs").exists()


def test_levels_are_frozen_after_the_pretraining(configure):
    """In it they would keep random weights."""
    config = configure()
    config = config.model_copy(
        update={"network": config.network.model_copy(update={"freeze": FreezeConfig(levels=(1,))})}
    )
    assert _first_stage(config, config.pretraining).network.freeze == FreezeConfig()


def test_energies_are_shifted_by_element(tmp_path):
    """Two theories differ by a constant for each hydrogen and each oxygen atom; the constants are found."""
    frames = []
    for name in ("H2O", "H2", "O2", "H2O2"):
        atoms = molecule(name)
        atoms.calc = LennardJones()
        atoms.get_forces()
        energy = atoms.get_potential_energy() + 3.0 * np.sum(atoms.numbers == 1) - 7.0 * np.sum(atoms.numbers == 8)
        atoms.calc.results["energy"] = energy
        frames.append(atoms)
    ase.io.write(tmp_path / "shifted.extxyz", frames)
    data = read_labelled(tmp_path / "shifted.extxyz")
    shift = energy_shift(data, LennardJones())
    assert shift.elements == pytest.approx({1: 3.0, 8: -7.0}, abs=1e-6)
    assert shift.charge == 0.0


def test_rare_elements_at_the_end_of_many_frames_are_shifted_too(tmp_path):
    frames = [labelled(molecule("H2"), LennardJones(), 6.0) for _ in range(400)]
    frames.append(labelled(molecule("O2"), LennardJones(), -14.0))
    frames += frames[:100]
    ase.io.write(tmp_path / "many.extxyz", frames)
    shift = energy_shift(read_labelled(tmp_path / "many.extxyz"), LennardJones())
    assert shift.elements == pytest.approx({1: 3.0, 8: -7.0}, abs=1e-6)


def test_a_killed_process_continues_with_the_same_structures(water, tmp_path, monkeypatch):
    data, options = read_labelled(water), PretrainingConfig(frames=100)
    whole = write_frames(data, options, tmp_path / "whole").read_bytes()
    run = tight_binding._frames_of_run

    def killed(*arguments):
        if len(list((tmp_path / "killed" / "nbody_pretraining_runs").glob("*.extxyz"))) == 2:
            raise RuntimeError("killed")
        return run(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tight_binding, "_frames_of_run", killed)
        with pytest.raises(RuntimeError, match="killed"):
            write_frames(data, options, tmp_path / "killed")
    assert not (tmp_path / "killed" / "frames.extxyz").exists()
    with pytest.raises(ConfigError, match="choose another folder"):
        write_frames(data, PretrainingConfig(frames=100, seed=1), tmp_path / "killed")
    assert write_frames(data, options, tmp_path / "killed").read_bytes() == whole


def test_a_process_that_was_killed_before_it_removed_its_runs_leaves_none(water, tmp_path, monkeypatch):
    data, options = read_labelled(water, ":2"), PretrainingConfig(frames=100)
    with monkeypatch.context() as patch:
        patch.setattr(tight_binding, "_remove_runs", lambda folder, files: files[1].unlink())  # killed after the second
        path = write_frames(data, options, tmp_path)
    whole = path.read_bytes()
    assert len(list((tmp_path / "nbody_pretraining_runs").iterdir())) == 2
    assert write_frames(data, options, tmp_path).read_bytes() == whole
    assert not (tmp_path / "nbody_pretraining_runs").exists()


def test_structures_of_other_data_are_not_shared(water, tmp_path):
    """Also if the data have as many structures and the same first formula. Folders of earlier releases say no more."""
    data, options = read_labelled(water, ":2"), PretrainingConfig(frames=100, temperatures=(300.0, 300.0))
    path = write_frames(data, options, tmp_path / "pre")
    with pytest.raises(ConfigError, match=r"made from other data of the same size.*choose another folder"):
        write_frames(read_labelled(water, "2:4"), options, tmp_path / "pre")
    origin = tmp_path / "pre" / "frames.txt"
    origin.write_text(origin.read_text().partition(", SHA-256")[0] + "\n")
    assert write_frames(data, options, tmp_path / "pre") == path


def test_only_files_of_the_pretraining_are_removed(water, tmp_path):
    data, options = read_labelled(water), PretrainingConfig(frames=100)
    for name in ("runs", "frames"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "00000.extxyz").write_text("mine")
    write_frames(data, options, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["frames", "runs"]
    assert all((tmp_path / name / "00000.extxyz").read_text() == "mine" for name in ("runs", "frames"))


@pytest.mark.parametrize("name", ["nbody_pretraining_runs/00000.extxyz", "frames.extxyz"])
def test_foreign_files_under_our_names_are_refused(name, water, tmp_path):
    path = tmp_path / "pre" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(ConfigError, match="was not written by a pretraining: move it away"):
        write_frames(read_labelled(water), PretrainingConfig(frames=100), tmp_path / "pre")
    assert path.read_text() == "mine"
    assert not (tmp_path / "pre" / "frames.txt").exists()


def test_foreign_files_are_refused_before_the_run_begins(configure, tmp_path):
    (tmp_path / "frames.extxyz").write_text("mine")
    config = configure(folder=".")
    with pytest.raises(ConfigError, match="was not written by a pretraining"):
        train_in_stages(config)
    assert not Path(config.output).exists()


def test_a_foreign_model_is_not_taken_for_that_of_the_pretraining(configure, network):
    config = configure()
    folder = Path(config.output) / "pretraining"
    folder.mkdir(parents=True)
    save_model(network, folder / "model.nbody")
    before = (folder / "model.nbody").read_bytes()
    with pytest.raises(ConfigError, match=r"model.nbody was not written by a pretraining .* network.start_from"):
        train_in_stages(config)
    assert (folder / "model.nbody").read_bytes() == before


def test_the_users_own_configuration_is_refused_before_the_pretraining(configure, tmp_path):
    config = configure(output=".")
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"config.yaml was not written by a run in this folder"):
        train_in_stages(config)
    assert (tmp_path / "config.yaml").read_bytes() == before
    assert not (tmp_path / "pretraining").exists()


@pytest.mark.parametrize("name", ["metrics.csv", "checkpoints/mine.ckpt"])
def test_files_of_the_user_in_the_folder_of_the_pretraining_are_not_overwritten(name, configure):
    config = configure()
    mine = Path(config.output) / "pretraining" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ConfigError, match="was not written by a run in this folder"):
        train_in_stages(config)
    assert mine.read_text() == "mine"
    assert not (Path(config.output) / "pretraining" / "config.yaml").exists()


def test_runs_in_which_every_molecule_comes_apart_are_an_error(water, tmp_path, monkeypatch):
    monkeypatch.setattr(tight_binding, "_LARGEST_FORCE_EV_PER_ANGSTROM", 0.0)
    with pytest.raises(DataError, match="gives no structure"):
        write_frames(read_labelled(water), PretrainingConfig(frames=100), tmp_path)


def test_the_training_begins_with_the_pretrained_weights(configure, tmp_path):
    config = configure()
    path = train_in_stages(config)
    first = load_model(f"{config.output}/pretraining/model.nbody")
    card = read_card(path)["card"]
    assert "GFN2-xTB" in card["pretrained on"]
    assert card["started from"].endswith(read_card(f"{config.output}/pretraining/model.nbody")["checksum"])
    # The training on the data, started by hand from the model of the pretraining.
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del content["pretraining"], content["network"]["levels"]
    content["network"]["start_from"] = f"{config.output}/pretraining/model.nbody"
    # A pretraining has the zero of the data already, and the rates of a new network.
    content["data"]["isolated_atom_energies"] = first.config.isolated_atom_energies
    content["training"] |= {"muon_rate": 0.005, "adam_rate": 0.005}
    content["output"] = "by_hand"
    (tmp_path / "by_hand.yaml").write_text(yaml.safe_dump(content))
    assert same(load_model(path), load_model(train(TrainingConfig.from_yaml(tmp_path / "by_hand.yaml"))))
    assert not same(load_model(path), first)
    with pytest.raises(ConfigError, match="finished run"):
        train_in_stages(config)


@pytest.mark.parametrize("stage", ["pretraining", "training"])
def test_a_killed_training_resumes_in_its_stage(configure, stage, monkeypatch):
    whole = load_model(train_in_stages(configure("whole")))
    config, shown = configure("killed"), Progress.on_validation_end

    def fail(self, trainer, module):
        shown(self, trainer, module)
        if ("pretraining" in str(self.table)) == (stage == "pretraining") and trainer.current_epoch == 0:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_validation_end", fail)
        with pytest.raises(RuntimeError, match="killed"):
            train_in_stages(config)
    with pytest.raises(ConfigError, match="--resume"):
        train_in_stages(config)
    with pytest.raises(ConfigError, match=r"differs from that of the run in .*pretraining: card\.source"):
        train_in_stages(configure("killed", steps_apart=3), resume=True)
    data, config = Path(config.data.train[0].path), configure("killed")
    before = data.read_bytes()
    ase.io.write(data, ase.io.read(data, ":")[::-1])
    with pytest.raises(ConfigError, match=r"data.train \(molecules.extxyz\) has other contents than when the run"):
        train_in_stages(config, resume=True)
    data.write_bytes(before)
    assert same(load_model(train_in_stages(config, resume=True)), whole)


def test_members_of_a_committee_share_the_structures(configure):
    config = configure()
    members = load_members(train_committee(config, 2))
    assert not same(*members)
    assert [path.parent.name for path in Path(config.output).rglob("frames.extxyz")] == ["pretraining"]


def test_impossible_pretrainings_are_refused(configure, tmp_path):
    with pytest.raises(ConfigError, match="for train_in_stages"):
        train(configure())
    crystal = bulk("Cu")
    crystal.calc = EMT()
    crystal.get_forces()
    ase.io.write(tmp_path / "crystal.extxyz", crystal)
    with pytest.raises(DataError, match="periodic"):
        write_frames(read_labelled(tmp_path / "crystal.extxyz"), PretrainingConfig(), tmp_path)
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del content["network"]["levels"]
    content["network"]["start_from"] = "ethanol"
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="exclude each other"):
        TrainingConfig.from_yaml(tmp_path / "both.yaml")


def test_a_missing_package_is_named(water, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    with pytest.raises(ConfigError, match="pip install"):
        write_frames(read_labelled(water), PretrainingConfig(), tmp_path)


@pytest.fixture
def ions(tmp_path):
    """Ammonium, hydroxide, ammonia, water, hydrogen and a radical, labelled by tight binding with another zero.

    As the energies of density-functional theory do, those of the ions differ by a further 4.8 eV for each charge.
    """
    from tblite.ase import TBLite

    ammonium = Atoms("NH4", [[0, 0, 0], [0.6, 0.6, 0.6], [0.6, -0.6, -0.6], [-0.6, 0.6, -0.6], [-0.6, -0.6, 0.6]])
    frames = []
    neutral = [(molecule(name), 0) for name in ("NH3", "H2O", "H2", "CH3")]
    for seed, (atoms, charge) in enumerate([(ammonium, 1), (molecule("OH"), -1), *neutral]):
        atoms = Atoms(atoms.numbers, atoms.positions)  # without initial magnetic moments, which files do not carry
        atoms.rattle(0.03, seed=seed)
        if charge:
            atoms.info["charge"] = charge
        zero = 3.0 * np.sum(atoms.numbers == 1) - 4.8 * charge
        frames.append(labelled(atoms, TBLite(method="GFN2-xTB", charge=charge, verbosity=0), zero))
    ase.io.write(tmp_path / "ions.extxyz", frames)
    return tmp_path / "ions.extxyz"


def test_ions_are_pretrained_as_ions(ions, tmp_path):
    """The structures of each molecule have the energy of tight binding with its charge, at the zero of the data."""
    from tblite.ase import TBLite

    data = read_labelled(ions)
    shift = energy_shift(data, tight_binding.tight_binding("GFN2-xTB"))
    assert shift.charge == pytest.approx(-4.8, abs=1e-3)
    assert shift.elements[1] == pytest.approx(3.0, abs=1e-3)
    path = write_frames(data[:3], PretrainingConfig(frames=120, seed=2), tmp_path / "pre")
    written = read_labelled(path)
    assert {frame.structure.charge for frame in written} == {-1.0, 0.0, 1.0}
    for charge in (-1.0, 0.0, 1.0):
        frame = next(frame for frame in written if frame.structure.charge == charge)
        atoms = Atoms(frame.structure.numbers, frame.structure.positions)
        atoms.calc = TBLite(method="GFN2-xTB", charge=charge, verbosity=0)
        zero = 3.0 * np.sum(atoms.numbers == 1) - 4.8 * charge
        assert frame.energy == pytest.approx(atoms.get_potential_energy() + zero, abs=2e-3)
        assert np.abs(frame.forces - atoms.get_forces()).max() < 1e-3
    assert "1 of charge -1, 1 of charge +1" in (tmp_path / "pre" / "frames.txt").read_text()


def test_structures_of_neutral_molecules_are_not_taken_for_those_of_ions(ions, tmp_path):
    options, neutral = PretrainingConfig(frames=100), read_labelled(ions, "2:")
    path = write_frames(neutral, options, tmp_path / "pre")
    for frame in neutral:
        object.__setattr__(frame.structure, "charge", 1.0)
    with pytest.raises(ConfigError, match=r"not .*4 of charge \+1: choose another folder"):
        write_frames(neutral, options, tmp_path / "pre")
    assert path.is_file()


def test_charges_and_spins_are_said(configure, ions, monkeypatch):
    monkeypatch.setattr("ase_nbody.training.pretraining.write_frames", lambda *_, **__: None)
    monkeypatch.setattr("ase_nbody.training.pretraining.train", lambda *_, **__: None)
    console = Console(file=io.StringIO())
    config = configure(data={"train": ions.name, "validation": 1})
    assert config.pretraining is not None
    pretrain(config, config.pretraining, False, console)
    said = "The 6 molecules of the data include ions: 1 of charge -1, 1 of charge +1. Tight binding treats the 1 with"
    assert said in console.file.getvalue()


@pytest.mark.parametrize(
    ("data", "culprit"),
    [
        ({"validation": "other.extxyz"}, r"other\.extxyz in data.validation: there are frames with Cl"),
        ({"train": {"path": "molecules.extxyz", "weight": 0}}, "all forces of the training frames have the weight 0"),
        ({"train": {"path": "molecules.extxyz", "index": "0"}, "validation": None}, "there is 1 frame"),
    ],
)
def test_what_the_training_would_refuse_is_refused_before_the_pretraining(data, culprit, configure, tmp_path):
    ase.io.write(tmp_path / "other.extxyz", labelled(molecule("HCl"), LennardJones()))
    config = configure(data=data)
    with pytest.raises(ValueError, match=culprit):
        train_in_stages(config)
    assert not (Path(config.output) / "pretraining").exists()


@pytest.mark.parametrize(
    ("charge", "numbers", "reason"),
    [
        (0.5, None, r"frame 2 of the data has the charge 0.5 e, but .* whole number of electrons: correct atoms.info"),
        (1000.0, None, "frame 2 of the data has the charge 1000 e"),
        (-1e300, None, "frame 2 of the data has the charge -1e"),
        (0.0, [92, 1], "frame 2 of the data has the elements UH, but tight binding knows only H to Rn"),
    ],
)
def test_what_tight_binding_cannot_do_is_refused(charge, numbers, reason, water, tmp_path):
    data = read_labelled(water)
    atoms = Atoms(numbers or data[2].structure.numbers, np.arange(6.0).reshape(2, 3) if numbers else None)
    atoms.info["charge"] = charge
    data[2] = LabelledStructure(Structure.from_atoms(atoms), np.nan, np.zeros((len(atoms), 3)), None)
    with pytest.raises(DataError, match=reason):
        write_frames(data, PretrainingConfig(frames=100), tmp_path / "pre")
    assert not (tmp_path / "pre").exists()


def test_isolated_atoms_keep_their_energies_through_a_pretraining(configure, water, tmp_path):
    """No run starts from them, and the energies of the final model are theirs, not a fit to tight binding."""
    frames = ase.io.read(water, ":")
    for symbol, energy, box in (("H", -13.0, {}), ("O", -2041.0, {"cell": [20.0] * 3, "pbc": True})):
        atoms = Atoms(symbol, **box)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((1, 3)))
        frames.append(atoms)
    ase.io.write(water, frames)
    config = configure(frames=100, epochs=1)
    model = load_model(train_in_stages(config))
    assert {symbol: model.config.isolated_atom_energies[symbol] for symbol in "HO"} == {"H": -13.0, "O": -2041.0}
    written = read_labelled(f"{config.output}/pretraining/frames.extxyz")
    assert [len(frame.structure) for frame in written].count(1) == 2
    with pytest.raises(DataError, match="the data are isolated atoms"):
        write_frames(read_labelled(water, "-2:"), PretrainingConfig(), tmp_path / "pre")


def test_energies_of_weight_0_do_not_shift_those_of_tight_binding(tmp_path):
    frames = [labelled(molecule(name), LennardJones(), shift) for name, shift in (("H2", 6.0), ("O2", -14.0))]
    wrong = [labelled(molecule(name), LennardJones(), 300.0) for name in ("H2", "O2")]
    for atoms in wrong:
        atoms.info["config_energy_weight"] = 0.0
    ase.io.write(tmp_path / "weights.extxyz", [*wrong, *frames])
    shift = energy_shift(read_labelled(tmp_path / "weights.extxyz"), LennardJones())
    assert shift.elements == pytest.approx({1: 3.0, 8: -7.0}, abs=1e-6)
