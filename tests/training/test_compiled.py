"""The compiled training step gives the energies, forces and weight gradients of the eager one."""

import pytest
import torch

from ase_nbody import LevelConfig, NBodyConfig, NBodyNetwork
from ase_nbody.data import collate, prepare, read_labelled
from ase_nbody.loss import Residuals, loss
from ase_nbody.potential import CompiledPotential, evaluate
from tests.training.conftest import TINY

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def gradients(network, prediction, batch):
    network.zero_grad()
    loss(Residuals.of(prediction, batch), 1.0, 1.0, 1.0).backward()
    return [weight.grad.clone() for weight in network.parameters()]


def test_compiled_equals_eager(configuration, tmp_path):
    configuration()
    data = read_labelled(tmp_path / "data.extxyz", ":4")
    torch.manual_seed(0)
    levels = (LevelConfig(**TINY), LevelConfig(**TINY))
    network = NBodyNetwork(NBodyConfig(species=("Cu",), levels=levels))
    batch = collate(prepare(data, network.config))
    compiled = CompiledPotential(network, virials=True, patience=2)
    arguments = (batch.hierarchy, batch.positions, batch.cells)
    eager = evaluate(network, *arguments, create_graph=True)
    for _ in range(2):  # the second appearance of these shapes is compiled
        found = compiled(*arguments)
    assert len(compiled._compiled) == 1
    for name in ("energy", "forces", "virials", "energies"):
        torch.testing.assert_close(getattr(found, name), getattr(eager, name), rtol=1e-9, atol=1e-11)
    pairs = zip(gradients(network, found, batch), gradients(network, eager, batch), strict=True)
    for of_compiled, of_eager in pairs:
        torch.testing.assert_close(of_compiled, of_eager, rtol=1e-7, atol=1e-9)
