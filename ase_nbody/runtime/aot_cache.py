"""Where compiled code is kept, so that nobody but this user and root can place code there.

Compiled code runs with all rights of the user who loads it. A file of the cache is therefore trusted only if it and its
folder belong to this user or to root, and if neither the group nor others may write to them. Both are judged by their
open descriptors, and the code is read from the same descriptor: what was judged cannot be exchanged before it is read.
"""

import functools
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


class UntrustedCodeError(RuntimeError):
    """Somebody else may have placed or changed the compiled code."""


def cache_folder() -> Path:
    """The folder that ``NBODY_CACHE`` of the environment names, or the user's cache folder.

    ``~`` in the variable is the home folder.
    """
    named = os.environ.get("NBODY_CACHE")
    return Path(named).expanduser().absolute() if named else platformdirs.user_cache_path("ase-nbody")


def trusted_place(path: Path) -> Path:
    """The path itself, or one in another folder.

    It is another one if somebody else may have written to the path, if its folder cannot be made, or if the file is not
    there and this user may not write it.

    The folder exists afterwards. If it is another one, a sentence on stderr says so, once. It is no warning: nothing is
    wrong with the results, and a warning could be made an error.

    Raises:
        UntrustedCodeError: the other folders cannot be trusted or made either.
    """
    reason = _distrust(path)
    if reason is None:
        return path
    for folder in _other_folders():
        other = folder / path.name
        if _distrust(other) is None:
            _say_once(f"Compiled code is kept in {folder}, because {reason}.")
            return other
    raise UntrustedCodeError(reason)


def read_trusted(path: Path) -> bytes:
    """The content of a file that only this user and root may have written.

    Raises:
        UntrustedCodeError: others may have written it. The message names the file or folder, and the remedy.
        OSError: it cannot be read.
    """
    if os.name != "posix":  # on Windows the user's cache folder belongs to the user, and there are no modes
        return path.read_bytes()
    with (
        _opened(path.parent) as folder,
        _opened(path, folder) as descriptor,
        open(descriptor, "rb", closefd=False) as file,
    ):
        return file.read()


def own_folders() -> Iterator[Path]:
    """Where code may be kept, in order of preference."""
    yield cache_folder()
    yield from _other_folders()


def _other_folders() -> Iterator[Path]:
    """Where code is kept if the folder of the environment cannot be trusted."""
    yield platformdirs.user_cache_path("ase-nbody")
    if os.name == "posix":
        yield Path(tempfile.gettempdir(), f"ase-nbody-{os.geteuid()}")


def _distrust(path: Path) -> str | None:
    """Why a file must not be loaded from its place or written there; None if it may be. Creates the folder."""
    try:
        make_private(path.parent)
    except OSError as error:
        return f"{path.parent} cannot be made ({error.strerror})"
    if os.name != "posix":
        return None
    try:
        with _opened(path.parent) as folder, _opened(path, folder):
            return None
    except FileNotFoundError:  # not kept yet
        return None if may_write(path.parent) else f"this user may not write to {path.parent}"
    except PermissionError:
        return f"{path} cannot be read"
    except UntrustedCodeError as error:
        return str(error)


def make_private(folder: Path) -> None:
    """Create a folder and those above it that are missing, for this user alone."""
    for one in (*reversed(folder.parents), folder):
        if not one.is_dir():
            one.mkdir(mode=0o700, exist_ok=True)


def may_write(folder: Path) -> bool:
    """Whether this user may make files in a folder, which may be another one's, or on a file system without writing."""
    return os.access(folder, os.W_OK | os.X_OK)


@contextmanager
def _opened(path: Path, folder: int | None = None) -> Iterator[int]:
    """The descriptor of a file or folder that is trusted; a file is looked up in the descriptor of its folder."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would wait for a writer
    descriptor = os.open(path if folder is None else path.name, flags, dir_fd=folder)
    try:
        refuse_foreign(path, os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


def refuse_foreign(path: Path, status: os.stat_result) -> None:
    """Raise if others own a file or folder or may write to it."""
    if status.st_uid not in (0, os.geteuid()):
        raise UntrustedCodeError(f"{path} belongs to another user (number {status.st_uid})")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UntrustedCodeError(f"other users may write to {path} (chmod go-w would prevent it)")


@functools.cache
def _say_once(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
