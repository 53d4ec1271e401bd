"""What a training on periodic matter does where the configuration leaves it open (``training.crystals``)."""

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import load_model
from ase_nbody.training.config import TrainingConfig, as_begun
from ase_nbody.training.crystals import ATOMS_TO_SEE, are_periodic, usual_radius, with_crystal_defaults
from ase_nbody.training.run import _with_default_epochs, train
from ase_nbody.training.splits import read_splits

COPPER = bulk("Cu", cubic=True).repeat((2, 1, 1))


def frames_of(crystal=COPPER, number=6, random_forces=False):
    """Rattled and strained frames with EMT's labels, or with forces that no potential explains."""
    rng, frames = np.random.default_rng(0), []
    for seed in range(number):
        atoms = crystal.copy()
        atoms.rattle(0.08, seed=seed)
        atoms.set_cell(atoms.cell * rng.uniform(0.97, 1.04), scale_atoms=True)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        if random_forces:
            forces = rng.normal(size=forces.shape)
            forces -= forces.mean(axis=0)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


@pytest.fixture
def filled(tmp_path):
    """A function that writes frames and a configuration, and gives it and what the data make of it."""

    def fill(frames, **entries):
        ase.io.write(tmp_path / "data.extxyz", frames)
        content = {"data": {"train": "data.extxyz", "validation": 1}, "output": "run"} | entries
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
        config = TrainingConfig.from_yaml(tmp_path / "run.yaml")
        training, _ = read_splits(config)
        found, said = with_crystal_defaults(
            config.model_copy(update={"network": config.network.model_copy(update={"start_from": None})}),
            {"training": training},
        )
        return config, found, said, training

    return fill


def test_a_crystal_gets_the_recipe_of_crystals(filled):
    config, found, said, training = filled(frames_of())
    volume = np.median([atoms.get_volume() / len(atoms) for atoms in frames_of()])
    assert [level.radius for level in found.network.levels] == [pytest.approx(2.0 * volume ** (1 / 3), abs=0.06)] * 2
    assert [level.channels for level in found.network.levels] == [32, 32]
    assert found.network.fading
    assert found.network.embedded_atom, "EMT is an embedded-atom potential"
    assert found.training.batch_size == 8, "of eight atoms each"
    assert (found.training.energy_weight, found.training.stress_weight) == (0.1, 0.1)
    assert "Angstrom, on an embedded-atom potential" in said
    epochs = _with_default_epochs(found, training).training.epochs
    assert epochs == 500, "five frames are seen as often as five frames of molecules"
    many = training * 500
    epochs = _with_default_epochs(found, many).training.epochs
    assert epochs == round(ATOMS_TO_SEE / (8 * len(many)))
    options = found.training.model_copy(update={"effort": "thorough"})
    thorough = _with_default_epochs(found.model_copy(update={"training": options}), many).training.epochs
    assert thorough == 4 * epochs
    # The same file goes on as the run began, and another release may have other defaults.
    begun = found.model_copy(update={"training": found.training.model_copy(update={"batch_size": 7})})
    again = as_begun(config, begun)
    assert again.network.levels == begun.network.levels
    assert again.network.embedded_atom
    assert again.network.fading
    assert again.training.batch_size == 7


def test_what_the_configuration_says_stays(filled):
    level = {"parts": "all", "radius": 4.0, "channels": 8}
    network = {"levels": [level], "fading": False, "embedded_atom": False}
    config, found, *_ = filled(frames_of(), network=network, training={"batch_size": 2, "energy_weight": 3.0})
    assert found.network.levels == config.network.levels
    assert not found.network.fading
    assert not found.network.embedded_atom
    assert (found.training.batch_size, found.training.energy_weight, found.training.stress_weight) == (2, 3.0, 0.1)


def test_a_preset_keeps_its_channels_and_gets_the_radius(filled):
    _, found, *_ = filled(frames_of(), preset="medium")
    levels = found.network.levels
    assert [(level.channels, level.radius) for level in levels] == [(64, pytest.approx(4.55, abs=0.06))] * 2


