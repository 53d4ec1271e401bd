"""The record of the surroundings in the training data: what it holds, how records join, what is refused."""

import ase
import numpy as np
import pytest
from ase.build import molecule
from ase.data import atomic_numbers
from pydantic import ValidationError

from ase_nbody.files.archive import load_model, read_card, save_model
from ase_nbody.network.coverage import Coverage, counts_of, formula_of
from ase_nbody.structure import Structure


def coverage_of(*names: str) -> Coverage:
    return Coverage.of([Structure.from_atoms(molecule(name)) for name in names], 4.0)


def test_bonded_surroundings_of_ethanol() -> None:
    assert coverage_of("CH3CH2OH").bonded == {"H": ("C", "O"), "C": ("H2CO", "H3C"), "O": ("HC",)}


def test_images_are_neighbours() -> None:
    chain = ase.Atoms("CC", [[0, 0, 0], [1.3, 0, 0]], cell=[2.6, 0, 0], pbc=[True, False, False])
    assert Coverage.of([Structure.from_atoms(chain)], 4.0).bonded == {"C": ("C2",)}


def test_a_union_covers_both() -> None:
    ethanol, water = coverage_of("CH3CH2OH"), coverage_of("H2O")
    both = ethanol | water
    assert both == coverage_of("CH3CH2OH", "H2O") == water | ethanol
    assert both.bonded["O"] == ("H2", "HC")
    assert both.densities["H"] == (water.densities["H"][0], ethanol.densities["H"][1])


def test_an_element_with_too_many_surroundings_stays_unlisted(monkeypatch) -> None:
    monkeypatch.setattr("ase_nbody.network.coverage.MAX_SURROUNDINGS", 1)
    ethanol, water = coverage_of("CH3CH2OH"), coverage_of("H2O")
    assert set(ethanol.bonded) == {"O"}
    assert set((ethanol | water).bonded) == set()  # O has HC and H2 now
    assert set((water | ethanol).densities) == {"H", "C", "O"}


def test_other_radii_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="within 4 and 5 Angstrom"):
        coverage_of("H2O") | Coverage(bonded={}, densities={}, radius=5.0)


@pytest.mark.parametrize("formula", ["", "C", "H2CO", "Si4", "H12C2"])
def test_formulas_and_counts_are_inverse(formula: str) -> None:
    counts = counts_of(formula)
    numbers = np.array(sorted(atomic_numbers[symbol] for symbol in counts), dtype=int)
    by_number = {atomic_numbers[symbol]: count for symbol, count in counts.items()}
    assert formula_of(numbers, np.array([by_number[number] for number in numbers], dtype=int)) == formula


@pytest.mark.parametrize(
    "wrong",
    [
        {"bonded": {"Xx": ("H",)}},
        {"bonded": {"C": ("Qq2",)}},
        {"bonded": {"C": ("h2",)}},
        {"bonded": {"C": ("H" * 500,)}},
        {"bonded": {"C": ("H99999",)}},
        {"densities": {"C": (2.0, 1.0)}},
        {"densities": {"C": (-1.0, 1.0)}},
        {"densities": {"C": (0.0, float("inf"))}},
        {"radius": 0.0},
        {"more": 1},
    ],
)
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Coverage.model_validate({"bonded": {}, "densities": {}, "radius": 4.0} | wrong)


def test_a_file_holds_it_and_a_file_without_it_stays_as_it_was(make_network, tmp_path) -> None:
    known = coverage_of("CH3CH2OH")
    save_model(make_network(coverage=known), tmp_path / "covered.nbody")
    assert load_model(tmp_path / "covered.nbody").config.coverage == known
    assert read_card(tmp_path / "covered.nbody")["features"] == ["coverage"]
    save_model(make_network(), tmp_path / "plain.nbody")
    assert read_card(tmp_path / "plain.nbody")["format"] == 3
    assert "coverage" not in read_card(tmp_path / "plain.nbody")["config"]
