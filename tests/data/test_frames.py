"""Every frame that a file holds is read, in any format and for any slice, or the file is refused."""

import gzip
import random

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody.data import DataError, read_labelled, xyz

SLICES = [":", "::2", "1:6:3", "-3:", ":-2", "-4:-1", "::-1", "::-2", "5:1:-2", "3", "-1", "-7", "2:2", "9:", "-99:2"]


def seven():
    """Frames that differ in size, whose energy is their number."""
    frames = [molecule(name) for name in ("CH3OH", "H2O", "CH4", "NH3", "C2H6", "CO", "HCN")]
    for number, atoms in enumerate(frames):
        atoms.calc = SinglePointCalculator(atoms, energy=float(number), forces=np.full((len(atoms), 3), 0.25))
    return frames


def energies(path, index=":"):
    return [frame.energy for frame in read_labelled(path, index)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same frames in several formats."""
    folder = tmp_path_factory.mktemp("frames")
    for name in ("a.extxyz", "a.xyz.gz", "a.traj", "a.db", "a.json"):
        ase.io.write(folder / name, seven())
    return folder


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz.gz", "a.traj", "a.db", "a.json"])
@pytest.mark.parametrize("index", SLICES)
def test_slices_are_those_of_a_list(name, index, files):
    numbers = [float(number) for number in range(7)]
    bounds = [int(bound) if bound else None for bound in index.split(":")]
    expected = numbers[slice(*bounds)] if ":" in index else [numbers[bounds[0]]]
    if expected:
        assert energies(files / name, index) == expected
    else:
        with pytest.raises(DataError, match="holds no frames for the index"):
            energies(files / name, index)


@pytest.mark.parametrize("index", [":", "0", "-1", "::2"])
def test_a_format_of_one_structure(index, tmp_path):
    ase.io.write(tmp_path / "POSCAR", bulk("Cu", cubic=True))
    assert len(read_labelled(tmp_path / "POSCAR", index)) == 1
    with pytest.raises(DataError, match="holds no frames for the index '1:'"):
        read_labelled(tmp_path / "POSCAR", "1:")


@pytest.mark.parametrize("blank", ["\n", "\n\n \t\n", "\r\n"])
def test_blank_lines_between_frames_lose_none(blank, files, tmp_path):
    text, path = (files / "a.extxyz").read_text(), tmp_path / "joined.xyz"
    path.write_text(blank + text + blank + text + blank)
    assert energies(path) == 2 * [float(number) for number in range(7)]
    assert energies(path, "-8:") == [6.0, *map(float, range(7))]


@pytest.mark.parametrize("line", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_line_breaks_and_marks_of_other_systems(line, encoding, files, tmp_path):
    text = (files / "a.extxyz").read_text()
    (tmp_path / "a.xyz").write_bytes(text.replace("\n", line).encode(encoding))
    assert len(energies(tmp_path / "a.xyz")) == 7
    (tmp_path / "a.xyz").write_bytes(text.rstrip("\n").replace("\n", line).encode(encoding))
    assert len(energies(tmp_path / "a.xyz")) == 7


def test_compressed_files_joined_by_cat(files, tmp_path):
    (tmp_path / "joined.xyz.gz").write_bytes(2 * (files / "a.xyz.gz").read_bytes())
    assert len(energies(tmp_path / "joined.xyz.gz")) == 14


@pytest.mark.parametrize("rest", ["end of file\n", "\n\n# made by a tool", "7\n", "-3\n\n", "\x1b[2J\n", "1e3\n\n"])
def test_anything_else_after_the_last_frame_is_refused(rest, files, tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text((files / "a.extxyz").read_text() + rest)
    with pytest.raises(DataError, match=r"frame 7 cannot be read: .*Good frames before it: 7; the index ':7'") as error:
        read_labelled(path)
    assert str(error.value).isprintable()
    assert len(read_labelled(path, ":7")) == 7
    with pytest.raises(DataError, match="frame 7 cannot be read"):
        read_labelled(path, "-2:")


def test_trajectories_joined_by_cat_are_refused(files, tmp_path):
    joined = 2 * (files / "a.traj").read_bytes()
    for name, content in {"joined.traj": joined, "joined.traj.gz": gzip.compress(joined)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="consists of several trajectories, of which only the first can be read"):
            read_labelled(tmp_path / name)
    with ase.io.Trajectory(tmp_path / "grown.traj", "w") as file:
        file.write(seven()[0])
    with ase.io.Trajectory(tmp_path / "grown.traj", "a") as file:
        file.write(seven()[1])
    assert energies(tmp_path / "grown.traj") == [0.0, 1.0]


@pytest.mark.parametrize("name", ["data@1.xyz", "data@:2.xyz", "POSCAR_train.xyz", "postgres.xyz", "a b [c].extxyz"])
def test_names_that_ase_reads_something_into(name, files, tmp_path):
    (tmp_path / name).write_text((files / "a.extxyz").read_text())
    assert len(energies(tmp_path / name)) == 7


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_archives_are_refused(damage, files, tmp_path):
    content = bytearray((files / "a.xyz.gz").read_bytes())
    if damage == "cut":
        del content[-20:]
    else:
        content[len(content) // 2 :] = random.Random(0).randbytes(len(content) - len(content) // 2)
    (tmp_path / "a.xyz.gz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_labelled(tmp_path / "a.xyz.gz")


def test_values_of_a_database_are_found(tmp_path):
    with ase.db.connect(tmp_path / "a.db") as rows:
        for number, atoms in enumerate(seven()):
            atoms.calc = None
            forces = np.full((len(atoms), 3), 0.5)
            rows.write(atoms, REF_energy=float(number), data={"REF_dipole": np.ones(3), "F_dft": forces})
    frames = read_labelled(tmp_path / "a.db", keys={"forces": "F_dft"})
    assert [frame.energy for frame in frames] == [float(number) for number in range(7)]
    assert (frames[0].dipole == 1.0).all()
    assert (frames[6].forces == 0.5).all()


@pytest.mark.parametrize("name", ["a.db", "a.json"])
@pytest.mark.parametrize(
    ("energy", "forces", "length", "factors"),
    [
        ("kcal/mol", "kcal/mol/Ang", "Ang", (units.kcal / units.mol, units.kcal / units.mol, 1.0)),
        ("Hartree", "Hartree / Bohr", "Bohr", (units.Hartree, units.Hartree / units.Bohr, units.Bohr)),
        ("eV", "eV/Å", "Ang", (1.0, 1.0, 1.0)),
    ],
)
def test_units_that_a_database_names(name, energy, forces, length, factors, tmp_path):
    """Databases of SchNetPack have units in their metadata, and energies as arrays of one number."""
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.2]], cell=[9, 9, 9])
    with ase.db.connect(tmp_path / name) as rows:
        rows.write(atoms, data={"energy": np.array([-3.0]), "forces": [[0, 0, 1.0], [0, 0, -1.0]]})
    with ase.db.connect(tmp_path / name) as rows:
        rows.metadata = {"_property_unit_dict": {"energy": energy, "forces": forces}, "_distance_unit": length}
    (frame,) = read_labelled(tmp_path / name)
    found = frame.energy / -3.0, frame.forces[0, 2], frame.structure.positions[1, 2] / 1.2
    np.testing.assert_allclose(found, factors)
    np.testing.assert_allclose(frame.structure.cell, 9.0 * factors[2] * np.eye(3))


def test_unknown_units_of_a_database_are_refused(tmp_path):
    for number, (unit, length) in enumerate((("cal", "Ang"), ("eV", "inch"))):
        with ase.db.connect(tmp_path / f"{number}.db") as rows:
            rows.metadata = {"_property_unit_dict": {"energy": unit, "heat": "cal/mol/K"}, "_distance_unit": length}
            rows.write(Atoms("H"), data={"energy": -3.0, "forces": [[0, 0, 0.0]], "heat": 1.0})
    with pytest.raises(DataError, match=r"frame 0: the energy should be numbers, found 'in cal, an unknown unit'"):
        read_labelled(tmp_path / "0.db")
    with pytest.raises(DataError, match=r"its metadata give the unit of length as 'inch', which is not known"):
        read_labelled(tmp_path / "1.db")


def test_a_named_label_of_the_wrong_shape_is_refused_wherever_it_is(tmp_path):
    """Forces of the structure as a whole, and an energy for each atom: neither is left out in silence."""
    atoms = seven()[0]
    atoms.info["F"], atoms.arrays["E"] = np.ones(3), np.ones(len(atoms))
    ase.io.write(tmp_path / "a.extxyz", atoms)
    for keys, message in (({"forces": "F"}, "expected as forces"), ({"energy": "E"}, "one number expected as energy")):
        with pytest.raises(DataError, match=message):
            read_labelled(tmp_path / "a.extxyz", keys=keys)


def test_text_in_another_alphabet_is_read_and_other_bytes_are_refused(files, tmp_path):
    text = (files / "a.extxyz").read_text().replace("energy=", 'config_type="ångström" energy=')
    (tmp_path / "a.xyz").write_bytes(text.encode())
    assert len(energies(tmp_path / "a.xyz")) == 7
    with gzip.open(tmp_path / "b.xyz.gz", "wb") as file:
        file.write(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"cannot be read as structures: .*utf-8"):
        read_labelled(tmp_path / "b.xyz.gz")


def test_names_are_not_looked_up_anew_in_each_frame(tmp_path, monkeypatch):
    """The search for a million frames took two minutes before the first of them was refused."""
    path, made = tmp_path / "empty.xyz", []
    path.write_text("0\n\n" * 1000)
    make = xyz._any_of
    monkeypatch.setattr(xyz, "_any_of", lambda names: made.append(names) or make(names))
    assert list(xyz.names_in_headers(str(path), {"energy", "forces"})) == []
    assert len(made) == 1