def test_an_embedded_atom_potential_stands_in_for_atoms_of_unknown_energy(filled):
    """Under pressure states fade out, and the energy of what is left must be known, or be that of the potential."""
    unexplained = frames_of(random_forces=True)
    _, found, *_ = filled(unexplained)
    assert found.network.embedded_atom, "no frame says what a lone atom has"
    lone = frames_of(Atoms("Cu", cell=[20.0] * 3, pbc=True), number=1)
    _, found, said, _ = filled([*unexplained, *lone])
    assert not found.network.embedded_atom, "it would explain nothing"
    assert "without an embedded-atom potential" in said
    _, found, *_ = filled([*frames_of(), *lone])
    assert found.network.embedded_atom, "it explains most of the forces"


@pytest.mark.parametrize("periodic", [False, (True, True, False)])
def test_molecules_and_slabs_keep_their_defaults(filled, periodic):
    frames = frames_of(Atoms(COPPER, pbc=periodic))
    _, found, said, _ = filled(frames)
    assert found.network.levels[0].radius == 5.0
    assert found.training.batch_size == 5
    assert not said


def test_surfaces_among_crystals_keep_the_recipe_of_crystals(filled):
    """A few slabs turned data of a metal into those of a molecule, without a word."""
    slab = Atoms(fcc111("Cu", (1, 1, 3), vacuum=8.0), pbc=(True, True, False), info={})
    _, found, said, training = filled([*frames_of(number=4), *frames_of(slab, number=2)])
    assert found.network.embedded_atom
    assert found.network.levels[0].radius == usual_radius(training) < 4.7, "slabs have no volume per atom"
    assert "are periodic" in said
    assert are_periodic(training)
    *_, training = filled([*frames_of(number=1), *frames_of(slab, number=4)])
    assert not are_periodic(training)


def test_clusters_among_crystals_are_said(filled):
    _, found, said, _ = filled([*frames_of(number=4), *frames_of(Atoms(COPPER, pbc=False), number=3)])
    assert found.network.levels[0].radius == 5.0
    assert "some frames are periodic in none: the defaults are those of molecules" in said


def test_atoms_in_boxes_are_no_crystals(filled):
    lone = frames_of(Atoms("Cu", cell=[20.0] * 3, pbc=True), number=1)
    *_, training = filled([*frames_of(), *lone])
    assert are_periodic(training)
    assert usual_radius(training) == pytest.approx(4.55, abs=0.06)
    assert not are_periodic([frame for frame in training if len(frame.structure) == 1])
    *_, molecules = filled(frames_of(molecule("H2O"), number=2))
    assert not are_periodic([*training, *molecules])


def test_the_command_writes_what_it_chose(tmp_path):
    ase.io.write(tmp_path / "data.extxyz", frames_of(bulk("Cu", cubic=True)))
    content = {
        "data": {"train": "data.extxyz", "validation": 1},
        "training": {"epochs": 1, "compile": False},
        "report": False,
        "output": "run",
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    path = train(TrainingConfig.from_yaml(tmp_path / "run.yaml"))
    written, config = TrainingConfig.as_written(tmp_path / "run" / "config.yaml"), load_model(path).config
    assert written.network.embedded_atom
    assert config.embedded_atom is not None
    assert config.densest
    assert written.network.levels[0].radius == config.levels[0].radius == pytest.approx(4.55, abs=0.06)


def test_a_new_run_has_the_split_of_a_resumed_one(tmp_path, monkeypatch):
    """The radii of the recipe tell which atoms in boxes are isolated, and those stay in training."""
    atom = Atoms("C", cell=[9.0, 9.0, 9.0], pbc=True)
    atom.calc = SinglePointCalculator(atom, energy=-1.0, forces=np.zeros((1, 3)))
    ase.io.write(tmp_path / "data.extxyz", [*frames_of(bulk("C", cubic=True), 10, random_forces=True), *[atom] * 4])
    network = {"start_from": "none", "embedded_atom": False}
    content = {"data": {"train": "data.extxyz", "validation": 8}, "network": network, "output": "run"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    began = []

    def build_network(config, training, members):
        began.append((config, training))
        raise RuntimeError("stopped")

    monkeypatch.setattr("ase_nbody.training.run.build_network", build_network)
    with pytest.raises(RuntimeError, match="stopped"):
        train(TrainingConfig.from_yaml(tmp_path / "run.yaml"))
    ((config, training),) = began
    assert sum(level.radius for level in config.network.levels) == 8.0
    assert sum(len(frame.structure) == 1 for frame in training) == 4
    resumed, _ = read_splits(config)
    assert [frame.source for frame in training] == [frame.source for frame in resumed]
