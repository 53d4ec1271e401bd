"""Partial charges and dipole moments through the calculator, in ASE's names and units."""

import copy
import warnings

import ase
import ase.build
import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError, PropertyNotImplementedError

from ase_nbody import ChargeWarning, NBodyCalculator, NBodyNetwork, load_model, save_model
from ase_nbody.engines import evaluate_together
from ase_nbody.runtime import blocks, runner


@pytest.fixture(scope="module")
def charged(make_network, make_config):
    """A network whose last level has directions too, so that every level gives charges and dipoles."""
    first, second = make_config().levels
    return make_network(levels=(first, second.model_copy(update={"l_out": 1})), outputs=("charges",))


def calculated(network, atoms, **keywords):
    atoms = atoms.copy()
    atoms.calc = NBodyCalculator(network, **keywords)
    return atoms.get_charges(), atoms.get_dipole_moment()


def test_charges_sum_to_the_total_charge(charged, systems):
    atoms = systems["molecule"]()
    charges, dipole = calculated(charged, atoms)
    assert charges.shape == (len(atoms),)
    assert dipole.shape == (3,)
    assert charges.sum() == pytest.approx(0.0, abs=1e-12)
    assert np.abs(charges).max() > 1e-3
    atoms.info["charge"] = -2
    assert calculated(charged, atoms)[0].sum() == pytest.approx(-2.0, abs=1e-12)


def test_the_total_charge_is_watched(charged, systems):
    """A new charge is a new calculation, alone and beside others; energies do not depend on it yet."""
    atoms = systems["molecule"]()
    atoms.calc = NBodyCalculator(charged)
    neutral, energy = atoms.get_charges(), atoms.get_potential_energy()
    atoms.info["charge"] = 1
    assert atoms.get_charges().sum() == pytest.approx(1.0, abs=1e-12)
    assert atoms.get_potential_energy() == energy
    evaluate_together(NBodyCalculator(charged), [atoms])
    assert atoms.get_charges().sum() == pytest.approx(1.0, abs=1e-12)
    del atoms.info["charge"]
    np.testing.assert_allclose(atoms.get_charges(), neutral, atol=1e-12)


@pytest.mark.parametrize("together", [False, True])
def test_a_charge_in_an_array_is_watched_too(together, charged, systems):
    """Some readers give arrays of one number, and ``+=`` changes these in place."""
    atoms = systems["molecule"]()
    atoms.info["charge"], atoms.calc = np.array([0.0]), NBodyCalculator(charged)
    if together:
        evaluate_together(atoms.calc, [atoms])
    assert atoms.get_charges().sum() == pytest.approx(0.0, abs=1e-12)
    atoms.info["charge"] += 1
    assert atoms.get_charges().sum() == pytest.approx(1.0, abs=1e-12)


def test_dipoles_turn_with_the_molecule_and_do_not_depend_on_its_place(charged, systems):
    atoms = systems["molecule"]()
    atoms.info["charge"] = 1
    charges, dipole = calculated(charged, atoms)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    atoms.positions = (atoms.positions - 7.0) @ rotation.T
    turned_charges, turned = calculated(charged, atoms)
    np.testing.assert_allclose(turned_charges, charges, atol=1e-10)
    np.testing.assert_allclose(turned, rotation @ dipole, atol=1e-10)


def test_the_dipole_of_an_ion_is_about_its_centre_of_mass(charged):
    """A lone ion has its whole charge in one place, and no moment."""
    atoms = ase.Atoms("Na", positions=[[3.0, -2.0, 5.0]], info={"charge": 1})
    charges, dipole = calculated(charged, atoms)
    assert charges.tolist() == [1.0]
    np.testing.assert_allclose(dipole, 0.0, atol=1e-12)


def test_side_by_side_in_batches_and_by_a_committee(charged, systems):
    other = copy.deepcopy(charged)
    other.heads[0]["charge"].linear.data *= -1.0
    molecules = [systems["molecule"](), ase.build.molecule("H2O"), systems["molecule"]()]
    molecules[1].info["charge"] = -1
    calc = NBodyCalculator([charged, other])
    for atoms, found in zip(molecules, calc.evaluate(molecules), strict=True):
        each = [calculated(network, atoms) for network in (charged, other)]
        np.testing.assert_allclose(found["charges"], np.mean([charges for charges, _ in each], axis=0), atol=1e-11)
        np.testing.assert_allclose(found["dipole"], np.mean([dipole for _, dipole in each], axis=0), atol=1e-11)


def test_a_committee_gives_what_all_its_members_give(charged, systems):
    """One of two networks has charges: the committee has energies of parts, and no charges."""
    plain = NBodyNetwork(charged.config.model_copy(update={"outputs": ()}))
    plain.load_state_dict({name: w for name, w in charged.state_dict().items() if not name.startswith("heads.")})
    for models in ([charged, plain], [plain, charged]):
        calc = NBodyCalculator(models)
        energy = calc.get_potential_energy(systems["molecule"]())
        assert "charges" not in calc.results
        isolated = sum(charged.config.isolated_atom_energies[symbol] for symbol in systems["molecule"]().symbols)
        assert sum(level.energies.sum() for level in calc.part_energies) + isolated == pytest.approx(energy, abs=1e-8)


