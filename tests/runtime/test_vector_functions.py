"""Functions that torch leaves to MKL are called once by one thread, before several can call them at a time."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ase_nbody import NBodyCalculator
from ase_nbody.checks import run_checks
from ase_nbody.data import LabelledStructure, collate, prepare
from ase_nbody.runtime.threads import VECTOR_FUNCTIONS, warm_up_vector_functions
from ase_nbody.structure import Structure
from ase_nbody.training import evaluation
from ase_nbody.training.config import OptimisationConfig
from ase_nbody.training.module import NBodyTraining

OF_MKL = {
    "acos",
    "asin",
    "atan",
    "cos",
    "erf",
    "erfc",
    "exp",
    "expm1",
    "log",
    "log10",
    "log1p",
    "sin",
    "sqrt",
    "tan",
    "tanh",
}


class FirstSizes(TorchDispatchMode):
    """MKL's functions that are called inside, by name and dtype, and how many numbers each got at its first call."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in OF_MKL:
            self.seen.setdefault((name, args[0].dtype), args[0].numel())
        return func(*args, **(kwargs or {}))


def test_all_that_an_evaluation_and_a_training_use_are_known(make_network, systems, predict):
    network = make_network(repulsion=True)
    with FirstSizes() as calls:
        prediction = predict(network, systems["molecule"](), create_graph=True)
        prediction.forces.square().sum().backward()
    assert {name for name, _ in calls.seen} == {function.__name__ for function in VECTOR_FUNCTIONS}


def frames(systems):
    atoms = systems["molecule"]()
    return [LabelledStructure(Structure.from_atoms(atoms), -1.0, np.zeros((len(atoms), 3)), np.full((3, 3), np.nan))]


def training(network):
    return NBodyTraining(network, OptimisationConfig(epochs=1, compile=False), 1, with_stress=False)


def calculate(network, systems):
    NBodyCalculator(network).get_potential_energy(systems["molecule"]())


def calculate_side_by_side(network, systems):
    NBodyCalculator(network).evaluate([systems["molecule"]()])


def calculate_as_a_copy(network, systems):
    """A calculator that another process was sent."""
    pickle.loads(pickle.dumps(NBodyCalculator(network))).get_potential_energy(systems["molecule"]())


def check(network, systems):
    list(run_checks(NBodyCalculator(network), [systems["molecule"]()], only=["translation"]))


def measure_errors(network, systems):
    evaluation.evaluate_model(network, frames(systems))


def label(network, systems):
    evaluation.predict(network, frames(systems))


def train(network, systems):
    training(network).predict(collate(prepare(frames(systems), network.config)))


def validate(network, systems):
    training(network).validation_step(collate(prepare(frames(systems), network.config)), 0)


DOORS = [calculate, calculate_side_by_side, calculate_as_a_copy, check, measure_errors, label, train, validate]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_every_way_to_an_evaluation_begins_with_one_number(door, make_network, systems):
    """As in a process that has evaluated nothing yet."""
    network = make_network(repulsion=True)
    warm_up_vector_functions.cache_clear()
    with FirstSizes() as calls:
        door(network, systems)
    assert {(name, size) for (name, _), size in calls.seen.items()} == {
        (function.__name__, 1) for function in VECTOR_FUNCTIONS
    }
    assert {dtype for _, dtype in calls.seen} == {torch.float32, torch.float64}
