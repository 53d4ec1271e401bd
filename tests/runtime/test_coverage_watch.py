"""An atom that is bonded or packed unlike all training data causes one warning that names it; others cause none."""

import warnings

import ase
import numpy as np
import pytest
from ase.build import bulk, molecule

from ase_nbody import ExtrapolationWarning, NBodyCalculator
from ase_nbody.network.coverage import Coverage
from ase_nbody.runtime.evaluator import Evaluator
from ase_nbody.structure import Structure

RADIUS = 4.0


def coverage_of(*structures: ase.Atoms, shake: float = 0.03) -> Coverage:
    """The coverage of some molecules and of slightly shaken copies."""
    copies = [atoms.copy() for atoms in structures for _ in range(5)]
    for seed, atoms in enumerate(copies):
        atoms.rattle(shake, seed=seed)
    return Coverage.of([Structure.from_atoms(atoms) for atoms in copies], RADIUS)


def sentences(evaluator: Evaluator, *structures: ase.Atoms) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for atoms in structures:
            evaluator.follow(Structure.from_atoms(atoms))
    assert all(issubclass(warning.category, ExtrapolationWarning) for warning in caught)
    return [str(warning.message) for warning in caught]


@pytest.fixture
def evaluator(make_network) -> Evaluator:
    return Evaluator(make_network(coverage=coverage_of(molecule("CH3CH2OH"))))


def test_another_molecule_of_the_same_elements_is_named_with_what_is_known(evaluator) -> None:
    (sentence,) = sentences(evaluator, molecule("C6H6"), molecule("CH3OCH3"))
    assert "atom 0 (C) is bonded to HC2, unlike every C in the training data (H2CO, H3C)" in sentence


@pytest.mark.parametrize("name", ["C6H6", "CH3OCH3", "CH3OH", "C2H4", "H2O", "CH4", "H2", "CO", "HCOOH"])
def test_each_other_molecule_causes_the_warning(name: str, evaluator) -> None:
    assert len(sentences(evaluator, molecule(name))) == 1


def test_the_molecule_itself_hot_or_turned_causes_none(evaluator) -> None:
    hot = []
    for seed in range(30):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, seed=seed)
        atoms.rotate(seed * 17.0, (1, 2, 3))
        hot.append(atoms)
    assert sentences(evaluator, *hot) == []


def test_two_molecules_far_apart_are_covered_and_a_close_third_is_packed_too_densely(make_network) -> None:
    known = coverage_of(molecule("CH3CH2OH"))
    evaluator = Evaluator(
        make_network(coverage=known.model_copy(update={"contacts": known.missing(()), "intermolecular": True}))
    )
    one, far, near = molecule("CH3CH2OH"), molecule("CH3CH2OH"), molecule("CH3CH2OH")
    far.positions += [12.0, 0.0, 0.0]
    near.positions += [0.0, 0.0, 2.6]
    assert sentences(evaluator, one + far) == []
    (sentence,) = sentences(evaluator, one + near)
    assert "denser than those of any" in sentence
    assert "density of neighbours" in sentence


@pytest.mark.parametrize(
    ("scale", "kind"), [(0.88, "denser"), (0.97, None), (1.0, None), (1.02, None), (1.3, "thinner")]
)
def test_compressed_and_thinned_crystals(scale: float, kind: str | None, make_network) -> None:
    known = coverage_of(*(bulk("Cu", a=3.6 * stretch) * (2, 2, 2) for stretch in (0.97, 1.0, 1.02)))
    found = sentences(Evaluator(make_network(coverage=known)), bulk("Cu", a=3.6 * scale))
    assert [kind is not None and kind in sentence for sentence in found] == [True] * (kind is not None)


def test_a_bond_that_stretches_in_dynamics_is_noticed_when_it_is_broken(evaluator) -> None:
    at = []
    for stretch in np.arange(1.0, 2.2, 0.02):
        atoms = molecule("CH3CH2OH")
        atoms.set_distance(2, 3, stretch * 0.97, fix=0)
        at += [stretch] * len(sentences(evaluator, atoms))
    assert len(at) == 1
    assert 1.3 < at[0] < 1.75


def test_free_atoms_cause_none_if_the_data_have_them(make_network) -> None:
    known = coverage_of(molecule("CH3CH2OH"), ase.Atoms("H"), ase.Atoms("O"))
    assert known.densities["H"][0] > 1.0  # a free atom does not allow dilution
    evaluator = Evaluator(make_network(coverage=known))
    assert sentences(evaluator, ase.Atoms("H"), ase.Atoms("O")) == []
    assert len(sentences(evaluator, ase.Atoms("C"))) == 1


