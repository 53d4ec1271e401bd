"""Every choice of products, types, parities and gates makes a potential with the same physics."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ase_nbody import NBodyCalculator
from ase_nbody.files.archive import load_model, read_card, save_model
from ase_nbody.files.entries import FEATURES, features_of
from ase_nbody.network.config import LevelConfig, NBodyConfig, Products
from ase_nbody.network.coverage import Coverage
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.network.types import LevelTypes
from ase_nbody.potential import evaluate
from ase_nbody.runtime import blocks, runner
from ase_nbody.runtime.runner import Runner
from ase_nbody.so3 import Type
from ase_nbody.testing import assert_covariant, derivative, energy_along, energy_strained, random_rotation

INVERSION = -torch.eye(3, dtype=torch.float64)
ROTATIONS = {"rotation": random_rotation(0), "improper": random_rotation(1, improper=True), "inversion": INVERSION}


# ---------------------------------------------------------------------------------------------------------- physics


@pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS.keys())
@pytest.mark.parametrize("name", ["molecule", "triclinic"])
def test_energy_is_invariant_and_forces_turn_along(rotation, name, form, predict, systems):
    atoms, turned = systems[name](), systems[name]()
    turned.set_cell(atoms.cell.array @ rotation.numpy().T)
    turned.positions = atoms.positions @ rotation.numpy().T
    found, expected = predict(form, turned), predict(form, atoms)
    for value, reference in (
        (found.energies, expected.energies),
        (found.forces, expected.forces @ rotation.T),
        (found.virials, rotation @ expected.virials @ rotation.T),
    ):
        torch.testing.assert_close(value, reference, rtol=0, atol=1e-10 * float(reference.abs().max()))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_covariance_of_a_level(number, form, hierarchy_of, systems):
    hierarchy = hierarchy_of(form, systems["triclinic"]())
    level, layer, tau = hierarchy.levels[number], form.levels[number], form.taus[number]
    species = form.one_hot[hierarchy.numbers[level.centre]]
    generator = torch.Generator().manual_seed(number)
    rows = len(hierarchy.numbers) if number == 0 else len(hierarchy.levels[number - 1].centre)
    below = [
        torch.randn(irrep.components, rows, count, dtype=torch.float64, generator=generator)
        for irrep, count in tau.irreps.items()
    ]
    radius = form.config.levels[number].radius
    vectors = torch.randn(*level.mask.shape, 3, dtype=torch.float64, generator=generator)
    vectors = torch.where(level.mask.unsqueeze(-1), 0.3 * radius * vectors, 2.0 * radius)

    def states(state, vectors):
        return layer(state, vectors.movedim(-1, 0), vectors.norm(dim=-1), level, species)[0]

    assert_covariant(states, tau.dense(tuple(below)), tau, layer.tau_out, vectors=vectors)


def test_forces_and_stress_are_derivatives_of_the_energy(form, systems):
    """Along a random displacement of all atoms and a random strain, of which every component counts."""
    atoms = systems["triclinic"]()
    atoms.calc = NBodyCalculator(form, dtype="float64")
    random = np.random.default_rng(0)
    displacement, strain = random.normal(size=atoms.positions.shape), random.normal(size=(3, 3))
    strain += strain.T
    slope = derivative(energy_along(atoms, displacement), 3e-4)
    assert -(atoms.get_forces() * displacement).sum() == pytest.approx(slope, rel=1e-6)
    slope = derivative(energy_strained(atoms, strain), 1e-4)
    assert atoms.get_volume() * (atoms.get_stress(voigt=False) * strain).sum() == pytest.approx(slope, rel=1e-6)


def test_a_batch_is_its_structures_one_by_one(form, predict, systems):
    chosen = ("molecule", "no anchors", "lone carbon", "triclinic", "empty", "no neighbours")
    batch = [systems[name]() for name in chosen]
    together, alone = predict(form, *batch), [predict(form, atoms) for atoms in batch]
    for name in ("energy", "energies", "forces", "virials"):
        expected = torch.cat([getattr(prediction, name) for prediction in alone])
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(getattr(together, name), expected, rtol=0, atol=1e-12 * scale)
    for number in (2, 5):
        energies = [form.config.isolated_atom_energies[symbol] for symbol in batch[number].symbols]
        assert alone[number].energies.tolist() == energies


def test_blocks_give_what_the_whole_gives(form, hierarchy_of, systems, monkeypatch):
    monkeypatch.setitem(blocks.BLOCK_PARTS, "cpu", (3, 3))
    monkeypatch.setitem(runner.WHOLE_ATOMS, "cpu", 2)
    atoms = systems["molecule"]()
    given = hierarchy_of(form, atoms), torch.tensor(atoms.positions), torch.tensor(atoms.cell.array).unsqueeze(0)
    found, expected = Runner(form)(*given), evaluate(form, *given)
    for name in ("energy", "forces", "virials"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-11, atol=1e-11)


def test_every_weight_matters(form, predict, systems):
    """No weight is multiplied by zeros that fill a state up, and none leads nowhere."""
    network = NBodyNetwork(form.config)
    network.load_state_dict(form.state_dict())
    declared = NBodyNetwork.declared_weights(form.config)
    prediction = predict(network, systems["molecule"](), systems["triclinic"](), create_graph=True)
    loss = prediction.energy.sum() + prediction.forces.square().sum()
    gradients = torch.autograd.grad(loss, list(network.parameters()))  # fails where a weight is not used
    for (name, _), gradient in zip(network.named_parameters(), gradients, strict=True):
        if declared[name].matrix:
            size = gradient.abs()
            assert min(size.amax(-1).min(), size.amax(-2).min()) > 0.0, name
        else:
            assert gradient.any(), name


def test_pseudo_tensors_take_part_in_the_energy(make_form, predict, systems):
    network = make_form("both parities")
    before = predict(network, systems["molecule"]()).energy
    network.levels[1].message.l1p.data[:] *= 3.0
    assert (predict(network, systems["molecule"]()).energy - before).abs() > 1e-7


# ---------------------------------------------------------------------------------------------------- types, weights


def test_types_of_the_states(make_form):
    taus = [str(tau) for tau in make_form("everything").taus]
    assert taus == ["6x0", "4x0 + 2x1 + 1x2 + 2x1p + 1x2p", "4x0 + 2x1 + 4x0p + 2x1p", "4x0"]
    assert [str(tau) for tau in make_form("rising").taus[1:]] == ["2x0 + 3x1 + 3x2", "2x0 + 3x1", "2x0"]


@pytest.mark.parametrize("product", ["gaunt", "clebsch_gordan"])
def test_a_type_ends_what_is_handed_up(product):
    """Without one, degrees above ``l_max`` are handed up with all channels."""
    level, atoms = {"l_out": 3, "product": product}, Type((2,))
    falling = LevelTypes.of(atoms, LevelConfig(channels="4x0 + 2x1", **level))
    assert falling.handed_up == Type((4, 2))
    assert falling.products.l_max == 1
    assert LevelTypes.of(atoms, LevelConfig(channels=4, l_max=1, **level)).handed_up == Type.uniform(4, 3)


def test_a_child_shows_its_fragments_in_proportion():
    config = LevelConfig(message_channels=32, product="clebsch_gordan", parity="both")
    assert str(LevelTypes.of(Type((64, 32, 1), (0, 32)), config).message) == "32x0 + 16x1 + 1x2 + 16x1p"
    assert str(LevelTypes.of(Type((64, 32), (0, 32)), LevelConfig()).message) == "32x0 + 16x1"


def test_declared_weights_are_those_of_the_network(form):
    declared = NBodyNetwork.declared_weights(form.config)
    assert list(declared) == [name for name, _ in form.named_parameters()]
    assert {name: weight.shape for name, weight in declared.items()} == {
        name: tuple(weight.shape) for name, weight in form.named_parameters()
    }


def test_defaults_draw_the_same_weights_as_ever(network):
    """Written out, the defaults of the new options change neither names nor weights."""
    levels = [
        level.model_dump() | {"product": "gaunt", "parity": "natural", "children_gate": False, "tau": None}
        for level in network.config.levels
    ]
    config = NBodyConfig(**{**network.config.model_dump(), "levels": levels})
    assert config == network.config
    states = []
    for each in (config, network.config):
        torch.manual_seed(0)
        states.append(NBodyNetwork(each).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_charges_of_a_falling_type(make_form, predict, systems):
    network = make_form("falling, free", outputs=("charges",))
    atoms = systems["molecule"]()
    found = predict(network, atoms)
    turned = atoms.copy()
    turned.positions = -atoms.positions
    torch.testing.assert_close(predict(network, turned)["dipole"], -found["dipole"])
    assert found["dipole"].abs().max() > 1e-3
    assert network.heads[0]["dipole"].weight.shape == (6, 2)


# ------------------------------------------------------------------------------------------------ configuration, files


def test_a_file_holds_every_choice(form, predict, systems, tmp_path):
    path = save_model(form, tmp_path / "model.nbody")
    loaded = load_model(path)
    assert loaded.config == form.config
    one, other = predict(loaded, systems["molecule"]()), predict(form, systems["molecule"]())
    assert torch.equal(one.forces, other.forces)
    content = read_card(path)
    assert content["format"] == 4
    assert content["features"] == features_of(content["config"]) != []


def test_each_choice_is_a_feature_of_its_own(make_form):
    """So a release that lacks one of them can still read files with the others."""
    names = {form: features_of(make_form(form).config.model_dump()) for form in ("falling", "children", "kondor")}
    assert names["falling"] == ["types"]
    assert names["children"] == ["children_gate"]
    assert names["kondor"] == ["channel_pairs", "children_gate", "products", "species_gains", "types"]
    keys = [key for feature in FEATURES.values() for key in (*feature.config, *feature.levels)]
    assert set(keys) == LevelConfig.newer | NBodyConfig.newer | Coverage.newer


# ------------------------------------------------------------------------------------------------------ configuration


def test_a_type_takes_the_place_of_l_max():
    level = LevelConfig(channels="64x0 + 32x1 + 16x2")
    assert (level.channels, level.l_max, level.tau) == (64, 2, (64, 32, 16))
    assert level == LevelConfig(tau=(64, 32, 16)) == LevelConfig.model_validate(level.model_dump())
    assert LevelConfig.model_validate_json(level.model_dump_json(), strict=True) == level
    assert LevelConfig(channels="8x0", l_max=0) == LevelConfig(tau=[8])


def test_a_product_for_each_gate_or_for_both():
    both, first = LevelConfig(product="clebsch_gordan"), LevelConfig(product={"first_order": "clebsch_gordan"})
    assert both.product == Products(first_order="clebsch_gordan", zeroth_order="clebsch_gordan")
    assert first.product == Products(first_order="clebsch_gordan", zeroth_order="gaunt")
    for level in (both, first):
        assert LevelConfig.model_validate_json(level.model_dump_json(), strict=True) == level


def test_options_at_their_defaults_are_left_out():
    level = LevelConfig(product="gaunt", parity="natural", children_gate=False, tau=None, species_gains=True)
    assert level == LevelConfig()
    assert not LevelConfig.newer & level.model_dump().keys()


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"parity": "both"}, "parity: both needs product: clebsch_gordan"),
        ({"parity": "both", "product": "gaunt"}, "parity: both needs product: clebsch_gordan"),
        ({"parity": "both", "product": {"zeroth_order": "clebsch_gordan"}}, "parity: both needs product"),
        ({"channel_pairs": "all"}, "channel_pairs: all needs product: clebsch_gordan"),
        ({"channel_pairs": "all", "product": {"first_order": "clebsch_gordan"}}, "channel_pairs: all needs"),
        ({"channel_pairs": "all", "product": "clebsch_gordan"}, "more than 1000 fragments: lower l_max"),
        ({"l_max": 8, "body_order": 8, "product": "clebsch_gordan"}, "more than 1000 fragments"),
        ({"channels": "64x0 + 32x2"}, "must give every degree from 0"),
        ({"channels": "64"}, "is not a type: write 'multiplicity x degree'"),
        ({"channels": "64x0 + 32x1", "l_max": 2}, "has l_max = 1: leave out l_max"),
        ({"channels": "64x0 + 32x1", "tau": [64, 32]}, "as channels or as tau, not both"),
        ({"channels": 32, "tau": [64, 32]}, "has channels = 64: leave out channels"),
        ({"tau": []}, "tau"),
        ({"tau": [4, 0]}, "greater than or equal to 1"),
        ({"tau": [1] * 10}, "tau"),
        ({"product": "gaunts"}, "'gaunt' or 'clebsch_gordan'"),
        ({"product": {"second_order": "gaunt"}}, "second_order"),
        ({"parity": "odd"}, "'natural' or 'both'"),
    ],
)
def test_what_does_not_go_together_is_refused(entries: dict[str, Any], reason):
    with pytest.raises(ValidationError, match=reason):
        LevelConfig(**entries)
