"""Block by block is the same as at once, for every network and system, whatever the blocks."""

import numpy as np
import pytest
import torch

from ase_nbody import NBodyCalculator
from ase_nbody.hierarchy.tables import Hierarchy, concatenate
from ase_nbody.potential import evaluate
from ase_nbody.runtime import blocks, runner
from ase_nbody.runtime.blocks import SplitHierarchy
from ase_nbody.runtime.runner import Runner


@pytest.fixture(params=[1, 2, 5])
def parts(request, monkeypatch):
    """Blocks of so few parts that every system has several."""
    monkeypatch.setitem(blocks.BLOCK_PARTS, "cpu", (request.param, request.param))
    monkeypatch.setitem(runner.WHOLE_ATOMS, "cpu", 2 * request.param)
    return request.param


def arguments(hierarchy_of, network, *batch):
    hierarchy = concatenate([hierarchy_of(network, atoms, skin=0.3) for atoms in batch])
    positions = torch.from_numpy(np.concatenate([atoms.positions for atoms in batch]))
    return hierarchy, positions, torch.from_numpy(np.stack([atoms.cell.array for atoms in batch]))


def assert_equal(found, expected):
    for name in ("energy", "energies", "forces", "virials"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-10, atol=1e-10)
    for part, other in zip(found.parts, expected.parts, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-10, atol=1e-10)


def test_blocks_give_what_the_whole_gives(any_network, system, parts, hierarchy_of, monkeypatch):
    monkeypatch.setattr(Runner, "in_blocks", lambda self, hierarchy, *, compiled: True)
    given = arguments(hierarchy_of, any_network, system)
    assert_equal(Runner(any_network)(*given), evaluate(any_network, *given))


def test_a_batch_may_be_split_anywhere(network, systems, parts, hierarchy_of):
    given = arguments(hierarchy_of, network, *[systems[name]() for name in ("molecule", "triclinic", "slab")])
    evaluation = Runner(network)
    assert len(evaluation._split(given[0])[0]) > 2
    assert_equal(evaluation(*given), evaluate(network, *given))


def test_blocks_are_kept_while_the_hierarchy_stays(network, systems, hierarchy_of):
    first, second = (hierarchy_of(network, systems["triclinic"]()) for _ in range(2))
    split = SplitHierarchy(torch.device("cpu"))
    of_first = split(first)
    assert split(first) is of_first
    assert split(second) is not of_first


def test_the_calculator_takes_blocks_where_there_are_many_atoms(network, systems, monkeypatch):
    atoms = systems["triclinic"]().repeat(2)
    atoms.rattle(0.02, seed=1)
    atoms.calc = NBodyCalculator(network)
    expected = atoms.get_forces(), atoms.get_stress()
    monkeypatch.setitem(blocks.BLOCK_PARTS, "cpu", (3, 3))
    monkeypatch.setitem(runner.WHOLE_ATOMS, "cpu", 6)
    used, split = [], blocks.split_level
    monkeypatch.setattr(blocks, "split_level", lambda level, size: used.append(size) or split(level, size))
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
    evaluation = Runner(network)
    assert [evaluation.in_blocks(hierarchy, compiled=native) for native in (False, True)] == [eagerly, compiled]
