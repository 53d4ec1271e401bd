"""Where atoms are denser than in the data, the states fade and the embedded-atom potential decides."""

import numpy as np
import pytest
from ase.build import bulk
from pydantic import ValidationError

from ase_nbody.data.statistics import highest_densities
from ase_nbody.network.config import LevelConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.structure import Structure

LEVELS = tuple(LevelConfig(radius=4.0, channels=4, hidden=4, l_out=out) for out in (2, 0))
POTENTIAL = {"lengths": {"Cu-Cu": 2.2}, "repulsion": {"Cu-Cu": 0.4}, "binding": {"Cu": 1.5}, "decay": (5.0, 1.2)}


def hot(scale: float = 1.0, seed: int = 0):
    atoms = bulk("Cu", a=3.6 * scale, cubic=True)
    atoms.rattle(0.05 * scale, seed=seed)
    return atoms


@pytest.fixture(scope="module")
def plain(make_network):
    return make_network(levels=LEVELS, repulsion=True)


def changed(network: NBodyNetwork, **entries) -> NBodyNetwork:
    """The network with the same weights and other entries of its configuration."""
    other = NBodyNetwork(type(network.config).model_validate(network.config.model_dump() | entries))
    other.load_state_dict(network.state_dict())
    return other.requires_grad_(False)


def test_where_there_are_data_the_results_are_the_same_to_the_last_bit(plain, predict):
    data = [hot(scale, seed) for seed, scale in enumerate((0.97, 1.0, 1.03))]
    densest = highest_densities([Structure.from_atoms(atoms) for atoms in data], LEVELS)
    faded = changed(plain, densest=densest)
    for atoms in data:
        found, expected = predict(faded, atoms), predict(plain, atoms)
        for name in ("energy", "energies", "forces", "virials"):
            assert (getattr(found, name) == getattr(expected, name)).all(), name


def test_much_denser_atoms_have_the_energy_of_the_potentials_alone(plain, predict):
    densest = highest_densities([Structure.from_atoms(hot())], LEVELS)
    entries = {"densest": densest, "embedded_atom": POTENTIAL}
    with_network, without = changed(plain, **entries), changed(plain, **entries, energy_scale=1e-30)
    pressed = hot(0.55)
    found, alone = predict(with_network, pressed), predict(without, pressed)
    assert (found.energies == alone.energies).all()
    assert abs(float(predict(changed(plain, embedded_atom=POTENTIAL), pressed).energy - alone.energy)) > 1.0


def test_the_energy_rises_all_the_way_as_a_crystal_is_pressed_together(plain, predict):
    densest = highest_densities([Structure.from_atoms(hot())], LEVELS)
    # a network that has learnt little, as on top of a potential that fits well
    sane = changed(plain, densest=densest, embedded_atom=POTENTIAL, energy_scale=1e-3 * plain.config.energy_scale)
    energies = [float(predict(sane, hot(scale)).energy) for scale in np.arange(0.9, 0.39, -0.05)]
    assert (np.diff(energies) > 0.0).all()


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"densest": ({}, {}, {})}, "densest has 3 entries for 2 levels"),
        ({"densest": ({"Xx": 1.0},)}, "densest names Xx, which are not among species"),
        ({"densest": ({"Cu": 0.0},)}, "greater than 0"),
        ({"embedded_atom": POTENTIAL | {"lengths": {}}}, "lengths and repulsion of different pairs"),
        ({"embedded_atom": POTENTIAL | {"binding": {"Au": 1.0}}}, "embedded_atom names Au, which"),
        ({"embedded_atom": POTENTIAL | {"lengths": {"Cu": 2.0}, "repulsion": {"Cu": 2.0}}}, "the pair 'Cu'"),
        ({"embedded_atom": POTENTIAL | {"decay": (5.0, 30.0)}}, "less than or equal to 20"),
        ({"embedded_atom": POTENTIAL, "levels": (LevelConfig(parts="heavy"),)}, "needs level 1"),
    ],
)
def test_wrong_entries_are_refused(entries, reason, plain):
    with pytest.raises(ValidationError, match=reason):
        type(plain.config).model_validate(plain.config.model_dump() | entries)
