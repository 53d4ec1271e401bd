"""NBodyCalculator itself: what one pass gives, its derivatives, committees, precision, what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import ase.build
import numpy as np
import pytest
import torch
from ase import units
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError, PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.lj import LennardJones
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

import ase_nbody.runtime.evaluator
import ase_nbody.runtime.runner
from ase_nbody import LevelConfig, NBodyCalculator, NBodyNetwork, save_model
from ase_nbody.potential import evaluate

PROPERTIES = ("energy", "free_energy", "energies", "forces", "stress", "stresses")
Systems = dict[str, Callable[[], ase.Atoms]]
MakeNetwork = Callable[..., NBodyNetwork]


@pytest.fixture
def calc(network: NBodyNetwork) -> NBodyCalculator:
    return NBodyCalculator(network)


@pytest.fixture(scope="module")
def members(make_network: MakeNetwork) -> list[NBodyNetwork]:
    """Three networks that disagree."""
    return [make_network(seed) for seed in range(3)]


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[NBodyNetwork]:
    """The network of every evaluation from now on."""
    done: list[NBodyNetwork] = []

    def counted(network: NBodyNetwork, *arguments: Any, **keywords: Any) -> Any:
        done.append(network)
        return evaluate(network, *arguments, **keywords)

    monkeypatch.setattr(ase_nbody.runtime.runner, "evaluate", counted)
    return done


# --- one pass gives everything ---------------------------------------------------------------------------------------


def test_one_evaluation_per_verlet_step(make_network, systems, evaluations) -> None:
    atoms = systems["crystal"]()
    atoms.calc = NBodyCalculator(make_network(repulsion=True))
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    dynamics.attach(lambda: [atoms.calc.get_property(name, atoms) for name in PROPERTIES])
    dynamics.run(10)
    assert len(evaluations) == 1 + 10


@pytest.mark.parametrize("first", PROPERTIES)
def test_any_property_brings_all_others(first: str, systems: Systems, calc: NBodyCalculator, evaluations) -> None:
    atoms = systems["crystal"]()
    atoms.calc = calc
    calc.get_property(first, atoms)
    assert set(calc.results) == set(PROPERTIES)
    for name in PROPERTIES:
        calc.get_property(name, atoms)
    assert len(calc.part_energies) == 2
    assert calc.energy_spread == 0.0
    assert len(evaluations) == 1


def test_results_are_consistent_float64(periodic_system: ase.Atoms, calc: NBodyCalculator) -> None:
    checked = calc.calculate_properties(periodic_system, PROPERTIES)  # ASE checks the shapes
    results = {name: checked[name] for name in PROPERTIES}
    assert isinstance(results["energy"], float)
    assert results["free_energy"] == results["energy"]
    assert all(np.asarray(value).dtype == np.float64 for value in results.values())
    assert results["energies"].sum() == pytest.approx(results["energy"], rel=1e-14)
    np.testing.assert_allclose(results["stresses"].sum(axis=0), results["stress"], atol=1e-14)
    np.testing.assert_allclose(results["forces"].sum(axis=0), 0.0, atol=1e-12)


def test_results_are_the_callers_to_change(systems: Systems, calc: NBodyCalculator) -> None:
    atoms = systems["crystal"]()
    atoms.calc = calc
    forces = atoms.get_forces()
    forces[:] = np.nan
    assert np.isfinite(atoms.get_forces()).all()


# --- derivatives -----------------------------------------------------------------------------------------------------


def test_forces_are_minus_the_gradient(bound_system: ase.Atoms, make_network: MakeNetwork) -> None:
    bound_system.calc = NBodyCalculator(make_network(isolated_atom_energies={}))  # large constants cost digits
    numerical = calculate_numerical_forces(bound_system, eps=1e-4)
    np.testing.assert_allclose(bound_system.get_forces(), numerical, atol=1e-6 * abs(numerical).max())


def test_stress_is_the_strain_derivative(periodic_system: ase.Atoms, make_network: MakeNetwork) -> None:
    periodic_system.calc = NBodyCalculator(make_network(isolated_atom_energies={}))
    numerical = calculate_numerical_stress(periodic_system, eps=1e-5)
    np.testing.assert_allclose(periodic_system.get_stress(), numerical, atol=1e-6 * abs(numerical).max())


def test_a_left_handed_cell_has_the_stress_of_its_mirror_twin(systems: Systems, calc: NBodyCalculator) -> None:
    """The same lattice: exchanging two lattice vectors changes the sign of the determinant and nothing else."""
    stresses = []
    for name in ("triclinic", "left-handed"):
        atoms = systems[name]()
        if name == "left-handed":
            atoms.positions = systems["triclinic"]().positions
        stresses.append(calc.get_property("stress", atoms))
    np.testing.assert_allclose(*stresses, atol=1e-12)


def in_a_box(atoms: ase.Atoms, pbc: Any) -> ase.Atoms:
    """The atoms in a skewed cell with vacuum, left-handed, with the given periodic directions."""
    atoms.set_cell([[6.0, 0.4, 0.0], [0.3, 0.2, 7.0], [0.0, 6.5, 0.7]])
    atoms.pbc = pbc
    return atoms


BOXES: dict[str, Callable[[Systems], ase.Atoms]] = {
    "slab in a box": lambda systems: systems["slab in a box"](),
    "wire in a box": lambda systems: in_a_box(systems["wire"](), (False, False, True)),
    "periodic molecule": lambda systems: in_a_box(systems["molecule"](), (True, True, False)),
    "molecule in a box": lambda systems: in_a_box(systems["molecule"](), False),
}


@pytest.mark.parametrize("name", BOXES)
def test_the_stress_of_a_cell_with_a_volume(name: str, systems: Systems, make_network: MakeNetwork) -> None:
    """As in ASE's own potentials: dE/d(strain) over the volume of the cell, whatever its periodic directions."""
    atoms = BOXES[name](systems)
    atoms.calc = NBodyCalculator(make_network(isolated_atom_energies={}))
    numerical = calculate_numerical_stress(atoms, eps=1e-5)
    assert abs(numerical).max() > 1e-4
    np.testing.assert_allclose(atoms.get_stress(), numerical, atol=1e-6 * abs(numerical).max())
    np.testing.assert_allclose(atoms.get_stresses().sum(axis=0), atoms.get_stress(), atol=1e-14)
    (together,) = atoms.calc.evaluate([atoms])
    np.testing.assert_allclose(together["stress"], atoms.get_stress(), atol=1e-12)