def test_a_committee_tells_how_far_its_energies_differ(make_network) -> None:
    known = coverage_of(molecule("CH3CH2OH"))
    evaluator = Evaluator([make_network(seed=seed, coverage=known) for seed in (1, 2)])
    (sentence,) = sentences(evaluator, molecule("C6H6"))
    (evaluation,) = evaluator.evaluate([Structure.from_atoms(molecule("C6H6"))])
    spread = np.std(evaluation.members("energy")) / 12
    assert f"energies have a standard deviation of {spread:.2g} eV per atom" in sentence


def test_forces_that_vanish_by_symmetry_are_not_taken_for_certainty(make_network) -> None:
    known = coverage_of(molecule("CH3CH2OH"))
    evaluator = Evaluator([make_network(seed=seed, coverage=known) for seed in (1, 2)])
    (sentence,) = sentences(evaluator, bulk("C"))
    assert "e-" not in sentence
    assert "eV per atom" in sentence


def chlorides(distance: float) -> ase.Atoms:
    """Two molecules of HCl, the chlorine atoms towards each other at a distance in Angstrom."""
    return ase.Atoms("HClClH", [[-1.3, 0, 0], [0, 0, 0], [distance, 0, 0], [distance + 1.3, 0, 0]])


HYDROGEN_BOND = ase.Atoms("ClHClH", [[0, 0, 0], [1.3, 0, 0], [4.2, 0, 0], [5.5, 0, 0]])


def test_a_contact_of_elements_that_never_met_is_named(make_network) -> None:
    """Nothing else is new: in the data, chlorine has a denser surrounding, and a thinner one."""
    evaluator = Evaluator(make_network(coverage=coverage_of(HYDROGEN_BOND, chlorides(8.0))))
    (sentence,) = sentences(evaluator, chlorides(3.8), HYDROGEN_BOND, chlorides(3.6))
    assert "atoms 1 (Cl) and 2 (Cl) are 3.6 Angstrom apart and not bonded" in sentence
    assert "the training data have no such contact Cl-Cl" in sentence


def test_a_known_contact_causes_none_and_an_older_file_knows_of_none(make_network) -> None:
    known = coverage_of(HYDROGEN_BOND, chlorides(8.0), chlorides(3.8))
    assert sentences(Evaluator(make_network(coverage=known)), chlorides(3.6)) == []
    older = coverage_of(HYDROGEN_BOND, chlorides(8.0)).model_copy(update={"contacts": None})
    assert sentences(Evaluator(make_network(coverage=older)), chlorides(3.6)) == []


def test_atoms_at_one_neighbour_are_no_contact(make_network) -> None:
    known = coverage_of(molecule("CCl4"))
    assert known.contacts == ()
    assert sentences(Evaluator(make_network(coverage=known)), molecule("CCl4")) == []


def test_a_bond_of_elements_that_were_never_bonded_is_named(make_network) -> None:
    evaluator = Evaluator(make_network(coverage=coverage_of(molecule("CH4"), molecule("HCl"))))
    (sentence,) = sentences(evaluator, molecule("CH3Cl"))
    assert "is bonded to H3Cl, unlike every C in the training data (H4; no C-Cl bond occurs there)" in sentence


def test_without_the_entry_nothing_is_said(make_network) -> None:
    assert sentences(Evaluator(make_network()), molecule("C6H6")) == []


def test_a_warning_that_is_an_error_comes_again_and_leaves_no_results(make_network) -> None:
    calc = NBodyCalculator(make_network(coverage=coverage_of(molecule("CH3CH2OH"))))
    for name in ("C6H6", "C6H6", "CH3OH"):
        with pytest.raises(ExtrapolationWarning, match="atom 0"):  # warnings are errors in these tests
            calc.get_property("energy", molecule(name))
        assert not calc.results
    assert np.isfinite(calc.get_property("energy", molecule("CH3CH2OH")))


def test_structures_side_by_side_are_judged_too(evaluator) -> None:
    with pytest.warns(ExtrapolationWarning, match="HC2"):
        evaluator.evaluate([Structure.from_atoms(molecule(name)) for name in ("CH3CH2OH", "C6H6")])


@pytest.mark.parametrize(("gap", "warned"), [(2.2, True), (3.5, True), (6.0, False)])
def test_a_second_molecule_is_noticed_if_the_data_have_one_alone(gap: float, warned: bool, evaluator) -> None:
    one, other = molecule("CH3CH2OH"), molecule("CH3CH2OH")
    other.positions[:, 2] += np.ptp(one.positions[:, 2]) + gap
    found = sentences(evaluator, one + other)
    assert [("in two molecules" in sentence and "no molecules side by side" in sentence) for sentence in found] == (
        [True] * warned
    )


def test_dimers_cause_none_if_the_data_have_some(make_network) -> None:
    water = molecule("H2O")
    near, further = water.copy(), water.copy()
    near.positions[:, 0] += 3.0
    further.positions[:, 0] += 3.2
    evaluator = Evaluator(make_network(coverage=coverage_of(water + near)))
    assert sentences(evaluator, water + further) == []
