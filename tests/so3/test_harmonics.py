import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.integrate import lebedev_rule
from scipy.special import sph_harm_y

from ase_nbody.so3 import SphericalHarmonics, degrees
from ase_nbody.testing import assert_covariant, random_rotation

L_MAX = 6


@pytest.fixture
def unit() -> torch.Tensor:
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 3)))
    return vectors / vectors.norm(dim=1, keepdim=True)


def scipy_harmonic(degree: int, order: int, unit: np.ndarray) -> np.ndarray:
    """Real harmonics from scipy's complex ones, with the polar axis y: (x, y, z) here is (y, z, x) in the textbooks."""
    x, y, z = unit[:, 2], unit[:, 0], unit[:, 1]
    value = sph_harm_y(degree, abs(order), np.arccos(z), np.arctan2(y, x)) * np.sqrt(4 * np.pi)
    if order == 0:
        return value.real
    return np.sqrt(2) * (-1) ** order * (value.real if order > 0 else value.imag)


def test_harmonics_are_those_of_scipy(unit):
    components = [(degree, order) for degree in range(L_MAX + 1) for order in range(-degree, degree + 1)]
    expected = np.stack([scipy_harmonic(degree, order, unit.numpy()) for degree, order in components], axis=1)
    np.testing.assert_allclose(SphericalHarmonics(L_MAX)(unit.T).T, expected, rtol=0, atol=1e-12)


def test_harmonics_are_those_of_e3nn(unit):
    expected = o3.spherical_harmonics(list(range(L_MAX + 1)), unit, normalize=False, normalization="component")
    torch.testing.assert_close(SphericalHarmonics(L_MAX)(unit.T).T, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("l_max", range(9))
def test_harmonics_are_orthonormal_over_the_sphere(l_max):
    points, weights = lebedev_rule(17)
    values = SphericalHarmonics(l_max)(torch.from_numpy(points)).T.numpy()
    assert values.shape == (len(weights), (l_max + 1) ** 2)
    overlap = values.T @ (values * (weights / weights.sum())[:, None])
    np.testing.assert_allclose(overlap, np.eye((l_max + 1) ** 2), atol=1e-12)


def test_length_of_each_degree(unit):
    squares = torch.zeros(L_MAX + 1, len(unit), dtype=torch.float64)
    squares.index_add_(0, torch.tensor(degrees(L_MAX)), SphericalHarmonics(L_MAX)(unit.T).square())
    expected = torch.arange(1, 2 * L_MAX + 2, 2, dtype=torch.float64)
    torch.testing.assert_close(squares, expected[:, None].expand_as(squares))


def test_degree_one_is_the_vector_itself(unit):
    torch.testing.assert_close(SphericalHarmonics(1)(unit.T)[1:], 3**0.5 * unit.T)


def as_state(unit: torch.Tensor) -> torch.Tensor:
    return SphericalHarmonics(L_MAX)(unit.T)


def test_covariance(unit):
    assert_covariant(as_state, None, 0, L_MAX, vectors=unit)


def test_covariance_is_refused_for_a_broken_rotation(unit, broken_representation):
    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(as_state, None, 0, L_MAX, vectors=unit, representation=broken_representation)


def test_covariance_is_refused_if_the_vectors_turn_the_other_way(unit):
    rotation = random_rotation(3)
    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(lambda vectors: as_state(vectors @ rotation), None, 0, L_MAX, vectors=unit)


def test_derivatives_of_first_and_second_order():
    vectors = torch.tensor([[0.3, -0.8, 0.4], [1.2, 0.1, -0.5]], dtype=torch.float64, requires_grad=True)
    harmonics = SphericalHarmonics(3)

    def of_vectors(vectors):
        return harmonics((vectors / vectors.norm(dim=-1, keepdim=True)).T)

    assert torch.autograd.gradcheck(of_vectors, vectors)
    assert torch.autograd.gradgradcheck(of_vectors, vectors)
