"""Data files, model paths and configurations that cannot be used, through the reader and the command line."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import NBodyCalculator
from ase_nbody.data import DataError, read_labelled
from ase_nbody.data.structures import read_structures
from ase_nbody.files.archive import ModelFileError

parametrize = pytest.mark.parametrize
METHANOL = molecule("CH3OH")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    """Three good frames of methanol with energy and forces, as extxyz."""
    path, atoms = tmp_path_factory.mktemp("good") / "good.extxyz", METHANOL.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.full((6, 3), 0.25))
    ase.io.write(path, [atoms] * 3)
    return path.read_text()


def cut(lines: int) -> Callable[[str], str]:
    return lambda text: "".join(text.splitlines(keepends=True)[:-lines])


def swap(old: str, new: str, count: int = -1) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, count)


BROKEN = {
    "last frame cut off": (cut(2), r"frame 2 cannot be read: .*4 atoms, expected 6.*Good frames before it: 2; .*':2'"),
    "cut within a line": (lambda text: text[:-30], "frame 2 cannot be read.*Good frames before it: 2"),
    "cut before a header": (cut(7), "frame 2 cannot be read: the file ends within the frame"),
    "empty": (lambda text: "", "cannot be read as structures: .*Empty file"),
    "blank": (lambda text: "\n\n", "holds no frames"),
    "decimal comma": (swap("0.25", "0,25"), "could not convert string to float: '0,25.*written like -1.5"),
    "word for a number": (swap("0.25", "many"), "could not convert string to float: 'many.*where a number is"),
    "word for an energy": (swap("energy=-1.0", "energy=many"), "frame 0: the energy should be numbers, found 'many'"),
    "comma in an energy": (swap("=-1.0", "=-1,5"), r"frame 0: one number expected as energy, found \[-1, 5\]"),
    "logical energy": (swap("energy=-1.0", "energy=T"), "the energy should be numbers, found True"),
    "logical forces": (swap("forces:R:3", "forces:L:3"), "the forces should be numbers, found True or False"),
    "nan energy": (swap("energy=-1.0", "energy=nan"), "frame 0: the energy is nan. Remove"),
    "infinite energy": (swap("energy=-1.0", "energy=-inf"), "frame 0: the energy is -inf"),
    "nan force": (swap("0.25000000", "nan", 1), "frame 0: the force on atom 0 is not finite"),
    "nan stress": (
        swap('pbc="F F F"', 'Lattice="9 0 0 0 9 0 0 0 9" pbc="T T T" stress="nan 0 0 0 0 0 0 0 0"'),
        "frame 0: the stress is not finite",
    ),
    "text for forces": (swap("forces:R:3", "forces:S:3"), None),
    "no such element": (swap("O  ", "Qq ", 1), "'Qq' is not a chemical symbol"),
    "cell under another name": (
        swap('pbc="F F F"', 'lattice="9 0 0 0 9 0 0 0 9"'),
        "its cell is named lattice, which extended xyz does not know: name it Lattice",
    ),
    "cell without pbc": (swap('pbc="F F F"', 'cell="9 0 0 0 9 0 0 0 9"'), "its cell is named cell, which"),
    "pbc under another name": (
        swap('pbc="F F F"', 'Lattice="9 0 0 0 9 0 0 0 9" PBC="F F F"'),
        "PBC should be named pbc",
    ),
    "pbc in words": (
        swap('pbc="F F F"', 'Lattice="9 0 0 0 9 0 0 0 9" pbc="no no no"'),
        "pbc should be logical values such as T T F, found .*no no no",
    ),
    "two energies": (swap("energy=-1.0", "energy=-1.0 energy=-2.0"), "has energy twice, with different values"),
    "columns without a name": (
        swap("\nO  ", "\nO 1 "),
        r"atom 1 has 8 values, and Properties names 7 columns: .* Name all of them",
    ),
    "atomic numbers of other elements": (
        lambda text: (
            text.replace("species:S:1:", "species:S:1:Z:I:1:")
            .replace("\nO ", "\nO 7 ")
            .replace("\nC ", "\nC 6 ")
            .replace("\nH ", "\nH 1 ")
        ),
        "atom 1 is O in the column of symbols and has the atomic number 7: correct one",
    ),
    "two columns of positions": (
        swap("pos:R:3:forces", "pos:R:3:positions"),
        "its columns pos and positions mean the same",
    ),
    "vectors beside properties": (
        lambda text: f"{text}VEC1 9 0 0\nVEC2 0 9 0\nVEC3 0 0 9\n",
        "frame 2 cannot be read: it has vectors VEC beside Properties",
    ),
    "no atoms": (lambda text: "0\nenergy=1.0\n", "frame 0: there are no atoms"),
    "wrong number of atoms": (
        swap("6\n", "5\n", 1),
        "frame 1 cannot be read: Expected xyz header, the number of atoms, in line 8, but got 'H 0.*Good frames before",
    ),
}
REFUSED = {row: case for row, case in BROKEN.items() if case[1] is not None}


@parametrize("row", REFUSED)
def test_broken_data(row: str, text: str, tmp_path, model, refused) -> None:
    spoil, sentence = REFUSED[row]
    path = tmp_path / "data.extxyz"
    path.write_text(spoil(text))
    assert spoil(text) != text
    with pytest.raises(DataError, match=rf"data\.extxyz.*{sentence}"):
        read_labelled(path)
    (tmp_path / "config.yaml").write_text("data: {train: data.extxyz, validation: 1}")
    for command in (("evaluate", model, path), ("train", tmp_path / "config.yaml")):
        assert "data.extxyz" in refused(*command)


def test_good_data_are_read(text: str, tmp_path) -> None:
    """The text that the rows above spoil is sound, and numbers written as text are read as numbers."""
    for name, content in (("a", text), ("b", swap("forces:R:3", "forces:S:3")(text))):
        (tmp_path / f"{name}.extxyz").write_text(content)
        frames = read_labelled(tmp_path / f"{name}.extxyz")
        assert [frame.energy for frame in frames] == [-1.0] * 3 or name == "b"
    assert len(read_labelled(tmp_path / "a.extxyz", "1")) == 1


@parametrize(
    "header",
    [
        "# CELL(abcABC):   30.0  30.0  30.0  90.0  90.0  90.0  Step:  0  Bead:  0 positions{atomic_unit} "
        "cell{atomic_unit}",
        "# CELL{H}: 30 0 0 0 30 0 0 0 30",
        "positions{angstrom}",
        "forces{ev/ang}",
    ],
)
def test_frames_of_ipi_are_in_bohr_and_have_a_cell(header: str, tmp_path) -> None:
    (tmp_path / "run.pos_0.xyz").write_text(f"2\n{header}\nH 0 0 0\nH 0 0 1.4\n")
    for read in (read_labelled, read_structures):
        with pytest.raises(DataError, match=r"its header is one of i-PI, with a cell and a unit"):
            read(tmp_path / "run.pos_0.xyz")
    (template,) = read_structures(tmp_path / "run.pos_0.xyz", elements_only=True)
    assert str(template.symbols) == "H2"


@parametrize("comment", ["", "water at 300 K", "CELL 3 H_{2}", 'title="positions{angstrom}" energy=-1.0'])
def test_other_comments_are_none_of_ipi(comment: str, tmp_path) -> None:
    (tmp_path / "a.xyz").write_text(f"2\n{comment}\nH 0 0 0\nH 0 0 1.4\n")
    assert len(read_structures(tmp_path / "a.xyz")) == 1


def test_symbols_and_atomic_numbers_that_agree(tmp_path) -> None:
    rows = "2\nProperties=species:S:1:pos:R:3:Z:I:1 energy=-1.0\n{} 0 0 0 17\nX9 0 0 2 6\n"
    for symbol in ("Cl", "CL", "cl", "Cl1"):  # what is no symbol says nothing
        (tmp_path / "data.extxyz").write_text(rows.format(symbol))
        assert read_labelled(tmp_path / "data.extxyz")[0].structure.numbers.tolist() == [17, 6]


@parametrize(
    "header",
    [
        'pbc="F F F" energy=-1.0 pbc="F F F"',
        'cell="0 0 0 0 0 0 0 0 0"',
        'cell="9 0 0 0 9 0 0 0 9" pbc="F F F"',
        'Lattice="9 0 0 0 9 0 0 0 9" pbc="0 0 0"',
        'Lattice="9 0 0 0 9 0 0 0 9" pbc="false, false, false"',
        'Lattice="9 0 0 0 9 0 0 0 9" pbc=F',
        'comment="energy=-3.0 energy=-4.0 cell=9"',
        "cell=bulk name='pbc=x'",
    ],
)
def test_good_headers_are_read(header: str, text: str, tmp_path) -> None:
    """Only what ASE would misread is refused."""
    (tmp_path / "data.extxyz").write_text(text.replace('pbc="F F F"', header))
    frames = read_labelled(tmp_path / "data.extxyz")
    assert [frame.energy for frame in frames] == [-1.0] * 3
    assert not any(frame.structure.pbc.any() for frame in frames)


@parametrize("name", ["garbage.extxyz", "garbage.traj", "garbage.strange"])
def test_binary_garbage(name: str, tmp_path, model, refused) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(3000))
    assert f"{name} cannot be read as structures" in refused("evaluate", model, tmp_path / name)


@parametrize("index", ["a:b", "one", "1:2:3:4", ""])
def test_an_index_that_is_no_slice(index: str, text: str, tmp_path, model, refused) -> None:
    (tmp_path / "data.extxyz").write_text(text)
    line = refused("evaluate", model, tmp_path / "data.extxyz", f"--index={index}")
    assert f"the index {index!r} is not a slice; write it like ':'" in line


@pytest.mark.parametrize("name", ["data.extxyz", "data.traj", "data.db"])
def test_a_file_without_permission_to_read(name: str, tmp_path, monkeypatch) -> None:
    """Root may read all files, so that the file system itself must refuse."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", name)

    (tmp_path / name).write_text("")
    monkeypatch.setattr("ase_nbody.data.structures.read_frames", lambda *_: (refuse() for _ in range(1)))
    with pytest.raises(DataError, match=f"{name} may not be read by this user"):
        read_structures(tmp_path / name)


