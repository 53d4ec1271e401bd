import numpy as np
import pytest
import torch

from ase_nbody.nn.embedded_atom import SOFTENING, EmbeddedAtom

RADIUS, P, Q = 5.0, 6.0, 1.5
LENGTHS, REPULSION, BINDING = {"Cu-Au": 2.3, "Cu-Cu": 2.2}, {"Cu-Au": 0.7, "Cu-Cu": 0.4}, {"Cu": 1.6, "Au": 2.1}


@pytest.fixture
def potential() -> EmbeddedAtom:
    return EmbeddedAtom(LENGTHS, REPULSION, BINDING, (P, Q), RADIUS)


def energy(potential: EmbeddedAtom, distances: torch.Tensor, centre: int = 29, neighbours: tuple[int, ...] = (79, 29)):
    return potential(
        torch.tensor([centre]), torch.tensor([neighbours], dtype=torch.int64), distances.reshape(1, -1)
    ).squeeze()


def test_value(potential):
    """The equation written out for one atom with two neighbours."""
    r, d, a = np.array([2.6, 3.1]), np.array([2.3, 2.2]), np.array([0.7, 0.4])
    cut = (1.0 - (r / RADIUS) ** 2) ** 3
    density = np.sum(np.exp(-2 * Q * (r / d - 1.0)) * cut)
    expected = 0.5 * np.sum(a * np.exp(-P * (r / d - 1.0)) * cut) - 1.6 * density / np.sqrt(density + SOFTENING)
    assert float(energy(potential, torch.tensor(r))) == pytest.approx(expected, rel=1e-12)


def test_smooth_to_zero_at_the_cutoff(potential):
    def function(r):
        return energy(potential, torch.stack([r, r]))

    slope = torch.func.grad(function)
    curvature = torch.func.grad(slope)
    edge = torch.tensor(RADIUS - 1e-6, dtype=torch.float64)
    for derivative in (function, slope, curvature):
        assert abs(derivative(edge)) < 1e-5
        assert derivative(edge + 2e-6) == 0.0


def test_an_unknown_pair_feels_nothing(potential):
    r = torch.tensor([2.0, 2.5], dtype=torch.float64)
    assert energy(potential, r, centre=79, neighbours=(79, 79)) == 0.0
    assert energy(potential, r, centre=29, neighbours=(79, 13)) == energy(potential, r[:1], 29, (79,))


def test_neighbours_bind_less_the_more_there_are_and_repel_when_pressed_together(potential):
    at = [float(energy(potential, torch.full((n,), 2.6, dtype=torch.float64), 29, (29,) * n)) for n in (0, 4, 8, 12)]
    gains = -np.diff(at)
    assert at[0] == 0.0
    assert (gains > 0.0).all()
    assert (np.diff(gains) < 0.0).all()
    pressed = [
        float(energy(potential, torch.full((12,), r, dtype=torch.float64), 29, (29,) * 12)) for r in (2.0, 1.5, 1.0)
    ]
    assert (np.diff(pressed) > 0.0).all()


def test_single_precision_keeps_its_constants(potential):
    exact = energy(potential, torch.tensor([2.6, 3.1], dtype=torch.float64))
    assert energy(potential.float().double(), torch.tensor([2.6, 3.1], dtype=torch.float64)) == exact