@pytest.mark.parametrize("pbc", [False, True, (True, True, False)])
def test_whether_there_is_a_stress_is_as_in_ases_potentials(pbc: Any, calc: NBodyCalculator) -> None:
    cells = [None, [4, 0, 0], [4, 4, 0], [[4, 0, 0], [0, 4, 0], [1, 1, 5]]]
    for cell in cells:
        atoms = ase.Atoms("Cu2", positions=[[0, 0, 0], [1.8, 1.9, 0.2]], cell=cell)
        atoms.pbc = np.logical_and(pbc, atoms.cell.any(axis=1))
        found = []
        for one in (calc, EMT(), LennardJones(sigma=2.0, rc=4.0)):
            one.calculate(atoms)
            found.append("stress" in one.results)
        assert found == [found[0]] * 3
        assert found[0] == (cell is cells[-1])


def test_a_slab_relaxes_in_its_plane() -> None:
    """With a model of ASE's EMT: the in-plane stress vanishes, and the vector across the slab stays as it is."""
    atoms = ase.build.fcc111("Cu", (1, 1, 3), a=3.7, vacuum=5.0)
    atoms.rattle(0.02, seed=1)
    atoms.calc = NBodyCalculator(Path(__file__).parents[1] / "example_models" / "emt.nbody")
    assert not atoms.pbc[2]
    height, before = atoms.cell[2].copy(), abs(atoms.get_stress()[[0, 1, 5]]).max()
    in_plane = FrechetCellFilter(atoms, mask=[True, True, False, False, False, True])
    assert BFGS(in_plane, logfile=None).run(fmax=1e-3, steps=100)
    assert abs(atoms.get_stress()[[0, 1, 5]]).max() < 0.01 * before
    np.testing.assert_allclose(atoms.cell[2], height, atol=1e-12)


def flat(atoms: ase.Atoms) -> ase.Atoms:
    """Three lattice vectors in a plane, of which two are periodic."""
    atoms.set_cell([[6, 0, 0], [0, 7, 0], [1, 1, 0]])
    atoms.pbc = (True, True, False)
    return atoms


@pytest.mark.parametrize("name", ["molecule", "slab", "wire", "flat"])
@pytest.mark.parametrize("key", ["stress", "stresses"])
def test_no_stress_without_a_volume(name: str, key: str, systems: Systems, calc) -> None:
    atoms = flat(systems["molecule"]()) if name == "flat" else systems[name]()
    atoms.calc = calc
    atoms.get_forces()
    assert key not in calc.results
    with pytest.raises(PropertyNotImplementedError, match=f"^{key}: only a cell with a volume has it"):
        calc.get_property(key, atoms)
    assert np.isfinite(atoms.get_potential_energy())


