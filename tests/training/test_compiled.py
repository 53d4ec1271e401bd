"""The compiled training step gives the same energies, forces and weight gradients as the eager one."""

import json
import os
from pathlib import Path

import ase.io
import pytest
import torch

from ase_nbody import LevelConfig, NBodyConfig, NBodyNetwork
from ase_nbody.data import collate, prepare, read_labelled
from ase_nbody.files.archive import load_model
from ase_nbody.potential import evaluate
from ase_nbody.runtime.compiled import pure_evaluation
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.runtime.torch_cache import folder_name
from ase_nbody.training.compiled_step import CompiledPotential
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.loss import Residuals, loss
from ase_nbody.training.module import NBodyTraining
from ase_nbody.training.paddings import Paddings
from ase_nbody.training.progress import Progress
from ase_nbody.training.run import train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


room_for = Paddings.room_for


def gradients(network, prediction, batch):
    """Of all weights; compiled code gives zeros where eager evaluation has no path to the loss."""
    network.zero_grad()
    loss(Residuals.of(prediction, batch), 1.0, {"forces": 1.0, "energy": 1.0, "stress": 1.0}).backward()
    weights = network.parameters()
    return [torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for weight in weights]


@pytest.fixture
def case(configuration, tiny, tmp_path):
    """A network in float32, as in a default training, and a batch."""
    configuration()
    data = read_labelled(tmp_path / "data.extxyz", ":4")
    torch.manual_seed(0)
    levels = (LevelConfig(**tiny), LevelConfig(**tiny))
    network = NBodyNetwork(NBodyConfig(species=("Cu",), levels=levels)).to(torch.float32)
    return network, collate(prepare(data, network.config))


@pytest.mark.long
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


