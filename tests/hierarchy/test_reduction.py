"""Sums over structures: torch's own and torch-scatter's agree, with derivatives of second order."""

import pytest
import torch

from ase_nbody.hierarchy import reduction
from ase_nbody.hierarchy.reduction import sum_by_structure

STRUCTURE = torch.tensor([0, 0, 2, 2, 2])  # structure 1 is empty


def implementations():
    """The sum in use, torch's own, and torch-scatter's if it is installed."""
    return [None] if reduction._scatter_sum is None else [None, reduction._scatter_sum]


@pytest.fixture(params=implementations(), ids=lambda value: "torch" if value is None else "torch-scatter")
def implementation(request, monkeypatch):
    monkeypatch.setattr(reduction, "_scatter_sum", request.param)


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 2)])
def test_sums(implementation, shape):
    values = torch.randn(shape, dtype=torch.float64)
    expected = torch.stack([values[:2].sum(0), torch.zeros(shape[1:]).double(), values[2:].sum(0)])
    torch.testing.assert_close(sum_by_structure(values, STRUCTURE, 3), expected)


def test_the_sum_of_one_structure(implementation):
    values = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(sum_by_structure(values, torch.zeros(5, dtype=torch.int64), 1), values.sum(0)[None])


def test_derivatives_of_first_and_second_order(implementation):
    values = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sum_by_structure(x**3, STRUCTURE, 3), values)
    assert torch.autograd.gradgradcheck(lambda x: sum_by_structure(x**3, STRUCTURE, 3), values)


def test_sums_without_atoms(implementation):
    none = torch.zeros(0, dtype=torch.int64)
    assert torch.equal(sum_by_structure(torch.zeros(0, 3), none, 2), torch.zeros(2, 3))