def test_what_no_model_has_is_named_beside_what_there_is(systems: Systems, calc) -> None:
    with pytest.raises(
        PropertyNotImplementedError, match=r"^magmoms: this calculator does not have it. It has energy,"
    ):
        calc.get_property("magmoms", systems["molecule"]())


# --- levels and committees -------------------------------------------------------------------------------------------


def test_part_energies_sum_to_the_energy(system: ase.Atoms, network: NBodyNetwork, calc: NBodyCalculator) -> None:
    energy = calc.get_property("energy", system)
    isolated = sum(network.config.isolated_atom_energies[symbol] for symbol in system.symbols)
    environments, clusters = calc.part_energies
    assert isolated + environments.energies.sum() + clusters.energies.sum() == pytest.approx(energy, rel=1e-14)
    np.testing.assert_array_equal(environments.centres, range(len(system)))
    np.testing.assert_array_equal(clusters.centres, np.flatnonzero(system.numbers != 1))


def test_committee_is_mean_and_spread(systems: Systems, members: list[NBodyNetwork], evaluations) -> None:
    atoms, committee = systems["crystal"](), NBodyCalculator(members)
    mean = committee.calculate_properties(atoms, PROPERTIES)
    assert len(evaluations) == len(members)
    alone = [NBodyCalculator(member).calculate_properties(atoms, PROPERTIES) for member in members]
    for name in PROPERTIES:
        np.testing.assert_allclose(mean[name], np.mean([one[name] for one in alone], axis=0), atol=1e-12, rtol=1e-14)
    assert committee.energy_spread == pytest.approx(np.std([one["energy"] for one in alone]), rel=1e-9)
    assert committee.energy_spread > 1e-3
    np.testing.assert_allclose(committee.forces_spread, np.std([one["forces"] for one in alone], axis=0), atol=1e-12)


def test_committee_of_one_has_no_spread(systems: Systems, network: NBodyNetwork, calc: NBodyCalculator) -> None:
    atoms, single = systems["molecule"](), NBodyCalculator([network])
    assert single.get_property("energy", atoms) == calc.get_property("energy", atoms)
    assert single.energy_spread == 0.0
    assert not single.forces_spread.any()


def test_committee_of_different_hierarchies(systems: Systems, network: NBodyNetwork, make_network: MakeNetwork) -> None:
    other = make_network(1, levels=(LevelConfig(radius=3.0, channels=4), LevelConfig(parts=("C", "O"), channels=4)))
    atoms, committee = systems["molecule"](), NBodyCalculator([network, other])
    forces = committee.get_property("forces", atoms)
    alone = [NBodyCalculator(member).get_property("forces", atoms) for member in (network, other)]
    np.testing.assert_allclose(forces, np.mean(alone, axis=0), atol=1e-12)
    with pytest.raises(CalculatorSetupError, match="different hierarchies"):
        _ = committee.part_energies


def test_committee_knows_what_all_its_members_know(make_network: MakeNetwork) -> None:
    pair = [make_network(species=species, isolated_atom_energies={}) for species in (("H", "C", "O"), ("O", "C", "Na"))]
    assert NBodyCalculator(pair).species == ("C", "O")


@pytest.mark.parametrize("name", ["energy_spread", "forces_spread", "part_energies"])
def test_extra_results_need_a_calculation(name: str, calc: NBodyCalculator) -> None:
    with pytest.raises(CalculatorSetupError, match="nothing was calculated"):
        getattr(calc, name)


# --- many structures at once -----------------------------------------------------------------------------------------


def test_many_at_once_are_what_each_is_alone(members: list[NBodyNetwork], systems: Systems, monkeypatch) -> None:
    """In several batches, of a committee whose members have different hierarchies, in either precision."""
    monkeypatch.setattr(ase_nbody.runtime.evaluator, "BATCH_ATOMS", 12)
    structures = [make() for make in systems.values()]
    together, alone = NBodyCalculator(members), NBodyCalculator(members)
    for atoms, found in zip(structures, together.evaluate(structures), strict=True):
        alone.calculate(atoms)
        assert found.keys() == alone.results.keys() | {"energy_spread", "forces_spread"}
        for name, value in alone.results.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-11, err_msg=name)
        assert found["energy_spread"] == pytest.approx(alone.energy_spread, abs=1e-11)
        np.testing.assert_allclose(found["forces_spread"], alone.forces_spread, atol=1e-11)
    assert together.results == {}
    assert together.evaluate([]) == []


