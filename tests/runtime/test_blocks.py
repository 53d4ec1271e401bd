"""Block by block is the same as at once, for every network and system, whatever the blocks."""

import pytest
import torch

from ase_nbody import NBodyCalculator
from ase_nbody.hierarchy.tables import Hierarchy, concatenate
from ase_nbody.potential import evaluate
from ase_nbody.runtime import blocks as blockwise
from ase_nbody.runtime.blocks import BlockwiseEvaluation
from ase_nbody.runtime.results import geometry
from ase_nbody.structure import Structure


@pytest.fixture(params=[1, 2, 5])
def parts(request, monkeypatch):
    """Blocks of so few parts that every system has several."""
    monkeypatch.setitem(blockwise.PARTS, "cpu", (request.param, request.param))
    monkeypatch.setitem(blockwise.WHOLE, "cpu", 2 * request.param)
    return request.param


def arguments(hierarchy_of, network, *batch):
    hierarchy = concatenate([hierarchy_of(network, atoms, skin=0.3) for atoms in batch])
    return hierarchy, *geometry([Structure.from_atoms(atoms) for atoms in batch], torch.device("cpu"))


def assert_equal(found, expected):
    for name in ("energy", "energies", "forces", "virials"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-10, atol=1e-10)
    for part, other in zip(found.parts, expected.parts, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-10, atol=1e-10)


def test_blocks_give_what_the_whole_gives(any_network, system, parts, hierarchy_of, monkeypatch):
    monkeypatch.setattr(BlockwiseEvaluation, "pays", lambda self, hierarchy, *, compiled: True)
    given = arguments(hierarchy_of, any_network, system)
    assert_equal(BlockwiseEvaluation(any_network)(*given), evaluate(any_network, *given))


def test_a_batch_may_be_split_anywhere(network, systems, parts, hierarchy_of):
    given = arguments(hierarchy_of, network, *[systems[name]() for name in ("molecule", "triclinic", "slab")])
    evaluation = BlockwiseEvaluation(network)
    assert len(evaluation.blocks(given[0])[0]) > 2
    assert_equal(evaluation(*given), evaluate(network, *given))


def test_blocks_are_kept_while_the_hierarchy_stays(network, systems, hierarchy_of):
    first, second = (hierarchy_of(network, systems["triclinic"]()) for _ in range(2))
    evaluation = BlockwiseEvaluation(network)
    blocks = evaluation.blocks(first)
    assert evaluation.blocks(first) is blocks
    assert evaluation.blocks(second) is not blocks


def test_the_calculator_takes_blocks_where_there_are_many_atoms(network, systems, monkeypatch):
    atoms = systems["triclinic"]().repeat(2)
    atoms.rattle(0.02, seed=1)
    atoms.calc = NBodyCalculator(network)
    expected = atoms.get_forces(), atoms.get_stress()
    monkeypatch.setitem(blockwise.PARTS, "cpu", (3, 3))
    monkeypatch.setitem(blockwise.WHOLE, "cpu", 6)
    used, split = [], blockwise.split_level
    monkeypatch.setattr(blockwise, "split_level", lambda level, size: used.append(size) or split(level, size))
    atoms.calc = NBodyCalculator(network)
    assert atoms.get_forces() == pytest.approx(expected[0], abs=1e-9)
    assert atoms.get_stress() == pytest.approx(expected[1], abs=1e-10)
    assert used == [3, 3]


@pytest.mark.parametrize(
    ("atoms", "threads", "eagerly", "compiled"),
    [
        (640, 1, False, False),
        (641, 1, False, True),
        (1280, 2, False, False),
        (1281, 2, False, True),
        (2048, 8, False, False),
        (2049, 8, True, True),
    ],
)
def test_which_systems_are_split(atoms, threads, eagerly, compiled, network, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    numbers = torch.ones(atoms, dtype=torch.int64)
    hierarchy = Hierarchy(numbers, torch.zeros_like(numbers), 1, ())
    evaluation = BlockwiseEvaluation(network)
    assert (evaluation.pays(hierarchy), evaluation.pays(hierarchy, compiled=True)) == (eagerly, compiled)
