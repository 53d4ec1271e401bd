"""The temperature counts what moves: constraints that are right are held in every ensemble, and others are refused."""

from collections.abc import Callable

import ase
import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import (
    ExternalForce,
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixedLine,
    FixedMode,
    FixedPlane,
    FixInternals,
    FixLinearTriatomic,
    FixScaled,
    FixSubsetCom,
    Hookean,
    MirrorForce,
)
from ase.md.nose_hoover_chain import NoseHooverChainNVT

from ase_nbody.dynamics import NoseHooverChain, ResumableRun, draw_velocities, make_dynamics
from ase_nbody.dynamics.constraints import check_constraints
from ase_nbody.dynamics.integrators import temperature


class Springs(Calculator):
    """Springs between all atoms and to their places, with quartic terms: cheap and ergodic."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def __init__(self, atoms: ase.Atoms, tethers: float = 1.0) -> None:
        super().__init__()
        self.tethers = tethers
        self.places, self.lengths = atoms.positions.copy(), self.distances(atoms.positions)[1]

    @staticmethod
    def distances(positions):
        vectors = positions[:, None] - positions
        return vectors, np.sqrt(np.square(vectors).sum(axis=-1) + np.eye(len(positions)))

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vectors, lengths = self.distances(atoms.positions)
        stretch, moved = lengths - self.lengths, atoms.positions - self.places
        energy = (stretch**2 / 2 + stretch**4 / 2).sum() + self.tethers * (0.15 * moved**2 + 0.2 * moved**4).sum()
        pulls = -(2 * stretch + 4 * stretch**3) / lengths
        forces = (pulls[..., None] * vectors).sum(axis=1) - self.tethers * (0.3 * moved + 0.8 * moved**3)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}


def cube(*constraints) -> ase.Atoms:
    """Eight atoms of four species near the corners of a cube."""
    corners = 2.0 * np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)])
    corners += np.random.default_rng(0).normal(scale=0.1, size=corners.shape)
    atoms = ase.Atoms("HCNOHCNO", corners, cell=[20, 20, 20])
    atoms.calc = Springs(atoms)
    atoms.set_constraint(constraints)
    return atoms


BONDS = [(0, 1), (2, 3), (4, 5), (5, 6)]
RIGHT: dict[str, Callable[[], list]] = {
    "none": list,
    "FixCom": lambda: [FixCom()],
    "FixAtoms": lambda: [FixAtoms([0, 1, 2, -1])],
    "FixCartesian": lambda: [FixCartesian([0, 1, 2], mask=(1, 0, 1))],
    "FixedPlane": lambda: [FixedPlane([0, 1, 2], (1, 1, 0.3))],
    "FixedLine": lambda: [FixedLine([0, 1, 2], (1, 1, 0.3))],
    "FixScaled": lambda: [FixScaled([0, 1, 2], mask=(1, 0, 1))],
    "FixBondLengths": lambda: [FixBondLengths(BONDS)],
    "bonds and atoms": lambda: [FixBondLengths(BONDS[:2]), FixAtoms([6, 7])],
    "bonds and FixCom": lambda: [FixBondLengths(BONDS), FixCom()],
    "Hookean": lambda: [Hookean(0, 7, rt=3.3, k=3.0)],
}
WRONG = {
    "FixInternals": lambda: FixInternals(bonds=[[None, [0, 1]]], angles_deg=[[None, [2, 3, 7]]]),
    "FixedMode": lambda: FixedMode(np.arange(24.0).reshape(8, 3)),
    "FixSubsetCom": lambda: FixSubsetCom([0, 1, 2, 3]),
    "ExternalForce": lambda: ExternalForce(0, 7, 0.3),
    "FixLinearTriatomic": lambda: FixLinearTriatomic([(0, 1, 2)]),
}


def projectors(atoms: ase.Atoms) -> tuple[np.ndarray, np.ndarray]:
    """What the constraints leave of velocities: by way of the momenta, and by way of the positions (24, 24)."""
    by_momenta, by_positions, step = [], [], 1e-5
    for direction in np.eye(3 * len(atoms)).reshape(-1, len(atoms), 3):
        atoms.set_velocities(direction)
        by_momenta.append(atoms.get_velocities().ravel())
        moved = atoms.copy()
        moved.set_positions(atoms.positions + step * direction)
        by_positions.append((moved.positions - atoms.positions).ravel() / step)
    return np.transpose(by_momenta), np.transpose(by_positions)


def faults(atoms: ase.Atoms) -> set[str]:
    """In what the constraints fall short of holonomic ones, whose degrees of freedom ASE counts."""
    momenta, positions = projectors(atoms)
    weighted = np.repeat(atoms.get_masses(), 3)[:, None] * momenta
    wrong = {
        "count": np.linalg.matrix_rank(momenta, tol=1e-8) != atoms.get_number_of_degrees_of_freedom(),
        "projector": not np.allclose(momenta @ momenta, momenta, atol=1e-8),
        "orthogonal": not np.allclose(weighted, weighted.T, atol=1e-8),
        "positions": not np.allclose(momenta, positions, atol=1e-4),
    }
    return {name for name, is_wrong in wrong.items() if is_wrong}


@pytest.mark.parametrize("kind", RIGHT)
def test_constraints_that_are_right(kind):
    """Momenta and positions are projected alike, at right angles by the masses, and as often as ASE counts."""
    atoms = cube(*RIGHT[kind]())
    check_constraints(atoms)
    assert not faults(atoms)


@pytest.mark.parametrize("kind", WRONG)
def test_constraints_that_are_wrong(kind):
    """Each kind that is refused fails the test above."""
    atoms = cube(WRONG[kind]())
    if kind == "FixLinearTriatomic":
        atoms.positions[1] = (atoms.positions[0] + atoms.positions[2]) / 2
    assert faults(atoms)
    with pytest.raises(ValueError, match=f"with {kind} would have a wrong temperature: ") as refused:
        make_dynamics(atoms, "langevin", timestep=0.5, temperature=300, rng=np.random.default_rng(0))
    assert "this release does not know" not in str(refused.value)


def test_selective_dynamics_along_skewed_vectors():
    atoms = cube(FixScaled([0, 1], mask=(1, 0, 1)))
    atoms.set_cell([[20, 0, 0], [8, 18, 0], [3, 2, 19]])
    assert faults(atoms)
    with pytest.raises(ValueError, match="needs a cell with right angles"):
        check_constraints(atoms)
    atoms.set_constraint(FixScaled([0, 1]))
    check_constraints(atoms)
    assert not faults(atoms)


@pytest.mark.parametrize(
    ("constraints", "culprit"),
    [
        ([FixAtoms([0, 1]), FixAtoms([1, 2])], r"atom 1 \(C\) is held by FixAtoms and by FixAtoms"),
        ([FixAtoms([7]), FixBondLengths([(6, -1)])], r"atom 7 \(O\) is held by FixAtoms and by FixBondLengths"),
        ([FixCom(), FixCom()], "FixCom is there twice"),
        ([FixCom(), FixAtoms([0])], "also those that FixAtoms holds"),
        ([FixAtoms(range(8))], "nothing can move"),
        ([FixBondLengths([(0, 1), (1, 0)])], "fixed bonds between atoms .0, 1. depend on each other"),
        ([FixBondLengths([(i, j) for i in range(5) for j in range(i)])], "depend on each other"),
        ([MirrorForce(0, 1)], "meant for relaxations"),
    ],
)
def test_degrees_of_freedom_that_would_be_counted_twice(constraints, culprit):
    with pytest.raises(ValueError, match=culprit):
        check_constraints(cube(*constraints))


def test_rigid_bodies_of_bonds():
    check_constraints(cube(FixBondLengths([(i, j) for i in range(4) for j in range(i)])))


@pytest.mark.parametrize("kind", RIGHT)
def test_nose_hoover_chain_with_constraints(kind):
    """The conserved quantity is constant, which a wrong count or phantom momenta of fixed atoms would break."""
    atoms = cube(*RIGHT[kind]())
    draw_velocities(atoms, 300.0, np.random.default_rng(1))
    dynamics = NoseHooverChain(atoms, 0.5 * units.fs, 300.0, 20 * units.fs)
    conserved = []
    dynamics.attach(lambda: conserved.append(dynamics.get_conserved_energy()))
    start = atoms.copy()
    dynamics.run(80)
    assert np.ptp(conserved) < 2e-3 * units.kB * 300 * 24
    forbidden = atoms.get_momenta()
    atoms.set_momenta(forbidden)
    np.testing.assert_allclose(atoms.get_momenta(), forbidden, atol=1e-10)
    if kind == "FixAtoms":
        np.testing.assert_array_equal(atoms.positions[[0, 1, 2, 7]], start.positions[[0, 1, 2, 7]])


def test_free_atoms_beside_fixed_ones_have_the_temperature_of_the_thermostat():
    """ASE's chain cools them, because fixed atoms have momenta of their own in it."""
    means = []
    for chain in (NoseHooverChain, NoseHooverChainNVT):
        atoms = cube(FixAtoms([0, 1, 2, 3, 4]))
        draw_velocities(atoms, 300.0, np.random.default_rng(1))
        dynamics, kelvin = chain(atoms, 1.0 * units.fs, 300.0, 20 * units.fs), []
        dynamics.attach(lambda kelvin=kelvin, atoms=atoms: kelvin.append(atoms.get_temperature()))
        dynamics.run(1200)
        means.append(np.mean(kelvin[400:]))
    assert means[0] == pytest.approx(300, rel=0.2)
    assert means[1] < 150


