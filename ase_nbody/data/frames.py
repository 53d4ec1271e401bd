"""The frames of a file as ``ase.Atoms``, one at a time. xyz files are read by ``xyz.py``, all others by ASE."""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import ase
import ase.db
from ase.io.formats import (
    PEEK_BYTES,
    UnknownFileTypeError,
    filetype,
    get_compression,
    ioformats,
    iread,
    match_magic,
    open_with_compression,
)

from ase_nbody.data.arrays import next_in_bounds, refuse_computed_rows, rows_in_bounds
from ase_nbody.data.labels import DataError
from ase_nbody.data.misread import LAMMPS_DUMP, judge_of_frames, options_of_reader
from ase_nbody.data.several import refuse_several
from ase_nbody.data.units_of_database import UnitsOfDatabase
from ase_nbody.data.xyz import names_in_headers, parse_xyz, xyz_texts
from ase_nbody.text import printable

_LONGEST_LINE_BYTES = 2**26  # in text of other formats than xyz
_BLOCK_BYTES = 2**20
_LARGEST_EXPANSION = 100  # of an archive: text of structures shrinks to a half or a tenth
_LEAST_UNPACKED_BYTES = 2**26  # what unpacks to less is read, however small it was
_XYZ, _LAMMPS_DATA, _DATABASES = "extxyz", "lammps-data", ("db", "json")
_TEXT = ("cif",)  # text that ASE opens as binary
# Where the number of atoms stands in formats whose parsers believe any number, written as Python reads it: +1_000.
_POSCAR = re.compile(rb"\A(?:[^\n]*\n){5}(?:[^\n]*[^\n\d_+\s][^\n]*\n)?([\d_+ \t]+)")
_CLAIMS = {
    LAMMPS_DUMP: re.compile(rb"ITEM: NUMBER OF ATOMS\s+([\d_+]+)"),
    _LAMMPS_DATA: re.compile(rb"^[ \t]*([\d_+]+)\s+atoms", re.M),
    "vasp": _POSCAR,
    "vasp-out": re.compile(rb"ions per type\s*=\s*([\d_+ \t]+)"),
    "vasp-xdatcar": _POSCAR,
    "cfg": re.compile(rb"Number of particles\s*=\s*([\d_+]+)"),
    "cube": re.compile(rb"\A(?:[^\n]*\n){2}\s*[+-]?([\d_]+)"),
    "jsv": re.compile(rb"\[(?:natom|nbond|npoly)\]\s*([\d_+]+)", re.I),
}
_AT_THE_START = ("vasp", "vasp-xdatcar", "cfg", "cube")  # of the file; elsewhere in the others
_MOST_DIGITS, _OVERLAP_BYTES = 18, 64
_TRAJECTORY_MAGIC = b"- of UlmASE-Trajectory"  # a trajectory of ASE begins with it
_LAMMPS_BOX = re.compile(rb"^[ \t]*\S+[ \t]+\S+[ \t]+xlo[ \t]+xhi\b", re.M)  # any name may be that of LAMMPS's data

T = TypeVar("T")


def read_frames(path: str, index: slice, elements_only: bool = False) -> Iterator[ase.Atoms]:
    """Yield the frames of a file that a slice chooses, in its order.

    What a database of ASE keeps in ``data`` and in the key-value pairs of a row is in ``atoms.info`` too: a charge or a
    spin there is that of the structure. For ``elements_only`` see ``parse_xyz``.

    Raises:
        DataError: the file is empty, has a line that no structure has, consists of several of which ASE would read one
            or mix them (see ``several.py``), or would be misread (see ``misread.py``).
        UnreadableFrame: the file is an xyz file, and the frame cannot be read.
        Exception: any error of ASE's other parsers.
    """
    for atoms in _as_stored(path, index, elements_only):
        below = [values for key in ("key_value_pairs", "data") if isinstance(values := atoms.info.get(key), dict)]
        atoms.info = {name: value for values in below for name, value in values.items()} | atoms.info
        yield atoms


def _as_stored(path: str, index: slice, elements_only: bool) -> Iterator[ase.Atoms]:
    """The frames as the readers of their formats give them."""
    kind = file_format(path)
    if kind == _XYZ:
        chosen = _chosen(xyz_texts(path), index, lambda: sum(1 for _ in xyz_texts(path)))
        yield from (parse_xyz(number, text, elements_only) for number, text in chosen)
        return
    _refuse_what_no_parser_can_read(path, kind)
    refuse_several(path, kind)
    if kind == "db":
        refuse_computed_rows(path)
    options, judge = options_of_reader(path, kind), judge_of_frames(path, kind)
    path = os.path.abspath(path)  # otherwise ASE takes postgres.dat for the address of a database
    if kind in _DATABASES:
        frames = _chosen(_rows(path), index, lambda: _count_rows(path))
    elif ioformats[kind].single:
        frames = _chosen(iread(path, format=kind, do_not_split_by_at_sign=True, **options), index, lambda: 1)
    else:
        frames = iread(path, index, format=kind, do_not_split_by_at_sign=True, **options)
    while (atoms := next_in_bounds(frames)) is not None:
        judge(atoms)
        yield atoms


def names_in_file(path: str, wanted: set[str]) -> set[str]:
    """Those of the wanted names that any frame of the file has, up to the first frame that cannot be read."""
    found: set[str] = set()
    try:
        if file_format(path) == _XYZ:
            found.update(names_in_headers(path, wanted))
            return found
        for atoms in read_frames(path, slice(None)):
            found |= wanted & names_in_frame(atoms)
    except Exception:  # raised again where the frame itself is wanted; if it is not, the names that it has are missed
        return found
    return found