def test_the_bad_one_of_many_is_named(calc: NBodyCalculator, systems: Systems) -> None:
    bad = systems["molecule"]()
    bad.positions[0, 0] = np.nan
    with pytest.raises(CalculatorSetupError, match="structure 1: "):
        calc.evaluate([systems["crystal"](), bad])


# --- precision and sharing -------------------------------------------------------------------------------------------


def test_float32_agrees_with_float64(bound_system: ase.Atoms, network: NBodyNetwork, calc: NBodyCalculator) -> None:
    single = NBodyCalculator(network, dtype="float32")
    forces, exact = (one.get_property("forces", bound_system) for one in (single, calc))
    assert forces.dtype == np.float64
    assert 0.0 < abs(forces - exact).max() < 1e-4 * abs(exact).max()
    energy, exact_energy = (one.get_property("energy", bound_system) for one in (single, calc))
    assert energy == pytest.approx(exact_energy, abs=1e-5 * len(bound_system))


def test_float32_does_not_lose_digits_far_from_the_origin(systems: Systems, network: NBodyNetwork) -> None:
    atoms, single = systems["molecule"](), NBodyCalculator(network, dtype="float32")
    here = single.get_property("forces", atoms)
    atoms.positions += 10_000.0
    np.testing.assert_allclose(single.get_property("forces", atoms), here, atol=1e-5)


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_given_network_is_not_changed(trainable: bool, dtype: str, systems: Systems, make_network) -> None:
    network = make_network().requires_grad_(trainable)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    calc = NBodyCalculator(network, dtype=dtype)
    calc.get_property("forces", systems["molecule"]())
    for name, weight in network.state_dict().items():
        assert weight.dtype == torch.float64
        assert torch.equal(weight, before[name])
    assert all(weight.requires_grad == trainable and weight.grad is None for weight in network.parameters())


def test_calculators_share_the_weights(network: NBodyNetwork) -> None:
    first, second = NBodyCalculator(network), NBodyCalculator(network)
    assert first.networks[0] is second.networks[0] is network


def test_it_does_not_advance_the_random_numbers(systems: Systems, network: NBodyNetwork, tmp_path) -> None:
    path = save_model(network, tmp_path / "model.nbody")
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    NBodyCalculator(path).get_property("forces", systems["molecule"]())
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_a_file_gives_what_its_network_gives(systems: Systems, network: NBodyNetwork, calc, tmp_path) -> None:
    path = save_model(network, tmp_path / "model.nbody")
    for name in (path, str(path)):
        loaded = NBodyCalculator(name)
        assert loaded.get_property("energy", systems["slab"]()) == calc.get_property("energy", systems["slab"]())
        assert loaded.todict()["model"] == str(path)


# --- refusals --------------------------------------------------------------------------------------------------------

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")


@pytest.mark.parametrize(
    ("keywords", "culprit"),
    [
        ({"dtype": "float16"}, "float16"),
        ({"dtype": torch.float16}, "float16"),
        ({"skin": -0.1}, "-0.1"),
        ({"skin": float("nan")}, "nan"),
        ({"skin": float("inf")}, "inf"),
        ({"device": "abacus"}, "abacus"),
        pytest.param({"device": "cuda"}, "cuda", marks=no_cuda),
        pytest.param({"device": "cuda:7"}, "cuda:7", marks=no_cuda),
    ],
)
def test_refused_keywords(keywords: dict[str, Any], culprit: str, network: NBodyNetwork) -> None:
    with pytest.raises(CalculatorSetupError, match=f"{next(iter(keywords))}.*{culprit}"):
        NBodyCalculator(network, **keywords)


@pytest.mark.parametrize("nothing", [{}, {"model": []}, {"model": ()}])
def test_refused_without_a_model(nothing: dict[str, Any]) -> None:
    """ASE's own commands make a calculator without any keyword, as ``ase run nbody FILE`` does."""
    with pytest.raises(CalculatorSetupError, match=r"no model is given: .*nbody models"):
        NBodyCalculator(**nothing)


@pytest.mark.parametrize("wrong", [3, None, [1.0], {"model": "x"}])
def test_refused_what_is_no_model(wrong: Any) -> None:
    with pytest.raises(
        CalculatorSetupError, match=f"got.*{type(wrong[0] if isinstance(wrong, list) else wrong).__name__}"
    ):
        NBodyCalculator(wrong)


