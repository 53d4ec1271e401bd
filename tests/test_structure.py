from dataclasses import replace

import ase
import numpy as np
import pytest

from ase_nbody.structure import Structure, StructureError

CUBE = np.diag([3.0, 4.0, 5.0])


def test_everything_is_taken_over(system):
    structure = Structure.from_atoms(system)
    assert len(structure) == len(system)
    np.testing.assert_array_equal(structure.numbers, system.numbers)
    np.testing.assert_array_equal(structure.positions, system.positions)
    np.testing.assert_array_equal(structure.cell, system.cell.array)
    np.testing.assert_array_equal(structure.pbc, system.pbc)


def test_the_copy_is_immutable_and_its_own(systems):
    atoms = systems["triclinic"]()
    structure = Structure.from_atoms(atoms)
    with pytest.raises(ValueError, match="read-only"):
        structure.positions[0, 0] = 1.0
    before = structure.positions.copy()
    atoms.positions += 1.0
    atoms.cell[:] = 0.0
    atoms.numbers[:] = 1
    np.testing.assert_array_equal(structure.positions, before)
    assert structure.cell.any()
    assert structure.numbers[1] == 6


def test_arrays_that_are_given_stay_the_users_own():
    """A view, such as a frame of a trajectory in one array, can be changed through the array that it shows."""
    frames, cell, labels = np.zeros((1, 2, 3)), 9.0 * np.eye(3), np.array([0, 1])
    structure = Structure(np.array([6, 8]), frames[0], cell, np.ones(3, dtype=bool), labels=labels)
    frames[:], cell[:], labels[:] = 1.0, 0.0, 0
    assert not structure.positions.any()
    assert structure.volume == pytest.approx(729.0)
    assert structure.labels.tolist() == [0, 1]
    assert replace(structure, charge=1.0).positions is structure.positions  # nothing is copied twice


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [("numbers", float, "int64, got float64"), ("pbc", int, "bool, got int64"), ("positions", complex, "complex128")],
)
def test_arrays_of_another_kind_are_refused(name, kind, found):
    arrays = {"numbers": np.array([6]), "positions": np.zeros((1, 3)), "cell": CUBE, "pbc": np.ones(3, dtype=bool)}
    with pytest.raises(StructureError, match=f"{name} must be an array of .*{found}"):
        Structure(**arrays | {name: arrays[name].astype(kind)})


def test_integers_that_would_change_their_sign_are_refused():
    labels = np.array([0, 2**64 - 1], dtype=np.uint64)
    with pytest.raises(StructureError, match="labels must be less than 2\\^63, got 18446744073709551615"):
        Structure(np.array([1, 1]), np.eye(3)[:2], CUBE, np.ones(3, dtype=bool), labels=labels)


def test_single_precision_is_taken_as_double():
    arrays = np.array([6], dtype=np.int32), np.ones((1, 3), dtype=np.float32), CUBE.astype(np.float32)
    structure = Structure(*arrays, np.ones(3, dtype=bool))
    assert [array.dtype for array in (structure.numbers, structure.positions, structure.cell)] == [
        np.int64,
        np.float64,
        np.float64,
    ]


def test_a_charge_that_is_no_number_is_refused():
    with pytest.raises(StructureError, match="total charge is nan, but must be a finite number"):
        replace(Structure.from_atoms(ase.Atoms("C")), charge=np.nan)


def test_volume_is_positive_for_a_left_handed_cell(systems):
    right, left = (Structure.from_atoms(systems[name]()) for name in ("triclinic", "left-handed"))
    assert np.linalg.det(left.cell) < 0.0
    assert left.volume == pytest.approx(right.volume)
    assert left.volume > 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("atom", "axis"), [(0, 2), (1, 0)])
def test_a_position_that_is_not_finite_is_named(value, atom, axis):
    atoms = ase.Atoms("CO", positions=np.zeros((2, 3)))
    atoms.positions[atom, axis] = value
    with pytest.raises(StructureError, match=f"position of atom {atom} is not finite: {'xyz'[axis]} = {value}"):
        Structure.from_atoms(atoms)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("pbc", [True, False])
def test_a_cell_that_is_not_finite_is_shown(value, pbc):
    atoms = ase.Atoms("C", cell=CUBE, pbc=pbc)
    atoms.cell[1, 1] = value
    with pytest.raises(StructureError, match=f"cell is not finite: .*{value}.*atoms.set_cell"):
        Structure.from_atoms(atoms)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_periodic_direction_without_a_lattice_vector_is_named(axis):
    atoms = ase.Atoms("C", cell=CUBE, pbc=True)
    atoms.cell[axis] = 0.0
    with pytest.raises(StructureError, match=f"lattice vector {axis}, but that vector is zero"):
        Structure.from_atoms(atoms)
    atoms.pbc[axis] = False
    Structure.from_atoms(atoms)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False)])
def test_dependent_lattice_vectors_are_shown(pbc):
    atoms = ase.Atoms("C", cell=[[3.0, 0, 0], [-6.0, 1e-9, 0], [0, 0, 5]], pbc=pbc)
    with pytest.raises(StructureError, match=r"linearly dependent: \[\[3.0, 0.0, 0.0\], \[-6.0"):
        Structure.from_atoms(atoms)


def test_dependent_vectors_do_not_matter_where_they_are_not_periodic():
    atoms = ase.Atoms("C", cell=[[3.0, 0, 0], [3.0, 0, 0], [0, 0, 5]], pbc=(True, False, True))
    assert Structure.from_atoms(atoms).pbc.tolist() == [True, False, True]


def test_the_charge_is_that_of_info():
    atoms = ase.Atoms("Na")
    assert Structure.from_atoms(atoms).charge == 0.0
    atoms.info["charge"] = 1
    assert Structure.from_atoms(atoms).charge == 1.0


@pytest.mark.parametrize(("charge", "value"), [(None, 0.0), ([1.0], 1.0), (np.array([-2]), -2.0), (np.int32(3), 3.0)])
def test_programs_write_a_charge_in_many_ways(charge, value):
    assert Structure.from_atoms(ase.Atoms("Na", info={"charge": charge})).charge == value


@pytest.mark.parametrize("charge", [np.nan, np.inf, "1", [1.0, 0.0], [], True, [[1], [1, 2]], "\x1b" * 10**6])
def test_a_charge_that_is_no_finite_number_is_shown(charge):
    atoms = ase.Atoms("Na", info={"charge": charge})
    with pytest.raises(StructureError, match=r"atoms\.info\['charge'\] is .*must be one finite number") as refusal:
        Structure.from_atoms(atoms)
    assert len(str(refusal.value)) < 1000


def test_a_spin_that_is_no_number_is_passed_over():
    assert Structure.from_atoms(ase.Atoms("Na", info={"spin": [[1], [1, 2]]})).multiplicity is None
