import numpy as np
import pytest
import torch

from ase_nbody.nn.radial import RadialBasis, cutoff_function

RADIUS = 4.0
BASIS = RadialBasis(RADIUS, 6)


def derivatives(function, distance: float, order: int) -> list[torch.Tensor]:
    """Value and derivatives of a vector function of one distance, by automatic differentiation."""
    r = torch.tensor(distance, dtype=torch.float64)
    results = [function(r)]
    for _ in range(order):
        function = torch.func.jacrev(function)
        results.append(function(r))
    return results


@pytest.mark.parametrize("function", [BASIS, lambda r: cutoff_function(r, RADIUS)], ids=["basis", "cutoff"])
def test_value_slope_and_curvature_vanish_at_the_radius(function):
    scale = [float(value.abs().max()) for value in derivatives(function, 0.5 * RADIUS, 2)]
    for reference, inside in zip(scale, derivatives(function, RADIUS * (1.0 - 1e-9), 2), strict=True):
        assert inside.abs().max() < 1e-6 * reference
    for outside in (RADIUS, RADIUS + 1e-9, 1.5 * RADIUS, 2.0 * RADIUS, 1e6):
        assert not any(value.any() for value in derivatives(function, outside, 2))


def test_basis_is_finite_and_smooth_down_to_short_distances():
    near = torch.logspace(-6, 0, 20, dtype=torch.float64)
    assert torch.isfinite(BASIS(near)).all()
    assert all(torch.isfinite(value).all() for value in derivatives(BASIS, 1e-3, 2))


def test_basis_functions_are_independent():
    r = torch.linspace(0.3, RADIUS - 0.3, 200, dtype=torch.float64)
    assert BASIS(r).shape == (6, 200)
    assert np.linalg.cond(BASIS(r).numpy()) < 1e4


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_rapid_functions_have_less_amplitude(decay):
    """At the origin n^(1 - decay), elsewhere that times sin(x) / x."""
    number = torch.arange(1, 7, dtype=torch.float64)
    basis = RadialBasis(RADIUS, 6, decay)
    torch.testing.assert_close(basis(torch.tensor(1e-7, dtype=torch.float64)), number ** (1.0 - decay))
    expected = (
        number ** (1.0 - decay)
        * torch.sinc(number * 1.7 / RADIUS)
        * cutoff_function(torch.tensor(1.7, dtype=torch.float64), RADIUS)
    )
    torch.testing.assert_close(basis(torch.tensor(1.7, dtype=torch.float64)), expected)


def test_shape_follows_the_distances():
    assert RadialBasis(RADIUS, 5)(torch.ones(2, 3, dtype=torch.float64)).shape == (5, 2, 3)


def test_derivatives_of_first_and_second_order():
    r = torch.tensor([0.7, 2.1, 3.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(BASIS, r)
    assert torch.autograd.gradgradcheck(BASIS, r)


def test_cutoff_function_is_one_at_the_centre():
    assert float(cutoff_function(torch.zeros(()), RADIUS)) == 1.0
