"""Fine-tuning: a trained model keeps its predictions, learns new species, and does not change frozen weights."""

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import NBodyCalculator, load_model
from ase_nbody.data import DataError, read_labelled
from ase_nbody.files.archive import load_members, read_card, save_model
from ase_nbody.training.config import ConfigError, TrainingConfig
from ase_nbody.training.evaluation import evaluate_model
from ase_nbody.training.initial import build_network
from ase_nbody.training.resuming import refuse_earlier_fit
from ase_nbody.training.run import train
from ase_nbody.training.splits import read_splits


def labelled(atoms, seed, shift=0.0):
    """The structure, rattled, with EMT's energy (plus a shift in eV/atom), forces and stress."""
    atoms.rattle(0.08, seed=seed)
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy() + shift * len(atoms), atoms.get_forces()
    results = {"stress": atoms.get_stress()} if atoms.pbc.all() else {}
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, **results)
    return atoms


def alloy(seed):
    """Copper with a nickel and an aluminium atom, packed more closely than the copper that the model was trained on."""
    atoms = bulk("Cu", a=3.1, cubic=True)
    atoms.symbols[[1, 2]] = ["Ni", "Al"]
    return labelled(atoms, seed)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny, frames):
    """A network trained on copper crystals and methanol."""
    folder = tmp_path_factory.mktemp("start")
    ase.io.write(folder / "data.extxyz", frames)
    content = {
        "data": {"train": "data.extxyz", "validation": 4},
        "network": {"levels": [{**tiny}, {**tiny, "parts": "heavy", "l_out": 0}]},
        "training": {"epochs": 40, "batch_size": 4, "warmup": 3, "compile": False},
        "report": False,
        "output": "run",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return train(TrainingConfig.from_yaml(folder / "config.yaml"))


@pytest.fixture
def config(tmp_path, model):
    """A function from labelled structures and entries to the configuration of a fine-tuning."""

    def make(structures, output="run", data=None, training=None, **network):
        ase.io.write(tmp_path / "new.extxyz", structures)
        content = {
            "data": {"train": "new.extxyz", "validation": 2, **(data or {})},
            "network": {"start_from": str(model), **network},
            "training": {"epochs": 5, "batch_size": 2, "warmup": 3, "compile": False, **(training or {})},
            "report": False,
            "output": output,
        }
        path = tmp_path / f"{output}.yaml"
        path.write_text(yaml.safe_dump(content))
        return TrainingConfig.from_yaml(path)

    return make


@pytest.fixture
def alloys():
    return [alloy(seed) for seed in range(6)]


def weights_of(network, *parts):
    return {name: weight for name, weight in network.state_dict().items() if name.startswith(parts)}


def test_old_species_are_predicted_as_before(config, alloys, model, frames):
    """Predictions for the old structures are the same to the bit, although the tables of species have new rows."""
    settings = config(alloys, training={"dtype": "float64"})
    network, before = build_network(settings, read_splits(settings)[0]), load_model(model)
    assert before.config.species == ("H", "C", "O", "Cu")
    assert network.config.species == ("H", "C", "O", "Al", "Ni", "Cu")
    old, new = NBodyCalculator(before), NBodyCalculator(network)
    for atoms in frames[::3]:
        for quantity in ("energy", "forces"):
            np.testing.assert_array_equal(new.get_property(quantity, atoms), old.get_property(quantity, atoms))


def test_new_species_can_be_evaluated_and_differ_from_each_other(config, alloys):
    settings = config(alloys)
    network = build_network(settings, read_splits(settings)[0])
    calculator = NBodyCalculator(network)
    atoms = alloys[0].copy()
    energy = calculator.get_property("energy", atoms)
    atoms.symbols[[1, 2]] = ["Al", "Ni"]
    assert abs(calculator.get_property("energy", atoms) - energy) > 1e-4
    assert np.isfinite(calculator.get_property("forces", atoms)).all()


def test_scales_are_kept_and_closest_distances_become_the_smaller_ones(config, alloys, model):
    settings = config(alloys)
    network, before = build_network(settings, read_splits(settings)[0]), load_model(model)
    assert network.config.energy_scale == before.config.energy_scale
    assert network.config.levels == before.config.levels
    old, new = before.config.closest_distances, network.config.closest_distances
    assert {pair: new[pair] for pair in old if pair != "Cu-Cu"} == {pair: old[pair] for pair in old if pair != "Cu-Cu"}
    assert {"Al-Ni", "Al-Cu", "Ni-Cu"} <= new.keys()
    assert new["Cu-Cu"] < old["Cu-Cu"]


def test_a_new_network_stands_on_a_fitted_potential_and_a_later_training_keeps_both(config, alloys, tiny, tmp_path):
    choices = {"embedded_atom": True, "levels": [{**tiny}, {**tiny, "l_out": 0}]}  # fading is the default
    plain = config(alloys, start_from=None, levels=choices["levels"], fading=False)
    settings = config(alloys, start_from=None, **choices)
    frames = read_splits(settings)[0]
    network, before = build_network(settings, frames), build_network(plain, frames)
    found = network.config
    assert before.config.embedded_atom is None
    assert before.config.densest == ()
    assert found.energy_scale < 0.7 * before.config.energy_scale, "the forces that the potential lacks"
    assert found.embedded_atom.binding.keys() == {"Al", "Ni", "Cu"}
    assert [level.keys() for level in found.densest] == [{"Al", "Ni", "Cu"}] * 2
    save_model(network, tmp_path / "stands.nbody")
    denser = [labelled(bulk("Cu", a=2.9, cubic=True), seed) for seed in range(4)]
    again = config(denser, data={"isolated_atom_energies": "fit"}, start_from=str(tmp_path / "stands.nbody"))
    assert (again.network.embedded_atom, again.network.fading) == (True, True)
    after = build_network(again, read_splits(again)[0]).config
    assert after.embedded_atom == found.embedded_atom
    for old, new in zip(found.densest, after.densest, strict=True):
        assert new["Cu"] > old["Cu"], "denser data count"
        assert new["Al"] == old["Al"]


def test_isolated_energies_are_kept_or_given_or_fitted(config, alloys, model):
    old = load_model(model).config.isolated_atom_energies

    def found(**data):
        settings = config(alloys, data=data)
        return build_network(settings, read_splits(settings)[0]).config.isolated_atom_energies

    assert {symbol: found()[symbol] for symbol in old} == old
    assert found(isolated_atom_energies={"Cu": -0.5, "Ni": -0.25}) == old | {
        "Cu": -0.5,
        "Ni": -0.25,
        "Al": pytest.approx(found(isolated_atom_energies={"Cu": -0.5, "Ni": -0.25})["Al"]),
    }
    fitted = found(isolated_atom_energies="fit")
    assert fitted["Cu"] != old["Cu"]
    assert fitted["H"] == old["H"]


def test_energies_with_another_zero_are_refused(config, model):
    """Also a difference that is smaller than a cohesive energy: the model's own predictions are the measure."""
    for shift in (-500.0, 2.0):
        shifted = [labelled(bulk("Cu", cubic=True), seed, shift=shift) for seed in range(5)]
        settings = config(shifted)
        with pytest.raises(
            DataError, match=r"differ by .* eV per atom from those that .*model.nbody predicts .*: fit,"
        ):
            build_network(settings, read_splits(settings)[0])
        settings = config(shifted, data={"isolated_atom_energies": "fit"})
        before = load_model(model).config.isolated_atom_energies["Cu"]
        found = build_network(settings, read_splits(settings)[0]).config.isolated_atom_energies["Cu"]
        assert found - before == pytest.approx(shift, abs=0.2)
    wrong = {"isolated_atom_energies": {"Cu": -9.0}}
    settings = config([labelled(bulk("Cu", cubic=True), seed) for seed in range(5)], data=wrong)
    with pytest.raises(DataError, match=r"Correct data\.isolated_atom_energies or set it to fit"):
        build_network(settings, read_splits(settings)[0])


def test_a_fit_shifts_the_model_to_the_zero_of_the_data_and_keeps_its_cohesion(config):
    """After a few steps the forces are those of a fine-tuning on the same data without the shift."""
    plain = [labelled(molecule("CH3OH"), seed) for seed in range(6)]
    shifted = [labelled(molecule("CH3OH"), seed, shift=100.0 / 6.0) for seed in range(6)]
    steps = {"epochs": 2, "dtype": "float64"}
    kept = load_model(train(config(plain, output="kept", training=steps)))
    fitted = load_model(train(config(shifted, "fitted", {"isolated_atom_energies": "fit"}, steps)))
    atoms = labelled(molecule("CH3OH"), 20)
    forces = [NBodyCalculator(network).get_property("forces", atoms) for network in (kept, fitted)]
    errors = [np.abs(force - atoms.get_forces()).mean() for force in forces]
    assert np.abs(forces[1] - forces[0]).mean() < 0.1 * np.abs(forces[0]).mean(), errors
    assert errors[1] < 1.1 * errors[0] + 0.01, errors


def test_a_run_that_an_earlier_release_fitted_is_not_resumed(config):
    """Its isolated-atom energies would jump. Checkpoints of that release have no digest of each file."""
    settings = config([labelled(molecule("CH3OH"), 0)], data={"isolated_atom_energies": "fit"})
    with pytest.raises(ConfigError, match="began with a release that fitted the isolated-atom energies"):
        refuse_earlier_fit(settings, ["C"], {"digests": {"data.train": "0"}})
    refuse_earlier_fit(settings, ["C"], {"digests": {"data.train.0": "0"}})
    refuse_earlier_fit(settings, [], {"digests": {}})
    refuse_earlier_fit(settings, ["C"], {})


def test_a_model_that_knows_no_species_of_the_data_is_refused(config):
    settings = config([labelled(bulk("Al", cubic=True), seed) for seed in range(3)])
    with pytest.raises(ConfigError, match="knows H, C, O, Cu, and none of them is in the data"):
        build_network(settings, read_splits(settings)[0])


@pytest.mark.parametrize(("data", "culprit"), [({}, "isolated atoms in the data"), ({"Al": 0.0}, "isolated_atom_ener")])
def test_isolated_atoms_of_another_program_are_refused(data, culprit, config, tiny):
    """Energies of 0 beside total energies of hundreds of eV, for a new network too."""
    frames = [labelled(bulk("Al", cubic=True), seed, shift=-500.0) for seed in range(3)]
    alone = Atoms("Al")
    alone.calc = SinglePointCalculator(alone, energy=0.0, forces=np.zeros((1, 3)))
    levels = [{**tiny}, {**tiny, "parts": "heavy", "l_out": 0}]
    entries = {"isolated_atom_energies": data} if data else {}
    settings = config(frames if data else [alone, *frames], data=entries, start_from=None, levels=levels)
    with pytest.raises(DataError, match=rf"differ by -.* eV per atom from those of .*{culprit}"):
        build_network(settings, read_splits(settings)[0])


def test_fine_tuning_on_few_frames_beats_training_from_scratch(config, tmp_path, tiny):
    few = [labelled(bulk("Cu", cubic=True, a=3.65), seed) for seed in range(6)]
    ase.io.write(tmp_path / "test.extxyz", [labelled(bulk("Cu", cubic=True, a=3.65), seed) for seed in range(90, 100)])
    tuned = train(config(few, output="tuned"))
    levels = [{**tiny}, {**tiny, "parts": "heavy", "l_out": 0}]
    # Without the embedded-atom potential, which would explain EMT by itself.
    fresh = train(config(few, output="fresh", start_from=None, levels=levels, embedded_atom=False))
    test = read_labelled(tmp_path / "test.extxyz")
    errors = [evaluate_model(load_model(path), test)["forces"]["mae"] for path in (tuned, fresh)]
    assert errors[0] < 0.6 * errors[1], errors
    card = read_card(tuned)["card"]
    assert card["started from"].startswith("model.nbody, ")


@pytest.mark.parametrize(
    ("freeze", "frozen", "free"),
    [
        ([1], ("levels.0.",), ("embedding.", "levels.1.")),
        ({"levels": [2], "embedding": True}, ("levels.1.", "embedding."), ("levels.0.",)),
    ],
)
def test_frozen_weights_stay_the_same_to_the_bit(freeze, frozen, free, config, model):
    few = [labelled(bulk("Cu", cubic=True), seed) for seed in range(6)]
    after = load_model(train(config(few, freeze=freeze, training={"epochs": 2})))
    before = load_model(model)
    for name, weight in weights_of(before, *frozen).items():
        assert torch.equal(after.state_dict()[name], weight), name
    changed = [not torch.equal(after.state_dict()[name], weight) for name, weight in weights_of(before, *free).items()]
    assert sum(changed) > len(changed) / 2


@pytest.mark.parametrize(
    ("entries", "culprit"),
    [
        ({"levels": [{"radius": 3.0}]}, "network.levels differs from that of the model"),
        ({"repulsion": False}, "network.repulsion differs"),
        ({"embedding": 7}, "network.embedding differs"),
        ({"freeze": [3]}, "names level 3, but there are 2 levels"),
        ({"freeze": {"levels": [1, 2], "embedding": True}}, "leaves nothing to train"),
        ({"freeze": [0]}, "network.freeze"),
        ({"freeze": {"level": [1]}}, "did you mean 'levels'"),
    ],
)
def test_entries_that_contradict_the_model_are_named(entries, culprit, config):
    few = [labelled(bulk("Cu", cubic=True), seed) for seed in range(3)]
    with pytest.raises(ConfigError, match=culprit):
        build_network(settings := config(few, **entries), read_splits(settings)[0])


def test_random_weights_are_never_frozen(config, tiny):
    """``freeze`` alone names no model: the level would keep its random weights."""
    few = [labelled(bulk("Cu", cubic=True), seed) for seed in range(3)]
    entries = {"start_from": None, "levels": [{**tiny}], "freeze": {"levels": [], "embedding": True}}
    with pytest.raises(ConfigError, match=r"network.freeze .*network.start_from"):
        build_network(settings := config(few, **entries), read_splits(settings)[0])


def test_a_missing_model_is_named(config):
    few = [labelled(molecule("CH3OH"), seed) for seed in range(3)]
    with pytest.raises(FileNotFoundError, match="shipped models are"):
        config(few, start_from="nowhere")


def test_the_seed_chooses_the_member_of_a_committee(config, model, tmp_path):
    """A committee that is fine-tuned with ``--seeds`` therefore starts from each of its members."""
    few = [labelled(molecule("CH3OH"), seed) for seed in range(3)]
    one, other = load_model(model), load_model(model)
    for weight in other.parameters():
        weight.mul_(1.01)
    committee = save_model([one, other], tmp_path / "committee.nbody")
    for seed, member in ((0, one), (1, other), (2, one), (7, other)):
        settings = config(few, start_from=committee.name, training={"seed": seed})
        weights = build_network(settings, read_splits(settings)[0]).state_dict()
        for name, weight in member.state_dict().items():
            torch.testing.assert_close(weights[name], weight.to(weights[name]), rtol=0, atol=0)


def test_the_written_configuration_describes_the_same_run(config, model):
    settings = config([labelled(molecule("CH3OH"), seed) for seed in range(3)])
    assert settings.network.levels == load_model(model).config.levels
    path = settings.output + ".full.yaml"
    with open(path, "w") as file:
        file.write(settings.to_yaml())
    assert TrainingConfig.from_yaml(path) == settings


def test_the_name_of_a_shipped_model_is_kept(tmp_path):
    (tmp_path / "a.yaml").write_text("data: {train: a.extxyz}\nnetwork: {start_from: ethanol}\n")
    network = TrainingConfig.from_yaml(tmp_path / "a.yaml").network
    assert network.start_from == "ethanol"
    assert network.levels == load_members("ethanol")[0].config.levels


def test_a_model_gets_new_heads_for_outputs_that_it_lacks(config, model, tmp_path):
    """Its own weights stay, also those of heads that it has; both are drawn anew with another seed only."""
    few = [labelled(molecule("CH3OH"), seed) for seed in range(3)]
    before = load_model(model)
    settings = config(few, outputs=["charges"], training={"dtype": "float64"})
    network = build_network(settings, read_splits(settings)[0])
    assert network.config.outputs == ("charges",)
    weights = network.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in before.state_dict().items())
    heads = weights_of(network, "heads.")
    assert heads.keys() == weights.keys() - before.state_dict().keys()
    assert all(head.any() for head in heads.values())

    charged = save_model(network, tmp_path / "charged.nbody")
    settings = config(few, start_from=charged.name, training={"seed": 5, "dtype": "float64"})
    assert settings.network.outputs == ("charges",)
    again = build_network(settings, read_splits(settings)[0])
    assert all(torch.equal(weights[name], weight) for name, weight in again.state_dict().items())
    with pytest.raises(ConfigError, match=r"network\.outputs lacks charges, which the model"):
        config(few, start_from=charged.name, outputs=[])


