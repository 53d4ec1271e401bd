"""A frame holds what the run owns, which atoms are fixed, and foreign arrays that come back equal."""

import io

import ase
import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian, Hookean
from ase.md.verlet import VelocityVerlet

from ase_nbody import NBodyCalculator
from ase_nbody.dynamics.frames import foreign_columns, frame
from ase_nbody.structure import Structure

KEPT = {
    "residuenames": np.array(["ALA", "B", "GLY"]),
    "tags": np.arange(3),
    "chosen": np.array([True, False, True]),
    "single": np.arange(3, dtype="float32") / 3,
    "undefined": np.array([1.0, np.nan, np.inf]),
    "masses": np.array([15.0, 2.0, 1.0]),
    "initial_magmoms": 0.123456789 * np.arange(3),
    "flags": np.array(["T", "F", "T"]),
    "vectors": np.arange(6.0).reshape(3, 2),
}
LEFT_OUT = {
    "blank": np.array(["ALA", "  ", "GLY"]),
    "two words": np.array(["a b", "c", "d"]),
    "words": np.array(["a b", "c", "d"]),
    "tabs": np.array(["a\tb", "c", "d"]),
    "unbreakable": np.array(["a\u00a0b", "c", "d"]),
    "empty": np.array(["", "", ""]),
    "a:b": np.arange(3.0),
    "": np.arange(3),
    "new\nline": np.arange(3),
    "no_columns": np.zeros((3, 0)),
    "one_column": np.zeros((3, 1)),
    "tensors": np.zeros((3, 3, 3)),
    "complex": 1j * np.arange(3),
    "unsigned": np.arange(3, dtype="uint64"),
    "large": np.array([2**62, 1, 2]),
    "tiny": np.array([1e-12, 2e-12, 0.0]),
    "objects": np.array([1, "a", None], dtype=object),
    "bytes": np.array([b"a", b"b", b"c"]),
    "dates": np.array(["2020-01-01"] * 3, dtype="datetime64[D]"),
    "é": np.arange(3),
    "accents": np.array(["é", "a", "b"]),
    "pos": np.zeros((3, 3)),
    "species": np.array(["a", "b", "c"]),
    "move_mask": np.array([True, False, True]),
    "forces": np.ones((3, 3)),
    "energies": np.ones(3),
    "charges": np.ones(3),
    "magmoms": np.ones(3),
    "REF_forces": np.ones((3, 3)),
    "dft_forces": np.ones((3, 3)),
    "forces_spread": np.ones((3, 3)),
}


@pytest.fixture
def water() -> ase.Atoms:
    atoms = molecule("H2O")
    atoms.calc = EMT()
    atoms.set_momenta(np.arange(9.0).reshape(3, 3))
    return atoms


def written(atoms: ase.Atoms) -> ase.Atoms:
    """The atoms as they come back from a frame."""
    text = frame(VelocityVerlet(atoms, 0.05), foreign_columns(atoms)[0])
    return ase.io.read(io.StringIO(text), format="extxyz")


def check(back: ase.Atoms, atoms: ase.Atoms) -> None:
    np.testing.assert_allclose(back.positions, atoms.positions, atol=1e-8)
    np.testing.assert_allclose(back.get_momenta(), atoms.get_momenta(), atol=1e-8)
    np.testing.assert_allclose(back.calc.results["forces"], atoms.get_forces(apply_constraint=False), atol=1e-8)


@pytest.mark.parametrize("name", [*KEPT, *LEFT_OUT])
def test_each_foreign_array(name, water):
    """It comes back as it was, or is left out; what the run owns is right in both cases."""
    array = {**KEPT, **LEFT_OUT}[name]
    water.arrays[name] = array
    back = written(water)
    assert foreign_columns(water) == (([name], []) if name in KEPT else ([], [name]))
    check(back, water)
    assert (name in back.arrays) == (name in KEPT)
    if name in KEPT and array.dtype.kind == "f":
        np.testing.assert_allclose(back.arrays[name], array, atol=1e-8)
    elif name in KEPT:
        assert back.arrays[name].tolist() == array.tolist()


def test_all_foreign_arrays_together(water):
    water.arrays.update({**LEFT_OUT, **KEPT})
    kept, left_out = foreign_columns(water)
    assert (set(kept), set(left_out)) == (set(KEPT), set(LEFT_OUT))
    check(written(water), water)


def test_columns_of_one_name_do_not_mix(water):
    """An array of two columns takes the names ``a0`` and ``a1``; another array of such a name is left out."""
    water.arrays.update({"a": np.zeros((3, 2)), "a0": np.arange(3)})
    assert foreign_columns(water) == (["a"], ["a0"])
    check(written(water), water)


@pytest.mark.parametrize("constraint", [FixAtoms([0, -1]), FixCartesian([1], mask=(True, False, True))])
def test_the_trajectory_records_which_atoms_are_fixed(constraint, water):
    water.set_constraint(constraint)
    back = written(water)
    check(back, water)
    before, after = np.ones((2, 3, 3))
    for image, left in ((water, before), (back, after)):
        for held in image.constraints:
            held.adjust_forces(image, left)
    np.testing.assert_array_equal(after, before)
    assert not before.all()


def test_energy_and_forces_are_those_of_the_calculator(water):
    """A spring belongs to the run, but not to the labels that a frame may become."""
    energy, forces = water.get_potential_energy(), water.get_forces()
    water.set_constraint(Hookean(0, 1, rt=0.5, k=10.0))
    assert water.get_potential_energy() > energy + 0.1
    back = written(water)
    assert back.get_potential_energy() == pytest.approx(energy)
    np.testing.assert_allclose(back.get_forces(), forces, atol=1e-8)


def test_an_ion_stays_one(water):
    water.info.update({"charge": -1, "REF_energy": 5.0, "note": "a: b"})
    back = written(water)
    assert back.info["charge"] == -1
    assert set(back.info) == {"charge", "step", "time_fs"}


@pytest.mark.parametrize("given", [{"charge": np.array([1.0]), "mult": 4}, {"charge": 1, "magmom": 3}])
def test_charge_and_spin_are_those_of_the_structure(given, water):
    """Readers give arrays of one number, and programs have names of their own for a spin."""
    water.info.update(given)
    before, after = (Structure.from_atoms(atoms) for atoms in (water, written(water)))
    assert (before.charge, before.multiplicity) == (1.0, 4)
    assert (after.charge, after.multiplicity) == (1.0, 4)


def test_the_spread_of_a_committee_is_not_called_left_out():
    """A relaxation before the run leaves it with the atoms, but each frame has its own."""
    ethanol = molecule("CH3CH2OH", calculator=EMT())
    ethanol.arrays["forces_spread"] = np.ones((9, 3))
    assert foreign_columns(ethanol) == ([], ["forces_spread"])  # of another calculator
    ethanol.calc = NBodyCalculator("ethanol")
    assert foreign_columns(ethanol) == ([], [])
    np.testing.assert_allclose(written(ethanol).arrays["forces_spread"], ethanol.calc.forces_spread, atol=1e-8)
