"""The frames of an xyz file, as lines of text: all of them, counted as the file holds them.

ASE's own search for frames ends at the first blank line, and it believes a frame that claims to hold a million million
atoms. Here blank lines between frames are skipped, whatever else stands between them is refused, and a frame takes no
more memory than its own text. ASE still parses each frame.
"""

import io
import re
from collections.abc import Iterator
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import all_properties
from ase.io.extxyz import REV_PROPERTY_NAME_MAP, key_val_str_to_dict, read_xyz
from ase.io.formats import open_with_compression

from ase_nbody.data.xyz_header import require_no_header_of_ipi, require_read_whole
from ase_nbody.text import printable

# Far beyond what anyone labels. Within these limits, a frame takes less than 1 GB while it is parsed.
LARGEST_FRAME_ATOMS = 200_000
LARGEST_FRAME_CHARACTERS = 2**25
LONGEST_LINE_CHARACTERS = 2**23
LARGEST_NUMBER_OF_COLUMNS = 10_000  # of one property
LARGEST_NUMBER_OF_ENTRIES = 10_000  # of a header
ASYMMETRY_EV_PER_ANGSTROM3 = 1e-3  # 0.16 GPa: stresses that are not well converged are less asymmetric
MOST_BLANK_LINES = 1_000_000  # between two frames

# A value in quotes or brackets, or an escaped letter, as ASE reads a header.
_QUOTED = re.compile(
    r"""\\.|"(?:[^"\\]++|\\.)*+"?|'(?:[^'\\]++|\\.)*+'?|\{(?:[^}\\]++|\\.)*+\}?|\[(?:[^]\\]++|\\.)*+\]?""", re.DOTALL
)
_STRESS = re.compile(r"(?<!\w)stress\s*=")
# Where results of a calculation may be logical values.
_LOGICAL = re.compile(rf""":L:|(?<!\w)({"|".join(all_properties)})\s*=["'{{\[\s]*[TF]""")


class UnreadableFrame(ValueError):
    """A frame that cannot be read, and why.

    Attributes:
        number: which frame of the file it is, from 0.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def xyz_texts(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each frame and its lines: number of atoms, header, and one for each atom or vector.

    Raises:
        UnreadableFrame: something that is neither blank nor a frame; a frame that is cut off or too large to be one.
    """
    number = 0
    with open_with_compression(path, "rb") as binary, io.TextIOWrapper(binary, encoding="utf-8-sig") as file:  # type: ignore[type-var]
        lines = _Lines(file)
        try:
            while (first := lines.next_not_blank()) is not None:
                yield number, _rest_of_frame(first, lines)
                number += 1
        except MemoryError:
            raise
        except Exception as error:  # broken archives raise errors of many types
            raise UnreadableFrame(number, str(error)) from error


def parse_xyz(number: int, text: list[str], elements_only: bool = False) -> ase.Atoms:
    """Make the atoms of one frame of ``xyz_texts``.

    Args:
        number: of the frame.
        text: its lines.
        elements_only: whether nobody looks at positions and cell, so that they may be in i-PI's format.

    Raises:
        UnreadableFrame: ASE cannot parse it.
    """
    try:
        _require_parsable(text[1])
        _require_numbers(text[1])
        require_read_whole(text)
        if not elements_only:
            require_no_header_of_ipi(text[1])
        if _STRESS.search(text[1]):  # ASE keeps six of nine components
            require_symmetric(key_val_str_to_dict(text[1]).get("stress"))
        (atoms,) = read_xyz(io.StringIO("".join(text)), index=slice(0, 1))
    except MemoryError:
        raise
    except Exception as error:  # parsers fail with errors of every type
        raise UnreadableFrame(number, _reason(error)) from error
    return atoms


def _require_parsable(header: str) -> None:
    """Refuse a header of so many entries or columns that they alone would fill the memory or take minutes."""
    if len(header) > LARGEST_NUMBER_OF_ENTRIES and len(_QUOTED.sub("_", header).split()) > LARGEST_NUMBER_OF_ENTRIES:
        raise ValueError(f"its header has more than {LARGEST_NUMBER_OF_ENTRIES} entries")
    if re.search(r":\s*\+?\d[\d_]{4}", header):
        for columns in str(key_val_str_to_dict(header).get("Properties", "")).split(":")[2::3]:
            if not re.fullmatch(r"[0-9]{1,9}", columns) or int(columns) > LARGEST_NUMBER_OF_COLUMNS:
                raise ValueError(
                    f"{printable(columns, 20)} columns of a property (allowed: {LARGEST_NUMBER_OF_COLUMNS})"
                )


def _require_numbers(header: str) -> None:
    """Refuse results of a calculation that are logical values. ASE would make zeros and ones of them."""
    if not _LOGICAL.search(header):
        return
    entries = key_val_str_to_dict(header)
    properties = str(entries.get("Properties", "")).split(":")
    logical = [name for name, kind in zip(properties[::3], properties[1::3], strict=False) if kind == "L"]
    logical += [name for name, value in entries.items() if np.asarray(value).dtype.kind == "b"]
    for name in logical:
        if REV_PROPERTY_NAME_MAP.get(name, name) in all_properties:
            raise ValueError(f"the {printable(name)} should be numbers, found True or False (T or F)")