def test_species_that_join_get_the_mean_of_the_heads(config, alloys, model, tmp_path):
    few = [labelled(molecule("CH3OH"), seed) for seed in range(3)]
    settings = config(few, outputs=["charges"], training={"dtype": "float64"})
    charged = build_network(settings, read_splits(settings)[0])
    settings = config(
        alloys, start_from=save_model(charged, tmp_path / "charged.nbody").name, training={"dtype": "float64"}
    )
    network = build_network(settings, read_splits(settings)[0])
    assert network.config.species == ("H", "C", "O", "Al", "Ni", "Cu")
    for name, weight in weights_of(network, "heads.").items():
        old = charged.state_dict()[name]
        if not name.endswith("hidden"):
            assert torch.equal(weight[[0, 1, 2, 5]], old)
            old = old.mean(0)
            weight = weight[3]
        torch.testing.assert_close(weight, old)


@pytest.mark.parametrize("outputs", [[], ["charges"]])
def test_a_fresh_network_has_the_outputs_of_the_configuration(outputs, config, tiny):
    few = [labelled(molecule("CH3OH"), seed) for seed in range(3)]
    levels = [{**tiny}, {**tiny, "parts": "heavy", "l_out": 0}]
    settings = config(few, start_from=None, levels=levels, outputs=outputs)
    assert build_network(settings, read_splits(settings)[0]).config.outputs == tuple(outputs)


def test_heads_can_be_trained_alone(config, model):
    """All levels frozen: the heads of new outputs are what is left."""
    few = [labelled(molecule("CH3OH"), seed) for seed in range(3)]
    settings = config(few, outputs=["charges"], freeze={"levels": [1, 2], "embedding": True})
    network = build_network(settings, read_splits(settings)[0])
    free = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert free == weights_of(network, "heads.").keys()


@pytest.mark.parametrize(
    ("network", "culprit"),
    [
        ({"levels": [{"parts": "heavy", "channels": 2}]}, "repulsion needs level 1"),
        ({"levels": [{"read_out": False, "channels": 2}], "outputs": ["charges"]}, "level 1 is the last one"),
    ],
)
def test_a_network_that_cannot_be_is_refused_in_a_sentence(network, culprit, frames, tmp_path):
    ase.io.write(tmp_path / "data.extxyz", frames)
    content = {"data": {"train": "data.extxyz", "validation": 4}, "network": network}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))

    def build():
        config = TrainingConfig.from_yaml(tmp_path / "config.yaml")
        return build_network(config, read_splits(config)[0])

    with pytest.raises(ConfigError, match=culprit) as caught:
        build()
    assert "pydantic" not in str(caught.value)
