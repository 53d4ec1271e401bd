"""Which frames are held out for validation: never those without which the network would not know something."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import load_model
from ase_nbody.data import DataError, measure
from ase_nbody.files.archive import read_card
from ase_nbody.training.callbacks import AtomicCheckpoints, split_rule
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.folder import last_checkpoint
from ase_nbody.training.progress import Progress
from ase_nbody.training.run import train
from ase_nbody.training.splits import PLAIN_SPLIT, read_splits

ENERGIES = {"H": -13.0, "C": -1029.0, "O": -2041.0}


def atom(symbol, **box):
    atoms = Atoms(symbol, **box)
    atoms.calc = SinglePointCalculator(atoms, energy=ENERGIES.get(symbol, -9999.0), forces=np.zeros((1, 3)))
    return atoms


def rattled(name, seed):
    atoms = molecule(name)
    atoms.rattle(0.05, seed=seed)
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=-5000.0 + seed - 0.01 * float((atoms.numbers**2).sum()),
        forces=np.full((len(atoms), 3), 0.1 + seed),
    )
    return atoms


@pytest.fixture
def configure(tmp_path, tiny):
    """A function that writes frames, and other files under their names, and makes a configuration."""

    def make(frames, data=None, output="run", **files):
        for name, own in {"data": frames, **files}.items():
            ase.io.write(tmp_path / f"{name}.extxyz", own)
        content = {
            "data": {"train": "data.extxyz", **(data or {})},
            "network": {"levels": [tiny, {**tiny, "parts": "heavy", "l_out": 0}]},
            "training": {"epochs": 2, "batch_size": 4, "warmup": 3, "compile": False},
            "report": False,
            "output": output,
        }
        return TrainingConfig.from_dict(content, tmp_path / "config.yaml")

    return make


COPPER = [bulk("Cu") for _ in range(3)]
for crystal in COPPER:
    crystal.calc = SinglePointCalculator(crystal, energy=-3.0, forces=np.full((1, 3), 0.1))
METHANOL = [rattled("CH3OH", seed) for seed in range(16)]


@pytest.mark.parametrize("box", [{}, {"cell": [20.0, 20.0, 20.0], "pbc": True}], ids=["free", "in a periodic box"])
def test_isolated_atoms_belong_to_training(box, configure):
    frames = [*(atom(symbol, **box) for symbol in "HCO"), *METHANOL]
    for seed in range(8):
        config = configure(frames, {"seed": seed, "validation": 10})
        training, validation = read_splits(config)
        assert (len(training), len(validation)) == (9, 10)
        assert min(len(frame.structure) for frame in validation) == 6
        assert measure(training, config.network.levels).isolated_atom_energies == ENERGIES


def test_the_data_of_acac_keep_their_isolated_atoms(configure, reference_data):
    """The default seed held out hydrogen, and its energy became -22.69 eV."""
    atoms = ase.io.read(reference_data / "acac" / "isolated_atoms.extxyz", ":")
    frames = [*atoms, *ase.io.read(reference_data / "acac" / "train_300K.extxyz", ":40")]
    config = configure(frames)
    found = measure(read_splits(config)[0], config.network.levels).isolated_atom_energies
    assert found == {frame.get_chemical_formula(): frame.get_potential_energy() for frame in atoms}


def test_an_isolated_atom_is_not_the_example_of_a_model(configure):
    """Its forces are zero, and the example is the frame with the smallest forces."""
    config = configure([atom("Cu", cell=[20.0] * 3, pbc=True), *COPPER], {"validation": 1})
    example = read_card(train(config))["card"]["example"]
    assert example["numbers"] == [29]
    assert np.linalg.norm(example["cell"][0]) < 5.0


def test_every_species_belongs_to_training(configure):
    """Chlorine is in one molecule and in one isolated atom, which teaches nothing about its bonds."""
    frames = [*METHANOL, rattled("HCl", 0), atom("Cl"), rattled("CH3SH", 1)]
    for seed in range(8):
        training, validation = read_splits(configure(frames, {"seed": seed, "validation": 15}))
        assert len(validation) == 15
        held_out = {number for frame in validation for number in frame.structure.numbers}
        assert held_out == {1, 6, 8}
        bound = {number for frame in training if len(frame.structure) > 1 for number in frame.structure.numbers}
        assert bound == {1, 6, 8, 16, 17}


def test_other_splits_are_as_before(configure):
    config = configure(METHANOL, {"seed": 3, "validation": 5})
    for new, old in zip(read_splits(config), read_splits(config, PLAIN_SPLIT), strict=True):
        assert [frame.energy for frame in new] == [frame.energy for frame in old]


@pytest.mark.parametrize(
    ("frames", "validation", "reason"),
    [
        (METHANOL[:1], None, r"data.extxyz: there is 1 frame, but a training needs at least 2.*name a file"),
        (METHANOL[:1], 1, "there is 1 frame"),
        (METHANOL[:3], 3, "data.validation = 3 must be between 1 and 2"),
        (METHANOL[:3], 0, "must be between 1 and 2"),
        ([rattled("HCl", 0), rattled("CO", 0)], None, "only 0 of 2 can be: .*last frame with C, Cl, H, O stay .*Add"),
        ([*METHANOL[:3], rattled("HCl", 0)], 3, r"only 2 of 4 can be.* set data.validation = 2, or name a file"),
    ],
)
def test_too_few_frames_are_refused_with_what_is_needed(frames, validation, reason, configure):
    with pytest.raises(ConfigError, match=reason):
        read_splits(configure(frames, {"validation": validation}))


def test_as_many_as_possible_are_held_out_by_default(configure):
    frames = [*METHANOL[:2], *(rattled(name, 0) for name in ("HCl", "CH3SH", "SiH4", "NH3", "BF3", "NaCl", "LiF"))]
    frames += [atom("H")] * 12  # a tenth of all would be three
    training, validation = read_splits(configure(frames))
    assert (len(training), len(validation)) == (19, 2)  # one of methanol, and one of HCl


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_species_that_training_lacks_is_refused_by_name(name, configure):
    config = configure(METHANOL, {name: "own.extxyz"}, own=[METHANOL[0], rattled("CH3SH", 0), rattled("HCl", 0)])
    with pytest.raises(DataError, match=rf"own.extxyz in data.{name}: there are frames with Cl, S, which no frame"):
        train(config)


@pytest.mark.parametrize(
    ("weights", "data", "reason"),
    [
        ({"config_weight": 0.0}, {}, "all forces of the training frames have the weight 0"),
        ({"config_forces_weight": 0.0}, {}, "all forces of the training frames have the weight 0"),
        ({}, {"train": {"path": "data.extxyz", "weight": 0}}, "all forces of the training frames have the weight 0"),
        (
            {},
            {"validation": {"path": "data.extxyz", "weight": 0}},
            "all labels of the validation frames have the weight 0",
        ),
    ],
)
def test_weights_that_are_all_zero_are_refused(weights, data, reason, configure):
    frames = [rattled("CH3OH", seed) for seed in range(4)]
    for atoms in frames:
        atoms.info |= weights
    with pytest.raises(DataError, match=reason):
        read_splits(configure(frames, data))


def test_some_weights_may_be_zero(configure):
    frames = [rattled("CH3OH", seed) for seed in range(4)]
    for atoms in frames[1:]:
        atoms.info["config_weight"] = 0.0
    read_splits(configure(frames, {"validation": "data.extxyz"}))


def test_a_run_keeps_the_split_with_which_it_began(configure, monkeypatch):
    """A run of an earlier release that held out isolated atoms is continued with its own frames."""
    frames = [*METHANOL[:8], *(atom(symbol) for symbol in "HCO")]
    config = configure(frames, {"validation": 6, "seed": 1})
    shown = Progress.on_validation_end

    def fail(self, trainer, module):
        shown(self, trainer, module)
        if trainer.current_epoch == 1:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("ase_nbody.training.callbacks.SPLIT_RULE", PLAIN_SPLIT)
        unbroken = load_model(train(config.model_copy(update={"output": config.output + "_unbroken"})))
        patch.setattr(Progress, "on_validation_end", fail)
        with pytest.raises(RuntimeError, match="killed"):
            train(config)
    checkpoint, files = last_checkpoint(Path(config.output)), AtomicCheckpoints()
    content = files.load_checkpoint(checkpoint)
    del content["split_rule"]  # as in a checkpoint of that release
    files.save_checkpoint(content, checkpoint)

    resumed = load_model(train(config, resume=True))
    assert resumed.config == unbroken.config
    assert resumed.config.isolated_atom_energies["H"] != pytest.approx(ENERGIES["H"])
    assert all(torch.equal(weight, unbroken.state_dict()[name]) for name, weight in resumed.state_dict().items())
    assert split_rule(checkpoint) == PLAIN_SPLIT
