"""What a training starts from: ``network.start_from: auto``, ``none`` or a name, and what a start decides."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from rich.console import Console

import ase_nbody
from ase_nbody import NBodyCalculator, load_model
from ase_nbody.files.archive import load_members, read_card, save_model
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.training.config import TrainingConfig, as_begun
from ase_nbody.training.config.start import FINE_TUNING, general_model
from ase_nbody.training.initial import build_network
from ase_nbody.training.isolated_atoms import takes_isolated_atoms
from ase_nbody.training.run import train
from ase_nbody.training.splits import read_splits
from ase_nbody.training.start import with_start

SPECIES = ("H", "C", "N", "O", "Cu")
SHORT = {"epochs": 2, "batch_size": 3, "warmup": 2, "compile": False}


def labelled(name_or_atoms, seed, shift=0.0, **info):
    """The structure, rattled, with EMT's forces and its energy plus ``shift`` eV for each atom."""
    atoms = molecule(name_or_atoms) if isinstance(name_or_atoms, str) else name_or_atoms.copy()
    atoms.set_initial_magnetic_moments(None)
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy() + shift * len(atoms), atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    atoms.info |= info
    return atoms


@pytest.fixture(scope="module")
def network(tiny):
    levels = [{**tiny}, {**tiny, "parts": "heavy", "l_out": 0}]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        states = {"total_charges": (0,), "multiplicities": (1,)}
        isolated = dict.fromkeys(SPECIES, -5.0)
        return NBodyNetwork(NBodyConfig(species=SPECIES, levels=levels, isolated_atom_energies=isolated, **states))


@pytest.fixture(scope="module")
def site(tmp_path_factory, network):
    """A folder for ``PYTHONPATH`` with the package as a wheel installs it, and with a small model named ``organic``."""
    package = tmp_path_factory.mktemp("site") / "ase_nbody"
    package.mkdir()
    for path in Path(ase_nbody.__file__).parent.iterdir():
        if path.name != "models":
            (package / path.name).symlink_to(path)
    (package / "models").mkdir()
    (package / "models" / "__init__.py").touch()
    save_model(network, package / "models" / "organic.nbody")
    return package.parent


