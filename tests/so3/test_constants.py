import copy
import pickle

import pytest
import torch

from ase_nbody.so3 import SphericalHarmonics
from ase_nbody.so3.constants import ExactConstants


@pytest.fixture
def module() -> ExactConstants:
    module = ExactConstants()
    module.register_constant("third", torch.tensor([1.0, 2.0], dtype=torch.float64) / 3.0)
    return module


def test_a_round_trip_through_float32_is_exact(module):
    exact = module.third.clone()
    assert module.to(torch.float32).third.dtype == torch.float32
    assert torch.equal(module.third, exact.float())
    assert torch.equal(module.to(torch.float64).third, exact)


def test_a_plain_buffer_would_not_be(module):
    module.register_buffer("plain", module.third.clone())
    module.to(torch.float32).to(torch.float64)
    assert not torch.equal(module.plain, module.third)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_keep_the_exact_constants(module, duplicate):
    exact = module.third.clone()
    other = duplicate(module.float())
    assert torch.equal(other.double().third, exact)
    assert module.third.dtype == torch.float32  # the copy did not touch the original


def test_constants_are_not_in_the_state_dict(module):
    assert not module.state_dict()


def test_modules_inside_others_are_reached():
    outer = torch.nn.Sequential(SphericalHarmonics(3))
    outer.to(torch.float32).to(torch.float64)
    assert torch.equal(outer[0].raise_3, SphericalHarmonics(3).raise_3)
