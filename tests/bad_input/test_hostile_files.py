"""Data files that would fill the memory, take for ever or send commands to the terminal are refused at once."""

import contextlib
import gzip
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import ase.db
import ase.io
import pytest
from ase.build import molecule

from ase_nbody.data import DataError, read_labelled

HYDROGEN = "Properties=species:S:1:pos:R:3\nH 0 0 0\n"
CELL = "1.0\n9 0 0\n0 9 0\n0 0 9\n"
CLAIMS = {
    "a.xyz": f"1000000000000\n{HYDROGEN}",
    "b.xyz": f"{'9' * 6000}\n{HYDROGEN}",
    "c.xyz": f"150000\n{HYDROGEN}",
    "columns.xyz": "1\nProperties=species:S:1:pos:R:3:x:R:1000000000\nH 0 0 0\n",
    "more_columns.xyz": '1\nProperties="species:S:1:pos:R:3:x:R: 1_000_000_000"\nH 0 0 0\n',
    "POSCAR": f"H\n{CELL}H\n1000000000000\nDirect\n0 0 0\n",
    "XDATCAR": f"H\n{CELL}H\n1000000000000\nDirect configuration=     1\n0 0 0\n",
    "a.lammpstrj": "ITEM: TIMESTEP\n7\nITEM: NUMBER OF ATOMS\n1000000000000\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"
    "ITEM: ATOMS id type x y z\n1 1 0 0 0\n",
    "1/POSCAR": f"H\n{CELL}H\n1_000_000_000_000\nDirect\n0 0 0\n",
    "2/POSCAR": f"H\n{CELL}H1\n+1000000000000\nDirect\n0 0 0\n",
    "3/POSCAR": f"H\n{CELL}H\n1000000000000\nDirect\n0 0 0\n".replace("\n", "\r"),
    "a.lammps-data": "x\n\n1000000000000 atoms\n1 atom types\n0 9 xlo xhi\n\nAtoms # atomic\n\n1 1 0 0 0\n",
    "OUTCAR": " vasp.5.4.4\n POTCAR:    PAW_PBE H 15Jun2001\n   ions per type =             1000000000000\n",
    "a.jsv": "x\n[nbond] 1000000000000\n[bonds]\n",
    "a.cube": "x\ny\n 1000000000000 0 0 0\n 2 1 0 0\n 2 0 1 0\n 2 0 0 1\n 1 1.0 0 0 0\n 1 1 1 1 1 1 1 1\n",
}
# A start, a block that is repeated until the file has 200 MB, and an end.
BOMBS = {
    "header.xyz.gz": ("1\n", b"x", "\nH 0 0 0\n"),
    "first.xyz.gz": ("", b"1", "\n"),
    "atom.xyz.gz": ("1\nProperties=species:S:1:pos:R:3\nH 0 0 0", b" 0", "\n"),
    "blank.xyz.gz": (f"1\n{HYDROGEN}", b"\n", f"1\n{HYDROGEN}"),
    "lines.xyz.gz": ("190000\nProperties=species:S:1:pos:R:3\n", b"H 0 0 0" + b" 0" * 1000 + b"\n", "1\n"),
    "gaussian.log.gz": ("Entering Gaussian System\n", b"x", "\n"),
    "vasprun.xml.gz": ("<xml>", b"x", "\n"),
    "a.cif.gz": ("data_a\n", b"x", "\n"),
    "lines.cif.gz": ("data_a\n_x '", b"a b\n", "'\n"),
    "a.traj.gz": ("- of UlmASE-Trajectory", b"\0", "\n"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_that_the_file_cannot_hold(name: str, tmp_path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(CLAIMS[name])
    with pytest.raises(DataError, match=r"(atoms|columns).*(allowed|expected|bytes)"):
        read_labelled(path)


@pytest.mark.parametrize("claim", ["frames", "bytes of a frame", "rows of an array"])
def test_trajectories_that_claim_more_than_fits_into_memory(claim: str, tmp_path) -> None:
    path, many = tmp_path / "a.traj", 10**15
    ase.io.write(path, [molecule("H2O")] * 2)
    content = bytearray(path.read_bytes())
    place = int.from_bytes(content[40:48], "little")  # of the table of frames
    second = int.from_bytes(content[place + 8 : place + 16], "little")
    if claim == "frames":
        content[32:40] = many.to_bytes(8, "little")
    elif claim == "bytes of a frame":
        content[second : second + 8] = many.to_bytes(8, "little")
    else:
        size = int.from_bytes(content[second : second + 8], "little")
        frame = content[second + 8 : second + 8 + size].replace(b"[[3, 3]", f"[[{many}, 3]".encode())
        content[place + 8 : place + 16] = len(content).to_bytes(8, "little")
        content += len(frame).to_bytes(8, "little") + frame
    path.write_bytes(content)
    where = "a.traj cannot" if claim == "frames" else "a.traj: frame 1 cannot"
    with pytest.raises(DataError, match=f"{where} be read.* more memory than there is"):
        read_labelled(path)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process is read from /proc")
def test_small_archives_of_large_text(tmp_path) -> None:
    """All are refused within 400 MB of addresses above those of the imported package and 20 s of CPU together."""
    for name, (start, block, end) in BOMBS.items():
        with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
            file.write(start.encode())
            for _ in range(200):
                file.write(block * (2**20 // len(block)))
            file.write(end.encode())
    script = (
        "import resource, sys\nfrom ase_nbody.data import DataError, read_labelled\n"
        "pages = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "seconds = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + 20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages + 4 * 10**8,) * 2)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))\n"
        "for path in sys.argv[1:]:\n    try:\n        read_labelled(path)\n"
        "    except DataError as error:\n        print('refused:', error)\n"
    )
    paths = [tmp_path / name for name in BOMBS]
    run = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=False)
    assert run.stdout.count("refused: ") == len(BOMBS), run.stdout + run.stderr[-500:]