def test_what_is_compiled_in_the_backward_pass_is_kept_in_private(configuration, frames, tmp_path, monkeypatch):
    """Torch compiles the backward pass late if, for instance, it has compiled the forward pass anew."""
    ase.io.write(tmp_path / "data.extxyz", frames[:16])  # crystals: all batches have one shape
    monkeypatch.setenv("NBODY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(CompiledPotential.__init__, "__kwdefaults__", {"patience": 1, "most": 8})
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    backward, seen = NBodyTraining.manual_backward, []

    def watched(self, value):
        seen.append(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
        backward(self, value)

    monkeypatch.setattr(NBodyTraining, "manual_backward", watched)
    train(TrainingConfig.from_yaml(configuration(epochs=1, compile=True)))
    assert {*seen} == {tmp_path / "cache" / folder_name()}


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


def many_sizes(network, tmp_path):
    """Batches of five crystals or molecules, which all have other sizes."""
    samples = prepare(read_labelled(tmp_path / "data.extxyz"), network.config)
    return [collate(samples[first : first + 5]) for first in (16, 12, 14, 13, 15, 11)]


@pytest.fixture
def double(case):
    """The network of ``case`` in float64, and with charges, of which all species are known."""
    torch.manual_seed(0)
    levels = tuple(
        level.model_copy(update={"parts": parts})
        for level, parts in zip(case[0].config.levels, ("all", "heavy"), strict=True)
    )
    return NBodyNetwork(NBodyConfig(species=("H", "C", "O", "Cu"), levels=levels, outputs=("charges",)))


def require_eager(network, found, batch):
    """The prediction, the loss and its gradient are those of the eager step, to 1e-12."""
    eager = evaluate(network, batch.hierarchy, batch.positions, batch.cells, batch.total_charges, create_graph=True)
    for name, expected in eager.named().items():
        torch.testing.assert_close(found.named()[name], expected, rtol=1e-12, atol=1e-12)
    for of_found, of_eager in zip(*(gradients(network, each, batch) for each in (found, eager)), strict=True):
        scale = max(1e-3, float(of_eager.abs().max()))
        torch.testing.assert_close(of_found / scale, of_eager / scale, rtol=1e-12, atol=1e-12)


def test_batches_of_many_sizes_share_one_compiled_step(double, tmp_path):
    compiled = CompiledPotential(double, virials=True)
    compiled.paddings = Paddings(most=1, compilation=0.0, fewest=4)
    for number, batch in enumerate(many_sizes(double, tmp_path)):
        found = compiled(batch.hierarchy, batch.positions, batch.cells, batch.total_charges)
        assert len(compiled._compiled) == (number >= 4)
        if number in (0, 4, 5):
            require_eager(double, found, batch)
    assert compiled.failure is None


def traced(self, tables, *geometry, short_rows):
    """What is compiled, before it is compiled."""
    return pure_evaluation(self.network, create_graph=True, virials=self.virials, short_rows=short_rows)


def test_a_network_sees_no_ghosts(double, tmp_path, monkeypatch):
    monkeypatch.setattr(CompiledPotential, "_compile", traced)
    compiled = CompiledPotential(double, virials=True)
    compiled.paddings = Paddings(most=1, compilation=0.0, fewest=3)
    for batch in many_sizes(double, tmp_path):
        require_eager(double, compiled(batch.hierarchy, batch.positions, batch.cells, batch.total_charges), batch)
    assert len(compiled._compiled) == 1


def test_shapes_that_recur_get_no_ghosts(case, monkeypatch):
    network, batch = case
    monkeypatch.setattr(CompiledPotential, "_compile", traced)
    compiled = CompiledPotential(network, virials=True)
    compiled.paddings = Paddings(most=1, compilation=0.0, fewest=30)
    for _ in range(60):
        compiled(batch.hierarchy, batch.positions, batch.cells)
    assert [short_rows for _, short_rows in compiled._compiled] == [False]
    assert compiled.paddings.state()["chosen"] == compiled.paddings.state()["latest"] == []


def test_what_has_been_seen_is_bounded_and_restored(double, tmp_path, monkeypatch):
    monkeypatch.setattr(CompiledPotential, "_compile", traced)
    monkeypatch.setattr("ase_nbody.training.compiled_step._MOST_SHAPES_COUNTED", 4)
    unbroken, broken = (CompiledPotential(double, virials=False, patience=3) for _ in range(2))
    for batch in many_sizes(double, tmp_path) * 4:
        state = json.loads(json.dumps(broken.state()))
        broken = CompiledPotential(double, virials=False, patience=3)
        broken.restore(state)
        for potential in (unbroken, broken):
            potential.paddings.compilation = 1e300
            potential(batch.hierarchy, batch.positions, batch.cells)
            assert len(potential.state()["shapes"]) <= 5
        assert broken.state() == unbroken.state()


def test_checkpoints_of_earlier_releases_are_understood(case):
    network, batch = case
    shapes = [list(tensor.shape) for tensor in (batch.cells, *batch.hierarchy.tensors())]
    compiled = CompiledPotential(network, virials=True)
    compiled.restore([[shapes, 25, True]])
    assert compiled.state() == {"shapes": [[shapes, 25, True]], "paddings": Paddings().state()}


def test_a_training_on_many_sizes_resumes_bit_for_bit(configuration, frames, tmp_path, monkeypatch):
    """Sizes are chosen before the run is ended, and the steps after that are those of an unbroken run."""
    path = configuration(compile=True, epochs=4, batch_atoms=15)
    monkeypatch.setattr(CompiledPotential, "_compile", traced)
    monkeypatch.setattr(Paddings.__init__, "__kwdefaults__", {"most": 2, "compilation": 0.0, "fewest": 4})
    rooms = []
    monkeypatch.setattr(Paddings, "room_for", lambda self, sizes: rooms.append(room_for(self, sizes)) or rooms[-1])
    train(TrainingConfig.from_yaml(path, [f"output={tmp_path / 'unbroken'}"]))
    assert sum(room is not None for room in rooms) > len(rooms) // 2
    whole = Progress.on_validation_end

    def fail(self, trainer, module):
        whole(self, trainer, module)
        if trainer.current_epoch == 2:
            raise RuntimeError("killed")

    config = TrainingConfig.from_yaml(path)
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_validation_end", fail)
        with pytest.raises(RuntimeError, match="killed"):
            train(config)
    resumed = load_model(train(config, resume=True)).state_dict()
    unbroken = load_model(tmp_path / "unbroken" / "model.nbody").state_dict()
    assert all(torch.equal(weight, unbroken[name]) for name, weight in resumed.items())