@parametrize("digits", [19, 31, 5000])
def test_an_index_beyond_any_file(digits: int, text: str, tmp_path) -> None:
    (tmp_path / "data.extxyz").write_text(text)
    last = "9" * digits
    for index in (f":{last}", f"-{last}:", f"::{last}", f":{last}:{last}"):
        assert [atoms.positions.tolist() for atoms in read_structures(tmp_path / "data.extxyz", index)] == [
            atoms.positions.tolist() for atoms in ase.io.read(tmp_path / "data.extxyz", index.replace(last, "1000000"))
        ]
    for index in (last, f"-{last}", f"{last}:"):
        with pytest.raises(DataError, match="holds no frames for the index"):
            read_structures(tmp_path / "data.extxyz", index)


def test_frames_of_a_slice_are_counted_within_it(text: str, tmp_path) -> None:
    (tmp_path / "data.extxyz").write_text(
        text[: text.rindex("energy=-1.0")] + text[text.rindex("energy=-1.0") :].replace("-1.0", "nan", 1)
    )
    with pytest.raises(DataError, match="frame 1 of those chosen by '1:'"):
        read_labelled(tmp_path / "data.extxyz", "1:")


def test_a_directory_and_a_missing_file(tmp_path, model, refused) -> None:
    assert "is a directory, not a data file" in refused("evaluate", model, tmp_path)
    assert "no data file" in refused("evaluate", model, tmp_path / "nowhere.traj")
    assert "is a directory, not a configuration" in refused("train", tmp_path)


