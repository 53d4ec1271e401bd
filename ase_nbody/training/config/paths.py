"""The paths in a configuration, made absolute.

Paths of a file count from its folder, and paths of the command line from the working directory. ``~`` is the home
folder. A link to a file keeps its own name, which tells the format and what lies beside it; links to folders are
followed.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase_nbody.data.file_names import in_home
from ase_nbody.files.archive import shipped_models
from ase_nbody.text import printable
from ase_nbody.training.config.bounded_yaml import YamlError, parse_yaml
from ase_nbody.training.config.data import FILES
from ase_nbody.training.config.strict import ConfigError

_FOLDERS = (("output",), ("pretraining", "folder"))
_MODEL = ("network", "start_from")
_NO_MODELS = ("auto", "none")  # values of this entry that are no files


def absolute_file(name: str, folder: Path) -> str:
    """The absolute path of a file. If the file is a link, it is the path of the link.

    Raises:
        ConfigError: the path is no text, so that no configuration and no model card could name it; or its links lead in
            a circle.
        FileNotFoundError: see ``in_home``.
    """
    path = folder / in_home(name)
    return _text(_followed(path.parent) / path.name)


def absolute_folder(name: str, folder: Path) -> str:
    """The absolute path of a folder that exists or can be made.

    Raises:
        ConfigError: a file is in its place, its links lead in a circle, or the path is no text.
        FileNotFoundError: see ``in_home``.
    """
    path = _followed(folder / in_home(name))
    found = next(place for place in (path, *path.parents) if os.path.exists(place))
    if not found.is_dir():
        raise ConfigError(f"{name!r} should be a folder, but {str(found)!r} is a file: choose another name")
    return _text(path)


def _followed(path: Path) -> Path:
    """The path without links."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:  # ``resolve`` raises other errors, or none, as the version of Python is
            shown = printable(path)
            raise ConfigError(f"the links at {shown} lead in a circle: remove them, or name another path") from error
    return path.resolve()


def _text(path: Path) -> str:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"the path {str(path)!a} is not UTF-8: rename the file or folder") from error
    return str(path)


def value_of(name: str, text: str, folder: Path) -> Any:
    """The value of an entry that the command line sets, with absolute paths.

    Args:
        name: the entry, such as ``data.train`` or ``training.epochs``.
        text: its value. That of a path is taken as it stands, because YAML would cut ``my #1.extxyz`` short and read
            ``2024`` as a number. All else is YAML, and so is a path in quotes and a list of paths.
        folder: the folder from which relative paths count.

    Raises:
        ConfigError: the text is not YAML where it should be.
        FileNotFoundError: a path begins with ``~`` and the name of somebody who is no user.
    """
    steps = name.split(".")
    try:
        value = text.strip() if _is_path(steps) and _is_plain(text.strip(), folder) else parse_yaml(text)
    except YamlError as error:
        shown = printable(f"{name}={text}", 100)
        raise ConfigError(f"{shown}: the value is not YAML ({error})") from error
    if steps == ["data", "validation"] and isinstance(value, str):
        value = _number(value)
    return _rooted(steps, value, folder)


def _is_path(steps: Sequence[str]) -> bool:
    """Whether the entry at these steps is a path."""
    if len(steps) > 1 and steps[0] == "data" and steps[1] in FILES:
        inner = steps[2:]
        return inner in ([], ["path"]) or (inner[0].isdigit() and inner[1:] in ([], ["path"]))
    return tuple(steps) in (*_FOLDERS, _MODEL)


def _is_plain(text: str, folder: Path) -> bool:
    """Whether a text is a path as it stands: it looks like nothing else, or there is such a file."""
    return text not in ("", "null") and (text[0] not in "[{\"'" or (folder / text).exists())


def _number(text: str) -> Any:
    """The number that a text is in YAML, or else the text."""
    try:
        value = parse_yaml(text)
    except YamlError:
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text


def _rooted(steps: Sequence[str], value: Any, folder: Path) -> Any:
    """The value of an entry with all paths in it absolute."""
    if isinstance(value, dict):
        return {key: _rooted([*steps, str(key)], item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_rooted([*steps, str(index)], item, folder) for index, item in enumerate(value)]
    if not isinstance(value, str) or not _is_path(steps):
        return value
    if tuple(steps) in _FOLDERS:
        return absolute_folder(value, folder)
    is_name = tuple(steps) == _MODEL and (value in _NO_MODELS or value in shipped_models())
    return value if is_name else absolute_file(value, folder)