def test_a_chain_of_ase_with_constraints_is_refused(tmp_path):
    atoms = cube(FixAtoms([0]))
    dynamics = NoseHooverChainNVT(atoms, 0.05, 300.0, 2.0)
    with pytest.raises(ValueError, match="take ase_nbody"):
        ResumableRun(dynamics, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("ensemble", "freedom"), [("bussi", 3), ("nose-hoover", 3), ("langevin", 6), ("nve", 6)])
def test_thermostats_that_conserve_the_angular_momentum_do_not_count_it(ensemble, freedom):
    atoms, rng = molecule("H2O"), np.random.default_rng(0)
    atoms.calc = Springs(atoms, tethers=0.0)
    atoms.set_velocities(rng.normal(scale=0.02, size=(3, 3)))
    dynamics = make_dynamics(atoms, ensemble, timestep=0.5, temperature=300, rng=rng)
    expected = 2 * atoms.get_kinetic_energy() / (freedom * units.kB)
    assert temperature(dynamics) == pytest.approx(expected)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-12)
    if freedom == 3:
        np.testing.assert_allclose(atoms.get_angular_momentum(), 0, atol=1e-12)
    crystal = bulk("Cu", cubic=True)
    crystal.calc = EMT()
    draw_velocities(crystal, 300, rng)
    dynamics = make_dynamics(crystal, ensemble, timestep=0.5, temperature=300, rng=rng)
    assert temperature(dynamics) == pytest.approx(2 * crystal.get_kinetic_energy() / (9 * units.kB))


