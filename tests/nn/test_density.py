import pytest
import torch

from ase_nbody.nn.density import FADED, DensityFade
from ase_nbody.nn.radial import cutoff_function

RADIUS, DENSEST = 5.0, 4.0
COPPER, GOLD = torch.tensor([29]), torch.tensor([79])


def fade(density: torch.Tensor, centre: torch.Tensor = COPPER) -> torch.Tensor:
    """The factor g of a part of the given density (), all of whose twelve children are at one distance."""
    distance = RADIUS * (1.0 - (density / 12.0) ** (1.0 / 3.0)).sqrt()
    return DensityFade({"Cu": DENSEST}, RADIUS)(centre, distance.expand(1, 12)).squeeze()


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_the_density_is_the_sum_of_the_cutoff_function():
    distance = RADIUS * (1.0 - (number(3.0) / 12.0) ** (1.0 / 3.0)).sqrt()
    assert float(12.0 * cutoff_function(distance, RADIUS)) == pytest.approx(3.0)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9999999])
def test_where_there_are_data_nothing_changes_to_the_last_bit(fraction):
    assert fade(number(fraction * DENSEST)) == 1.0


@pytest.mark.parametrize("multiple", [FADED + 1e-9, 2.5])
def test_nothing_is_left_of_a_part_that_is_much_denser(multiple):
    assert fade(number(multiple * DENSEST)) == 0.0


def test_another_species_never_fades():
    assert fade(number(2.5 * DENSEST), GOLD) == 1.0


def test_it_falls_with_two_continuous_derivatives():
    slope = torch.func.grad(fade)
    curvature = torch.func.grad(slope)
    places = [number(x * DENSEST) for x in (1.1, 1.3, 1.5, 1.7, 1.9)]
    assert all(slope(place) < 0.0 for place in places)
    for edge in (1.0, FADED):
        for derivative in (slope, curvature):
            assert abs(derivative(number(edge * DENSEST + 1e-7))) < 1e-5
            assert abs(derivative(number(edge * DENSEST - 1e-7))) < 1e-5
