import numpy as np
import pytest
import torch
from ase.data import covalent_radii

from ase_nbody.nn.repulsion import ZBLRepulsion

PAIRS = [(1, 1), (1, 8), (6, 29), (79, 92)]


def pair_energy(first: int, second: int, distance: float) -> float:
    repulsion, r = ZBLRepulsion(), torch.tensor([[distance]], dtype=torch.float64)
    halves = [repulsion(torch.tensor([a]), torch.tensor([[b]]), r) for a, b in ((first, second), (second, first))]
    return float(sum(halves))


def ziegler(first: int, second: int, distance: float) -> float:
    """ZBL's universal potential in eV, written out with the constants of the book (e^2 = 14.39964 eV Angstrom)."""
    x = distance * (first**0.23 + second**0.23) / 0.46850
    screening = 0.18175 * np.exp(-3.19980 * x) + 0.50986 * np.exp(-0.94229 * x)
    screening += 0.28022 * np.exp(-0.40290 * x) + 0.02817 * np.exp(-0.20162 * x)
    return 14.39964548 * first * second / distance * screening


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.8])
def test_value(first, second, fraction):
    radius = covalent_radii[first] + covalent_radii[second]
    faded = ziegler(first, second, fraction * radius) * (1.0 - fraction**2) ** 3
    assert pair_energy(first, second, fraction * radius) == pytest.approx(faded, rel=1e-7)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_smooth_to_zero_at_the_cutoff(first, second):
    radius = covalent_radii[first] + covalent_radii[second]
    numbers = torch.tensor([first]), torch.tensor([[second]])

    def function(r):
        return ZBLRepulsion()(*numbers, r.reshape(1, 1)).squeeze()

    slope = torch.func.grad(function)
    curvature = torch.func.grad(slope)
    middle, edge, beyond = torch.tensor([0.5, 1.0 - 1e-9, 1.0 + 1e-9], dtype=torch.float64) * radius
    for derivative in (function, slope, curvature):
        assert abs(derivative(edge)) < 1e-6 * abs(derivative(middle))
        assert derivative(beyond) == 0.0


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_purely_repulsive(first, second):
    radius = covalent_radii[first] + covalent_radii[second]
    distances = np.linspace(0.02, 0.999, 100) * radius
    energies = np.array([pair_energy(first, second, distance) for distance in distances])
    assert (energies > 0.0).all()
    assert (np.diff(energies) < 0.0).all()


def test_reach_can_be_given():
    repulsion, r = ZBLRepulsion(), torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    reach = torch.tensor([[0.5, 0.6]], dtype=torch.float64)
    energies = [float(repulsion(torch.tensor([8]), torch.tensor([[1]]), r[:, [k]], reach[:, [k]])) for k in (0, 1)]
    assert energies[0] == 0.0
    assert 2.0 * energies[1] == pytest.approx(ziegler(8, 1, 0.5) * (1.0 - (0.5 / 0.6) ** 2) ** 3, rel=1e-7)


def test_energy_of_an_atom_is_half_of_its_pairs():
    repulsion, r = ZBLRepulsion(), torch.tensor([[0.5, 0.7], [0.6, 9.0]], dtype=torch.float64)
    energies = repulsion(torch.tensor([8, 6]), torch.tensor([[1, 6], [8, 1]]), r)
    expected = [pair_energy(8, 1, 0.5) + pair_energy(8, 6, 0.7), pair_energy(6, 8, 0.6)]
    np.testing.assert_allclose(energies, 0.5 * np.array(expected))