@pytest.mark.parametrize(("ensemble", "freedom"), [("bussi", 2), ("nose-hoover", 2), ("langevin", 5)])
def test_fixed_bonds_leave_the_centre_of_mass_and_the_rotation_free(ensemble, freedom):
    """So these are held or not counted, as without constraints."""
    atoms, rng = molecule("H2O"), np.random.default_rng(0)
    atoms.calc = Springs(atoms, tethers=0.0)
    atoms.set_constraint([FixBondLengths([(0, 1)]), Hookean(0, 2, rt=1.0, k=1.0)])
    draw_velocities(atoms, 300, rng)
    dynamics = make_dynamics(atoms, ensemble, timestep=0.5, temperature=300, rng=rng)
    dynamics.run(20)
    assert temperature(dynamics) == pytest.approx(2 * atoms.get_kinetic_energy() / (freedom * units.kB))
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-10)
    if freedom == 2:
        np.testing.assert_allclose(atoms.get_angular_momentum(), 0, atol=1e-8)


@pytest.mark.parametrize("ensemble", ["bussi", "nose-hoover"])
def test_a_rigid_molecule_that_may_not_rotate_is_refused(ensemble):
    atoms, rng = molecule("N2"), np.random.default_rng(0)
    atoms.calc = Springs(atoms, tethers=0.0)
    atoms.set_constraint(FixBondLengths([(0, 1)]))
    atoms.set_velocities(rng.normal(scale=0.02, size=(2, 3)))
    with pytest.raises(ValueError, match="no other motion"):
        make_dynamics(atoms, ensemble, timestep=0.5, temperature=300, rng=rng)


def test_masses():
    atoms = cube()
    atoms.set_masses([1, 1, 0, 1, 1, 1, 1, 1])
    with pytest.raises(ValueError, match=r"atom 2 \(N\) has a mass of 0 u"):
        make_dynamics(atoms, "nve", timestep=0.5, temperature=300, rng=np.random.default_rng(0))


def test_npt_holds_the_centre_of_mass_and_counts_the_rest():
    atoms, rng = bulk("Cu", cubic=True), np.random.default_rng(0)
    atoms.calc = EMT()
    atoms.set_velocities(rng.normal(scale=0.02, size=(4, 3)))
    dynamics = make_dynamics(atoms, "npt", timestep=4, temperature=300, rng=rng)
    assert temperature(dynamics) == pytest.approx(2 * atoms.get_kinetic_energy() / (9 * units.kB))
    conserved = []
    dynamics.attach(lambda: conserved.append(dynamics.get_conserved_energy()))
    dynamics.run(100)
    assert np.ptp(conserved) < 0.02 * 9 / 2 * units.kB * 300
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-11)
    single = bulk("Cu")
    single.calc = EMT()
    with pytest.raises(ValueError, match="npt needs two atoms"):
        make_dynamics(single, "npt", timestep=4, temperature=300, rng=rng)