def test_data_without_labels(tmp_path, model, refused) -> None:
    ase.io.write(tmp_path / "bare.traj", [METHANOL] * 3)
    assert "has no labels to compare with, such as energies" in refused("evaluate", model, tmp_path / "bare.traj")
    (tmp_path / "config.yaml").write_text("data: {train: bare.traj, validation: 1}")
    assert "no frame has forces" in refused("train", tmp_path / "config.yaml")


# --- model paths -----------------------------------------------------------------------------------------------------


def test_a_path_that_is_no_model(tmp_path, refused) -> None:
    (tmp_path / "garbage.nbody").write_bytes(bytes(range(256)))
    unreadable = Path("/proc/self/mem")  # even root cannot read it from its start
    for path, error in (
        (tmp_path, OSError),
        (tmp_path / "no.nbody", OSError),
        (tmp_path / "garbage.nbody", ValueError),
    ):
        with pytest.raises(error, match=path.name):
            NBodyCalculator(path)
        assert path.name in refused("info", path)
    if unreadable.exists():
        with pytest.raises((OSError, ModelFileError), match="/proc/self/mem"):
            NBodyCalculator(unreadable)
        assert "/proc/self/mem" in refused("info", unreadable)


# --- configurations --------------------------------------------------------------------------------------------------


