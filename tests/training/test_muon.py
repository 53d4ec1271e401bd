"""Muon's update has orthogonal directions, and one matrix is not disturbed by those beside it."""

import pytest
import torch

from ase_nbody.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(8, 8), (3, 24, 16), (4, 5, 30)])
def test_singular_values_are_driven_to_one(shape):
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_singular_vectors_are_kept():
    matrix = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(matrix)
    core = left.T @ orthogonalise(matrix) @ right.T
    assert torch.allclose(core, torch.diag(core.diagonal()), atol=1e-10)


def test_stack_is_updated_like_its_matrices():
    start = torch.randn(3, 10, 7, generator=torch.Generator().manual_seed(2))
    stacked = torch.nn.Parameter(start.clone())
    single = [torch.nn.Parameter(matrix.clone()) for matrix in start]
    for optimiser, parameters in ((Muon([stacked], lr=0.1), [stacked]), (Muon(single, lr=0.1), single)):
        for _ in range(3):
            optimiser.zero_grad()
            sum((parameter.sin() ** 2).sum() for parameter in parameters).backward()
            optimiser.step()
    assert torch.allclose(stacked, torch.stack([parameter.detach() for parameter in single]), atol=1e-5)


def test_quadratic_is_minimised():
    target = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(3))
    weight = torch.nn.Parameter(torch.zeros_like(target))
    optimiser = Muon([weight], lr=0.1)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimiser.zero_grad()
        (weight - target).square().sum().backward()
        optimiser.step()
    assert (weight - target).abs().max() < 0.05
