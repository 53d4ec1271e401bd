"""The record of the surroundings in the training data: what it holds, how records join, what is refused."""

import ase
import numpy as np
import pytest
from ase.build import bulk, molecule
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


def dimer(symbols: str, distance: float) -> ase.Atoms:
    """Two hydrides of halogens or the like, their heavy atoms towards each other."""
    first, second = (molecule(name) for name in symbols.split())
    for atoms, direction in ((first, -1.0), (second, 1.0)):
        heavy = int(atoms.numbers.argmax())
        outward = atoms.positions[heavy] - atoms.positions.mean(axis=0)
        atoms.rotate(outward, (-direction, 0.0, 0.0))
        atoms.positions -= atoms.positions[heavy]
    second.positions += [distance, 0.0, 0.0]
    return first + second


def contacts_of(*structures: ase.Atoms, radius: float = 4.5) -> tuple[str, ...] | None:
    return Coverage.of([Structure.from_atoms(atoms) for atoms in structures], radius).contacts


def test_atoms_are_in_contact_if_they_share_no_bond_and_no_neighbour() -> None:
    """In ethane, the hydrogens of both ends are in contact, and those of one end are not."""
    assert contacts_of(molecule("CH4")) == contacts_of(molecule("CO2")) == contacts_of(molecule("CCl4")) == ()
    assert contacts_of(molecule("C2H6")) == ("H-H",)
    assert {*(contacts_of(molecule("CH3CH2OH")) or ())} >= {"H-H", "H-O"}


def test_contacts_end_at_about_the_van_der_waals_radii_and_at_the_radius_of_the_model() -> None:
    """Alvarez gives Cl 1.82 Angstrom: 1.1 times the sum is 4.0."""
    near, far = dimer("HCl HCl", 3.9), dimer("HCl HCl", 4.1)
    assert "Cl-Cl" in (contacts_of(near) or ())
    assert "Cl-Cl" not in (contacts_of(far) or ())
    assert "Cl-Cl" not in (contacts_of(near, radius=3.5) or ())


def test_images_are_in_contact_but_not_with_a_shared_neighbour() -> None:
    """In a chain of C atoms 1.25 Angstrom apart, the third neighbour is in contact, and the second is not."""
    chain = ase.Atoms("CC", [[0, 0, 0], [1.3, 0, 0]], cell=[2.6, 0, 0], pbc=[True, False, False])
    assert contacts_of(chain, radius=3.0) == ()
    assert contacts_of(chain, radius=4.0) == ()  # 1.1 times the sum of the radii is 3.89
    chain.set_cell([2.5, 0, 0], scale_atoms=True)
    assert contacts_of(chain, radius=4.0) == ("C-C",)


def test_pairs_that_were_bonded_and_pairs_that_are_missing() -> None:
    known = Coverage.of([Structure.from_atoms(atoms) for atoms in (molecule("CH3CH2OH"), dimer("HCl HCl", 3.8))], 4.5)
    assert known.bonds == ("H-C", "H-O", "H-Cl", "C-C", "C-O")
    assert known.missing(known.bonds) == ("H-H", "C-Cl", "O-O", "O-Cl", "Cl-Cl")
    assert "C-Cl" in known.missing(known.contacts or ())
    assert "Cl-Cl" not in known.missing(known.contacts or ())


@pytest.mark.parametrize(
    ("distance", "seen"), [(2.5, True), (4.4, True), (4.6, False), (9.0, False)], ids=lambda value: str(value)
)
def test_molecules_side_by_side_are_known_within_the_radius(distance: float, seen: bool) -> None:
    pair = ase.Atoms("H4", [[0, 0, -0.75], [0, 0, 0], [0, 0, distance], [0, 0, distance + 0.75]])
    assert Coverage.of([Structure.from_atoms(pair)], 4.5).intermolecular is seen


def test_a_crystal_and_a_molecule_are_no_two_molecules() -> None:
    alone = [Structure.from_atoms(atoms) for atoms in (molecule("CH3CH2OH"), bulk("Si") * (2, 2, 2))]
    coverage = Coverage.of(alone, 4.5)
    assert coverage.intermolecular is False
    beside = Coverage.of([Structure.from_atoms(ase.Atoms("H2", [[0, 0, 0], [0, 0, 3.0]]))], 4.5)
    assert (coverage | beside).intermolecular is True
    older = Coverage(bonded=beside.bonded, densities=beside.densities, radius=4.5)
    assert (coverage | older).intermolecular is None


def test_contacts_join_and_stay_unknown_if_either_is() -> None:
    one, other = coverage_of("C2H6"), Coverage.of([Structure.from_atoms(dimer("HCl HCl", 3.8))], 4.0)
    assert {*((one | other).contacts or ())} == {*(one.contacts or ()), *(other.contacts or ())}
    older = Coverage(bonded=other.bonded, densities=other.densities, radius=4.0)
    assert (one | older).contacts is None
    assert "contacts" not in older.model_dump()


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
    assert "H-C" in ethanol.bonds  # of two elements without a list nothing is said to be missing


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
        {"bonded": {"C": ()}},  # an element without any surroundings: an evaluation could not compare with it
        {"radius": 0.0},
        {"contacts": ("H-Qq",)},
        {"contacts": ("HO",)},
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
    assert read_card(tmp_path / "covered.nbody")["features"] == ["contacts", "coverage", "intermolecular"]
    older = Coverage(bonded=known.bonded, densities=known.densities, radius=4.0)
    save_model(make_network(coverage=older), tmp_path / "older.nbody")
    assert read_card(tmp_path / "older.nbody")["features"] == ["coverage"]
    assert load_model(tmp_path / "older.nbody").config.coverage == older
    save_model(make_network(), tmp_path / "plain.nbody")
    assert read_card(tmp_path / "plain.nbody")["format"] == 3
    assert "coverage" not in read_card(tmp_path / "plain.nbody")["config"]
