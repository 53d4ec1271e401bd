"""Keywords that can be stored, copies that share nothing, pickles of what made a calculator."""

import copy
import json
import pickle
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.calculator import CalculatorSetupError
from ase.io.jsonio import decode, encode
from ase.io.trajectory import Trajectory

from ase_nbody import Evaluator, NBodyCalculator, save_model
from ase_nbody.structure import Structure


@pytest.fixture(scope="module")
def model(make_network, tmp_path_factory):
    return str(save_model(make_network(1, outputs=("charges",)), tmp_path_factory.mktemp("model") / "model.nbody"))


STORABLE = [
    ({"device": torch.device("cpu")}, {"device": "cpu"}),
    ({"device": np.str_("cpu"), "dtype": np.str_("float32")}, {"device": "cpu", "dtype": "float32"}),
    ({"threads": np.int64(1), "skin": np.float32(0.25)}, {"threads": 1, "skin": 0.25}),
    ({"threads": np.array(1), "skin": np.array(1), "compile": np.bool_(False)}, {"threads": 1, "skin": 1.0}),
    ({"skin": 1}, {"skin": 1.0}),
]


@pytest.mark.parametrize(("given", "kept"), STORABLE)
def test_keywords_are_kept_as_plain_values(given, kept, model, systems, tmp_path):
    calc = NBodyCalculator(Path(model), **given)
    expected = {**NBodyCalculator(model).todict(), **kept}
    found = calc.todict()
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]
    assert json.loads(json.dumps(found)) == decode(encode(found)) == found
    atoms = systems["molecule"]()
    atoms.calc = calc
    atoms.get_forces()
    with Trajectory(tmp_path / "one.traj", "w") as trajectory:
        trajectory.write(atoms)
    again = ase.io.read(tmp_path / "one.traj").calc
    assert NBodyCalculator(**again.parameters).todict() == found


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"threads": True}, "threads must be a whole number of at least 1, got True"),
        ({"threads": 1.0}, "threads must be .* got 1.0"),
        ({"threads": np.array([1])}, "threads must be .* got array"),
        ({"skin": True}, "skin must be .* got True"),
        ({"skin": np.nan}, "skin must be .* got nan"),
        ({"compile": "inductor"}, "compile must be True or False, got 'inductor'"),
        ({"compile": None}, "compile must be True or False, got None"),
        ({"device": 1.5}, "device 1.5 is not available"),
    ],
)
def test_other_keywords_are_refused(keywords, sentence, model):
    with pytest.raises(CalculatorSetupError, match=sentence):
        NBodyCalculator(model, **keywords)


# --- pickles ---------------------------------------------------------------------------------------------------------


def use(calc: NBodyCalculator) -> None:
    """Calculate whatever there is."""
    large = ase.Atoms("CO", cell=[4, 4, 4], pbc=True, positions=[[0, 0, 0], [1.2, 0.1, 0]]) * (6, 6, 6)
    calc.get_property("stress", large)
    calc.evaluate([large, large])
    assert calc.part_energies


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equal_calculators_have_equal_pickles_whatever_was_calculated(dtype, model):
    first, second = (NBodyCalculator("".join(model), dtype="".join([*dtype])) for _ in range(2))
    before = pickle.dumps(first)
    use(first)
    twin = pickle.loads(before)
    assert before == pickle.dumps(first) == pickle.dumps(second) == pickle.dumps(twin)
    assert before != pickle.dumps(NBodyCalculator(model, dtype=dtype, skin=0.6))
    weights = sum(weight.nbytes for weight in first.networks[0].parameters())
    assert len(before) < 2 * weights + 10_000
    use(twin)
    for calc in (first, second, twin):
        atoms = ase.Atoms("COH", positions=[[0, 0, 0], [1.2, 0.3, 0], [-0.6, 0.9, 0.2]])
        calc.forget()
        calc.get_property("charges", atoms)
        for name, value in first.results.items():
            np.testing.assert_array_equal(calc.results[name], value)


def test_pickles_of_a_committee_of_different_networks(make_network, three_levels, systems):
    members = [make_network(1), three_levels]
    calc = NBodyCalculator(members)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = torch.random.get_rng_state()
        twin = pickle.loads(pickle.dumps(calc))
        assert torch.equal(torch.random.get_rng_state(), state)
    assert twin.todict() == calc.todict()
    for name in ("energy", "forces"):
        np.testing.assert_array_equal(
            twin.get_property(name, systems["slab"]()), calc.get_property(name, systems["slab"]())
        )
    np.testing.assert_array_equal(twin.forces_spread, calc.forces_spread)


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_have_the_results_and_share_nothing_that_changes(duplicate, model, systems):
    calc, molecule = NBodyCalculator([model]), systems["molecule"]()
    energy = calc.get_property("energy", molecule)
    kept = [level.energies.copy() for level in calc.part_energies]
    twin = duplicate(calc)
    assert twin.results["energy"] == energy
    assert not twin.calculation_required(molecule, ["energy"])
    twin.results["forces"][:] = np.nan
    twin.parameters["model"].append("other")
    for level in twin.part_energies:
        level.energies[:] = level.centres[:] = 0
    twin.get_property("energy", systems["triclinic"]())
    assert calc.todict()["model"] == [model]
    for expected, level in zip(kept, calc.part_energies, strict=True):
        np.testing.assert_array_equal(level.energies, expected)
    np.testing.assert_array_equal(calc.part_energies[0].centres, range(len(molecule)))
    assert np.isfinite(calc.get_property("forces", molecule)).all()
    assert calc.get_property("energy", molecule) == energy


# --- what other programs ask for -------------------------------------------------------------------------------------


def test_what_was_not_calculated_is_not_there(model, systems):
    calc = NBodyCalculator(model)
    names = ("energy_spread", "forces_spread", "part_energies")
    assert not any(hasattr(calc, name) for name in names)
    with pytest.raises(CalculatorSetupError, match="nothing was calculated yet"):
        _ = calc.energy_spread
    calc.get_property("energy", systems["molecule"]())
    assert all(hasattr(calc, name) for name in names)


def test_allowed_atomic_numbers(model):
    assert NBodyCalculator(model).allowed_atomic_numbers == {1, 6, 8, 11, 17, 29}


def test_structures_in_any_collection(model, systems, tmp_path):
    calc, atoms = NBodyCalculator(model), systems["molecule"]()
    energy = calc.get_property("energy", atoms)
    with Trajectory(tmp_path / "two.traj", "w") as trajectory:
        trajectory.write(atoms)
        trajectory.write(atoms)
    with Trajectory(tmp_path / "two.traj") as trajectory:
        for several in ((one for one in [atoms, atoms]), (atoms, atoms), trajectory):
            assert [found["energy"] for found in calc.evaluate(several)] == pytest.approx([energy] * 2, rel=1e-12)
    evaluator = Evaluator(calc.networks)
    (found,) = evaluator.evaluate(Structure.from_atoms(one) for one in [atoms])
    assert found.mean("energy") == pytest.approx(energy, rel=1e-12)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (ase.Atoms("H"), r"a list of ase.Atoms, got Atoms. For one structure give \[atoms\]"),
        (None, "a list of ase.Atoms, got NoneType"),
        ([ase.Atoms("H"), "H"], "structure 1 is of type str, but must be ase.Atoms"),
        ([[ase.Atoms("H")]], "structure 0 is of type list"),
    ],
)
def test_what_is_no_list_of_structures(given, sentence, model):
    with pytest.raises(CalculatorSetupError, match=sentence):
        NBodyCalculator(model).evaluate(given)
