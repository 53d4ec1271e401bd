"""The scripts that make and judge the general models (benchmarks/organic): what they keep between two calls."""

from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

ORGANIC = Path(__file__).resolve().parent.parent / "benchmarks" / "organic"

IONIC = ("C[NH+](C)C.C[S-]", "O.[O-]P(=O)(O)O.C[NH+](C)C", "des [Mg+2].[O-2]", "[NH3+]CC(=O)O.[Br-]", "[CH2:1][NH3+:2]")
NEUTRAL = ("C[N+](=O)[O-].O", "bond CCl", "[NH3+]CC(=O)[O-]", "C[C@H](N)C(=O)O", "[2H]O[2H]", "[H][H].[C-]#[O+]")


@pytest.fixture
def module(script):
    """A function that imports a script of benchmarks/organic by its name."""
    return lambda name: script(ORGANIC / f"{name}.py")


def test_frames_are_added_whole(module, tmp_path, monkeypatch):
    """A kill while a frame was written left half of it, after which the file could not be read."""
    keep, path, frames = module("dft").keep, tmp_path / "kept.extxyz", []
    for number, name in enumerate(("H2O", "CH3OH")):
        frames.append(ase.build.molecule(name))
        frames[-1].calc = SinglePointCalculator(frames[-1], energy=float(number), forces=frames[-1].positions)
        keep(path, frames[-1:])
    before = path.read_bytes()

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        keep(path, frames)
    assert path.read_bytes() == before
    for found, frame in zip(ase.io.read(path, ":"), frames, strict=True):
        assert found.get_potential_energy() == frame.get_potential_energy()
        np.testing.assert_allclose(found.get_forces(), frame.get_forces(), atol=1e-8)


def test_energies_of_tight_binding_belong_to_their_dimers(module, tmp_path):
    """Other dimers of the same number had the energies of these."""
    pytest.importorskip("tblite")
    tool, path, dimers = module("dimers"), tmp_path / "gfn2.npz", []
    for distance in (2.9, 3.4):
        atoms = ase.build.molecule("H2") + ase.build.molecule("H2")
        atoms.positions[2:, 0] += distance
        atoms.info["atoms_of_first"] = 2
        dimers.append(tool.dimer(atoms))
    first = tool.of_tight_binding(dimers[:1], path)
    np.testing.assert_array_equal(tool.of_tight_binding(dimers[:1], path), first)
    with pytest.raises(SystemExit, match="energies of other dimers"):
        tool.of_tight_binding(dimers[1:], path)
    np.save(tmp_path / "earlier.npy", first)
    with pytest.raises(SystemExit, match="does not say of which"):
        tool.of_tight_binding(dimers[:1], tmp_path / "earlier.npy")


def test_clusters_of_ions_are_told_from_neutral_molecules(module):
    """Their charges add up to zero, so they passed for neutral molecules, with energies 90 meV an atom off."""
    ionic = module("shards").ionic
    assert [name for name in IONIC if not ionic(name)] == []
    assert [name for name in NEUTRAL if ionic(name)] == []
    numbers, names = np.array([2, 2, 1, 2]), np.array(["O.[NH3+]C.[Cl-]", "O.C", "O", "C[NH3+]"])
    data = {"n_atoms": numbers, "total_charge": np.array([0, 0, 0, 1]), "name": names}
    wanted = module("frames").wanted
    assert wanted(data, charged=False).tolist() == [False, True, False, False]
    assert wanted(data, charged=True).tolist() == [True, True, False, True]
