import itertools
import math

import numpy as np
import pytest
import torch
from e3nn import o3
from sympy.physics.wigner import real_gaunt

from ase_nbody.so3 import SphericalHarmonics, clebsch_gordan, clebsch_gordan_product, gaunt_coefficient, rotation_matrix
from ase_nbody.testing import assert_covariant, random_rotation

TRIANGLES = [(l1, l2, l3) for l1, l2, l3 in itertools.product(range(4), repeat=3) if abs(l1 - l2) <= l3 <= l1 + l2]
EVEN = [triangle for triangle in TRIANGLES if sum(triangle) % 2 == 0]


def random_state(l_max: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=((l_max + 1) ** 2, *shape)))


@pytest.mark.parametrize("triangle", TRIANGLES)
def test_coefficients_are_orthonormal(triangle):
    matrix = clebsch_gordan(*triangle).flatten(0, 1)
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(matrix.shape[1], dtype=torch.float64))


@pytest.mark.parametrize(("l1", "l2"), [(1, 1), (2, 1), (2, 3)])
def test_coefficients_are_complete(l1, l2):
    """All degrees |l1 - l2| ... l1 + l2 together are an orthogonal change of basis."""
    matrix = torch.cat([clebsch_gordan(l1, l2, l3).flatten(0, 1) for l3 in range(abs(l1 - l2), l1 + l2 + 1)], dim=1)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix), dtype=torch.float64))


@pytest.mark.parametrize("triangle", TRIANGLES)
def test_coefficients_are_invariant(triangle):
    rotation = random_rotation(5)
    first, second, third = (
        rotation_matrix(degree, rotation)[degree * degree :, degree * degree :] for degree in triangle
    )
    coefficients = clebsch_gordan(*triangle)
    turned = torch.einsum("abc,xa,yb,zc->xyz", coefficients, first, second, third)
    torch.testing.assert_close(turned, coefficients, rtol=0, atol=1e-12)


@pytest.mark.parametrize("triangle", TRIANGLES)
def test_coefficients_are_those_of_e3nn(triangle):
    expected = math.sqrt(2 * triangle[2] + 1) * o3.wigner_3j(*triangle, dtype=torch.float64)
    torch.testing.assert_close(clebsch_gordan(*triangle), expected)


def test_two_vectors_couple_to_their_cross_product():
    epsilon = torch.zeros(3, 3, 3, dtype=torch.float64)
    for permutation in itertools.permutations(range(3)):
        epsilon[permutation] = torch.linalg.det(torch.eye(3)[list(permutation)]).double()
    coefficients = clebsch_gordan(1, 1, 1) * math.sqrt(2)
    torch.testing.assert_close(coefficients * coefficients[0, 1, 2].sign(), epsilon)


@pytest.mark.parametrize("triangle", [triangle for triangle in EVEN if max(triangle) <= 2] + [(1, 2, 3), (3, 3, 2)])
def test_gaunt_coefficients_are_those_of_sympy(triangle):
    """Integral of three real harmonics; sympy's are normalised to 1 over the sphere, ours to 4 pi."""
    orders = itertools.product(*(range(-degree, degree + 1) for degree in triangle))
    integrals = [float(real_gaunt(*triangle, *order)) * math.sqrt(4 * math.pi) for order in orders]
    ours = gaunt_coefficient(*triangle) * clebsch_gordan(*triangle)
    np.testing.assert_allclose(ours.flatten(), integrals, rtol=0, atol=1e-12)


@pytest.mark.parametrize("triangle", [triangle for triangle in TRIANGLES if sum(triangle) % 2])
def test_gaunt_coefficients_vanish_for_pseudo_tensors(triangle):
    assert abs(gaunt_coefficient(*triangle)) < 1e-14


def test_product_of_harmonics_is_their_pointwise_product():
    unit = torch.nn.functional.normalize(random_state(1, 3, seed=1), dim=-1)
    low, high = SphericalHarmonics(2)(unit.T).T, SphericalHarmonics(5)(unit.T).T
    x, y = random_state(2, seed=2), random_state(3, seed=3)
    product = clebsch_gordan_product(x[:, None], y[:, None], 5)[:, 0]
    torch.testing.assert_close(high @ product, (low @ x) * (SphericalHarmonics(3)(unit.T).T @ y))


def test_product_has_the_scalar_part_of_the_dot_product():
    x, y = random_state(1, 2, 3), random_state(1, 2, 3, seed=1)
    product = clebsch_gordan_product(x, y, 0, weights=lambda l1, l2, l3: math.sqrt(2 * l1 + 1))
    torch.testing.assert_close(product[0], (x * y).sum(0))


@pytest.mark.parametrize("weights", [gaunt_coefficient, lambda l1, l2, l3: 1.0 + l1 - 2.0 * l2 + 0.5 * l3])
@pytest.mark.parametrize(("l_x", "l_y", "l_out"), [(1, 1, 2), (3, 2, 3), (2, 3, 1), (0, 2, 2)])
def test_covariance(l_x, l_y, l_out, weights):
    x, y = random_state(l_x, 4, 3), random_state(l_y, 4, 3, seed=1)
    l_max = max(l_x, l_y)
    both = torch.zeros((l_max + 1) ** 2, 4, 3, 2, dtype=torch.float64)
    both[: len(x), ..., 0], both[: len(y), ..., 1] = x, y

    def product(both):
        return clebsch_gordan_product(both[: len(x), ..., 0], both[: len(y), ..., 1], l_out, weights=weights)

    assert_covariant(product, both, l_max, l_out)


def test_covariance_is_refused_for_a_broken_rotation(broken_representation):
    def square(state):
        return clebsch_gordan_product(state, state, 3)

    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(square, random_state(2, 4), 2, 3, representation=broken_representation)


def test_covariance_is_refused_for_a_product_of_components():
    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(lambda state: state * state, random_state(2, 4), 2, 2)


def test_covariance_of_zero_is_no_evidence():
    with pytest.raises(AssertionError, match="zero everywhere"):
        assert_covariant(lambda state: 0.0 * state, random_state(2, 4), 2, 2)


@pytest.mark.parametrize("seed", range(5))
def test_energy_of_two_point_dipoles(seed):
    """r^-3 [p1.p2 - 3 (p1.u)(p2.u)], coupled to l = 0 and l = 2 (Kondor 2018, section 4)."""
    p1, p2, pair = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 3)))
    distance = pair.norm()
    unit = pair / distance
    expected = distance**-3 * (p1 @ p2 - 3.0 * (p1 @ unit) * (p2 @ unit))
    scalar, quadrupole = (clebsch_gordan(1, 1, degree) for degree in (0, 2))

    def couple(coefficients, a, b):
        return torch.einsum("abm,a,b->m", coefficients, a, b)

    monopole = couple(scalar, p1, p2) @ couple(scalar, unit, unit)  # p1.p2 / 3
    tensor = couple(quadrupole, p1, p2) @ couple(quadrupole, unit, unit)  # (p1.u)(p2.u) - p1.p2 / 3
    torch.testing.assert_close(distance**-3 * (3.0 * monopole - 3.0 * (monopole + tensor)), expected)
