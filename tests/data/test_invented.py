"""Labels that nobody computed are refused; labels that are zero by symmetry, or rounded, are not."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk, make_supercell, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody.data import DataError, read_labelled
from ase_nbody.data.invented import forces_vanish_by_symmetry
from ase_nbody.structure import Structure

ZERO = r"the forces are zero in every frame, though symmetry does not ask for it.*--key forces=NAME"


@pytest.fixture
def written(tmp_path):
    """Writes structures with the energies, forces and stresses that functions of their number give."""

    def write(structures, energy, forces=lambda number: 0.1 + number, stress=None):
        for number, atoms in enumerate(structures):
            labels = {"energy": energy(number), "forces": np.full((len(atoms), 3), forces(number))}
            if stress is not None:
                labels["stress"] = np.full(6, stress(number))
            atoms.calc = SinglePointCalculator(atoms, **labels)
        ase.io.write(tmp_path / "data.traj", structures)
        return tmp_path / "data.traj"

    return write


def rattled(count, make=lambda: molecule("CH3OH")):
    structures = [make() for _ in range(count)]
    for number, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=number)
    return structures


def test_forces_that_are_zero_in_every_frame(written):
    path = written(rattled(4), float, lambda number: 0.0)
    with pytest.raises(DataError, match=ZERO):
        read_labelled(path)
    assert (read_labelled(path, keys={"forces": "forces"})[0].forces == 0.0).all()
    assert len(read_labelled(written(rattled(4), float, lambda number: 0.1 * (number == 3)))) == 4


def test_forces_that_are_zero_by_symmetry(written):
    crystals = [bulk("Cu", cubic=True, a=3.4 + 0.05 * number) for number in range(4)]
    assert len(read_labelled(written(crystals, float, lambda number: 0.0))) == 4
    assert (
        len(read_labelled(written([*crystals, bulk("Si"), bulk("NaCl", "rocksalt", 5.6)], float, lambda _: 0.0))) == 6
    )
    with pytest.raises(DataError, match=ZERO):
        read_labelled(written([*crystals, *rattled(1)], float, lambda number: 0.0))


@pytest.mark.parametrize("name", ["Cu", "Si", "Mg", "slab"])
def test_symmetry_that_asks_for_zero_forces(name):
    atoms = {"Mg": lambda: bulk("Mg"), "slab": lambda: bulk("Cu")}.get(name, lambda: bulk(name, cubic=True))()
    if name == "slab":
        atoms.pbc = (True, True, False)  # a single layer
    assert forces_vanish_by_symmetry(Structure.from_atoms(atoms))
    atoms = make_supercell(atoms, np.diag([2, 1, 1]))
    atoms.positions[0, 0] += 0.01
    assert not forces_vanish_by_symmetry(Structure.from_atoms(atoms))


def test_stresses_that_are_zero_in_every_frame(written):
    crystals = rattled(3, lambda: bulk("Cu", cubic=True))
    with pytest.raises(DataError, match="the stress is zero in every frame"):
        read_labelled(written(crystals, float, stress=lambda number: 0.0))
    at_rest = written(crystals, float, lambda number: 0.01, stress=lambda number: 0.1 * (number == 2))
    assert len(read_labelled(at_rest)) == 3


@pytest.mark.parametrize(("same", "value", "refused"), [(21, 0.0, True), (21, -3.5, True), (20, -3.5, False)])
def test_one_energy_of_more_than_half_of_the_frames(same, value, refused, written):
    path = written(rattled(40), lambda number: value if number < same else -10.0 - number)
    if refused:
        with pytest.raises(DataError, match=r"21 of 40 frames have the same energy, (0|-3\.5) eV.*--key energy=NAME"):
            read_labelled(path)
    assert len(read_labelled(path, keys={"energy": "energy"})) == 40
    assert refused or len(read_labelled(path)) == 40


def test_one_energy_within_a_composition_and_across_compositions(written):
    others = rattled(30, lambda: bulk("Cu", cubic=True))
    path = written([*rattled(12), *others], lambda number: -1.0 if number < 10 else -10.0 - number)
    with pytest.raises(DataError, match="10 of 12 frames of one composition have the same energy, -1 eV"):
        read_labelled(path)
    different = [molecule(name) for name in ("CH3OH", "H2O", "CH4", "NH3", "C2H6")]
    with pytest.raises(DataError, match="5 of 5 frames have the same energy, 0 eV"):
        read_labelled(written(different, lambda number: 0.0))


def test_symmetry_copies_may_have_one_energy(written):
    copies = [molecule("CH3OH") for _ in range(20)]
    for number, atoms in enumerate(copies):
        atoms.rotate(17.0 * number, (1, 2, 3))
    assert len(read_labelled(written(copies, lambda number: -5.0))) == 20


def test_isolated_atoms_may_have_one_energy_and_no_forces(written):
    atoms = [molecule("H") for _ in range(6)]
    for number, atom in enumerate(atoms):
        atom.cell, atom.pbc = np.eye(3) * (15.0 + number), True
    assert len(read_labelled(written(atoms, lambda number: -13.6, lambda number: 0.0, lambda number: 0.0))) == 6


def test_rounded_energies_are_right(written):
    """Rounded to float32, energies of large systems agree now and then."""
    path = written(rattled(40), lambda number: float(np.float32(-29943.0 - 0.001 * (number // 2))))
    energies = [frame.energy for frame in read_labelled(path)]
    assert len(set(energies)) < 25


def test_the_energy_that_a_reader_invents_is_no_label(tmp_path):
    dump = "".join(
        f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"
        f"ITEM: ATOMS id element x y z fx fy fz\n1 H 0 0 0 0.1 0 0\n2 H 1.{step} 0 0 -0.1 0 0\n"
        for step in range(3)
    )
    (tmp_path / "a.dump").write_text(dump)
    frames = read_labelled(tmp_path / "a.dump")
    assert np.isnan([frame.energy for frame in frames]).all()
    assert np.isfinite(frames[0].forces).all()
