"""Closer than anything seen: the radial functions hold still, smoothly, and only there."""

import numpy as np
import pytest
import torch

from ase_nbody.nn.closest_approach import FOLLOWS, RESTS, ClosestApproach, held_distance

CLOSEST = 1.2


def held(r: torch.Tensor) -> torch.Tensor:
    return held_distance(r, torch.full_like(r, CLOSEST))


def test_distances_that_were_seen_are_left_as_they_are():
    r = torch.linspace(FOLLOWS * CLOSEST, 6.0, 50, dtype=torch.float64)
    torch.testing.assert_close(held(r), r, rtol=1e-15, atol=0.0)


def test_it_comes_to_rest():
    r = torch.linspace(0.0, RESTS * CLOSEST, 50, dtype=torch.float64)
    torch.testing.assert_close(held(r), torch.full_like(r, 0.5 * (FOLLOWS + RESTS) * CLOSEST), rtol=1e-15, atol=0.0)


def test_it_rises_in_between():
    r = torch.linspace(RESTS + 1e-3, 1.0, 200, dtype=torch.float64) * CLOSEST
    assert (held(r).diff() > 0.0).all()
    assert (held(r).diff() <= r.diff() * (1.0 + 1e-12)).all()


@pytest.mark.parametrize("edge", [RESTS, FOLLOWS])
def test_three_continuous_derivatives(edge):
    function = held
    for expected in (None, 1.0 if edge == FOLLOWS else 0.0, 0.0, 0.0):
        inside, outside = (
            function(torch.tensor((edge + side) * CLOSEST, dtype=torch.float64)) for side in (-1e-9, 1e-9)
        )
        torch.testing.assert_close(inside, outside, rtol=1e-7, atol=1e-2)
        if expected is not None:
            assert float(inside) == pytest.approx(expected, abs=1e-2)
        function = torch.func.grad(function)
    fourth = [float(function(torch.tensor((edge + side) * CLOSEST, dtype=torch.float64))) for side in (-1e-9, 1e-9)]
    assert abs(fourth[0] - fourth[1]) > 1.0  # the measure above does see a jump where there is one


@pytest.mark.parametrize(("edge", "slope"), [(RESTS, 0.0), (FOLLOWS, 1.0)])
def test_the_gradient_is_right_at_the_very_edge(edge, slope):
    assert float(torch.func.grad(held)(torch.tensor(edge * CLOSEST, dtype=torch.float64))) == slope


def test_table_is_symmetric_and_knows_what_was_never_seen():
    approach = ClosestApproach({"H-O": 0.9, "O-O": 2.4, "H-H": 7.0})
    found = approach(torch.tensor([1, 8]), torch.tensor([[8, 1, 1], [1, 8, 6]]), radius=4.2)
    beyond = 4.2 / RESTS
    np.testing.assert_allclose(found, [[0.9, beyond, beyond], [0.9, 2.4, beyond]], rtol=1e-12)
    assert (held_distance(torch.linspace(0.1, 4.2, 30), torch.full((30,), beyond)) >= 4.2).all()
