"""LAMMPS gives what the calculator gives, on any number of ranks and in any box."""

import ase
import ase.build
import numpy as np
import pytest

from ase_nbody.engines.calculator import NBodyCalculator
from ase_nbody.files.archive import load_members

pytestmark = pytest.mark.filterwarnings("ignore::ase_nbody.runtime.extrapolation.ExtrapolationWarning")

SPECIES = ("H", "C", "O", "Na", "Cl", "Cu")


def water(copies: int = 1) -> ase.Atoms:
    """64 molecules in a cubic box, or more of them, turned at random."""
    rng, atoms = np.random.default_rng(0), ase.Atoms(cell=[12.42] * 3, pbc=True)
    for place in np.stack(np.meshgrid(*[range(4)] * 3), -1).reshape(-1, 3):
        molecule = ase.build.molecule("H2O")
        molecule.rotate(rng.uniform(0, 360), rng.normal(size=3))
        molecule.positions += (place + 0.5) * 12.42 / 4 + rng.normal(scale=0.1, size=3)
        atoms += molecule
    return atoms * (copies, copies, copies)


def vacancy() -> ase.Atoms:
    atoms = ase.build.bulk("Cu", cubic=True) * (3, 3, 3)
    del atoms[17]
    atoms.rattle(0.1, seed=1)
    return atoms


def slab() -> ase.Atoms:
    """With hydrogen on it, and periodic in two directions."""
    atoms = ase.build.fcc111("Cu", (3, 4, 3), vacuum=6.0, orthogonal=True)
    ase.build.add_adsorbate(atoms, "H", 1.3, "fcc")
    atoms.pbc = (True, True, False)
    atoms.rattle(0.08, seed=2)
    return atoms


def ethanol() -> ase.Atoms:
    """In a large box, so that most ranks have no atom."""
    atoms = ase.build.molecule("CH3CH2OH")
    atoms.set_cell([40.0, 38.0, 36.0])
    atoms.positions += (5.0, 6.0, 7.0)
    atoms.pbc = True
    atoms.rattle(0.05, seed=3)
    return atoms


def two_atoms() -> ase.Atoms:
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.3)
    atoms.rattle(0.08, seed=4)
    return atoms


def triclinic() -> ase.Atoms:
    """Thinner than the radius: an atom sees several images of itself."""
    cell = [[3.6, 0.0, 0.0], [0.9, 3.9, 0.0], [-0.7, 0.8, 4.3]]
    scaled = [[0.1, 0.2, 0.1], [0.45, 0.7, 0.3], [0.8, 0.1, 0.75]]
    return ase.Atoms("HCO", scaled_positions=scaled, cell=cell, pbc=True)


def hydrogen() -> ase.Atoms:
    """Without a part at the second level."""
    return ase.Atoms("H2", positions=[[4, 4, 4], [4.3, 4.5, 4.5]], cell=[9, 9, 9], pbc=True)


def far_apart() -> ase.Atoms:
    """Atoms without neighbours: parts without children."""
    return ase.Atoms("COH", positions=[[2, 2, 2], [11, 2, 2], [2, 2, 25]], cell=[20, 20, 40], pbc=True)


SYSTEMS = {each.__name__: each for each in (vacancy, slab, ethanol, two_atoms, triclinic, hydrogen, far_apart)}


def assert_same(found, atoms, model, tolerance=1e-9):
    """Energies per atom in eV; forces and virials relative to the largest force."""
    atoms.calc = NBodyCalculator(load_members(model))
    energies, forces = atoms.get_potential_energies(), atoms.get_forces()
    largest = max(abs(forces).max(), 1e-3)
    assert abs(found.energies - energies).max() < tolerance
    assert abs(found.forces - forces).max() < tolerance * largest
    if atoms.cell.rank == 3:
        virials = atoms.get_stresses(voigt=False) * atoms.cell.volume
        assert abs(found.virials - virials).max() < tolerance * largest
        assert abs((found.virials - virials).sum(0)).max() < tolerance * largest * len(atoms)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", SYSTEMS)
def test_it_agrees_with_the_calculator(name, ranks, exported, run_once):
    atoms, model = SYSTEMS[name](), exported("two levels")
    found = run_once(atoms, model, SPECIES, ranks)
    assert_same(found, atoms, model.with_name("two levels.nbody"))


@pytest.mark.parametrize(("ranks", "more"), [(1, ""), (2, ""), (3, ""), (4, ""), (4, "comm_style tiled")])
def test_water_on_any_number_of_ranks(ranks, more, exported, run_once):
    """Only the oxygen atoms are centres of clusters."""
    atoms, model = water(), exported("two levels")
    found = run_once(atoms, model, SPECIES, ranks, more=more)
    assert_same(found, atoms, model.with_name("two levels.nbody"))


def test_a_shrink_wrapped_box(exported, run_once):
    atoms, model = slab(), exported("two levels")
    assert_same(run_once(atoms, model, SPECIES, 3, boundary="p p s"), atoms, model.with_name("two levels.nbody"))


def test_one_level_and_single_precision(exported, run_once):
    atoms, model = vacancy(), exported("one level", "float32")
    found = run_once(atoms, model, SPECIES, 2)
    assert_same(found, atoms, model.with_name("one level.nbody"), tolerance=1e-4)


def test_the_mean_of_a_committee(exported, run_once):
    atoms, model = vacancy(), exported("committee")
    assert_same(run_once(atoms, model, SPECIES, 2), atoms, model.with_name("committee.nbody"))


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_a_large_box_of_water(ranks, exported, run_once):
    atoms, model = water(2), exported("two levels")
    assert_same(run_once(atoms, model, SPECIES, ranks), atoms, model.with_name("two levels.nbody"))
