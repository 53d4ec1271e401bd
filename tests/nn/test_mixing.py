import pytest
import torch

from ase_nbody.nn.mixing import Mixing
from ase_nbody.nn.species import SpeciesEmbedding, SpeciesGain
from ase_nbody.so3 import Type
from ase_nbody.testing import assert_covariant

TAU = Type.uniform(channels=5, l_max=3)
SPECIES = torch.eye(3, dtype=torch.float64)[[2, 0, 1, 1]]  # one-hot


@pytest.fixture
def state() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(TAU.components, len(SPECIES), TAU.channels, dtype=torch.float64, generator=generator)


def mixing():
    return Mixing(TAU, Type.uniform(7, 2))


def gain():
    layer = SpeciesGain(3, TAU)
    torch.nn.init.normal_(layer.weight)
    return lambda state: layer(state, SPECIES)


LAYERS = pytest.mark.parametrize(("make", "l_out"), [(mixing, 2), (gain, 3)])


@LAYERS
def test_covariance(make, l_out, state):
    assert_covariant(make(), state, TAU.l_max, l_out)


@LAYERS
def test_covariance_is_refused_for_a_broken_rotation(make, l_out, state, broken_representation):
    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(make(), state, TAU.l_max, l_out, representation=broken_representation)


@LAYERS
def test_covariance_is_refused_for_weights_that_depend_on_m(make, l_out, state):
    layer = make()
    generator = torch.Generator().manual_seed(1)
    slanted = 1.0 + 1e-6 * torch.randn((l_out + 1) ** 2, 1, 1, dtype=torch.float64, generator=generator)
    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(lambda state: slanted * layer(state), state, TAU.l_max, l_out)


def test_mixing_is_one_matrix_for_each_degree(state):
    layer = mixing()
    mixed = layer(state)
    for component, degree in enumerate([0, 1, 1, 1, 2, 2, 2, 2, 2]):
        torch.testing.assert_close(mixed[component], state[component] @ layer.weight[degree])


def test_mixing_cannot_raise_the_degree():
    with pytest.raises(ValueError, match="cannot raise the degree: 2x0 -> 2x0 \\+ 2x1"):
        Mixing(Type.uniform(2, 0), Type.uniform(2, 1))


def test_mixing_has_no_bias(state):
    assert not mixing()(0.0 * state).any()


@pytest.mark.parametrize(("n_species", "channels"), [(3, 3), (3, 5), (6, 2)])
def test_species_are_told_apart(n_species, channels):
    embedding = SpeciesEmbedding(n_species, channels)
    states = embedding(torch.eye(n_species, dtype=torch.float64))
    assert states.shape == (1, n_species, channels)
    assert embedding.tau_out == Type.uniform(channels, 0)
    assert (torch.cdist(states[0], states[0]) + torch.eye(n_species) > 1e-3).all()