def test_refused_missing_model(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-model"):
        NBodyCalculator("no-such-model")
    with pytest.raises(FileNotFoundError, match="directory"):
        NBodyCalculator(tmp_path)


def test_parameters_are_fixed(calc: NBodyCalculator) -> None:
    """ASE's calc.set(...) would otherwise change what todict() says, and nothing else."""
    with pytest.raises(CalculatorSetupError, match="skin"):
        calc.set(skin=2.0)
    assert calc.todict()["skin"] == 0.5


def foreign(atoms: ase.Atoms) -> None:
    atoms.symbols[0] = "U"


def nameless(atoms: ase.Atoms) -> None:
    atoms.symbols[0] = "X"


def lost(atoms: ase.Atoms) -> None:
    atoms.positions[1, 2] = np.nan


def escaped(atoms: ase.Atoms) -> None:
    atoms.positions[1, 0] = np.inf


def no_cell(atoms: ase.Atoms) -> None:
    atoms.cell[:] = 0.0


def half_a_cell(atoms: ase.Atoms) -> None:
    atoms.cell[1] = 0.0


def flat_cell(atoms: ase.Atoms) -> None:
    atoms.cell[2] = atoms.cell[0] + atoms.cell[1]


def infinite_cell(atoms: ase.Atoms) -> None:
    atoms.cell[0, 0] = np.inf


def beyond_the_table(atoms: ase.Atoms) -> None:
    atoms.numbers[1] = 400


def negative_number(atoms: ase.Atoms) -> None:
    atoms.numbers[0] = -3


REFUSED_STRUCTURES = {
    beyond_the_table: r"atom 1 has atomic number 400 \(allowed: 1 to 118\)",
    negative_number: "atom 0 has atomic number -3 ",
    foreign: "contains U",
    nameless: "contains X",
    lost: "atom 1 .*z = nan",
    escaped: "atom 1 .*x = inf",
    no_cell: "lattice vector 0.*zero",
    half_a_cell: "lattice vector 1.*zero",
    flat_cell: "linearly dependent",
    infinite_cell: "cell is not finite",
}


@pytest.mark.parametrize("spoil", REFUSED_STRUCTURES, ids=lambda spoil: spoil.__name__)
def test_refused_structures(spoil: Callable[[ase.Atoms], None], systems: Systems, calc: NBodyCalculator) -> None:
    atoms = systems["crystal"]()
    atoms.calc = calc
    forces, good = atoms.get_forces(), atoms.copy()
    spoil(atoms)
    for _ in range(2):  # the second call must not find results of the first
        with pytest.raises(CalculatorSetupError, match=REFUSED_STRUCTURES[spoil]):
            atoms.get_forces()
    with pytest.raises(CalculatorSetupError, match="nothing was calculated"):
        _ = calc.forces_spread
    np.testing.assert_allclose(calc.get_property("forces", good), forces, atol=1e-12)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("repulsion", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_atoms_at_one_place(periodic: bool, repulsion: bool, dtype: str, systems: Systems, make_network) -> None:
    calc = NBodyCalculator(make_network(repulsion=repulsion), dtype=dtype)
    atoms = systems["crystal" if periodic else "molecule"]() * (1, 1, 3 if periodic else 1)
    good = atoms.copy()
    atoms.positions[4] = atoms.positions[2] + (atoms.cell[0] if periodic else 0.0)
    with pytest.raises(CalculationFailed, match=r"closest atoms, 2 and 4, are 0|closest atoms, 2 and 4, are .*e-1\d"):
        calc.get_property("energy", atoms)
    with pytest.raises(CalculatorSetupError, match="nothing was calculated"):
        _ = calc.energy_spread
    assert np.isfinite(calc.get_property("energy", good))


@pytest.mark.parametrize("distance", [1e-20, 1e-60, 1e-100, 1e-160])
def test_forces_that_would_overflow(distance: float, make_network: MakeNetwork) -> None:
    """The repulsion of two nuclei at one place is finite, but as a force it would end a run with an overflow."""
    atoms = ase.Atoms("C2", positions=[[0, 0, 0], [distance, 0, 0]])
    calc = NBodyCalculator(make_network(repulsion=True))
    with pytest.raises(CalculationFailed, match=r"above 1e\+30 \(in eV.*atoms, 0 and 1, are|NaN or infinite"):
        calc.get_property("energy", atoms)
    with pytest.raises(CalculationFailed, match="structure 0: "):
        calc.evaluate([atoms])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_in_every_grad_mode_and_after_it(mode, network):
    atoms = ase.build.molecule("CH3OH")
    atoms.calc = NBodyCalculator(network)
    with mode():
        inside = atoms.get_forces()
        (together,) = atoms.calc.evaluate([atoms])
    np.testing.assert_allclose(together["forces"], inside, rtol=1e-9, atol=1e-12)
    atoms.calc.reset()
    np.testing.assert_array_equal(atoms.get_forces(), inside)
