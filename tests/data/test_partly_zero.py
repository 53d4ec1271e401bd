"""Zeros that a tool wrote into a part of the frames are refused; those that a calculation can give are not."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian

from ase_nbody.data import DataError, read_labelled


@pytest.fixture
def read(tmp_path):
    """Reads back structures whose labels a function of their number has changed."""

    def written(structures, change=lambda number, labels: {}, keys=None):
        for number, atoms in enumerate(structures):
            atoms.calc = EMT()
            labels = {"energy": atoms.get_potential_energy() - 1000.0, "forces": atoms.get_forces()}
            if atoms.pbc.all():
                labels["stress"] = atoms.get_stress()
            labels |= change(number, labels)
            atoms.calc = SinglePointCalculator(atoms, **labels)
        ase.io.write(tmp_path / "data.traj", structures)
        return read_labelled(tmp_path / "data.traj", keys=keys)

    return written


def shaken(count, name="CH3OH", size=0.05):
    structures = [bulk("Cu", cubic=True) if name == "Cu" else molecule(name) for _ in range(count)]
    for number, atoms in enumerate(structures):
        atoms.rattle(size, seed=number)
    return structures


def zeros_in(label, chosen):
    return lambda number, labels: {label: 0.0 * np.asarray(labels[label])} if chosen(number) else {}


@pytest.mark.parametrize("label", ["energy", "forces", "stress"])
@pytest.mark.parametrize("step", [2, 3])
def test_zeros_in_a_part_of_the_frames(label, step, read):
    structures = shaken(30, "Cu" if label == "stress" else "CH3OH")
    change = zeros_in(label, lambda number: number % step == 0)
    count, named = 30 // step, ", ".join(str(step * number) for number in range(8))
    with pytest.raises(DataError, match=rf"exactly zero in {count} of 30 frames \({named}, .*--key {label}=NAME"):
        read(structures, change)
    assert len(read(structures, change, {label: label})) == 30


def test_a_single_frame_with_an_energy_of_zero_among_total_energies(read):
    with pytest.raises(DataError, match=r"exactly zero in 1 of 30 frames \(7\)"):
        read(shaken(30), zeros_in("energy", lambda number: number == 7))


def test_one_frame_without_forces_of_many_molecules(read):
    names = ("CH3OH", "H2O", "CH4", "NH3", "C2H6", "C2H4", "C2H2", "HCN", "H2CO", "CO2", "N2O", "CH3NO2")
    with pytest.raises(DataError, match="forces are exactly zero in 6 of 12 frames"):
        read([shaken(1, name)[0] for name in names], zeros_in("forces", lambda number: number % 2 == 0))


def test_stresses_of_perfect_crystals_of_several_volumes(read):
    crystals = [bulk("Cu", cubic=True, a=3.4 + 0.02 * number) for number in range(20)]
    with pytest.raises(DataError, match="stress is exactly zero in 10 of 20 frames"):
        read(crystals, zeros_in("stress", lambda number: number % 2))


def test_structures_at_rest_are_right(read):
    relaxed = molecule("CH3OH")
    assert len(read([relaxed, *shaken(10)], zeros_in("forces", lambda number: number == 0))) == 11
    crystals = [bulk("Cu", cubic=True), *shaken(10, "Cu")]
    at_rest = zeros_in("stress", lambda number: number == 0)
    assert len(read(crystals, at_rest)) == 11
    perfect = [bulk("Cu", cubic=True, a=3.4 + 0.02 * number) for number in range(10)]
    assert len(read([*perfect, *shaken(10, "Cu")], zeros_in("forces", lambda number: number < 10))) == 20
    atoms = [molecule(symbol) for symbol in ("H", "C", "O")]
    for atom in atoms:
        atom.cell, atom.pbc = np.eye(3) * 15.0, True
    nothing = {"energy": 0.0, "forces": np.zeros((1, 3)), "stress": np.zeros(6)}
    assert len(read([*atoms, *shaken(10)], lambda number, labels: nothing if number < 3 else {})) == 13


@pytest.mark.parametrize("reference", [np.min, np.max, np.median])
def test_energies_relative_to_one_of_the_frames_are_right(reference, read):
    structures = shaken(21)
    energies = [frame.energy for frame in read(structures)]
    zero = reference(energies)
    assert len(read(structures, lambda number, labels: {"energy": energies[number] - zero})) == 21


def test_small_energies_that_were_rounded_to_zero_are_right(read):
    energies = np.round(-0.5 * np.exp(-0.15 * np.arange(40)), 2)  # at large distances nothing is left
    assert (energies == 0.0).sum() > 5
    assert len(read(shaken(40), lambda number, labels: {"energy": energies[number]})) == 40


def slabs(count, *constraints):
    structures = []
    for number in range(count):
        slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
        noise = np.random.default_rng(number).normal(scale=0.1, size=(8, 3))
        slab.positions[4:] += noise  # the four atoms of the lowest layer stay where they are
        slab.set_constraint(constraints)
        structures.append(slab)
    return structures


@pytest.mark.parametrize("constraint", [FixAtoms(range(4)), FixCartesian(range(4), mask=(False, False, True))])
@pytest.mark.parametrize("n_others", [0, 20])
def test_forces_of_held_atoms_that_a_constraint_made_zero(constraint, n_others, read):
    # the fixture takes atoms.get_forces(), as users do
    with pytest.raises(DataError, match=rf"in 5 of {5 + n_others} frames .*apply_constraint=False.*--key forces=NAME"):
        read([*slabs(5, constraint), *shaken(n_others)])
    assert len(read(slabs(5, constraint), keys={"forces": "forces"})) == 5


def test_one_held_atom_of_a_molecule(read):
    structures = shaken(20)
    for atoms in structures:
        atoms.set_constraint(FixAtoms([2]))
    with pytest.raises(DataError, match="in 20 of 20 frames"):
        read(structures)


def test_true_forces_of_held_atoms_are_right(read):
    held = FixAtoms(range(4))
    assert len(read(slabs(5, held), lambda number, labels: {"forces": slab_forces(number)})) == 5
    assert len(read(slabs(5))) == 5


def slab_forces(number):
    atoms = slabs(number + 1)[number]
    atoms.calc = EMT()
    return atoms.get_forces()


@pytest.mark.parametrize("decimals", [1, 2, 3, 6])
def test_forces_that_were_rounded_to_zero_are_right(decimals, read):
    def rounded(number, labels):
        return {"forces": labels["forces"].round(decimals)}

    assert len(read(shaken(60), rounded)) == 60
    assert len(read(shaken(20, "Cu"), rounded)) == 20


def test_forces_that_symmetry_makes_zero_on_some_atoms_are_right(read):
    flat = [molecule("C6H6"), molecule("CO2"), molecule("C2H2"), molecule("H2O")]
    stretched = [scaled(atoms, factor) for factor in (0.95, 0.98, 1.03, 1.06) for atoms in flat]
    displaced = bulk("Cu", cubic=True).repeat(3)
    displaced.positions[0, 0] += 0.05
    assert len(read([*stretched, displaced, bulk("Cu", cubic=True)])) == 18


def scaled(atoms, factor):
    atoms = atoms.copy()
    atoms.positions *= factor
    return atoms