def run(site, folder, *command):
    """What a Python with this package prints; the command runs in ``folder``."""
    found = subprocess.run(
        [sys.executable, "-W", "error", *map(str, command)],
        cwd=folder,
        env={"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "HOME": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def write(folder, frames, name="data.yaml", **entries):
    ase.io.write(folder / "data.extxyz", frames)
    content = {"data": {"train": "data.extxyz", "validation": 2}, "training": SHORT, "report": False} | entries
    (folder / name).write_text(yaml.safe_dump(content | {"output": "run"}))
    return folder / name


METHANOLS = [labelled("CH3OH", seed) for seed in range(6)]
# Entries, frames, the expected start, and what is said of it.
CASES = {
    "molecules": ({}, METHANOLS, "organic", "starts from the model organic, .* none"),
    "auto by name": ({"network": {"start_from": "auto"}}, METHANOLS, "organic", "starts from the model organic"),
    "other entries": (
        {"network": {"outputs": [], "total_charges": [0]}, "training": {"epochs": 3}},
        METHANOLS,
        "organic",
        "starts from the model organic",
    ),
    "free atoms in a box": (
        {},
        [*METHANOLS, labelled(Atoms("H", cell=[12.0] * 3, pbc=True), 0)],
        "organic",
        "starts from the model organic",
    ),
    "none": ({"network": {"start_from": "none"}}, METHANOLS, None, "^$"),
    "null": ({"network": {"start_from": None}}, METHANOLS, None, "^$"),
    "levels": ({"network": {"levels": [{"radius": 4.0}]}}, METHANOLS, None, "^$"),
    "embedding": ({"network": {"embedding": 4}}, METHANOLS, None, "^$"),
    "repulsion": ({"network": {"repulsion": True}}, METHANOLS, None, "^$"),
    "freeze": ({"network": {"freeze": [1]}}, METHANOLS, None, "^$"),
    "embedded atom": ({"network": {"embedded_atom": True}}, METHANOLS, None, "^$"),
    "fading": ({"network": {"fading": True}}, METHANOLS, None, "^$"),
    "pretraining": ({"pretraining": {"frames": 100}}, METHANOLS, None, "^$"),
    "medium": ({"preset": "medium"}, METHANOLS, None, "^$"),
    "small, which is not shipped": ({"preset": "small"}, METHANOLS, None, "^$"),
    "another element": ({}, [*METHANOLS, labelled("H2O", 0), labelled(Atoms("AlO", [[0, 0, 0], [0, 0, 1.7]]), 0)], None,
                        "starts from nothing. .*organic .*does not know Al"),
    "an ion": ({}, [*METHANOLS, labelled("CH3OH", 9, charge=1)], None, r"extxyz, frame 6: .*total charge of \+1 e"),
    "a radical": ({}, [*METHANOLS, labelled("CH3", 9)], None, r"extxyz, frame 6: .* 9 electrons"),
    "a crystal of its elements": (
        {},
        [labelled(Atoms("Cu4", [[0, 0, 0], [0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]], cell=[3.6] * 3, pbc=True), i)
         for i in range(4)],
        None,
        "is periodic, and it learnt free molecules .where a box holds one molecule alone, remove its pbc",
    ),
    "a crystal of others": (
        {},
        [labelled(Atoms("Al4", [[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]], cell=[4.0] * 3, pbc=True), i)
         for i in range(4)],
        None,
        "^$",
    ),
}  # fmt: skip

CHOOSE = """
import json, sys
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.splits import read_splits
from ase_nbody.training.start import with_start
found = {}
for name, path in json.load(open("cases.json")).items():
    config = TrainingConfig.from_yaml(path)
    training, validation = read_splits(config)
    config, said = with_start(config, {"training": training, "validation": validation})
    found[name] = [config.network.start_from, said, [level.channels for level in config.network.levels]]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def chosen(site, tmp_path_factory):
    """What each of the cases starts from and says, where ``organic`` is shipped."""
    folder, paths = tmp_path_factory.mktemp("cases"), {}
    for number, (name, (entries, frames, *_)) in enumerate(CASES.items()):
        (folder / str(number)).mkdir()
        paths[name] = str(write(folder / str(number), frames, **entries))
    (folder / "cases.json").write_text(json.dumps(paths))
    return json.loads(run(site, folder, "-c", CHOOSE))


@pytest.mark.parametrize("name", CASES)
def test_auto_takes_the_general_model_where_it_suits(name, chosen, tiny):
    start, said, channels = chosen[name]
    _, _, expected, message = CASES[name]
    assert start == expected
    assert re.search(message, said), said
    if start:
        assert channels == [tiny["channels"]] * 2, "the shape is that of the model"


def test_a_minimal_file_starts_from_the_general_model_and_resumes_without_it(site, tmp_path, tiny):
    """The whole command. What ``auto`` chose is written by name, and the defaults are those of a fine-tuning."""
    path = write(tmp_path, [labelled("CH3OH", seed, shift=-300.0) for seed in range(8)])
    said = run(site, tmp_path, "-m", "ase_nbody.cli", "train", path, "--threads", 1)
    assert "starts from the model organic" in said.replace("\n", " ")
    written = TrainingConfig.as_written(tmp_path / "run" / "config.yaml")
    assert written.network.start_from == "organic"
    assert {name: getattr(written.training, name) for name in FINE_TUNING} == FINE_TUNING
    assert written.data.isolated_atom_energies == "fit"
    tuned, card = load_model(tmp_path / "run" / "model.nbody"), read_card(tmp_path / "run" / "model.nbody")["card"]
    assert tuned.config.species == SPECIES
    assert tuned.config.isolated_atom_energies["N"] == -5.0, "no frame says anything of nitrogen"
    assert tuned.config.isolated_atom_energies["H"] < -200.0
    assert (tuned.config.total_charges, tuned.config.multiplicities) == ((0,), (1,))
    assert card["started from"].startswith("organic, ")
    # The same minimal file goes on as the run began, whatever is shipped.
    begun = as_begun(TrainingConfig.from_yaml(path), written)
    assert begun.network.start_from == "organic"
    assert begun.network.levels == written.network.levels
    assert begun.training.muon_rate == FINE_TUNING["muon_rate"]
    longer = run(site, tmp_path, "-m", "ase_nbody.cli", "train", path, "training.epochs=3", "--resume", "--threads", 1)
    assert "starts from" not in longer
    assert TrainingConfig.as_written(tmp_path / "run" / "config.yaml").training.epochs == 3


def test_a_run_that_began_from_nothing_goes_on_from_nothing(tmp_path):
    """Earlier releases wrote ``start_from: null``, with their own rates."""
    path = write(tmp_path, METHANOLS, training={"epochs": 2})
    config = TrainingConfig.from_yaml(path)
    assert general_model(config) == "organic"
    content = yaml.safe_load(config.to_yaml())
    content["network"]["start_from"] = None
    begun = TrainingConfig.model_validate(content)
    again = as_begun(config, begun)
    assert again.network.start_from is None
    assert again.training.muon_rate == begun.training.muon_rate == 0.005
    assert TrainingConfig.from_yaml(path, ["network.start_from=none"]).network.start_from is None


def test_a_fine_tuning_goes_on_with_the_rates_that_it_began_with(tmp_path, network):
    """Also one that began when the defaults were others."""
    start = save_model(network, tmp_path / "start.nbody")
    path = write(tmp_path, METHANOLS, network={"start_from": start.name}, training={"epochs": 2, "adam_rate": 0.003})
    config = TrainingConfig.from_yaml(path)
    before = config.training.model_copy(update={"muon_rate": 0.005, "adam_rate": 0.004})
    again = as_begun(config, config.model_copy(update={"training": before}))
    assert (again.training.muon_rate, again.training.adam_rate) == (0.005, 0.003)


def test_the_preset_small_takes_the_small_model_and_no_levels_beside_it(tmp_path):
    def found(*overrides):
        return general_model(TrainingConfig.from_yaml(write(tmp_path, METHANOLS), overrides))

    assert found() == "organic"
    assert found("preset=small") == "organic-small"
    assert found("preset=small", "network.levels.0.radius=4.5") is None
    assert found("preset=large") is None
    assert found("network.levels.0.radius=4.5") is None


def test_a_start_moves_to_the_zero_of_the_data_and_keeps_the_atoms_that_are_there(tmp_path, network):
    """A constant for each atom: one composition determines n . c alone, and isolated atoms are taken as they are."""
    start = save_model(network, tmp_path / "start.nbody")
    zero = {"H": -20.0, "C": -1000.0, "O": 500.0}

    def moved(frames, given="fit"):
        frames = [frame.copy() for frame in frames]
        for frame in frames:
            frame.calc = EMT()
            energy = frame.get_potential_energy() + sum(zero[symbol] for symbol in frame.symbols)
            frame.calc = SinglePointCalculator(frame, energy=energy, forces=frame.get_forces())
        path = write(tmp_path, frames, network={"start_from": start.name}, data={"train": "data.extxyz",
                     "validation": 1, "isolated_atom_energies": given})  # fmt: skip
        settings = TrainingConfig.from_yaml(path)
        found = build_network(settings, read_splits(settings)[0]).config.isolated_atom_energies
        assert found["N"] == -5.0
        return np.array([found[symbol] + 5.0 for symbol in "HCO"])

    alike = moved(METHANOLS)
    composition = np.array([4, 1, 1])
    np.testing.assert_allclose(alike, composition * (alike @ composition) / 18, rtol=1e-6)  # least norm
    expected = sum(zero[symbol] for symbol in "HHHHCO")
    assert abs(alike @ composition - expected) < 60.0, "but for the cohesive energies of an untrained network"
    different = moved([labelled(name, seed) for name in ("CH3OH", "H2O", "CH4", "CO") for seed in range(3)])
    np.testing.assert_allclose(different, [zero[symbol] for symbol in "HCO"], atol=20.0)
    atoms = [labelled(Atoms("O"), 0), labelled(Atoms("H"), 0)]
    with_atoms = moved([*METHANOLS, *atoms])
    free = [EMT().get_potential_energy(atoms[1]) + zero["H"] + 5.0, EMT().get_potential_energy(atoms[0]) + 505.0]
    np.testing.assert_allclose(with_atoms[[0, 2]], free, atol=1e-9)
    carbon = zero["C"] - 10.0  # with the cohesion that the untrained network lacks
    given = moved([*METHANOLS, *atoms], {"C": carbon})  # for the others, the data go before the model
    np.testing.assert_allclose(given, [free[0], carbon + 5.0, free[1]], atol=1e-9)


def test_isolated_atoms_do_not_lift_a_model_that_counts_from_molecules(tmp_path, network, capsys):
    """Its constants hold the cohesive energy, as those of organic do: data with free atoms were refused as wrong."""
    start = save_model(network, tmp_path / "start.nbody")
    atoms = [labelled(Atoms(symbol), 0, shift=-20.0) for symbol in "HCO"]
    bound = [labelled("CH3OH", seed, shift=-30.0) for seed in range(6)]

    def configured(frames, **data):
        data |= {"train": "data.extxyz", "validation": 1}
        path = write(tmp_path, frames, network={"start_from": start.name}, data=data)
        return TrainingConfig.from_yaml(path)

    def trained(frames, **data):
        found = load_model(train(configured(frames, **data), console=Console(width=400))).config.isolated_atom_energies
        shutil.rmtree(tmp_path / "run")
        return found

    assert trained([*atoms, *bound]) == pytest.approx(trained(bound), abs=1e-9)
    said = capsys.readouterr().out
    assert said.count("The isolated atoms of the data are not used: ") == 1
    assert said.count("5 training structures and 1 validation structure") == 2
    with pytest.raises(ase_nbody.data.DataError, match="counts from constants that were fitted to molecules, not from"):
        train(configured(bound, isolated_atom_energies=dict.fromkeys("HCO", -20.0)))


def test_which_shipped_models_count_from_free_atoms(tmp_path):
    """The data are ethanol's own, with its isolated atoms: it takes them, and organic cannot."""
    first, ethanol = load_members("ethanol")[0], molecule("CH3CH2OH")
    ethanol.calc = NBodyCalculator("ethanol")
    energy, forces = ethanol.get_potential_energy(), ethanol.get_forces()
    ethanol.calc = SinglePointCalculator(ethanol, energy=energy, forces=forces)
    frames = [ethanol, ethanol, ethanol]
    for symbol in "HCO":
        atom = Atoms(symbol)
        atom.calc = SinglePointCalculator(atom, energy=first.config.isolated_atom_energies[symbol], forces=[[0, 0, 0]])
        frames.append(atom)
    settings = TrainingConfig.from_yaml(write(tmp_path, frames, network={"start_from": "none"}))
    training = read_splits(settings)[0]
    assert len(training) == 4
    assert takes_isolated_atoms(first, training)
    assert not takes_isolated_atoms(load_members("organic")[0], training)
    (silicon,) = load_members("silicon")
    assert takes_isolated_atoms(silicon, training), "it knows no species of the data, so they do not tell"


def test_an_element_that_is_new_takes_its_total_energy_alone(tmp_path, network):
    """The least norm would share it with the elements that the model knows."""
    content = network.config.model_dump() | {"species": ("H", "C"), "isolated_atom_energies": {"H": -5.0, "C": -5.0}}
    start = save_model(NBodyNetwork(NBodyConfig.model_validate(content)), tmp_path / "start.nbody")
    frames = [labelled("CH3OH", seed) for seed in range(5)]
    for frame in frames:
        frame.calc = SinglePointCalculator(
            frame, energy=frame.get_potential_energy() - 2000.0, forces=frame.get_forces()
        )
    settings, _ = with_start(TrainingConfig.from_yaml(write(tmp_path, frames, network={"start_from": start.name})), {})
    found = build_network(settings, read_splits(settings)[0]).config.isolated_atom_energies
    assert (found["H"], found["C"]) == pytest.approx((-5.0, -5.0), abs=1e-6)
    assert found["O"] == pytest.approx(-2000.0, abs=60.0)


def test_training_frames_of_other_states_are_refused_by_name(tmp_path, tiny):
    levels = [{**tiny}, {**tiny, "parts": "heavy", "l_out": 0}]
    states = {"levels": levels, "total_charges": [0], "multiplicities": [1]}
    frames = [labelled("CH3OH", seed) for seed in range(5)]
    for odd, message in ((labelled("CH3OH", 9, charge=-1), r"frame 5: .*total charge of -1 e"),
                         (labelled("CH3", 9), r"frame 5: .*9 electrons"),
                         (labelled("CH4", 9, spin=3), r"frame 5: .*multiplicity 3")):  # fmt: skip
        config = TrainingConfig.from_yaml(write(tmp_path, [*frames, odd], network=states))
        with pytest.raises(ase_nbody.data.DataError, match=message):
            train(config)
        shutil.rmtree(tmp_path / "run")
    settings = TrainingConfig.from_yaml(write(tmp_path, frames, network=states))
    found = build_network(settings, read_splits(settings)[0]).config
    assert (found.total_charges, found.multiplicities) == ((0,), (1,))


def test_a_model_of_triplets_has_an_example_and_worst_frames_that_it_takes(tmp_path, tiny):
    levels = [{**tiny}, {**tiny, "parts": "heavy", "l_out": 0}]
    frames = [labelled("O2", seed, spin=3) for seed in range(5)]
    path = write(tmp_path, frames, network={"levels": levels, "multiplicities": [3]}, report=True)
    calculator = ase_nbody.NBodyCalculator(train(TrainingConfig.from_yaml(path)))
    worst = ase.io.read(tmp_path / "run" / "worst.extxyz", ":")
    for atoms in (*worst, ase.io.read(tmp_path / "run" / "model.nbody")):
        assert np.isfinite(calculator.get_potential_energy(atoms))


def test_a_fine_tuned_model_knows_the_states_of_its_own_data(tmp_path, network):
    """It forgets what its start learnt of others; a start that says nothing of them stays open."""
    start = save_model(network, tmp_path / "start.nbody")
    anions = [labelled("CH3O", seed, charge=-1) for seed in range(5)]
    settings = TrainingConfig.from_yaml(write(tmp_path, anions, network={"start_from": start.name}))
    settings, _ = with_start(settings, {})
    found = build_network(settings, read_splits(settings)[0]).config
    assert (found.total_charges, found.multiplicities) == ((-1,), (1,))