def names_in_frame(atoms: ase.Atoms) -> set[str]:
    """All names under which a frame has a value."""
    places = (atoms.info, atoms.arrays, results_of(atoms))
    return {str(name) for place in places for name, value in place.items() if value is not None}


def results_of(atoms: ase.Atoms) -> Mapping[str, Any]:
    """What the frame's calculator found."""
    return atoms.calc.results if atoms.calc is not None else {}


def file_format(path: str) -> str:
    """ASE's name for the format of a file.

    Raises:
        DataError: the file is empty, or neither its name nor its content is that of a format.
    """
    if os.path.getsize(path) == 0:
        raise DataError(f"{printable(path)} cannot be read as structures: Empty file. Write it anew.")
    root, _ = get_compression(path)
    if not root.lower().endswith((".xyz", ".extxyz")):
        return _format_by_name(path)
    with open_with_compression(path, "rb") as file:
        start = file.read(PEEK_BYTES)
    try:
        return str(match_magic(start).name)
    except UnknownFileTypeError:
        return _XYZ


def _format_by_name(path: str) -> str:
    """ASE's name for the format of a file that is not named as xyz. What is not as its name says may still be xyz.

    ASE does not recognise data files of LAMMPS, and takes those that are named ``*.data`` for RuNNer's.
    """
    try:
        kind = filetype(os.path.abspath(path))
    except UnknownFileTypeError:
        kind = ""
    known = ioformats.get(kind)
    with open_with_compression(path, "rb") as file:
        start = file.read(PEEK_BYTES)
    if known is not None and known.magic and known.match_magic(start):
        return kind
    if _LAMMPS_BOX.search(start):
        return _LAMMPS_DATA
    if known is not None and not known.magic:
        return kind
    if start.split(b"\n")[0].strip().isdigit():
        return _XYZ
    if known is None:
        what = f"ASE knows no format {printable(kind, 50)!r}" if kind else "neither name nor content tells its format"
        raise DataError(
            f"{printable(path)} cannot be read as structures: {what}. "
            "Give it the ending of its format (.extxyz, .traj, ...)."
        )
    return kind


def _chosen(items: Iterator[T], index: slice, count: Callable[[], int]) -> Iterator[T]:
    """The items that a slice chooses. ``count`` is called only if the slice counts from the end."""
    if all(value is None or value >= 0 for value in (index.start, index.stop, index.step)):
        return islice(items, index.start, index.stop, index.step)
    chosen = range(*index.indices(count()))
    if chosen.step > 0:
        return islice(items, chosen.start, max(chosen.stop, 0), chosen.step)
    ascending = chosen[::-1]
    return reversed(list(islice(items, ascending[0], ascending[-1] + 1, ascending.step))) if chosen else iter(())


def _rows(path: str) -> Iterator[ase.Atoms]:
    """The rows of a database, with what was stored beside them: ASE's own reader leaves that out, and steps too."""
    with ase.db.connect(path, serial=True) as rows, rows_in_bounds(rows):
        units = UnitsOfDatabase(rows.metadata)
        for row in rows.select():
            atoms = row.toatoms(add_additional_information=True)
            units.convert(atoms)
            yield atoms


def _count_rows(path: str) -> int:
    with ase.db.connect(path, serial=True) as rows, rows_in_bounds(rows):
        return int(rows.count())


def _refuse_what_no_parser_can_read(path: str, kind: str) -> None:
    """Refuse what would fill the memory or be lost: endless lines, impossible numbers of atoms, joined trajectories."""
    is_text = not ((ioformats[kind].isbinary and kind not in _TEXT) or kind == "db")
    packed = get_compression(path)[1] is not None
    if not (is_text or packed or kind == "traj"):
        return
    shown, claim, size = printable(path), _CLAIMS.get(kind), 0
    most = max(_LEAST_UNPACKED_BYTES, _LARGEST_EXPANSION * os.path.getsize(path)) if packed else math.inf
    length, claimed, before = 0, 0, b""  # bytes since the last line break; atoms; the end of the previous block
    with open_with_compression(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            joined = before + block
            if kind == "traj" and _TRAJECTORY_MAGIC in (joined if size else joined[1:]):
                raise DataError(
                    f"{shown} consists of several trajectories, of which only the first can be read. "
                    "Give them as separate files, or join them with 'ase convert'."
                )
            if is_text:
                length = len(block) - block.rfind(b"\n") - 1 if b"\n" in block else length + len(block)
            if length > _LONGEST_LINE_BYTES:
                raise DataError(f"{shown} has a line of more than {_LONGEST_LINE_BYTES} bytes: it holds no structures")
            if claim is not None and (size == 0 or kind not in _AT_THE_START):
                lines = re.sub(rb"\r\n?", b"\n", joined) if b"\r" in joined else joined
                counts = [number for match in claim.finditer(lines) for number in match[1].split()]
                digits = (re.sub(rb"[_+]", b"", number)[:_MOST_DIGITS] for number in counts)
                claimed = max([claimed, *(int(number or b"0") for number in digits)])
            size += len(block)
            if size > most:
                raise DataError(
                    f"{shown} unpacks to more than {_LARGEST_EXPANSION} times its size, which no structures do. "
                    "If it is right, give the unpacked file."
                )
            before = joined[-_OVERLAP_BYTES:]
    if claimed > size:  # each atom takes more than a byte
        raise DataError(f"{shown} claims to have {claimed} atoms in {size} bytes. Mend the file.")
