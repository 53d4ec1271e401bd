import pytest
import torch
from e3nn import o3

from ase_nbody.so3 import Type, degrees, rotation_matrix
from ase_nbody.testing import random_rotation

L_MAX = 4


@pytest.mark.parametrize("improper", [False, True])
def test_random_rotations_are_orthogonal_and_reproducible(improper):
    state = torch.random.get_rng_state()
    rotation = random_rotation(7, improper)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
    assert float(torch.linalg.det(rotation)) == pytest.approx(-1.0 if improper else 1.0)
    assert torch.equal(rotation, random_rotation(7, improper))
    assert not torch.allclose(rotation, random_rotation(8, improper))
    assert torch.equal(state, torch.random.get_rng_state())


def test_representation_is_a_homomorphism_into_orthogonal_matrices():
    first, second = random_rotation(0), random_rotation(1, improper=True)
    product = rotation_matrix(L_MAX, first) @ rotation_matrix(L_MAX, second)
    torch.testing.assert_close(rotation_matrix(L_MAX, first @ second), product)
    torch.testing.assert_close(product @ product.T, torch.eye((L_MAX + 1) ** 2, dtype=torch.float64))


@pytest.mark.parametrize("improper", [False, True])
def test_representation_is_that_of_e3nn(improper):
    rotation = random_rotation(2, improper)
    irreps = o3.Irreps([(1, (degree, (-1) ** degree)) for degree in range(L_MAX + 1)])
    expected = irreps.D_from_matrix(rotation)
    # e3nn builds its generators in torch's default dtype, so its D has single precision here.
    torch.testing.assert_close(rotation_matrix(L_MAX, rotation), expected, rtol=0, atol=1e-5)


def test_degree_one_turns_as_a_vector():
    rotation = random_rotation(3)
    torch.testing.assert_close(rotation_matrix(1, rotation)[1:, 1:], rotation)


def test_inversion_acts_by_natural_parity():
    parity = (-1.0) ** torch.tensor(degrees(L_MAX), dtype=torch.float64)
    torch.testing.assert_close(rotation_matrix(L_MAX, -torch.eye(3, dtype=torch.float64)), torch.diag(parity))


@pytest.mark.parametrize(
    "matrix", [1.001 * torch.eye(3), torch.zeros(3, 3), torch.ones(3, 3)], ids=["scaled", "0", "1"]
)
def test_what_is_no_rotation_is_refused(matrix):
    with pytest.raises(ValueError, match="not an orthogonal matrix"):
        rotation_matrix(2, matrix.double())


def test_types():
    tau = Type.uniform(channels=4, l_max=2)
    assert tau.tau == (4, 4, 4)
    assert tau.components == 9 == len(degrees(2))
    assert str(tau) == "4x0 + 4x1 + 4x2"
    assert tau.truncate(1) == Type.uniform(4, 1)
    assert tau.truncate(5) == tau


@pytest.mark.parametrize(("channels", "l_max"), [(0, 1), (3, -1)])
def test_impossible_types_are_refused(channels, l_max):
    with pytest.raises(ValueError, match=f"channels={channels}, l_max={l_max}"):
        Type.uniform(channels, l_max)
