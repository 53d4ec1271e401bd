"""The scripts that make and judge the general models (benchmarks/organic): what they keep between two calls."""

from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

ORGANIC = Path(__file__).resolve().parent.parent / "benchmarks" / "organic"


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