@pytest.mark.parametrize("name", ["a.xyz", "POSCAR"])
@pytest.mark.parametrize("command", ["md", "check"])
def test_commands_that_need_no_labels_refuse_claims_too(command, name, tmp_path, model, refused) -> None:
    (tmp_path / name).write_text(CLAIMS[name])
    options = ["--output", tmp_path / "md"] if command == "md" else []
    assert "atoms" in refused(command, model, tmp_path / name, *options)


NUMBERS = {"right": [[1], "int64", [1]], "positions": [[1, 3], "float64", [0, 0, 0]]}


def database(path, numbers, positions=NUMBERS["positions"]) -> None:
    row = {"numbers": {"__ndarray__": numbers}, "positions": {"__ndarray__": positions}}
    times = {"ctime": 1.0, "mtime": 1.0, "user": "me", "unique_id": "1", "energy": -1.0}
    path.write_text(json.dumps({"1": row | times, "ids": [1], "nextid": 2}))


@pytest.mark.parametrize(
    "numbers",
    [
        [[1000000000], "int64", [1]],
        [[10**30], "int64", [1]],
        [[-1], "int64", [1]],
        [[1], "S1000000000", ["a"]],
        [[1], "V1000000000", [1]],
        [["a"], "int64", [1]],
        pytest.param([[10**4000] * 2000, "int64", [1]], id="a product of minutes"),
    ],
)
def test_arrays_larger_than_their_numbers(numbers, tmp_path) -> None:
    database(tmp_path / "a.json", numbers)
    with pytest.raises(DataError, match=r"an array of .* cannot hold"):
        read_labelled(tmp_path / "a.json")
    database(tmp_path / "a.json", NUMBERS["right"])
    assert read_labelled(tmp_path / "a.json")[0].energy == -1.0


def test_arrays_in_a_database_of_sqlite(tmp_path) -> None:
    path = tmp_path / "a.db"
    with ase.db.connect(path) as rows:
        rows.write(ase.Atoms("H"), data={"REF_energy": -1.0})
    with contextlib.closing(sqlite3.connect(path)) as tables, tables:
        text = json.dumps({"x": {"__ndarray__": [[1000000000], "int64", [1]]}})
        tables.execute("UPDATE systems SET data = ?", [text])
    with pytest.raises(DataError, match=r"an array of .* cannot hold"):
        read_labelled(path)


@pytest.mark.parametrize(
    "trick",
    [
        "CREATE VIEW systems AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x AS id FROM c",
        "CREATE TABLE systems (id INTEGER, positions AS (zeroblob(1000000000)))",
    ],
    ids=["endless view", "computed column"],
)
def test_tables_of_a_database_that_are_computed(trick: str, tmp_path) -> None:
    path = tmp_path / "a.db"
    with ase.db.connect(path) as rows:
        rows.write(ase.Atoms("H"))
    with contextlib.closing(sqlite3.connect(path)) as tables, tables:
        tables.execute("DROP TABLE systems")
        tables.execute(trick)
    with pytest.raises(DataError, match=r"its (view|table) systems is computed when it is read"):
        read_labelled(path)


def test_a_database_that_another_program_writes_to(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.db"
    with ase.db.connect(path) as rows:
        rows.write(ase.Atoms("H"))
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: connect(*given, **more | {"timeout": 0.1}))
    with contextlib.closing(connect(path)) as tables:
        tables.isolation_level = None
        tables.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataError, match=r"database is locked\): another program is writing to it"):
            read_labelled(path)


def test_a_database_whose_writer_was_killed_is_left_as_it_is(tmp_path) -> None:
    path, copy = tmp_path / "a.db", tmp_path / "b.db"
    with ase.db.connect(path) as rows:
        for _ in range(20):
            rows.write(molecule("C60"))
    with contextlib.closing(sqlite3.connect(path)) as tables:
        tables.isolation_level = None
        tables.execute("PRAGMA cache_size = 1")
        tables.execute("BEGIN")
        tables.execute("UPDATE systems SET positions = zeroblob(2000)")
        shutil.copy(path, copy)
        shutil.copy(f"{path}-journal", f"{copy}-journal")
    before = copy.read_bytes()
    with pytest.raises(DataError, match="a program that was writing to it was killed"):
        read_labelled(copy)
    assert copy.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process is read from /proc")
