"""Atoms closer together than in the training data cause one warning that names them; ordinary structures cause none."""

import warnings

import ase
import numpy as np
import pytest
from ase.build import molecule

from ase_nbody import NBodyCalculator
from ase_nbody.runtime.extrapolation import ExtrapolationWarning

SEEN = {"H-H": 1.5, "H-C": 0.9, "H-O": 0.8, "C-O": 1.2}


@pytest.fixture
def calc(make_network) -> NBodyCalculator:
    return NBodyCalculator(make_network(closest_distances=SEEN))


def pair(symbols: str, distance: float, **keywords: object) -> ase.Atoms:
    return ase.Atoms(symbols, positions=[[0, 0, 0], [0, 0, distance]], **keywords)


def warnings_of(calc: NBodyCalculator, atoms: ase.Atoms) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        calc.get_property("energy", atoms)
    assert all(issubclass(warning.category, ExtrapolationWarning) for warning in caught)
    return [str(warning.message) for warning in caught]


def test_one_warning_names_an_overlapping_pair_its_distance_and_the_limit(calc) -> None:
    (sentence,) = warnings_of(calc, pair("CO", 1.05))
    assert "atoms 0 (C) and 1 (O) are 1.05 Angstrom apart" in sentence
    assert "closer than any C and O in the training data (1.2 Angstrom)" in sentence
    assert warnings_of(calc, pair("CO", 1.0)) == []
    assert warnings_of(calc, pair("HC", 0.5)) == []


@pytest.mark.parametrize(("distance", "count"), [(1.079, 1), (1.081, 0), (1.2, 0)])
def test_the_limit_is_nine_tenths_of_the_closest_distance(distance: float, count: int, calc) -> None:
    assert len(warnings_of(calc, pair("CO", distance))) == count


@pytest.mark.parametrize(("distance", "count"), [(2.27, 1), (2.29, 0)])
def test_species_that_never_met_cause_a_warning_when_they_may_bond(distance: float, count: int, calc) -> None:
    sentences = warnings_of(calc, pair("C2", distance))  # 1.5 (0.76 + 0.76) = 2.28 Angstrom
    assert len(sentences) == count
    assert all("have no C and C near each other" in sentence for sentence in sentences)


def test_both_kinds_of_pairs_cause_a_warning_each(calc) -> None:
    atoms = ase.Atoms("COC", positions=[[0, 0, 0], [1.0, 0, 0], [0, 2.0, 0]])
    assert len(warnings_of(calc, atoms)) == 2
    assert warnings_of(calc, atoms) == []


def test_an_image_counts_and_the_closest_pair_is_named(calc) -> None:
    atoms = pair("CO", 5.05, cell=[6, 6, 6], pbc=True) + pair("HO", 0.7)
    atoms.positions[2:] += 2.5
    (sentence,) = warnings_of(calc, atoms)
    assert "atoms 2 (H) and 3 (O)" in sentence or "atoms 0 (C) and 1 (O)" in sentence
    (sentence,) = warnings_of(NBodyCalculator(calc.networks), pair("CO", 5.05, cell=[6, 6, 6], pbc=True))
    assert "0.95 Angstrom" in sentence


@pytest.mark.parametrize("skin", [0.0, 0.5, 2.0])
def test_approaching_atoms_cause_the_warning_at_the_first_step_below_the_limit(skin: float, calc) -> None:
    calc = NBodyCalculator(calc.networks, skin=skin)
    distances = np.arange(4.0, 0.9, -0.0625)
    warned_at = [distance for distance in distances if warnings_of(calc, pair("CO", distance))]
    assert warned_at == [max(distance for distance in distances if distance < 1.08)]


def test_a_committee_takes_the_most_cautious_member(make_network) -> None:
    tables = [{**SEEN, "C-O": 1.1}, {**SEEN, "C-O": 1.4}, {}]
    calc = NBodyCalculator([make_network(seed, closest_distances=table) for seed, table in enumerate(tables)])
    assert "1.4 Angstrom" in warnings_of(calc, pair("CO", 1.2))[0]


def test_without_closest_distances_there_is_no_warning(network) -> None:
    assert warnings_of(NBodyCalculator(network), pair("CO", 0.6)) == []


@pytest.mark.parametrize("size", [0.0, 0.05])
def test_ordinary_structures_cause_no_warning(size: float, calc) -> None:
    atoms = molecule("CH3OH")
    atoms.positions += np.random.default_rng(0).normal(scale=size, size=atoms.positions.shape)
    assert warnings_of(calc, atoms) == []


def test_a_warning_that_is_an_error_leaves_no_results(calc) -> None:
    with pytest.raises(ExtrapolationWarning):  # warnings are errors in these tests
        calc.get_property("energy", pair("CO", 1.0))
    assert not calc.results


def test_a_warning_that_is_an_error_comes_again(calc) -> None:
    for distance in (1.0, 1.0, 1.01):  # warnings are errors in these tests
        with pytest.raises(ExtrapolationWarning, match="atoms 0"):
            calc.get_property("energy", pair("CO", distance))
    never_met = pair("C2", 2.0)
    for _ in range(2):
        with pytest.raises(ExtrapolationWarning, match="near each other"):
            calc.get_property("energy", never_met)
    assert np.isfinite(calc.get_property("energy", pair("CO", 1.2)))
    assert len(warnings_of(calc, pair("CO", 1.0))) == 1
    assert np.isfinite(calc.get_property("energy", pair("CO", 1.0)))
