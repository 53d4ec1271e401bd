"""Charges and dipoles of a network: they turn with the system, vanish for lone atoms and leave the energy alone."""

import ase.build
import pytest
import torch

from ase_nbody.network.config import LevelConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import pair_vectors
from ase_nbody.testing import random_rotation


@pytest.fixture(scope="module")
def charged(make_network) -> NBodyNetwork:
    """Dipoles at the first and the third level; the second is not read out, the last hands up no vectors."""
    small = {"channels": 6, "hidden": 4, "message_channels": 3}
    levels = (
        LevelConfig(radius=4.0, l_max=2, l_out=2, **small),
        LevelConfig(parts="heavy", radius=3.5, l_max=2, l_out=1, read_out=False, **small),
        LevelConfig(parts="heavy", children="heavy", radius=3.5, l_max=2, l_out=1, **small),
        LevelConfig(parts="heavy", children="heavy", radius=3.5, l_max=2, l_out=0, **small),
    )
    return make_network(seed=2, levels=levels, outputs=("charges",), isolated_atom_energies={})


@pytest.fixture
def outputs_of(hierarchy_of):
    """A function from a network and atoms to the hierarchy and the outputs of all levels."""

    def find(network, atoms):
        hierarchy = hierarchy_of(network, atoms)
        positions, cells = torch.from_numpy(atoms.positions), torch.from_numpy(atoms.cell.array).unsqueeze(0)
        vectors = [
            pair_vectors(level, config.radius, positions, cells, hierarchy.structure)
            for level, config in zip(hierarchy.levels, network.config.levels, strict=True)
        ]
        return hierarchy, network(hierarchy, vectors)

    return find


@pytest.fixture
def molecular(predict):
    """A function from a network, a molecule and its charge to charges (N,) and the dipole moment (3,)."""

    def find(network, atoms, total=0.0):
        prediction = predict(network, atoms, total_charges=torch.tensor([total], dtype=torch.float64))
        return prediction["charges"], prediction["dipole"][0]

    return find


def turned(atoms, rotation):
    atoms = atoms.copy()
    atoms.positions = atoms.positions @ rotation.numpy().T
    return atoms


def test_names_of_the_levels(charged):
    names = [NBodyNetwork.output_names(charged.config, number) for number in range(4)]
    assert names == [("energy", "charge", "dipole"), ("energy",), ("energy", "charge", "dipole"), ("energy", "charge")]


def test_parts_of_every_level_turn_with_the_system(charged, outputs_of):
    atoms = ase.build.molecule("CH3CH2OH")
    _, levels = outputs_of(charged, atoms)
    for rotation in (random_rotation(0), random_rotation(1, improper=True), -torch.eye(3, dtype=torch.float64)):
        _, others = outputs_of(charged, turned(atoms, rotation))
        for outputs, other in zip(levels, others, strict=True):
            for name in outputs:
                expected = rotation @ outputs[name] if name == "dipole" else outputs[name]
                scale = float(outputs["charge"].abs().max()) if "charge" in outputs else 1.0
                torch.testing.assert_close(other[name], expected, rtol=0, atol=1e-10 * scale)
    assert all(float(outputs["dipole"].abs().max()) > 1e-3 for outputs in levels if "dipole" in outputs)


@pytest.mark.parametrize("total", [0.0, -1.0])
def test_charges_and_dipole_of_a_molecule(total, charged, molecular):
    """For a neutral molecule and an ion they are invariant, conserved, and about the centre of mass for any origin."""
    atoms = ase.build.molecule("CH3CH2OH")
    charges, moment = molecular(charged, atoms, total)
    assert float(charges.sum()) == pytest.approx(total, abs=1e-13)
    assert float(charges.std()) > 1e-3
    rotation = random_rotation(3, improper=True)
    other_charges, other_moment = molecular(charged, turned(atoms, rotation), total)
    torch.testing.assert_close(other_charges, charges, rtol=0, atol=1e-10)
    torch.testing.assert_close(other_moment, rotation @ moment, rtol=0, atol=1e-10)
    atoms.positions += 40.0
    torch.testing.assert_close(molecular(charged, atoms, total)[1], moment, rtol=0, atol=1e-10)


def test_atoms_far_apart_have_no_charges(charged, outputs_of):
    apart = ase.Atoms("COH", positions=[[0, 0, 0], [30, 0, 0], [0, 30, 0]])
    for outputs in outputs_of(charged, apart)[1]:
        assert not any(output.any() for output in outputs.values())


def test_two_far_molecules_have_the_outputs_of_each(charged, outputs_of):
    atoms = ase.build.molecule("CH3OH")
    pair = atoms + ase.Atoms(atoms.numbers, atoms.positions + 60.0)
    for one, two in zip(outputs_of(charged, atoms)[1], outputs_of(charged, pair)[1], strict=True):
        for name in one:
            torch.testing.assert_close(two[name], torch.cat([one[name]] * 2, dim=-1), rtol=0, atol=1e-12)


def test_the_energy_does_not_know_of_the_heads(charged, predict, systems):
    plain = NBodyNetwork(charged.config.model_copy(update={"outputs": ()}))
    plain.load_state_dict({name: weight for name, weight in charged.state_dict().items() if "heads" not in name})
    for name in ("molecule", "triclinic"):
        one, other = predict(charged, systems[name]()), predict(plain, systems[name]())
        assert torch.equal(one.energy, other.energy)
        assert torch.equal(one.forces, other.forces)


def test_new_charges_are_of_order_a_tenth(make_config, outputs_of):
    """They are in e, whatever the scale of the energy."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        levels = (LevelConfig(mean_children=6.0), LevelConfig(parts="heavy", children="heavy", mean_children=2.0))
        config = make_config(levels=levels, outputs=("charges",), energy_scale=1e4)
        network = NBodyNetwork(config).requires_grad_(False)
    _, outputs = outputs_of(network, ase.build.molecule("CH3CH2OH"))
    largest = max(float(each["charge"].abs().max()) for each in outputs)
    assert 0.01 < largest < 3.0
    assert float(outputs[1]["dipole"].abs().max()) < 3.0


def test_charges_of_a_network_in_float32(charged, predict):
    """A network in float32 gives charges and moments in float64 that differ by round-off."""
    single = NBodyNetwork(charged.config)
    single.load_state_dict(charged.state_dict())
    single = single.to(torch.float32).requires_grad_(False)
    assert single.masses.dtype == torch.float64
    atoms = ase.build.molecule("CH3CH2OH")
    one, other = predict(single, atoms), predict(charged, atoms)
    for name in ("charges", "dipole"):
        assert one[name].dtype == torch.float64
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-4)
    assert float(one["charges"].sum()) == pytest.approx(0.0, abs=1e-13)


def test_outputs_need_a_level_that_is_read_out(make_network):
    with pytest.raises(ValueError, match="outputs charges come from levels that are read out"):
        make_network(levels=(LevelConfig(read_out=False),), outputs=("charges",))
