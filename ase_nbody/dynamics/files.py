"""Files that stay consistent when a run is killed at any moment: growing files, a checkpoint and a folder lock."""

import hashlib
import os
import re
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.io.jsonio import decode, encode

from ase_nbody.files.writing import leftovers_of, write_whole

try:
    import fcntl
except ImportError:  # on Windows, two runs in one folder go unnoticed
    fcntl = None  # type: ignore[assignment]


class ResumeError(ValueError):
    """A run cannot start or continue in its folder; the message says why and what to do."""


class FolderInUse(ResumeError):
    """Another run is using the folder. It may end, so waiting helps."""


class GrowingFile:
    """A file that only ever grows.

    The checkpoint keeps the length and the CRC-32 checksum of the part that was written completely. A kill in the
    middle of an ``append`` leaves bytes behind that part; ``cut_back`` removes them.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.length, self.checksum = path, 0, 0

    def append(self, payload: bytes) -> None:
        """Write ``payload`` after the complete part and wait until it is on the disk."""
        if not payload:
            return
        try:
            with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
                file.seek(self.length)
                file.write(payload)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:  # a full disk does not say which file it had no room for
            if error.errno is None:
                raise
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.length += len(payload)
        self.checksum = zlib.crc32(payload, self.checksum)

    def state(self) -> dict[str, int]:
        """Length in bytes and checksum, from which ``cut_back`` restores the file."""
        return {"length": self.length, "crc32": self.checksum}

    def cut_back(self, state: Mapping[str, int]) -> None:
        """Cut the file back to what it was when ``state`` was taken.

        Raises:
            ResumeError: the file is shorter now, or its beginning has changed.
        """
        self.length, self.checksum = state["length"], state["crc32"]
        if not self.length:
            return
        require_ordinary(self.path)
        found, checksum = 0, 0
        if self.path.exists():
            with open(self.path, "rb") as file:
                while chunk := file.read(min(1 << 20, self.length - found)):
                    found, checksum = found + len(chunk), zlib.crc32(chunk, checksum)
        if found < self.length or checksum != self.checksum:
            damage = f"has only {found} bytes now" if found < self.length else "has other contents now"
            raise ResumeError(
                f"{self.path} was {self.length} bytes long at the checkpoint and {damage}: something changed it since. "
                "Put the original back, or start the run in another folder."
            )
        os.truncate(self.path, self.length)


class Checkpoint:
    """The state of a run in a JSON file. Arrays and floats keep their last bit; the file is never half-written.

    Its last entry is the SHA-256 checksum of everything before it, so that a changed file does not continue as another
    trajectory. Format 1 has no checksum; it is read, with a ``RuntimeWarning``.
    """

    _CHECKSUM = re.compile(rb', "sha256": "([0-9a-f]{64})"\}\Z')
    _ENTRIES = frozenset({"step", "settings", "files", "positions", "momenta", "cell", "variables", "results"})

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file atomically."""
        body = encode({"format": 2, **state}).encode()
        write_whole(self.path, body[:-1] + f', "sha256": "{hashlib.sha256(body).hexdigest()}"}}'.encode())

    def read(self) -> dict[str, Any] | None:
        """Return the state, or None if there is no file.

        Raises:
            ResumeError: the file is not a checkpoint, or somebody changed it.
        """
        require_ordinary(self.path)
        if not self.path.exists():
            return None
        payload = self.path.read_bytes()
        checksum = self._CHECKSUM.search(payload)
        body = payload[: checksum.start()] + b"}" if checksum else payload
        try:
            state = decode(body.decode(), always_array=False)
        except Exception as error:  # whatever damaged contents make ASE's decoder raise
            raise ResumeError(
                f"{self.path} is not a readable checkpoint ({error}). Start the run in another folder."
            ) from error
        if not isinstance(state, dict) or state.get("format") not in (1, 2):
            raise ResumeError(
                f"{self.path} is not a checkpoint of format 1 or 2, the only ones that this release reads. "
                "Start the run in another folder."
            )
        if checksum and hashlib.sha256(body).hexdigest() != checksum[1].decode():
            raise ResumeError(
                f"{self.path} does not have the checksum that it was written with: something changed it since. "
                "Put the original back, or start the run in another folder."
            )
        if (state["format"] == 2 and not checksum) or not state.keys() >= self._ENTRIES:
            raise ResumeError(
                f"{self.path} is incomplete: its checksum or an entry is missing, so something changed it. "
                "Put the original back, or start the run in another folder."
            )
        self._check(state)
        if not checksum:
            warnings.warn(
                f"{self.path} has no checksum. An early release wrote none, and nobody can tell whether it is as it "
                "was written. If a later one wrote it, something changed it since: start the run in another folder.",
                RuntimeWarning,
                stacklevel=2,
            )
        return state

    def _check(self, state: Mapping[str, Any]) -> None:
        """Refuse entries of other types or shapes than a run writes. Format 1 has no checksum that would tell."""
        positions = state["positions"]
        arrays = [state[name] for name in ("positions", "momenta", "cell")]
        shapes = [getattr(positions, "shape", None)] * 2 + [(3, 3)]
        files = state["files"].values() if isinstance(state["files"], dict) else [None]
        counts = [state["step"], *(count for file in files for count in _counts(file))]
        sound = (
            all(isinstance(state[name], dict) for name in ("settings", "files", "variables", "results"))
            and all(type(count) is int and count >= 0 for count in counts)
            and all(isinstance(array, np.ndarray) and array.dtype == np.float64 for array in arrays)
            and [array.shape for array in arrays] == shapes
            and positions.shape[1:] == (3,)
            and state["files"].keys() >= {"trajectory.extxyz", "table.csv"}
            and (not state["results"] or getattr(state["results"].get("forces"), "shape", None) == positions.shape)
        )
        if not sound:
            raise self.damaged("an entry has another type or shape than a run writes")

    def damaged(self, what: str) -> ResumeError:
        """The error that says what is wrong with the contents."""
        return ResumeError(
            f"{self.path} is damaged: {what}. Put the original back, or start the run in another folder."
        )