def test_all_faults_of_a_configuration_are_listed_with_the_nearest_key(tmp_path, refused) -> None:
    content = {
        "data": {"trian": "a.traj"},
        "trainning": {},
        "network": {"levels": [{"radus": 3.0}, {"l_max": "three", "radius": -1.0}], "zzz": 1},
        "training": {"epoch": 3, "dtype": "float16"},
        "card": {"pages": 3},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    line = refused("train", tmp_path / "config.yaml")
    for sentence in (
        "data.train is missing",
        "data.trian is not an entry; did you mean 'train'?",
        "trainning is not an entry; did you mean 'training'?",
        "network.levels.0.radus is not an entry; did you mean 'radius'?",
        "network.levels.1.l_max: should be a whole number, got 'three'",
        "network.levels.1.radius: should be greater than or equal to 0.001, got -1.0",
        "network.zzz is not an entry; allowed are levels, embedding,",
        "training.epoch is not an entry; did you mean 'epochs'?",
        "training.dtype: should be 'float32' or 'float64', got 'float16'",
        "card.pages: should be text, got 3",
    ):
        assert sentence in line


def test_a_configuration_that_is_not_text(tmp_path, refused) -> None:
    (tmp_path / "config.yaml").write_bytes(bytes(range(128, 256)))
    assert "config.yaml is not valid YAML" in refused("train", tmp_path / "config.yaml")


def test_a_device_that_is_not_there(tmp_path, refused) -> None:
    (tmp_path / "config.yaml").write_text("data: {train: no.traj}\ntraining: {device: 'cuda:99'}")
    line = refused("train", tmp_path / "config.yaml")
    assert "training.device = 'cuda:99' is not available here" in line
    assert "Use 'auto' or 'cpu'" in line


# --- the command line itself -----------------------------------------------------------------------------------------


@parametrize("place", [0, 1, 2])
def test_debug_may_stand_anywhere(place: int, monkeypatch) -> None:
    from ase_nbody.cli import main

    arguments = ["info", "nowhere"]
    arguments.insert(place, "--debug")
    monkeypatch.setattr("sys.argv", ["nbody", *arguments])
    with pytest.raises(FileNotFoundError):
        main()


@parametrize(
    ("error", "line"),
    [
        (KeyError("lost"), "error: KeyError ('lost'). This is unexpected; --debug shows where it happened."),
        (RuntimeError("two\nlines"), "error: RuntimeError (two lines). This is unexpected;"),
        (ValueError(""), "error: ValueError (no details). This is unexpected;"),
        (ValueError("[/bold] [red]"), "error: [/bold] [red]"),
        (MemoryError(), "error: out of memory (no details): use smaller structures"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "error: out of memory (Default"),
        (OSError(28, os.strerror(28), "a.nbody"), "error: there is no room to write ([Errno 28] No space left on"),
    ],
)
def test_unexpected_errors_are_one_line(error: Exception, line: str, monkeypatch, refused) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(sys.modules["ase_nbody.cli.evaluate"], "load_members", fail)
    assert refused("evaluate", "model", "data").startswith(line)
