"""The evaluator, without ASE's calculators: what every engine holds."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch

from ase_nbody import Evaluator, LevelConfig, NBodyCalculator, NBodyConfig, NBodyNetwork
from ase_nbody.runtime import evaluator as module
from ase_nbody.runtime.evaluation import EvaluationError
from ase_nbody.structure import Structure, StructureError

NAMES = ("energy", "energies", "forces", "virials")


@pytest.fixture(scope="module")
def committee(make_network):
    return [make_network(seed) for seed in range(3)]


def test_it_gives_what_the_calculator_gives(network, system):
    calc, found = NBodyCalculator(network), Evaluator(network).follow(Structure.from_atoms(system))
    assert found.mean("energy") == calc.get_property("energy", system)
    for name in ("energies", "forces"):
        np.testing.assert_array_equal(found.mean(name), calc.get_property(name, system))
    assert found.mean("energies").shape == (len(system),)
    for mine, other in zip(found.part_energies, calc.part_energies, strict=True):
        np.testing.assert_array_equal(mine.energies, other.energies)
        np.testing.assert_array_equal(mine.centres, other.centres)


def test_what_is_done_to_a_result_changes_no_later_one(network, systems):
    """Centres of parts shared the memory of the neighbour list."""
    evaluator, structure = Evaluator(network), Structure.from_atoms(systems["molecule"]())
    found = evaluator.follow(structure)
    forces = found.mean("forces")
    for level in found.part_energies:
        level.centres[:], level.energies[:] = 0, 0.0
    found.mean("forces")[:], found.members("forces")[:] = 0.0, 0.0
    np.testing.assert_array_equal(evaluator.follow(structure).mean("forces"), forces)


def test_many_structures_are_what_each_is_alone(committee, systems, monkeypatch):
    monkeypatch.setattr(module, "BATCH_ATOMS", 7)
    structures = [Structure.from_atoms(make()) for make in systems.values()]
    evaluator = Evaluator(committee)
    for structure, found in zip(structures, evaluator.evaluate(structures), strict=True):
        alone = evaluator.follow(structure)
        for name in NAMES:
            np.testing.assert_allclose(found.mean(name), alone.mean(name), rtol=1e-11, atol=1e-11)
            np.testing.assert_allclose(found.spread(name), alone.spread(name), rtol=1e-11, atol=1e-11)


def test_mean_and_spread_are_those_of_the_members(committee, systems):
    structure = Structure.from_atoms(systems["triclinic"]())
    together = Evaluator(committee).follow(structure)
    alone = [Evaluator(network).follow(structure) for network in committee]
    for name in NAMES:
        each = np.stack([one.mean(name) for one in alone])
        np.testing.assert_allclose(together.mean(name), each.mean(0), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(together.spread(name), each.std(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(alone[0].spread(name), np.zeros_like(each[0]))


def test_members_of_one_layout_share_a_neighbour_list(committee, make_network, make_config, systems):
    levels = make_config().levels
    other = make_network(levels=(levels[0], levels[1].model_copy(update={"radius": 3.0})))
    evaluator = Evaluator([*committee, other])
    assert len(evaluator.layouts) == len(evaluator.followed) == 2
    found = evaluator.follow(Structure.from_atoms(systems["molecule"]()))
    with pytest.raises(ValueError, match="different hierarchies"):
        _ = found.part_energies
    (batched,) = Evaluator(committee).evaluate([Structure.from_atoms(systems["molecule"]())])
    with pytest.raises(ValueError, match="one by one"):
        _ = batched.part_energies


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dtype": "float16"}, "dtype must be one of float64, float32"),
        ({"skin": -0.1}, "skin must be a finite distance"),
        ({"threads": 0}, "threads must be a whole number"),
        ({"device": "abacus"}, "device 'abacus' is not available here"),
    ],
)
def test_wrong_arguments_are_refused(keywords, message, network):
    with pytest.raises(ValueError, match=message):
        Evaluator(network, **keywords)


def test_its_errors_are_its_own(network, systems):
    """Not ASE's: an engine translates them."""
    molecule, evaluator = Structure.from_atoms(systems["molecule"]()), Evaluator(network)
    foreign = dataclasses.replace(molecule, numbers=np.full_like(molecule.numbers, 92))
    with pytest.raises(StructureError, match="the structure contains U"):
        evaluator.follow(foreign)
    with pytest.raises(StructureError, match="structure 1: the model knows"):
        evaluator.evaluate([molecule, foreign])
    broken = copy.deepcopy(network)
    broken.levels[0].aggregate.weight.data.fill_(torch.nan)
    with pytest.raises(EvaluationError, match="NaN or infinite"):
        Evaluator(broken).follow(molecule)
    with pytest.raises(EvaluationError, match="structure 0: the model gave NaN"):
        Evaluator(broken).evaluate([molecule])


def test_a_network_that_gets_another_zero_has_it_here_too(network, systems):
    shared, structure = copy.deepcopy(network), Structure.from_atoms(systems["molecule"]())
    evaluator = Evaluator(shared)
    evaluator.follow(structure)
    shared.set_isolated_atom_energies({"H": -1.0})
    expected = Evaluator(shared).follow(structure).mean("energy")
    assert evaluator.follow(structure).mean("energy") == expected
    assert evaluator.evaluate([structure])[0].mean("energy") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda evaluator: pickle.loads(pickle.dumps(evaluator))])
def test_copies_evaluate_the_same(copied, network, systems):
    evaluator, structure = Evaluator(network), Structure.from_atoms(systems["triclinic"]())
    expected = evaluator.follow(structure).mean("forces")
    np.testing.assert_array_equal(copied(evaluator).follow(structure).mean("forces"), expected)


@pytest.mark.parametrize(("repeat", "threads", "expected"), [(1, None, 1), (4, None, 3), (1, 2, 2), (4, 2, 2)])
def test_small_systems_use_one_thread(repeat, threads, expected, network, systems, monkeypatch):
    """Torch's threads would only wait for each other there. A number of threads that is given counts."""
    before = torch.get_num_threads()
    atoms, used = systems["triclinic"]().repeat(repeat), []
    assert (len(atoms) < 50) == (repeat == 1)
    monkeypatch.setattr("ase_nbody.runtime.threads.SERIAL_EDGES", 3000)
    evaluate = module.Runner.__call__
    monkeypatch.setattr(
        module.Runner, "__call__", lambda self, *given: used.append(torch.get_num_threads()) or evaluate(self, *given)
    )
    try:
        torch.set_num_threads(3)
        evaluator = Evaluator(network, threads=threads)
        evaluator.follow(Structure.from_atoms(atoms))
        evaluator.evaluate([Structure.from_atoms(atoms)])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert used == [expected, expected]


def test_networks_must_have_something_in_common(network):
    with pytest.raises(ValueError, match="at least one network"):
        Evaluator([])
    foreign = NBodyNetwork(NBodyConfig(species=("Pu",), levels=(LevelConfig(channels=2, l_max=0),)))
    with pytest.raises(ValueError, match="species in common"):
        Evaluator([network, foreign])
