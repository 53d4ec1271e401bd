"""The compiled training step gives the same energies, forces and weight gradients as the eager one."""

import pytest
import torch

from ase_nbody import LevelConfig, NBodyConfig, NBodyNetwork
from ase_nbody.data import collate, prepare, read_labelled
from ase_nbody.potential import evaluate
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.training.compiled_step import CompiledPotential
from ase_nbody.training.loss import Residuals, loss

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def gradients(network, prediction, batch):
    network.zero_grad()
    loss(Residuals.of(prediction, batch), 1.0, {"forces": 1.0, "energy": 1.0, "stress": 1.0}).backward()
    return [weight.grad.clone() for weight in network.parameters()]


@pytest.fixture
def case(configuration, tiny, tmp_path):
    """A network in float32, as in a default training, and a batch."""
    configuration()
    data = read_labelled(tmp_path / "data.extxyz", ":4")
    torch.manual_seed(0)
    levels = (LevelConfig(**tiny), LevelConfig(**tiny))
    network = NBodyNetwork(NBodyConfig(species=("Cu",), levels=levels)).to(torch.float32)
    return network, collate(prepare(data, network.config))


def test_compiled_equals_eager(case):
    network, batch = case
    compiled = CompiledPotential(network, virials=True, patience=2)
    arguments = (batch.hierarchy, batch.positions, batch.cells)
    eager = evaluate(network, *arguments, create_graph=True)
    for _ in range(2):  # the second appearance of these shapes is compiled
        found = compiled(*arguments)
    assert len(compiled._compiled) == 1
    for name in ("energy", "forces", "virials", "energies"):
        torch.testing.assert_close(getattr(found, name), getattr(eager, name), rtol=1e-4, atol=1e-5)
    pairs = zip(gradients(network, found, batch), gradients(network, eager, batch), strict=True)
    for compiled_gradient, eager_gradient in pairs:
        torch.testing.assert_close(compiled_gradient, eager_gradient, rtol=1e-3, atol=1e-4)


def test_a_failed_compilation_warns_once_and_is_replaced_by_eager_evaluation(case, monkeypatch):
    def no_compiler(*arguments):
        raise RuntimeError("no C++ compiler found\nand much more")

    network, batch = case
    monkeypatch.setattr(torch, "compile", lambda graph, **options: no_compiler)
    compiled = CompiledPotential(network, virials=True, patience=1)
    arguments = (batch.hierarchy, batch.positions, batch.cells)
    eager = evaluate(for_eager(network), *arguments, create_graph=True)
    with pytest.warns(RuntimeWarning, match="training step failed, going on without: no C\\+\\+ compiler found$"):
        found = compiled(*arguments)
    assert torch.equal(found.forces, eager.forces)
    assert torch.equal(compiled(*arguments).forces, eager.forces)
