"""Names of data files: with an @, with an index after it, of links, in the home folder, and like those of databases."""

import ase.io
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody.data import read_labelled
from ase_nbody.data.file_names import data_file


def energies(path, index=":"):
    return [frame.energy for frame in read_labelled(path, index)]


@pytest.fixture
def frames():
    """A function that makes five frames with the energies n, n + 1, ..."""

    def make(first=0.0):
        made = [Atoms("H") for _ in range(5)]
        for number, atoms in enumerate(made):
            atoms.calc = SinglePointCalculator(atoms, energy=first + number)
        return made

    return make


@pytest.mark.parametrize("name", ["a@b.extxyz", "@a.extxyz", "300K@1bar@x.extxyz", "postgres.extxyz", "mysql.extxyz"])
def test_any_name_is_read(name, tmp_path, monkeypatch, frames, write):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name, frames())
    assert energies(name) == energies(tmp_path / name) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert energies(name, "-1:") == [4.0]


def test_an_index_after_the_name(tmp_path, frames, write):
    path = write(tmp_path / "a.extxyz", frames())
    assert energies(f"{path}@3") == [3.0]
    assert energies(f"{path}@-2:") == [3.0, 4.0]
    assert energies(f"{path}@::2") == [0.0, 2.0, 4.0]
    for name in (f"{path}@", f"{path}@x", f"{path}@1:2:3:4", f"{tmp_path}/b.extxyz@1"):
        with pytest.raises(FileNotFoundError, match="no data file"):
            energies(name)
    with pytest.raises(ValueError, match="has an index, but the index ':2' is given too"):
        energies(f"{path}@3", ":2")


def test_a_file_of_the_whole_name_is_meant(tmp_path, frames):
    ase.io.write(tmp_path / "a", frames(), format="traj")
    assert energies(tmp_path / "a@2") == [2.0]
    ase.io.write(tmp_path / "a@2", frames(10.0), format="traj")
    assert energies(tmp_path / "a@2") == [10.0, 11.0, 12.0, 13.0, 14.0]


def test_a_link_is_read_in_the_format_of_its_own_name(tmp_path, frames, write):
    write(tmp_path / "4f3a", frames())
    (tmp_path / "a.extxyz").symlink_to(tmp_path / "4f3a")
    assert energies(tmp_path / "a.extxyz") == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_the_tilde_is_the_home_folder(tmp_path, monkeypatch, frames, write):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.extxyz", frames())
    assert energies("~/a.extxyz@:1") == [0.0]
    with pytest.raises(FileNotFoundError, match="there is no home folder '~nobody-here'; if it is a name"):
        data_file("~nobody-here/a.extxyz")
