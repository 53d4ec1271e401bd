"""What stands in a frame of extended xyz and ASE would leave out without a word: then the frame is another structure.

ASE reads the cell under the name ``Lattice`` alone, takes any text for "periodic", cuts rows to the columns that the
header names, believes the last of two equal entries, drops the header of a frame with vectors ``VEC``, and takes ``Z``
where ``species`` says something else.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from ase.io.extxyz import REV_PROPERTY_NAME_MAP, key_val_str_to_dict

from ase_nbody.text import printable

_ENTRY = re.compile(
    r"""(?<![^\s"'}\]])([A-Za-z_][\w-]*)\s*=\s*("[^"]*"?|'[^']*'?|\{[^}]*\}?|\[[^]]*\]?|[^\s"'{[]\S*)""", re.ASCII
)
_USUAL_PBC = re.compile(r"""["'{\[]?\s*[TF01](?:rue|alse)?(?:[\s,]+[TF01](?:rue|alse)?){2}\s*["'}\]]?""")
_OF_IPI = re.compile(r"#\s*CELL\s*[({]|(?<!\S)(?:positions|velocities|momenta|forces|cell)\{[\w/]+\}(?!\S)")
_OTHER_NAMES_OF_CELL = ("lattice", "cell", "unitcell", "unit_cell")


def require_read_whole(text: Sequence[str]) -> None:
    """Check that ASE reads all of a frame that has to do with its structure.

    Args:
        text: number of atoms, header, a row for each atom, and the vectors ``VEC``, if there are any.

    Raises:
        ValueError: it does not; the message says how to write what it would leave out.
    """
    header, n_atoms = text[1], int(text[0])
    found = _ENTRY.findall(header)
    entries = dict(found)
    if len(entries) < len(found):
        _refuse_two_values(found)
    if "Properties" in entries:
        if len(text) > n_atoms + 2:
            raise ValueError("it has vectors VEC beside Properties, and only one of the two would be read: use Lattice")
        _require_declared(entries["Properties"], text[2 : n_atoms + 2])
    if "Lattice" not in entries and "pbc" not in entries and len(text) == n_atoms + 2:
        _refuse_other_cell(header, entries)
    _require_pbc(header, entries)


def require_no_header_of_ipi(header: str) -> None:
    """Refuse a frame of i-PI's own xyz format: ASE reads neither its cell nor its unit, which is Bohr as a rule.

    Raises:
        ValueError: the header is one of i-PI.
    """
    if _OF_IPI.search(header) and "=" not in header:
        raise ValueError(
            "its header is one of i-PI, with a cell and a unit (Bohr as a rule) that would not be read: let i-PI write "
            "format='ase', or convert it to extended xyz"
        )


def _refuse_two_values(found: Sequence[tuple[str, str]]) -> None:
    first: dict[str, str] = {}
    for name, value in found:
        if first.setdefault(name, value) != value:
            raise ValueError(f"its header has {printable(name, 50)} twice, with different values: remove one of them")


def _require_declared(properties: str, rows: Sequence[str]) -> None:
    """Refuse rows with more values than the columns of the header: those that it does not name may be in the middle.

    Two columns for one thing, such as pos and positions, are refused too, and elements that contradict each other.
    """
    names, _, columns = (properties.strip("\"'{}[]").split(":")[start::3] for start in range(3))
    if not all(column.isdecimal() for column in columns):
        return  # ASE refuses it
    declared = sum(map(int, columns))
    quantities = [REV_PROPERTY_NAME_MAP.get(name, name) for name in names]
    first: dict[str, int] = {}
    for column, quantity in enumerate(quantities):
        if (earlier := first.setdefault(quantity, column)) != column:
            raise ValueError(
                f"its columns {printable(names[earlier], 50)} and {printable(names[column], 50)} mean the same, and "
                "only the last one would be read: remove one of them"
            )
    starts = dict(zip(quantities, np.cumsum([0, *map(int, columns)]).tolist(), strict=False))
    if "numbers" in starts and "symbols" in starts:
        _require_one_element(rows, starts["symbols"], starts["numbers"])
    for atom, row in enumerate(rows):
        if (values := len(row.split())) > declared:
            raise ValueError(
                f"atom {atom} has {values} values, and Properties names {declared} columns: nobody can tell which of "
                "them it leaves out. Name all of them, and write names without blanks"
            )


def _require_one_element(rows: Sequence[str], symbols: int, numbers: int) -> None:
    """Refuse atoms whose symbol and atomic number, in these columns, are not of one element."""
    for atom, values in enumerate(map(str.split, rows)):
        if len(values) <= max(symbols, numbers):
            return  # ASE refuses it
        symbol, number = values[symbols], values[numbers]
        known = atomic_numbers.get(symbol.capitalize())
        if known is not None and number.isdecimal() and int(number) != known:
            raise ValueError(
                f"atom {atom} is {symbol} in the column of symbols and has the atomic number {printable(number, 20)}: "
                "correct one of the two"
            )


def _refuse_other_cell(header: str, entries: Mapping[str, str]) -> None:
    """Refuse a cell under a name that ASE does not read: the structure would not be periodic."""
    names = [name for name in entries if name.lower() in _OTHER_NAMES_OF_CELL]
    values = key_val_str_to_dict(header) if names else {}
    for name in names:
        if _is_cell(values.get(name)):
            raise ValueError(
                f"its cell is named {name}, which extended xyz does not know: name it Lattice, or say "
                'pbc="F F F" if it has no meaning'
            )


def _is_cell(value: Any) -> bool:
    numbers = np.asarray(value)
    return numbers.dtype.kind in "iuf" and numbers.size in (3, 6, 9) and bool(numbers.any())


def _require_pbc(header: str, entries: Mapping[str, str]) -> None:
    """Refuse a pbc that is no logical value, which ASE takes for periodic, or that has capital letters in its name."""
    if "pbc" in entries:
        text = entries["pbc"]
        if (
            not _USUAL_PBC.fullmatch(text)
            and np.asarray(key_val_str_to_dict(header).get("pbc")).dtype.kind not in "bif"
        ):
            raise ValueError(f"pbc should be logical values such as T T F, found {printable(text, 50)}")
    elif "Lattice" in entries:
        for name in entries:
            if name.lower() == "pbc":
                raise ValueError(f"{name} should be named pbc, which is what extended xyz knows")
