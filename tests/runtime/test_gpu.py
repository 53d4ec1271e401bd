"""On a GPU everything is as on a CPU; and a step waits for the device only to read its results."""

import copy
import pickle

import ase.io
import numpy as np
import pytest
import torch
from ase import units
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ase_nbody import NBodyCalculator, load_model
from ase_nbody.hierarchy.build import build_hierarchy
from ase_nbody.hierarchy.neighbours import find_edges
from ase_nbody.network.config import LevelConfig
from ase_nbody.runtime import blocks, runner
from ase_nbody.structure import Structure
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.run import train

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore::ase_nbody.runtime.extrapolation.ExtrapolationWarning",
    ),  # but those of a failed recording or compilation are errors
]
TOLERANCE = 1e-10


def everything(calc, atoms):
    names = ["energy", "energies", "forces", *(["stress", "stresses"] if atoms.pbc.all() else [])]
    return {name: np.array(calc.get_property(name, atoms)) for name in names}


def assert_same(found, expected, tolerance=TOLERANCE):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0.0, atol=tolerance, err_msg=name)


def dynamics_of(atoms, calc, temperature=600.0):
    atoms.calc = calc
    thermalize_momenta(atoms, temperature, rng=np.random.default_rng(0))
    return VelocityVerlet(atoms, 1.0 * units.fs)


def graphs(calc):
    """Recorded graphs of the calculator."""
    (of_network,) = calc.evaluator._runners
    whole = of_network._compiled_whole if of_network.compile else of_network._eager_whole
    return [one.graph for one in whole._recordings.values() if one.graph is not None]


def test_pairs_are_those_of_the_cpu(system):
    structure = Structure.from_atoms(system)
    here, there = (find_edges(structure, 4.3, device) for device in ("cpu", "cuda"))
    for mine, other in zip(here.tensors()[:3], there.tensors()[:3], strict=True):
        assert other.device.type == "cuda"
        assert torch.equal(mine, other.cpu())
    torch.testing.assert_close(there.distance.cpu(), here.distance, rtol=0.0, atol=1e-12)


def test_the_hierarchy_is_that_of_the_cpu(any_network, system):
    structure, layout = Structure.from_atoms(system), any_network.config.layout
    here, there = (build_hierarchy(structure, layout, 0.4, device) for device in ("cpu", "cuda"))
    for mine, other in zip(here.tensors(), there.tensors(), strict=True):
        assert torch.equal(mine, other.cpu())


def test_results_are_those_of_the_cpu(any_network, system):
    here, there = NBodyCalculator(any_network), NBodyCalculator(any_network, device="cuda")
    for seed in range(3):  # at once, recorded, replayed
        system.rattle(0.01, seed=seed)
        assert_same(everything(there, system), everything(here, system))
    for mine, other in zip(here.part_energies, there.part_energies, strict=True):
        np.testing.assert_allclose(other.energies, mine.energies, atol=TOLERANCE)


def test_networks_in_place_are_shared(network):
    there = NBodyCalculator(network, device="cuda")
    assert NBodyCalculator(there.networks[0], device="cuda").networks[0] is there.networks[0]


def test_a_graph_outlasts_the_neighbour_list(network, systems):
    atoms = systems["triclinic"]().repeat(2)
    calc, here = NBodyCalculator(network, device="cuda", skin=0.1), NBodyCalculator(network)
    dynamics = dynamics_of(atoms, calc)
    for _ in range(40):
        dynamics.run(1)
        assert_same(calc.results, everything(here, atoms))
    (followed,) = calc.evaluator.followed
    assert followed.builds > 4
    assert 0 < len(graphs(calc)) < followed.builds