def require_symmetric(stress: Any) -> None:
    """Refuse a matrix (3, 3) that is no stress: one triangle alone, or components in another order.

    Raises:
        ValueError: it is not symmetric.
    """
    matrix = np.asarray(stress)
    if matrix.shape != (3, 3) or matrix.dtype.kind not in "iuf":
        return
    difference, shears = np.abs(matrix - matrix.T), np.abs(matrix[~np.eye(3, dtype=bool)])
    if difference.max() > max(ASYMMETRY_EV_PER_ANGSTROM3, 0.5 * shears.max()):  # false for NaN
        i, j = np.unravel_index(int(difference.argmax()), (3, 3))
        names = "xyz"[i] + "xyz"[j], "xyz"[j] + "xyz"[i]
        raise ValueError(
            f"the stress is not symmetric: {names[0]} is {matrix[i, j]:.4g} and {names[1]} is {matrix[j, i] + 0.0:.4g} "
            "eV/Angstrom^3. Write all nine components of the matrix, or the six xx, yy, zz, yz, xz, xy"
        )


def names_in_headers(path: str, wanted: set[str]) -> Iterator[str]:
    """Yield those of the wanted names that stand in the header of any frame, as entries or as columns.

    Headers are parsed only where a name stands that was not found yet, so this takes little more time than reading.
    """
    missing = set(wanted)
    pattern = _any_of(missing)  # made once, not for each of a million frames
    for _, text in xyz_texts(path):
        if missing and pattern.search(text[1]):
            _require_parsable(text[1])
            entries = key_val_str_to_dict(text[1])
            columns = str(entries.get("Properties", "")).split(":")[::3]
            found = missing & {*entries, *(REV_PROPERTY_NAME_MAP.get(name, name) for name in columns)}
            yield from found
            missing -= found
            pattern = _any_of(missing)


def _any_of(names: set[str]) -> re.Pattern[str]:
    names = names | {column for column, name in REV_PROPERTY_NAME_MAP.items() if name in names}
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, sorted(names)))})(?!\w)")


class _Lines:
    """The lines of a text file, one at a time; a line can be put back."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file
        self._number = 0
        self._returned: str | None = None

    def next(self) -> str:
        """The next line with its line break, or an empty string after the last one."""
        line, self._returned = self._returned, None
        if line is None:
            line = self._file.readline(LONGEST_LINE_CHARACTERS + 1)
            self._number += 1
        if len(line) > LONGEST_LINE_CHARACTERS:
            raise ValueError(f"line {self._number} has more than {LONGEST_LINE_CHARACTERS} characters")
        return line

    def put_back(self, line: str) -> None:
        self._returned = line

    def next_not_blank(self) -> str | None:
        """The next line that is not blank, or None if there is none."""
        for _ in range(MOST_BLANK_LINES):
            line = self.next()
            if line.strip():
                return line
            if not line:
                return None
        raise ValueError(f"more than {MOST_BLANK_LINES} blank lines stand before it")

    def __str__(self) -> str:
        return f"line {self._number}"


def _rest_of_frame(first: str, lines: _Lines) -> list[str]:
    """All lines of the frame whose first line this is."""
    claim = first.strip()
    if not re.fullmatch(r"[0-9]+", claim):
        raise ValueError(f"Expected xyz header, the number of atoms, in {lines}, but got {printable(claim, 40)!r}")
    if len(claim) > 9 or int(claim) > LARGEST_FRAME_ATOMS:
        raise ValueError(f"it claims to have {printable(claim, 20)} atoms (allowed: {LARGEST_FRAME_ATOMS})")
    n_atoms, text = int(claim), [first]
    size = len(first)
    while len(text) < n_atoms + 2 and (line := lines.next()):
        text.append(line)
        size += len(line)
        if size > LARGEST_FRAME_CHARACTERS:
            raise ValueError(f"its text has more than {LARGEST_FRAME_CHARACTERS} characters")
    if len(text) == 1:
        raise ValueError("the file ends within the frame")
    if len(text) < n_atoms + 2:
        raise ValueError(f"the frame has {len(text) - 2} atoms, expected {n_atoms}")
    while (line := lines.next()).lstrip().startswith("VEC"):
        text.append(line)
        if len(text) > n_atoms + 5:
            raise ValueError("there are more than 3 lattice vectors VEC")
    lines.put_back(line)
    return text


def _reason(error: Exception) -> str:
    """What a parser says, in other words where its own say little."""
    reason = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, KeyError):
        return f"{reason} is not a chemical symbol or entry that ASE knows"
    if "could not convert string" in reason:
        return f"{reason}, where a number is expected, written like -1.5"
    return reason or type(error).__name__
