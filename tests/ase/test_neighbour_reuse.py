"""Neighbours are reused from step to step, but never after a change of the atoms that makes them stale."""

from collections.abc import Callable

import ase
import numpy as np
import pytest
from ase import units
from ase.geometry import wrap_positions
from ase.md.verlet import VelocityVerlet

import ase_nbody.hierarchy.build
from ase_nbody import NBodyCalculator, NBodyNetwork
from ase_nbody.hierarchy.neighbours import find_edges

Change = Callable[[ase.Atoms], None]


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The cutoff of every neighbour search from now on."""
    done: list[float] = []

    def counted(structure, cutoff, device):
        done.append(cutoff)
        return find_edges(structure, cutoff, device)

    monkeypatch.setattr(ase_nbody.hierarchy.build, "find_edges", counted)
    return done


def assert_fresh(calc: NBodyCalculator, atoms: ase.Atoms) -> None:
    """``calc`` gives the same results for ``atoms`` as a calculator that has seen no other structure."""
    fresh = NBodyCalculator(calc.networks)
    for name in ("energies", "forces", *(["stress"] if atoms.pbc.all() else [])):
        expected, found = fresh.get_property(name, atoms), calc.get_property(name, atoms)
        np.testing.assert_allclose(found, expected, atol=1e-10, rtol=1e-14, err_msg=name)
    assert calc.get_property("energy", atoms) == pytest.approx(fresh.get_property("energy", atoms), rel=1e-14)


def a_little(atoms: ase.Atoms) -> None:
    atoms.rattle(0.02, seed=1)


def whole_lattice_vectors(atoms: ase.Atoms) -> None:
    atoms.positions += np.random.default_rng(0).integers(-3, 4, size=(len(atoms), 3)) @ atoms.cell.array


def one_lattice_vector(atoms: ase.Atoms) -> None:
    atoms.positions[1] += atoms.cell[0]


def wrapping(atoms: ase.Atoms) -> None:
    atoms.wrap()


def everything_shifted(atoms: ase.Atoms) -> None:
    atoms.positions += (3.0, -1.0, 2.0)


def teleport(atoms: ase.Atoms) -> None:
    atoms.positions[0] = atoms.positions[-1] + (1.1, 0.9, 0.8)


def two_exchanged(atoms: ase.Atoms) -> None:
    atoms.positions[[0, 1]] = atoms.positions[[1, 0]]


def species(atoms: ase.Atoms) -> None:
    atoms.symbols[0] = "O"


def species_exchanged(atoms: ase.Atoms) -> None:
    atoms.numbers = np.roll(atoms.numbers, 1)


def strain(atoms: ase.Atoms) -> None:
    atoms.set_cell(atoms.cell @ (np.eye(3) + 0.02 * np.ones((3, 3))), scale_atoms=True)


def compression(atoms: ase.Atoms) -> None:
    atoms.set_cell(0.75 * atoms.cell, scale_atoms=True)


def cell_alone(atoms: ase.Atoms) -> None:
    atoms.set_cell(1.1 * atoms.cell)


def left_handed(atoms: ase.Atoms) -> None:
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])


def another_cell_of_the_lattice(atoms: ase.Atoms) -> None:
    atoms.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ atoms.cell.array)


def no_pbc(atoms: ase.Atoms) -> None:
    atoms.pbc = False


def slab_pbc(atoms: ase.Atoms) -> None:
    atoms.pbc = (True, False, True)


def one_atom_less(atoms: ase.Atoms) -> None:
    del atoms[2]


def one_atom_more(atoms: ase.Atoms) -> None:
    atoms.append(ase.Atom("H", (0.5, 1.5, 1.5)))


def supercell(atoms: ase.Atoms) -> None:
    atoms *= (2, 1, 1)


def hydrogens_only(atoms: ase.Atoms) -> None:
    """There are no clusters any more, so the second level is empty."""
    atoms.numbers[:] = 1


CHANGES = (a_little, whole_lattice_vectors, one_lattice_vector, wrapping, everything_shifted, teleport, two_exchanged)
CHANGES += (species, species_exchanged, strain, compression, cell_alone, left_handed, another_cell_of_the_lattice)
CHANGES += (no_pbc, slab_pbc, one_atom_less, one_atom_more, supercell, hydrogens_only)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_neighbours_are_never_stale(change: Change, systems, network: NBodyNetwork) -> None:
    atoms, calc = systems["triclinic"](), NBodyCalculator(network, skin=1.0)
    atoms.calc = calc
    before = atoms.get_forces(), atoms.copy()
    change(atoms)
    assert_fresh(calc, atoms)
    np.testing.assert_allclose(calc.get_property("forces", before[1]), before[0], atol=1e-10)  # and back again


def test_neighbours_are_never_stale_after_many_random_changes(systems, network: NBodyNetwork) -> None:
    rng = np.random.default_rng(5)
    atoms, calc = systems["triclinic"](), NBodyCalculator(network, skin=1.5)
    for _ in range(40):
        change = CHANGES[rng.integers(len(CHANGES))]
        if not 3 <= len(atoms) <= 8 or not atoms.pbc.all() or (atoms.numbers == 1).all() or atoms.get_volume() < 40.0:
            atoms = systems["triclinic"]()
        change(atoms)
        assert_fresh(calc, atoms)


def test_a_calculator_can_alternate_between_structures(systems, network: NBodyNetwork) -> None:
    calc = NBodyCalculator(network, skin=1.0)
    for _ in range(2):
        for make in systems.values():
            assert_fresh(calc, make())


def test_atoms_that_start_just_beyond_the_skin(network: NBodyNetwork) -> None:
    """Two atoms that start just outside cutoff + skin approach each other until they meet within the cutoff."""
    cutoff, skin = network.config.cutoff, 0.5
    atoms, calc = ase.Atoms("CO", [[0, 0, 0], [cutoff + skin + 1e-9, 0, 0]]), NBodyCalculator(network, skin=skin)
    for _ in range(40):
        assert_fresh(calc, atoms)
        atoms.positions[0, 0] += 0.01
        atoms.positions[1, 0] -= 0.01


@pytest.mark.parametrize("wrapped", [False, True])
def test_dynamics_reuse_neighbours_and_rebuilds_do_not_change_energies(
    wrapped: bool, crystal: ase.Atoms, searches: list[float]
) -> None:
    """Energies are the same to round-off with rare rebuilds, with a rebuild at every step, and for wrapped atoms."""
    rare, always = (NBodyCalculator(crystal.calc.networks, skin=skin) for skin in (1.0, 0.0))
    crystal.calc = rare
    # The mean of the momenta is not zero, so the crystal also drifts.
    crystal.set_momenta(np.random.default_rng(0).normal(loc=8.0, scale=3.0, size=(len(crystal), 3)))
    frames: list[tuple[ase.Atoms, float, np.ndarray]] = []
    dynamics = VelocityVerlet(crystal, 2.0 * units.fs)
    dynamics.attach(lambda: frames.append((crystal.copy(), crystal.get_potential_energy(), crystal.get_forces())))
    dynamics.run(100)
    rebuilds = len(searches)
    assert 2 <= rebuilds <= 30

    for atoms, energy, forces in frames:
        if wrapped:
            atoms.positions = wrap_positions(atoms.positions, atoms.cell)
        assert always.get_property("energy", atoms) == pytest.approx(energy, abs=1e-11)
        np.testing.assert_allclose(always.get_property("forces", atoms), forces, atol=1e-11)
    assert len(searches) == rebuilds + len(frames)


def test_members_with_equal_hierarchies_share_one_search(systems, make_network, searches: list[float]) -> None:
    members = [make_network(0), make_network(1)]
    searches.clear()
    NBodyCalculator(members).get_property("energy", systems["slab"]())
    assert len(searches) == 1


def test_a_strained_cell_keeps_its_neighbours(crystal: ase.Atoms, searches: list[float]) -> None:
    """A small strain is affine, so it needs no new search; barostats make such strains."""
    for _ in range(10):
        crystal.set_cell(1.001 * crystal.cell, scale_atoms=True)
        crystal.get_stress()
    assert len(searches) == 1
    assert_fresh(crystal.calc, crystal)
