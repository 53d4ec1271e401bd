"""What a name of a data file means: ``~`` is the home folder, and ``mine.extxyz@:50`` is a file and an index."""

import os
import re

# A number or a slice, as ASE writes them.
_INDEX = re.compile(r"-?\d+|(-?\d+)?(:(-?\d+)?){1,2}")


def in_home(path: str | os.PathLike[str]) -> str:
    """The path with ``~`` replaced by the home folder of this user, and ``~name`` by that of another.

    Raises:
        FileNotFoundError: there is no user of this name. A file may have such a name: it is written ``./~name``.
    """
    given = os.fspath(path)
    found = os.path.expanduser(given)
    if found.startswith("~"):
        user = given.split(os.sep)[0]
        raise FileNotFoundError(f"there is no home folder {user!r}; if it is a name beside others, write ./{given}")
    return found


def data_file(path: str | os.PathLike[str], index: str = ":", default: str = ":") -> tuple[str, str]:
    """The path of a data file and the index of its frames.

    A name may end in ``@`` and an index, as ASE writes it. If there is a file of the whole name, it is meant.

    Args:
        path: the name.
        index: the index that is given beside the name.
        default: the index that may be meant by giving none.

    Raises:
        FileNotFoundError: see ``in_home``.
        ValueError: there are two indices, one in the name and another one.
    """
    given = in_home(path)
    name, _, chosen = given.rpartition("@")
    if os.path.exists(given) or not os.path.isfile(name) or not _INDEX.fullmatch(chosen):
        return given, index
    if index != default:
        raise ValueError(f"{given} has an index, but the index {index!r} is given too: leave out one of them")
    return name, chosen
