"""The example structure of a card: what is well-formed is read as it stands, all else is refused by its entry."""

import ase.build
import numpy as np
import pytest

from ase_nbody.files.example import MAX_ATOMS, example_structure, example_temperature
from ase_nbody.files.tensor_file import ModelFileError


def example(atoms=None, **changes):
    """The entry of a molecule, with changes; None takes a key away."""
    atoms = atoms or ase.build.molecule("H2O")
    entry = {name: np.asarray(getattr(atoms, name)).tolist() for name in ("numbers", "positions", "cell", "pbc")}
    return {key: value for key, value in (entry | changes).items() if value is not None}


@pytest.mark.parametrize("name", ["molecule", "crystal", "slab"])
def test_a_structure_is_read_as_it_stands(name, systems):
    atoms = systems[name]()
    structure = example_structure({"theory": "none", "example": example(atoms)})
    for key, expected in (("numbers", atoms.numbers), ("positions", atoms.positions), ("pbc", atoms.pbc)):
        np.testing.assert_array_equal(getattr(structure, key), expected)
    np.testing.assert_array_equal(structure.cell, atoms.cell.array)


@pytest.mark.parametrize("card", [{}, {"example": None}])
def test_a_card_need_not_have_one(card):
    assert example_structure(card) is None


def test_a_spin_is_read_and_reaches_the_atoms():
    oxygen = example(ase.Atoms("O2", [[0, 0, 0], [0, 0, 1.2]]), multiplicity=3)
    found = example_structure({"example": oxygen})
    assert found.multiplicity == 3
    assert found.to_atoms().info == {"spin_multiplicity": 3}
    for wrong in (0, 1.0, True, "3", 10**9):
        with pytest.raises(ModelFileError, match=r"'example.multiplicity' .* an integer from 1 to 1000"):
            example_structure({"example": oxygen | {"multiplicity": wrong}})


def test_whole_numbers_are_numbers():
    found = example_structure({"example": example(positions=[[0, 0, 0], [1, 0, 0], [0, 1, 0]])})
    assert found.positions.dtype == np.float64


ROWS = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
MANY = MAX_ATOMS + 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "'example' that is wrong: expected a table of numbers, positions, cell, pbc, not list"),
        ("water", "'example' that is wrong"),
        (example(pbc=None), "'example' that is wrong"),
        (example(momenta=ROWS), "'example' that is wrong: .*'momenta'"),
        (example(numbers=8), "'example.numbers' .* a list of 1 to 1000"),
        (example(numbers=[], positions=[]), "'example.numbers' .* a list of 1 to 1000"),
        (example(numbers=[1] * MANY, positions=[[0.0, 0.0, 9.0 * i] for i in range(MANY)]), "a list of 1 to 1000"),
        (example(numbers=[8, 1, 0]), "'example.numbers' .* from 1 to 118"),
        (example(numbers=[8, 1, 119]), "'example.numbers' .* from 1 to 118"),
        (example(numbers=[8, 1, 10**400]), "'example.numbers' .* from 1 to 118"),
        (example(numbers=[8, 1, 1.0]), "'example.numbers'"),
        (example(numbers=[8, 1, True]), "'example.numbers'"),
        (example(numbers=["O", "H", "H"]), "'example.numbers'"),
        (example(positions=ROWS[:2]), "'example.positions' .* a list of 3 rows of three numbers"),
        (example(positions=[*ROWS[:2], [0.0, 1.0]]), "'example.positions'"),
        (example(positions=[*ROWS[:2], 1.0]), "'example.positions'"),
        (example(positions=[*ROWS[:2], [0.0, 1.0, "1"]]), "'example.positions'"),
        (example(positions=[*ROWS[:2], [0.0, 1.0, float("nan")]]), "'example.positions' .* finite"),
        (example(positions=[*ROWS[:2], [0.0, 1.0, 10**400]]), "'example.positions' .* finite"),
        (example(positions=[*ROWS[:2], [0.0, 1.0, 1e12]]), "'example' that cannot be evaluated: position of atom 2"),
        (example(cell=[5.0, 5.0, 5.0]), "'example.cell' .* a list of 3 rows of three numbers"),
        (example(cell=[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, float("inf")]]), "'example.cell' .* finite"),
        (example(pbc=False), "'example.pbc'"),
        (example(pbc=[0, 0, 1]), "'example.pbc'"),
        (example(pbc=[True, True]), "'example.pbc'"),
        (example(pbc=[True, True, True]), "'example' that cannot be evaluated: pbc is set"),
    ],
)
def test_what_is_no_structure_is_refused_by_its_entry(entry, message):
    with pytest.raises(ModelFileError, match=message):
        example_structure({"example": entry})


@pytest.mark.parametrize(("kelvin", "expected"), [(500, 500.0), (0.5, 0.5), ("300", 300.0)])
def test_a_temperature_is_a_number_or_the_text_of_one(kelvin, expected):
    assert example_temperature({"temperature": kelvin}) == expected
    assert example_temperature({}) == 300.0


@pytest.mark.parametrize("kelvin", [None, True, [300], {}, "hot", "nan", "1e400", -1, 1e6, 10**400, "1" * 5000])
def test_what_is_no_temperature_is_refused(kelvin):
    with pytest.raises(ModelFileError, match=r"'temperature' that is wrong: expected a temperature in K, from 0 to 1"):
        example_temperature({"temperature": kelvin})
