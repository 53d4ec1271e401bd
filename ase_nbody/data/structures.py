"""Structures from any file that ASE reads, without their labels; and what is wrong with a file that cannot be read."""

import os
import re
import sqlite3
import sys
from collections.abc import Iterator

import ase

from ase_nbody.data.file_names import data_file
from ase_nbody.data.frames import read_frames
from ase_nbody.data.labels import DataError
from ase_nbody.data.xyz import UnreadableFrame
from ase_nbody.text import printable

_LONGEST_REASON = 400  # characters of what a parser says
_LAST_FRAME = sys.maxsize - 1  # so that one more can be added
# What to do about a database that is whole, by a word of SQLite's error
_OF_DATABASES = {
    "locked": "another program is writing to it. Wait until that has ended",
    "readonly": "a program that was writing to it was killed, and nothing is restored by reading. Open it with that "
    "program, or with sqlite3, once",
}


def read_structures(
    path: str | os.PathLike[str], index: str = ":", default: str = ":", *, elements_only: bool = False
) -> list[ase.Atoms]:
    """The frames of a file as ``ase.Atoms``, in bounded time and memory.

    Args:
        path: the file; ``~`` is the home folder, and ``mine.extxyz@:50`` names a file and an index.
        index: which frames, written as a slice or number of ASE.
        default: the index that may be meant by giving none.
        elements_only: whether positions and cell are not looked at, so that they may be in i-PI's format.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: the path is that of a folder.
        DataError: the file holds no frames for the index, or cannot be parsed.
    """
    path, index = data_file(path, index, default)
    chosen = slice_of(index)
    require_file(path)
    frames, found = read_frames(path, chosen, elements_only), list[ase.Atoms]()
    while (atoms := next_frame(frames, path, len(found))) is not None:
        found.append(atoms)
    if not found:
        raise DataError(f"{printable(path)} holds no frames for the index {index!r}")
    return found


def slice_of(index: str) -> slice:
    """The slice that a text stands for; a number stands for one frame.

    Raises:
        DataError: it is neither.
    """
    if not re.fullmatch(r"-?\d+|(-?\d+)?(:(-?\d+)?){1,2}", index) or re.fullmatch(r".*:.*:-?0+", index):
        raise DataError(f"the index {index!r} is not a slice; write it like ':', '5', '-50:' or '::10'")
    bounds = [_bound(text) if text else None for text in index.split(":")]
    if len(bounds) == 1:
        (only,) = bounds
        return slice(only, None if only == -1 else int(only or 0) + 1)
    return slice(*bounds)


def _bound(text: str) -> int:
    """A number of an index. Beyond any file, all are alike, and readers take none above ``sys.maxsize``."""
    digits = text.lstrip("-0") or "0"
    number = int(digits) if len(digits) < len(str(_LAST_FRAME)) else _LAST_FRAME
    return -number if text.startswith("-") else number


def require_file(path: str) -> None:
    """Raise if a path is not that of a file.

    Raises:
        FileNotFoundError, IsADirectoryError, DataError: there is nothing, a folder, or a pipe or a device.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(f"{printable(path)} is a directory, not a data file; give the file in it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{printable(path)} is a pipe or a device, and data are read more than once: write a file")
    if not os.path.isfile(path):
        looked = "" if os.path.isabs(path) else f" (looked in {os.getcwd()})"
        raise FileNotFoundError(f"no data file {path!r}{looked}")


def next_frame(frames: Iterator[ase.Atoms], path: str, good: int) -> ase.Atoms | None:
    """The next of the frames of a file, of which ``good`` have been read; None after the last.

    Raises:
        DataError: the frame cannot be read.
    """
    try:
        return next(frames, None)
    except DataError:
        raise
    except Exception as error:  # parsers fail with errors of every type
        path = printable(path)
        said = printable(" ".join(str(error).split()).rstrip("."), _LONGEST_REASON)
        reason = said or f"ASE's reader says no more than {type(error).__name__}"
        kind = "" if isinstance(error, UnreadableFrame) or not said else f"{type(error).__name__}: "
        if isinstance(error, sqlite3.OperationalError):
            for word, advice in _OF_DATABASES.items():
                if word in said:
                    raise DataError(f"{path} cannot be read ({said}): {advice}") from error
        if isinstance(error, PermissionError):
            raise DataError(f"{path} may not be read by this user; ask its owner for permission to read") from error
        if isinstance(error, MemoryError):  # parsers take memory for any size that a file claims
            kind, reason = "", f"it takes more memory than there is{f' ({said})' if said else ''}"
        if isinstance(error, UnreadableFrame):
            good = error.number
        if good:
            remedy = f"Good frames before it: {good}; the index ':{good}' reads them. Or mend the file."
            raise DataError(f"{path}: frame {good} cannot be read: {reason}. {remedy}") from error
        raise DataError(
            f"{path} cannot be read as structures: {kind}{reason}. "
            "Check that it is whole and that its ending tells its format (.extxyz, .traj, ...)."
        ) from error
