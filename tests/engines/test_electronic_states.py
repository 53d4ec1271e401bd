"""A model that learnt neutral closed shells alone refuses charges and spins, however a structure gives them."""

import warnings

import ase
import numpy as np
import pytest
from ase.calculators.calculator import CalculatorSetupError

from ase_nbody import ChargeWarning, NBodyCalculator, load_model, save_model
from ase_nbody.checks import run_checks
from ase_nbody.checks.case import energy_and_forces, make_case
from ase_nbody.checks.dimers import dimer
from ase_nbody.electrons import multiplicity_of
from ase_nbody.engines import evaluate_together
from ase_nbody.files.archive import read_card
from ase_nbody.network.electronic_states import unlearnt_state
from ase_nbody.structure import Structure

SINGLETS = {"total_charges": (0,), "multiplicities": (1,)}


@pytest.fixture(scope="module")
def closed_shells(make_network):
    return make_network(**SINGLETS)


def with_info(atoms, **info):
    atoms = atoms.copy()
    atoms.info |= info
    return atoms


def with_moments(atoms, *moments):
    atoms = atoms.copy()
    atoms.set_initial_magnetic_moments([*moments, *[0.0] * (len(atoms) - len(moments))])
    return atoms


def with_charges(atoms, *charges):
    atoms = atoms.copy()
    atoms.set_initial_charges([*charges, *[0.0] * (len(atoms) - len(charges))])
    return atoms


REFUSED = {
    "cation": (lambda atoms: with_info(atoms, charge=1), r"total charge of \+1 e, .* learnt structures with 0 e alone"),
    "anion": (lambda atoms: with_info(atoms, charge=-1.0), r"total charge of -1 e"),
    "MACE's charge": (lambda atoms: with_info(atoms, total_charge=1), r"atoms.info\['total_charge'\] say .* \+1 e"),
    "tblite's charge": (lambda atoms: with_charges(atoms, 0.6, 0.4), r"initial charges of the atoms say .* \+1 e"),
    "FAIRChem's triplet": (lambda atoms: with_info(atoms, charge=0, spin=3), r"spin multiplicity 3 \(triplet\)"),
    "PySCF's triplet": (lambda atoms: with_info(atoms, spin=2), r"spin multiplicity 3 \(triplet\)"),
    "MACE's triplet": (lambda atoms: with_info(atoms, total_spin=3), r"spin multiplicity 3 \(triplet\)"),
    "a named multiplicity": (lambda atoms: with_info(atoms, spin_multiplicity=5), "spin multiplicity 5"),
    "xtb's unpaired electrons": (lambda atoms: with_info(atoms, uhf=2), r"spin multiplicity 3 \(triplet\)"),
    "tblite's triplet": (lambda atoms: with_moments(atoms, 1.0, 1.0), r"spin multiplicity 3 .*magnetic moments"),
    "an open-shell singlet": (lambda atoms: with_moments(atoms, 1.0, -1.0), r"spin multiplicity 3 .*magnetic moments"),
    "moments with directions": (
        lambda atoms: with_moments(atoms[:1] + atoms[1:], *np.eye(3)[:2], *np.zeros((len(atoms) - 2, 3))),
        r"spin multiplicity 3",
    ),
    "a radical": (
        lambda atoms: atoms[:-1],
        r"17 electrons and no spin is given, .* 2 \(doublet\), .*Is an atom missing",
    ),
    "a doublet": (lambda atoms: with_info(atoms[:-1], spin=2), r"spin multiplicity 2 \(doublet\)"),
}
TAKEN = {
    "FAIRChem's singlet": lambda atoms: with_info(atoms, charge=0, spin=1),
    "PySCF's singlet": lambda atoms: with_info(atoms, spin=0),
    "no multiplicity": lambda atoms: with_info(atoms, spin_multiplicity=1, charge=None),
    "rounded moments and charges": lambda atoms: with_charges(with_moments(atoms, 1e-3, -2e-3), 0.4, -0.4004),
    "partial charges of what is known to be neutral": lambda atoms: with_charges(with_info(atoms, charge=0), 1.0),
    "a free atom": lambda atoms: atoms[-1:],
    "a free atom with its spin": lambda atoms: with_moments(atoms[:1], 2.0),
    "DFT's moment": lambda atoms: with_info(atoms, magmom=1e-4),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_neutral_closed_shell_is_refused(name, closed_shells, network, systems):
    change, message = REFUSED[name]
    atoms = change(systems["molecule"]())
    calculator = NBodyCalculator(closed_shells)
    with pytest.raises(CalculatorSetupError, match=message):
        calculator.get_potential_energy(atoms)
    assert not calculator.results
    with pytest.raises(CalculatorSetupError, match=f"structure 1: .*{message}"):
        calculator.evaluate([systems["molecule"](), atoms])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChargeWarning)
        NBodyCalculator(network).get_potential_energy(atoms)  # a model that does not say what it learnt


@pytest.mark.parametrize("name", TAKEN)
def test_neutral_closed_shells_are_taken_however_they_say_so(name, closed_shells, network, systems):
    atoms = TAKEN[name](systems["molecule"]())
    assert NBodyCalculator(closed_shells).get_potential_energy(atoms) == pytest.approx(
        NBodyCalculator(network).get_potential_energy(atoms), abs=1e-12
    )


