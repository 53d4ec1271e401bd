"""Write files that appear complete or not at all."""

import contextlib
import os
import re
import secrets
import stat
import time
from pathlib import Path

_ABANDONED_SECONDS = 3600.0  # age of a temporary file whose writer was killed: no write takes that long


def write_whole(path: Path, payload: bytes, *, private: bool = False, replace: bool = True) -> None:
    """Replace the file at ``path`` atomically. If the process is killed or the disk is full, the old file remains.

    A new file has the mode that the umask allows, as any file that ``open`` makes. An existing file keeps its mode.
    A link stays: the file that it leads to is replaced. Temporary files that earlier writers of this file left when
    they were killed are removed.

    Args:
        path: the file.
        payload: its contents.
        private: let this user alone read and write the file, whatever its mode was. A link or a pipe is replaced:
            another user may have put it there.
        replace: whether the file, or a link of this name, may be there already.

    Raises:
        FileExistsError: it is there, and may not be, even if another process has just made it; or it is a device or a
            pipe, such as ``/dev/null``.
        OSError: the file cannot be written. The error names it, not the temporary file.
    """
    if replace and not private:
        path = place_of(path)
        if path.exists() and not (path.is_file() or path.is_dir()):  # root could replace even a device
            raise FileExistsError(f"{path} is a pipe or a device: choose the name of a file")
    try:
        _write_beside(path, payload, private, replace)
    except OSError as error:
        if error.errno is None or isinstance(error, FileExistsError):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    for other in leftovers_of(path):
        with contextlib.suppress(OSError):  # another writer may have removed it
            if time.time() - other.stat().st_mtime > _ABANDONED_SECONDS:
                other.unlink()


def place_of(path: Path) -> Path:
    """Where a file lies: behind the links that lead to it. One that leads to a folder that is not there is ignored."""
    place = Path(os.path.realpath(path))  # ``resolve`` raises where links form a circle
    return place if path.is_symlink() and place.parent.is_dir() else path


def require_writable(path: Path) -> None:
    """Refuse a file that ``write_whole`` may not write. Call this before the long work whose results it holds.

    Raises:
        FileNotFoundError: its folder does not exist.
        PermissionError: this user may not make files in its folder.
    """
    folder = place_of(path).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} for {path.name}: make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"this user may not write to {folder}: choose another place for {path.name}")


def _write_beside(path: Path, payload: bytes, private: bool, replace: bool) -> None:
    """Write a temporary file beside the place of the file, and move it there."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    mode = 0o600 if private else 0o666
    # Outside of try: a file of this name that exists is not ours to remove.
    file = open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
    try:
        with file:
            if path.is_file() and not private:  # before the contents, which others may not be allowed to read
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            _name_new(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _name_new(temporary: Path, path: Path) -> None:
    """Give a file a name that no file may have. Unlike ``os.replace``, a link fails if there is one."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists; choose another name or move the file away") from error
        os.replace(temporary, path)  # the file system knows no links
    else:
        os.unlink(temporary)


def leftovers_of(path: Path) -> list[Path]:
    """The temporary files that kills during ``write_whole(path, ...)`` left. Other dot files beside it are not ours."""
    path = place_of(path)
    pattern = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{8}")
    return [other for other in path.parent.glob(".*") if pattern.fullmatch(other.name) and other.is_file()]
