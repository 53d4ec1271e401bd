"""Labelled structures: every usual key is found, what is missing is NaN, what is unusable is refused by name."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody.data import DataError, read_labelled


def test_ase_results_are_read_with_units_and_sign_of_ase(tmp_path, copper, write):
    atoms = copper()
    atoms.calc = EMT()
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
    (frame,) = read_labelled(write(tmp_path / "a.extxyz", atoms))
    assert frame.energy == pytest.approx(energy, abs=1e-8)
    np.testing.assert_allclose(frame.forces, forces, atol=1e-7)
    np.testing.assert_allclose(frame.stress, stress, atol=1e-8)


@pytest.mark.parametrize(
    ("energy", "forces"), [("REF_energy", "REF_forces"), ("TotEnergy", "force"), ("dft_energy", "dft_forces")]
)
def test_usual_keys_are_found(tmp_path, energy, forces, copper, write):
    atoms = copper()
    atoms.info[energy] = -3.5
    atoms.arrays[forces] = np.full((4, 3), 0.25)
    (frame,) = read_labelled(write(tmp_path / "a.extxyz", atoms))
    assert frame.energy == -3.5
    assert (frame.forces == 0.25).all()


def test_missing_labels_are_nan_not_zero(tmp_path, copper, write):
    (frame,) = read_labelled(write(tmp_path / "a.extxyz", copper()))
    assert np.isnan(frame.energy)
    assert np.isnan(frame.forces).all()
    assert np.isnan(frame.stress).all()


def test_index_selects_frames(tmp_path, write):
    frames = [Atoms("H", info={"energy": float(number)}) for number in range(5)]
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.info.pop("energy"))
    path = write(tmp_path / "a.extxyz", frames)
    assert [frame.energy for frame in read_labelled(path, "-2:")] == [3.0, 4.0]


def spoil(atoms, kind):
    if kind == "energy":
        atoms.info["energy"] = "many"
    elif kind == "nan energy":
        atoms.info["REF_energy"] = float("nan")
    elif kind == "nan force":
        atoms.arrays["REF_forces"] = np.array([[0, 0, 0]] * 3 + [[0, np.nan, 0]], float)
    elif kind == "shape":
        atoms.arrays["REF_forces"] = np.zeros((4, 2))
    else:
        atoms.positions[1, 2] = np.inf
    return atoms


@pytest.mark.parametrize(
    ("kind", "culprit"),
    [
        ("energy", "frame 1: the energy should be numbers, found 'many'"),
        ("nan energy", "frame 1: the energy is nan"),
        ("nan force", "frame 1: the force on atom 3 is not finite"),
        ("shape", r"frame 1: labels of shape \(4, 3\) expected as forces, found \(4, 2\)"),
        ("positions", "frame 1: position of atom 1 is not finite: z = inf"),
    ],
)
def test_unusable_frames_are_named(tmp_path, kind, culprit, copper, write):
    with pytest.raises(DataError, match=culprit):
        read_labelled(write(tmp_path / "a.extxyz", [copper(), spoil(copper(), kind)]))


def test_unreadable_files_are_named(tmp_path, copper, write):
    (tmp_path / "text.extxyz").write_text("these are no atoms\n")
    with pytest.raises(DataError, match=r"text\.extxyz cannot be read"):
        read_labelled(tmp_path / "text.extxyz")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_labelled(tmp_path / "nowhere.extxyz")
    with pytest.raises(DataError, match="no frames"):
        read_labelled(write(tmp_path / "a.extxyz", copper()), "5:")
