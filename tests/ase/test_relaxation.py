"""Optimisers, cell filters, equations of state and minimum-energy paths."""

import ase
import numpy as np
import pytest
from ase.build import add_adsorbate, bulk, fcc100
from ase.constraints import FixAtoms, FixSymmetry
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter, StrainFilter, UnitCellFilter
from ase.mep import NEB, NEBTools
from ase.optimize import BFGS, FIRE, FIRE2, LBFGS, BFGSLineSearch

from ase_nbody import NBodyCalculator, NBodyNetwork

OPTIMISERS = [BFGS, LBFGS, FIRE, FIRE2, BFGSLineSearch]


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=lambda optimiser: optimiser.__name__)
def test_a_cluster_relaxes_to_a_tetrahedron(optimiser: type, tetrahedron: ase.Atoms) -> None:
    start = tetrahedron.get_potential_energy()
    assert optimiser(tetrahedron, logfile=None).run(fmax=1e-4, steps=200)
    bonds = tetrahedron.get_all_distances()[np.triu_indices(4, k=1)]
    assert np.ptp(bonds) < 1e-3
    assert 2.2 < bonds.mean() < 2.6
    assert tetrahedron.get_potential_energy() < start


@pytest.mark.parametrize("cell_filter", [FrechetCellFilter, UnitCellFilter])
def test_a_strained_crystal_relaxes_to_zero_stress(cell_filter: type, copper: NBodyCalculator) -> None:
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.set_cell(atoms.cell @ [[1.02, 0.01, 0.0], [0.0, 0.98, 0.0], [0.0, -0.01, 1.03]], scale_atoms=True)
    atoms.rattle(0.03, seed=0)
    atoms.calc = copper
    assert BFGS(cell_filter(atoms), logfile=None).run(fmax=1e-4, steps=100)
    assert abs(atoms.get_stress()).max() < 1e-5
    assert abs(atoms.get_forces()).max() < 1e-4
    a, b, c, *angles = atoms.cell.cellpar()
    np.testing.assert_allclose([a, b, c], a, rtol=1e-4)
    np.testing.assert_allclose(angles, 90.0, atol=0.01)
    assert 3.4 < a < 3.75


def test_symmetry_and_pressure(copper: NBodyCalculator) -> None:
    """At 5 GPa and with the symmetry fixed, only the strain relaxes, until the stress balances the pressure."""
    atoms, pressure = bulk("Cu", a=3.6), 5.0 * ase.units.GPa
    atoms.calc = copper
    atoms.set_constraint(FixSymmetry(atoms))
    assert BFGS(FrechetCellFilter(atoms, scalar_pressure=pressure), logfile=None).run(fmax=1e-4, steps=100)
    np.testing.assert_allclose(atoms.get_stress(), [-pressure] * 3 + [0.0] * 3, atol=1e-4)


def test_strain_filter_lowers_the_energy(copper: NBodyCalculator) -> None:
    atoms = bulk("Cu", a=3.8)
    atoms.calc = copper
    start = atoms.get_potential_energy()
    assert BFGS(StrainFilter(atoms), logfile=None).run(fmax=1e-4, steps=100)
    assert atoms.get_potential_energy() < start


def test_equation_of_state_agrees_with_the_stress(copper: NBodyCalculator) -> None:
    """Energies alone and pressures alone give the same volume and bulk modulus."""
    atoms, volumes, energies, pressures = bulk("Cu", a=3.6), [], [], []
    atoms.calc = copper
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5, steps=100)
    relaxed = atoms.copy()
    for stretch in np.linspace(0.99, 1.01, 9):
        atoms.set_cell(stretch * relaxed.cell, scale_atoms=True)
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
        pressures.append(-atoms.get_stress()[:3].mean())
    volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    assert volume == pytest.approx(relaxed.get_volume(), rel=1e-3)
    slope = np.polynomial.Polynomial.fit(volumes, pressures, 3).deriv()(relaxed.get_volume())
    assert modulus == pytest.approx(-relaxed.get_volume() * slope, rel=0.02)


@pytest.fixture(scope="module")
def hop(copper_network: NBodyNetwork) -> tuple[ase.Atoms, ase.Atoms]:
    """An adatom in a hollow site of a surface, and the same adatom in the next hollow site."""
    start = fcc100("Cu", (2, 2, 2), a=3.58, vacuum=6.0)
    add_adsorbate(start, "Cu", 1.9, "hollow")
    start.set_constraint(FixAtoms(mask=start.positions[:, 2] < start.positions[:, 2].mean() - 0.3))
    start.calc = NBodyCalculator(copper_network)
    assert BFGS(start, logfile=None).run(fmax=0.01, steps=100)
    end = start.copy()
    end.positions[-1] += end.cell[0] / 2.0
    end.calc = NBodyCalculator(copper_network)
    assert BFGS(end, logfile=None).run(fmax=0.01, steps=100)
    return start, end


@pytest.mark.parametrize("shared", [True, False], ids=["one calculator", "a calculator per image"])
def test_nudged_elastic_band(shared: bool, hop: tuple[ase.Atoms, ase.Atoms], copper_network: NBodyNetwork) -> None:
    start, end = hop
    assert start.get_potential_energy() == pytest.approx(end.get_potential_energy(), abs=1e-3)
    calculator = NBodyCalculator(copper_network)
    images = [start, *(start.copy() for _ in range(3)), end]
    band = NEB(images, climb=True, allow_shared_calculator=shared, method="improvedtangent")
    band.interpolate(apply_constraint=False, mic=True)
    for image in images[1:-1]:
        image.calc = calculator if shared else NBodyCalculator(copper_network)
    assert BFGS(band, logfile=None).run(fmax=0.05, steps=60)
    barrier, difference = NEBTools(images).get_barrier(fit=False)
    assert 0.05 < barrier < 2.0
    assert abs(difference) < 1e-3
    energies = [image.get_potential_energy() for image in images]
    np.testing.assert_allclose(energies, energies[::-1], atol=5e-3)  # the path is its own mirror image