@pytest.mark.parametrize("entry", [{"charge": 1}, {"total_charge": 1}, {"spin": 3}, {"uhf": 2}])
def test_results_are_not_kept_when_a_charge_or_a_spin_appears(entry, closed_shells, systems):
    """The atoms do not move: only the entry changes, alone and among structures side by side."""
    atoms, other = systems["molecule"](), systems["molecule"]()
    atoms.calc = NBodyCalculator(closed_shells)
    energy = atoms.get_potential_energy()
    evaluate_together(NBodyCalculator(closed_shells), [other])
    other.get_potential_energy()
    for one in (atoms, other):
        one.info |= entry
        with pytest.raises(CalculatorSetupError):
            one.get_potential_energy()
        one.info.clear()
        assert one.get_potential_energy() == pytest.approx(energy, abs=1e-12)
        one.set_initial_magnetic_moments([1.0, 1.0, *[0.0] * (len(one) - 2)])
        with pytest.raises(CalculatorSetupError):
            one.get_potential_energy()


def test_an_entry_of_zero_is_not_the_same_as_none(make_network, systems):
    """No unpaired electron: a radical that was a doublet, because nothing was said, is a singlet now."""
    doublets = make_network(total_charges=(0,), multiplicities=(2,))
    atoms = systems["molecule"]()[:-1]
    atoms.calc = NBodyCalculator(doublets)
    atoms.get_potential_energy()
    atoms.info["uhf"] = 0
    with pytest.raises(CalculatorSetupError, match=r"spin multiplicity 1 \(singlet\)"):
        atoms.get_potential_energy()


def test_a_model_of_one_ion_takes_this_charge_alone_and_needs_no_warning(make_network, systems):
    calculator = NBodyCalculator(make_network(total_charges=(-1,), multiplicities=(1,)))
    anion = with_info(systems["molecule"]()[:-1], charge=-1)
    calculator.get_potential_energy(anion)  # warnings are errors in these tests
    with pytest.raises(CalculatorSetupError, match=r"total charge of 0 e, .* with -1 e alone"):
        calculator.get_potential_energy(systems["molecule"]())


def test_a_committee_takes_what_every_member_learnt(closed_shells, make_network, systems):
    other = make_network(seed=1)
    committee = NBodyCalculator([other, closed_shells])
    committee.get_potential_energy(systems["molecule"]())
    with pytest.raises(CalculatorSetupError, match="total charge"):
        committee.get_potential_energy(with_info(systems["molecule"](), charge=1))


def test_files_keep_the_states_as_a_feature(closed_shells, network, tmp_path):
    loaded = load_model(save_model(closed_shells, tmp_path / "closed.nbody"))
    assert loaded.config == closed_shells.config
    assert read_card(tmp_path / "closed.nbody")["features"] == ["multiplicities", "total_charges"]
    save_model(network, tmp_path / "any.nbody")
    assert not {"multiplicities", "total_charges"} & {*read_card(tmp_path / "any.nbody")["config"]}


def test_checks_look_at_radicals_of_two_atoms_but_take_no_ion(closed_shells, systems):
    """Half of all pairs have an odd number of electrons; the curve of their energy must be sound nevertheless."""
    calculator, molecule = NBodyCalculator(closed_shells), systems["molecule"]()
    case = make_case(calculator, molecule)
    energies = energy_and_forces(case.calculator, [dimer("H", "C", place) for place in (1.0, 1.1)])[:, 0]
    assert np.isfinite(energies).all()
    assert case.calculator.get_potential_energy(molecule) == calculator.get_potential_energy(molecule)
    with pytest.raises(CalculatorSetupError, match="total charge"):
        list(run_checks(calculator, [with_info(molecule, charge=1)], only=("parts",)))
    with pytest.raises(CalculatorSetupError, match="doublet"):  # the calculator that was checked is as before
        calculator.get_potential_energy(dimer("H", "C", 1.1))


@pytest.mark.parametrize(
    ("spin", "electrons", "multiplicity"),
    [(0, 18, 1), (1, 18, 1), (2, 18, 3), (3, 18, 3), (4, 18, 5), (0, 17, None), (1, 17, 2), (2, 17, 2), (3, 17, 4)],
)
def test_parity_tells_a_multiplicity_from_unpaired_electrons(spin, electrons, multiplicity):
    assert multiplicity_of({"spin": spin}, None, electrons) == multiplicity
    assert multiplicity_of({"spin": np.array([float(spin)])}, None, electrons) == multiplicity


@pytest.mark.parametrize("value", ["up", None, [1, 2], np.nan, True])
def test_what_is_no_number_says_nothing_of_the_spin(value):
    assert multiplicity_of({"spin": value, "uhf": value, "mult": value}, None, 18) is None


def test_spins_survive_the_way_through_atoms(systems, closed_shells):
    structure = Structure.from_atoms(with_info(systems["molecule"](), spin=3))
    again = Structure.from_atoms(structure.to_atoms())
    assert structure.multiplicity == again.multiplicity == 3
    assert "triplet" in unlearnt_state(again, [closed_shells.config])
    crystal = ase.Atoms("H", cell=[3.0] * 3, pbc=True)  # a crystal of radicals, no free atom
    assert "doublet" in unlearnt_state(Structure.from_atoms(crystal), [closed_shells.config])
