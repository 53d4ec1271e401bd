"""The keywords of calculators and evaluators, in the forms that users have at hand."""

import numpy as np
import pytest
import torch

from ase_nbody import NBodyCalculator
from ase_nbody.runtime.evaluator import Evaluator
from ase_nbody.runtime.settings import Settings


@pytest.mark.parametrize(
    ("given", "kept"),
    [(torch.float32, "float32"), (torch.float64, "float64"), ("float32", "float32"), (np.str_("float64"), "float64")],
)
def test_dtypes_of_torch_become_their_names(given, kept) -> None:
    dtype = Settings(dtype=given).dtype
    assert (dtype, type(dtype)) == (kept, str)


@pytest.mark.parametrize("given", [torch.float16, torch.int64, np.float32, "double", None, 32, ["float32"]])
def test_other_dtypes_are_refused(given) -> None:
    with pytest.raises(ValueError, match="dtype must be one of float64, float32, got"):
        Settings(dtype=given)


@pytest.mark.parametrize("given", ["gpu", "cuda:x"])
def test_names_that_are_no_device_are_refused_in_a_few_words(given) -> None:
    message = rf"^device '{given}' is not available here \(devices are named 'cpu', 'cuda', 'cuda:1', \.\.\.\)\. Use"
    with pytest.raises(ValueError, match=message):
        Settings(device=given)


def test_what_calculators_and_evaluators_call_themselves(network, make_network) -> None:
    species = ", ".join(network.config.species)
    assert repr(NBodyCalculator(network)) == f"NBodyCalculator({species}; 1 network; cpu, float64)"
    several = [network, make_network(seed=1)]
    single = NBodyCalculator(several, dtype=torch.float32)
    assert repr(single) == f"NBodyCalculator({species}; 2 networks; cpu, float32)"
    assert repr(Evaluator(several)) == f"Evaluator({species}; 2 networks; cpu, float64)"
