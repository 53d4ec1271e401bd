"""The smallest systems, and the calculator in sums and mixtures of ASE's calculators."""

import ase
import numpy as np
import pytest
from ase.calculators.calculator import CalculatorSetupError
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import LinearCombinationCalculator, MixedCalculator, SumCalculator
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import NBodyCalculator, NBodyNetwork


@pytest.fixture
def calc(network: NBodyNetwork) -> NBodyCalculator:
    return NBodyCalculator(network)


@pytest.mark.parametrize("periodic", [False, True])
def test_no_atoms(periodic: bool, calc: NBodyCalculator) -> None:
    atoms = ase.Atoms(cell=[5, 5, 5] if periodic else None, pbc=periodic)
    atoms.calc = calc
    assert atoms.get_potential_energy() == 0.0
    assert atoms.get_forces().shape == (0, 3)
    assert calc.forces_spread.shape == (0, 3)
    assert [len(part.energies) for part in calc.part_energies] == [0, 0]
    if periodic:
        np.testing.assert_array_equal(atoms.get_stress(), np.zeros(6))


@pytest.mark.parametrize("symbol", ["H", "C", "Cu"])
def test_a_lone_atom_has_its_isolated_energy(symbol: str, calc: NBodyCalculator, network: NBodyNetwork) -> None:
    for atoms in (ase.Atoms(symbol), ase.Atoms(symbol, cell=[20, 20, 20], pbc=True)):
        atoms.calc = calc
        assert atoms.get_potential_energy() == network.config.isolated_atom_energies[symbol]
        np.testing.assert_array_equal(atoms.get_forces(), np.zeros((1, 3)))


def test_an_atom_whose_only_neighbours_are_its_images(calc: NBodyCalculator) -> None:
    atoms = ase.Atoms("C", cell=[1.9, 2.1, 2.3], pbc=True)
    atoms.calc = calc
    np.testing.assert_allclose(atoms.get_forces(), 0.0, atol=1e-12)  # by symmetry
    assert abs(atoms.get_stress()).max() > 1e-4


def test_a_hydrogen_molecule(calc: NBodyCalculator) -> None:
    atoms = ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.75]])
    atoms.calc = calc
    pull, push = atoms.get_forces()
    np.testing.assert_allclose(pull, -push, atol=1e-13)
    np.testing.assert_allclose(pull[:2], 0.0, atol=1e-13)
    assert abs(pull[2]) > 1e-3


def test_two_far_copies_have_twice_the_energy(systems, calc: NBodyCalculator) -> None:
    atoms = systems["molecule"]()
    one = calc.get_property("energy", atoms)
    far = atoms.copy()
    far.positions += 2.0 * sum(level.radius for level in calc.networks[0].config.levels)
    assert calc.get_property("energy", atoms + far) == pytest.approx(2.0 * one, rel=1e-13)


def test_a_calculator_without_atoms(calc: NBodyCalculator) -> None:
    with pytest.raises(CalculatorSetupError, match="no atoms"):
        calc.get_potential_energy()


def test_sum_with_another_calculator(systems, calc: NBodyCalculator) -> None:
    """The other calculator may be a correction, such as dispersion."""
    atoms, correction = systems["crystal"](), LennardJones(sigma=2.0, epsilon=0.01, rc=6.0)
    expected = [sum(part.get_property(key, atoms) for part in (calc, correction)) for key in ("energy", "forces")]
    atoms.calc = SumCalculator([calc, correction])
    assert atoms.get_potential_energy() == pytest.approx(expected[0], rel=1e-14)
    np.testing.assert_allclose(atoms.get_forces(), expected[1], atol=1e-12)
    assert abs(atoms.get_stress() - calc.get_property("stress", atoms)).max() > 1e-6


def test_mixing_two_networks(systems, make_network) -> None:
    """The results are linear in the weights of the two networks, as thermodynamic integration needs."""
    atoms = systems["molecule"]()
    ends = [NBodyCalculator(make_network(seed)) for seed in (0, 1)]
    forces = [end.get_property("forces", atoms) for end in ends]
    atoms.calc = MixedCalculator(*ends, 0.25, 0.75)
    np.testing.assert_allclose(atoms.get_forces(), 0.25 * forces[0] + 0.75 * forces[1], atol=1e-12)
    atoms.calc = LinearCombinationCalculator(ends, [1.0, -1.0])
    np.testing.assert_allclose(atoms.get_forces(), forces[0] - forces[1], atol=1e-12)


def test_results_can_be_frozen(systems, calc: NBodyCalculator) -> None:
    atoms = systems["crystal"]()
    atoms.calc = calc
    atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, **calc.results)
    calc.get_property("energy", systems["molecule"]())
    fresh = NBodyCalculator(calc.networks)
    np.testing.assert_allclose(atoms.get_forces(), fresh.get_property("forces", atoms), atol=1e-12)


def test_per_atom_results_through_atoms(systems, calc: NBodyCalculator) -> None:
    atoms = systems["crystal"]()
    atoms.calc = calc
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-14)
    np.testing.assert_allclose(atoms.get_stresses().sum(axis=0), atoms.get_stress(), atol=1e-14)
    np.testing.assert_allclose(atoms.get_stress(voigt=False)[0, 1], atoms.get_stress()[5], atol=0.0)
