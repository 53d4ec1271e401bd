"""ASE's databases and trajectories: nothing in them may be larger than the numbers that it is made of.

ASE takes memory for the shape that a file claims before it looks at the numbers, and repeats a single one to fill it.
"""

import contextlib
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import ase
import ase.io.jsonio
import numpy as np
from numpy.typing import NDArray

from ase_nbody.text import printable

_create = ase.io.jsonio.create_ndarray
_LONGEST_ITEM_BYTES = 4096
_MOST_AXES = 8  # the product of thousands of long sizes would take minutes
_LARGEST_ROW_BYTES = 2**25  # seven times the positions of the largest frame of an xyz file that is read


def next_in_bounds(frames: Iterator[ase.Atoms]) -> ase.Atoms | None:
    """The next frame, or None after the last one. While it is read, arrays are checked, whatever the format.

    Raises:
        ValueError: an array claims another size than its numbers have.
        Exception: any error of ASE's parsers.
    """
    with mock.patch.object(ase.io.jsonio, "create_ndarray", _checked):
        return next(frames, None)


def refuse_computed_rows(path: str) -> None:
    """Refuse a database of ASE whose tables are computed when they are read: such rows need not end.

    Raises:
        ValueError: a table is a view or has a computed column.
        sqlite3.Error: the file is no database.
    """
    with contextlib.closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as database:
        found = database.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
        for name, kind in found:
            columns = () if kind == "view" else database.execute("SELECT hidden FROM pragma_table_xinfo(?)", (name,))
            if kind == "view" or any(hidden for (hidden,) in columns):
                raise ValueError(
                    f"its {kind} {printable(name, 50)} is computed when it is read. Write it anew with ASE"
                )


@contextlib.contextmanager
def rows_in_bounds(rows: Any) -> Iterator[None]:
    """Within it, an open database of ASE refuses rows that are too large to be structures before it reads them.

    Raises:
        ValueError: a row is too large.
    """
    if (connection := getattr(rows, "connection", None)) is not None:  # a JSON file has none
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_ROW_BYTES)
    try:
        yield
    except sqlite3.DataError as error:
        raise ValueError(f"it has a row of more than {_LARGEST_ROW_BYTES} bytes, so it holds no structures") from error


def _checked(shape: Any, dtype: Any, data: Any) -> NDArray[Any]:
    """ASE's ``create_ndarray``, but for arrays that the data do not fill."""
    try:
        kind = np.dtype(dtype)
        count = math.prod(int(size) for size in shape[:_MOST_AXES]) * (2 if kind.kind == "c" else 1)
        fits = (
            len(shape) <= _MOST_AXES
            and len(data) == count
            and kind.itemsize <= _LONGEST_ITEM_BYTES
            and min(shape, default=0) >= 0
        )
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"it has an array of {printable(f'{shape} {dtype}', 100)}, which its data cannot hold")
    return _create(shape, dtype, data)