@pytest.mark.parametrize("columns", [("positions",), ("positions", "momenta", "forces", "data", "calculator")])
def test_rows_of_a_database_that_would_fill_the_memory(columns: tuple[str, ...], tmp_path) -> None:
    """Rows of 450 MB together are refused within 200 MB of addresses above those of the imported package."""
    path = tmp_path / "a.db"
    with ase.db.connect(path) as rows:
        rows.write(ase.Atoms("H"))
    with contextlib.closing(sqlite3.connect(path)) as tables, tables:
        for name in columns:
            tables.execute(f"UPDATE systems SET {name} = zeroblob({450_000_000 // len(columns)})")
    script = (
        "import resource, sys\nfrom ase_nbody.data import DataError, read_labelled\nimport ase.db.sqlite\n"
        "pages = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages + 2 * 10**8,) * 2)\n"
        "for index in (':', '-1', '0'):\n    try:\n        read_labelled(sys.argv[1], index)\n"
        "    except DataError as error:\n        print('refused:', error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    assert run.stdout.count("it has a row of more than 33554432 bytes") == 3, run.stdout + run.stderr[-500:]


def test_an_error_of_a_parser_without_words_is_named(tmp_path) -> None:
    path = tmp_path / "a.db"
    with ase.db.connect(path) as rows:
        rows.write(ase.Atoms("H"))
    with contextlib.closing(sqlite3.connect(path)) as tables, tables:
        tables.execute("UPDATE systems SET constraints = ?", ['[{"name": "unknown", "kwargs": {}}]'])
    with pytest.raises(DataError, match="cannot be read as structures: ASE's reader says no more than "):
        read_labelled(path)


def test_endings_of_no_format_or_of_another_one(tmp_path) -> None:
    """A frame of xyz is read under any ending that says nothing else."""
    text = f"1\nenergy=-1.0 {HYDROGEN}"
    (tmp_path / "a.extxyz").write_text(text)
    (tmp_path / "link.dat").symlink_to(tmp_path / "a.extxyz")
    (tmp_path / "a.mine").write_text(text)
    for name in ("link.dat", "a.mine"):
        assert read_labelled(tmp_path / name)[0].energy == -1.0
    (tmp_path / "a.mine").write_text("no structure\n")
    with pytest.raises(DataError, match=r"ASE knows no format 'mine'. Give it the ending"):
        read_labelled(tmp_path / "a.mine")


def test_headers_of_too_many_entries(tmp_path) -> None:
    (tmp_path / "a.xyz").write_text(f"1\nenergy=-1.0 {'a ' * 2_000_000}\nH 0 0 0\n")
    with pytest.raises(DataError, match="its header has more than 10000 entries"):
        read_labelled(tmp_path / "a.xyz")
    (tmp_path / "a.xyz").write_text(f'1\nenergy=-1.0 hessian="{"0.125 " * 30_000}" escaped=\\"a\nH 0 0 0\n')
    assert read_labelled(tmp_path / "a.xyz")[0].energy == -1.0


ESCAPE = "\x1b]0;mine\x07\x1b[2J"
SPOILT = {
    "name": f"1\n{ESCAPE}=1.0 energy=-1.0\nH 0 0 0\n",
    "value": f'1\nenergy="{ESCAPE}"\nH 0 0 0\n',
    "charge": f'1\nenergy=-1.0 charge="{ESCAPE}"\nH 0 0 0\n',
    "weight": f'1\nenergy=-1.0 config_weight="{ESCAPE}"\nH 0 0 0\n',
    "symbol": f"1\nenergy=-1.0\n{ESCAPE} 0 0 0\n",
    "position": f"1\nenergy=-1.0\nH 0 0 {ESCAPE}\n",
    "count": f"{ESCAPE}\nenergy=-1.0\nH 0 0 0\n",
    "columns": f"1\nProperties=species:S:1:pos:R:3:{ESCAPE}:Q:1\nH 0 0 0 0\n",
    "energy-like name": f"1\nmy_energy{ESCAPE}=1.0\nH 0 0 0\n",
}


@pytest.mark.parametrize("place", SPOILT)
def test_escape_sequences_never_reach_the_terminal(place: str, tmp_path, nbody) -> None:
    path = tmp_path / "data.xyz"
    path.write_text(SPOILT[place])
    for keys in ([], ["--key", "forces=mine"]):  # the second error lists the names that there are
        code, out, err = nbody("evaluate", "ethanol", path, *keys)
        assert code == 1 or place == "name"
        assert all(line.isprintable() for line in (out + err).splitlines())
        assert "\\x1b" in err or not keys or place not in ("name", "energy-like name")
