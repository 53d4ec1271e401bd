"""Second derivatives by finite differences of the forces: molecular vibrations and phonons."""

from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.phonons import Phonons
from ase.vibrations import Vibrations

from ase_nbody import NBodyCalculator


def test_a_molecule_has_3n_minus_6_vibrations(tetrahedron: ase.Atoms, tmp_path: Path) -> None:
    """Three translations and three rotations cost no energy; the other modes have a tetrahedron's degeneracies."""
    assert BFGS(tetrahedron, logfile=None).run(fmax=1e-6, steps=200)
    vibrations = Vibrations(tetrahedron, name=str(tmp_path / "vib"), delta=0.002)
    vibrations.run()
    data = vibrations.get_vibrations()
    hessian = data.get_hessian_2d()
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-10)
    translations = np.kron(np.ones((1, 4)), np.eye(3))  # (3, 12)
    np.testing.assert_allclose(translations @ hessian, 0.0, atol=2e-5)  # Newton's third law
    energies = data.get_energies() * 1e3  # meV
    squares = np.sort((energies**2).real)
    np.testing.assert_allclose(squares[:6], 0.0, atol=0.1)
    doublet, triplet, breathing = squares[6:8], squares[8:11], squares[11:]  # E, T2, A1
    assert doublet.min() > 10.0
    for modes in (doublet, triplet, breathing):
        np.testing.assert_allclose(modes, modes.mean(), rtol=1e-3)


def test_phonons_of_a_crystal(copper: NBodyCalculator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atoms = bulk("Cu", a=3.6)
    atoms.calc = copper
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5, steps=100)
    phonons = Phonons(atoms, copper, supercell=(3, 3, 3), delta=0.01, name=str(tmp_path / "phonon"))
    phonons.run()
    phonons.read(acoustic=False, symmetrize=0)
    force_constants = phonons.get_force_constant()  # (cells, 3, 3)
    assert abs(force_constants[0]).max() > 1.0
    np.testing.assert_allclose(force_constants.sum(axis=0), 0.0, atol=1e-10)  # the acoustic sum rule, not imposed
    phonons.read(acoustic=True)
    path = atoms.cell.bandpath("GXWLG", npoints=24)
    frequencies = 1e3 * phonons.band_structure(path.kpts)  # meV
    np.testing.assert_allclose(frequencies[[0, -1]], 0.0, atol=1e-2)
    assert frequencies[1:-1].min() > 0.5  # the crystal is stable
    assert 15.0 < frequencies.max() < 80.0
    capsys.readouterr()  # ASE prints a remark on zero modes