def _counts(file: Any) -> tuple[Any, Any]:
    """Length and checksum of a growing file, or None where they are missing."""
    return (file.get("length"), file.get("crc32")) if isinstance(file, dict) else (None, None)


def remove_leftovers(target: Path) -> None:
    """Remove the temporary files that kills during ``write_whole(target, ...)`` left beside it."""
    for path in leftovers_of(target):
        path.unlink()


def require_ordinary(path: Path) -> None:
    """Refuse a folder, a pipe or a device in the place of a file, before it is opened: opening a pipe may never end.

    Raises:
        ResumeError: names the path.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise ResumeError(f"{path} is {kind}, but must be a file: move it away, or choose another folder for the run")


class FolderLock:
    """A lock that lets only one run at a time use a folder. It ends with its process, however the process ends.

    Some file systems of clusters know no locks. There, and on Windows, two runs in one folder go unnoticed, and a
    ``RuntimeWarning`` says so.

    Raises:
        FolderInUse: another process uses the folder.
        ResumeError: there is no such folder and none can be made, or its lock is no file.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise ResumeError(f"{folder} is a file: name another folder for the run")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise ResumeError(
                f"a link at {folder} or above it leads nowhere: remove it, or name another folder for the run"
            ) from error
        require_ordinary(folder / ".lock")
        self._folder = folder
        self._file = open(folder / ".lock", "a")  # noqa: SIM115 (stays open as long as the lock is held)
        self._locked, self._place = os.fstat(self._file.fileno()), os.stat(folder)
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            self._file.close()
            raise FolderInUse(f"another run is using {folder}: wait until it ends, or choose another folder") from error
        except OSError as error:  # otherwise nobody could run there, and waiting for the other run would never end
            warnings.warn(
                f"the file system of {folder} has no locks ({error.strerror}): start no other run in this folder "
                "before this one has ended",
                RuntimeWarning,
                stacklevel=2,
            )

    @property
    def held(self) -> bool:
        """Whether ``release`` was not called yet."""
        return not self._file.closed

    def require_place(self) -> None:
        """Refuse to go on if the folder was moved or removed since: another run may be in its place by now.

        Raises:
            ResumeError: another folder, or none, has its name.
        """
        try:
            stays = os.path.samestat(os.stat(self._folder), self._place)
            lock = self._folder / ".lock"
            stays = stays and (not lock.exists() or os.path.samestat(os.stat(lock), self._locked))
        except FileNotFoundError:
            stays = False
        if not stays:
            raise ResumeError(
                f"{self._folder} was moved or removed while a run was using it, so the run ends here. Resume it where "
                "the folder lies now: everything up to its last checkpoint is there"
            )

    def release(self) -> None:
        """Let other runs use the folder."""
        self._file.close()
