import itertools

import numpy as np
import pytest
import torch

from ase_nbody.so3 import SphereQuadrature, clebsch_gordan_product, gaunt_product
from ase_nbody.testing import assert_covariant


def random_state(l_max: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=((l_max + 1) ** 2, *shape)))


@pytest.mark.parametrize(("l_x", "l_y", "l_out"), list(itertools.product(range(4), range(4), (0, 2, 6))))
def test_equals_the_clebsch_gordan_product(l_x, l_y, l_out):
    x, y = random_state(l_x, 5, 3), random_state(l_y, 5, 3, seed=1)
    expected = clebsch_gordan_product(x, y, l_out)
    torch.testing.assert_close(gaunt_product(x, y, l_out), expected, rtol=0, atol=1e-12)


def test_commutes_and_associates():
    x, y, z = (random_state(degree, 5, seed=degree) for degree in (1, 2, 3))
    torch.testing.assert_close(gaunt_product(x, y, 3), gaunt_product(y, x, 3))
    torch.testing.assert_close(gaunt_product(gaunt_product(x, y, 3), z, 4), gaunt_product(x, gaunt_product(y, z, 5), 4))


def test_one_is_the_unit():
    one = torch.ones(1, 5, dtype=torch.float64)
    state = random_state(3, 5)
    torch.testing.assert_close(gaunt_product(one, state, 3), state)


@pytest.mark.parametrize(("l_x", "l_out"), [(1, 2), (2, 4), (3, 3)])
def test_covariance(l_x, l_out):
    def product(both):
        return gaunt_product(both[..., 0], both[..., 1], l_out)

    assert_covariant(product, random_state(l_x, 4, 3, 2), l_x, l_out)


def test_covariance_is_refused_for_a_broken_rotation(broken_representation):
    def square(state):
        return gaunt_product(state, state, 3)

    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(square, random_state(2, 4), 2, 3, representation=broken_representation)


def test_covariance_is_refused_for_a_quadrature_that_is_not_exact():
    coarse = SphereQuadrature(3, 3, degree=3)  # exact for the field, not for its cube

    def cube(state):
        return coarse.project(coarse.evaluate(state) ** 3)

    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(cube, random_state(3, 4), 3, 3)


@pytest.mark.parametrize("l_max", range(9))
def test_project_undoes_evaluate(l_max):
    quadrature = SphereQuadrature(l_max, l_max, degree=l_max)
    state = random_state(l_max, 2, 3)
    torch.testing.assert_close(quadrature.project(quadrature.evaluate(state)), state)


def test_missing_high_degrees_count_as_zero():
    quadrature, state = SphereQuadrature(3, 3, degree=3), random_state(1, 2)
    padded = torch.cat([state, state.new_zeros(12, 2)])
    torch.testing.assert_close(quadrature.evaluate(state), quadrature.evaluate(padded))


def test_too_high_a_degree_names_the_remedy():
    with pytest.raises(ValueError, match="lower l_max or body_order"):
        SphereQuadrature(8, 8, degree=128)