@pytest.mark.parametrize("charge", ["1", [1, 0], np.array([1.0, 2.0]), float("nan")])
def test_a_charge_that_is_no_number_is_refused_at_any_time(charge, charged, systems):
    atoms = systems["molecule"]()
    atoms.calc = NBodyCalculator(charged)
    atoms.get_charges()
    atoms.info["charge"] = charge
    with pytest.raises(CalculatorSetupError, match="charge"):
        atoms.get_charges()


def test_energies_and_forces_do_not_know_of_charges(charged, systems):
    plain = NBodyNetwork(charged.config.model_copy(update={"outputs": ()}))
    plain.load_state_dict({name: w for name, w in charged.state_dict().items() if not name.startswith("heads.")})
    atoms = systems["molecule"]()
    forces = [NBodyCalculator(network).get_property("forces", atoms) for network in (charged, plain)]
    np.testing.assert_array_equal(*forces)


@pytest.mark.parametrize("name", ["charges", "dipole"])
def test_what_a_model_does_not_give_is_not_implemented(name, charged, network, systems):
    assert name in NBodyCalculator(charged).implemented_properties
    assert name not in NBodyCalculator(network).implemented_properties
    assert name not in NBodyCalculator.implemented_properties
    molecule = systems["molecule"]()
    untrained = rf"^{name}: this model does not predict it. .*network.outputs: \[charges\]"
    with pytest.raises(PropertyNotImplementedError, match=untrained):
        NBodyCalculator(network).get_property(name, molecule)
    for periodic in ("triclinic", "slab", "wire"):
        with pytest.raises(PropertyNotImplementedError, match=rf"^{name}: only structures without periodic directions"):
            NBodyCalculator(charged).get_property(name, systems[periodic]())
    with pytest.raises(PropertyNotImplementedError, match=untrained):  # not every member gives it
        NBodyCalculator([charged, network]).get_property(name, molecule)
    evaluate_together(NBodyCalculator(network), [molecule])
    with pytest.raises(PropertyNotImplementedError, match=untrained):
        molecule.calc.get_property(name, molecule)


def test_charges_that_are_not_finite_are_refused(charged, systems):
    """Energies and forces may be sound all the same."""
    overflowing = copy.deepcopy(charged)
    for weight in overflowing.heads.parameters():
        weight *= 1e200
    atoms = systems["molecule"]()
    atoms.calc = NBodyCalculator(overflowing)
    with pytest.raises(CalculationFailed, match="NaN or infinite"):
        atoms.get_charges()
    with pytest.raises(CalculationFailed, match=r"structure 0: .*NaN or infinite"):
        NBodyCalculator(overflowing).evaluate([systems["molecule"]()])


def test_no_atoms_have_no_charges(charged):
    atoms = ase.Atoms(calculator=NBodyCalculator(charged))
    assert atoms.get_potential_energy() == 0.0
    assert not len(atoms.get_charges())
    assert not atoms.get_dipole_moment().any()


def test_a_model_file_keeps_its_outputs(charged, systems, tmp_path):
    loaded = load_model(save_model(charged, tmp_path / "charged.nbody"))
    atoms = systems["molecule"]()
    np.testing.assert_array_equal(calculated(loaded, atoms)[0], calculated(charged, atoms)[0])


def test_in_blocks_too(charged, systems, monkeypatch):
    monkeypatch.setitem(blocks.BLOCK_PARTS, "cpu", (2, 2))
    atoms = systems["molecule"]()
    expected = calculated(charged, atoms)
    monkeypatch.setitem(runner.WHOLE_ATOMS, "cpu", 1)
    for found, other in zip(calculated(charged, atoms), expected, strict=True):
        np.testing.assert_allclose(found, other, atol=1e-11)


def test_a_charge_that_the_model_ignores_is_told_once(network, systems):
    atoms = systems["molecule"]()
    atoms.calc = NBodyCalculator(network)
    neutral = atoms.get_potential_energy()
    atoms.info["charge"] = 1
    with pytest.warns(ChargeWarning, match=r"total charge of \+1 e .*which this model does not look at"):
        assert atoms.get_potential_energy() == neutral
    atoms.info["charge"] = -1
    atoms.rattle(0.01)
    atoms.get_potential_energy()  # warnings are errors in these tests
    with pytest.warns(ChargeWarning):
        NBodyCalculator(network).evaluate([atoms])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strict = NBodyCalculator(network)
        for _ in range(2):
            with pytest.raises(ChargeWarning):
                strict.get_property("energy", atoms)