def test_a_replay_leaves_earlier_results_alone(network, systems):
    calc, atoms = NBodyCalculator(network, device="cuda"), systems["crystal"]()
    for _ in range(3):
        calc.get_property("forces", atoms)
        atoms.rattle(0.01)
    before = calc.results["forces"].copy(), calc._last.predictions[0].forces.clone()
    kept = calc.results["forces"], calc._last.predictions[0].forces
    calc.get_property("forces", atoms)
    np.testing.assert_array_equal(kept[0], before[0])
    assert torch.equal(kept[1], before[1])


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_recorded_evaluation_does_not_wait_for_the_device(network, systems):
    calc, atoms = NBodyCalculator(network, device="cuda"), systems["crystal"]()
    for _ in range(3):
        calc.get_property("forces", atoms)
        atoms.rattle(0.01)
    (followed,) = calc.evaluator.followed
    (evaluation,) = calc.evaluator._runners
    given = calc.evaluator._geometry([Structure.from_atoms(atoms)])
    try:
        torch.cuda.set_sync_debug_mode("error")
        evaluation(followed.hierarchy, *given)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_it_is_deterministic(network, systems):
    def run():
        atoms = systems["crystal"]().repeat(2)
        dynamics_of(atoms, NBodyCalculator(network, device="cuda", dtype="float32", skin=0.1)).run(20)
        return atoms.positions

    np.testing.assert_array_equal(run(), run())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda calc: pickle.loads(pickle.dumps(calc))])
def test_copies_record_for_themselves(copied, network, systems):
    calc, atoms = NBodyCalculator(network, device="cuda"), systems["crystal"]()
    for _ in range(3):
        expected = everything(calc, atoms)
        calc.reset()
    other = copied(calc)
    assert graphs(calc)
    assert not graphs(other)
    for _ in range(3):
        assert_same(everything(other, atoms), expected)
        other.reset()


def test_blocks_give_what_the_whole_gives(any_network, systems, monkeypatch):
    atoms = systems["triclinic"]().repeat(2)
    atoms.rattle(0.02, seed=1)
    expected = everything(NBodyCalculator(any_network), atoms)
    monkeypatch.setitem(blocks.BLOCK_PARTS, "cuda", (5, 5))
    monkeypatch.setitem(runner.WHOLE_ATOMS, "cuda", 10)
    assert_same(everything(NBodyCalculator(any_network, device="cuda"), atoms), expected)


def test_batches_are_those_of_the_cpu(network, systems):
    batch = [systems[name]() for name in ("molecule", "triclinic", "slab", "lone hydrogen")]
    here, there = NBodyCalculator(network), NBodyCalculator(network, device="cuda")
    for _ in range(3):
        for found, expected in zip(there.evaluate(batch), here.evaluate(batch), strict=True):
            assert_same(found, {name: expected[name] for name in ("energy", "energies", "forces")})


def test_compiled_code_is_replayed(make_network, systems, monkeypatch, tmp_path):
    monkeypatch.setenv("NBODY_CACHE", str(tmp_path))
    level = LevelConfig(radius=4.0, channels=4, l_max=1, l_out=1, hidden=4, n_basis=4)
    network = make_network(levels=(level, level.model_copy(update={"parts": "heavy", "l_out": 0})), repulsion=True)
    atoms, here = systems["slab"](), NBodyCalculator(network)
    calc = NBodyCalculator(network, device="cuda", compile=True, skin=0.1)
    dynamics = dynamics_of(atoms, calc)
    for _ in range(10):
        dynamics.run(1)
        assert_same(calc.results, everything(here, atoms))
    assert graphs(calc)
    monkeypatch.setitem(blocks.BLOCK_PARTS, "cuda", (5, 5))
    monkeypatch.setitem(runner.WHOLE_ATOMS, "cuda", 10)
    assert_same(everything(NBodyCalculator(network, device="cuda", compile=True), atoms), everything(here, atoms))


@pytest.mark.parametrize("compile", [False, True])
def test_it_trains(compile, training_data, tmp_path):
    content = {
        "data": {"train": str(training_data), "validation": 4},
        "network": {"levels": [{"radius": 4.0, "channels": 4, "l_max": 1, "l_out": 0, "n_basis": 5}]},
        "training": {"epochs": 12, "batch_size": 4, "muon_rate": 0.02, "compile": compile, "device": "cuda"},
        "report": False,
        "output": str(tmp_path / "run"),
    }
    model = train(TrainingConfig.from_dict(content, tmp_path / "config.yaml"))
    assert next(load_model(model).parameters()).device.type == "cpu"


@pytest.fixture
def training_data(systems, tmp_path):
    """Slabs of one size, labelled by ASE's effective-medium theory."""
    frames = []
    for seed in range(24):
        atoms = systems["slab"]()
        atoms.info.clear()  # ASE's builder leaves there what extxyz cannot hold
        atoms.rattle(0.05, seed=seed)
        energy, forces = EMT().get_property("energy", atoms), EMT().get_property("forces", atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    ase.io.write(tmp_path / "data.extxyz", frames)
    return tmp_path / "data.extxyz"
