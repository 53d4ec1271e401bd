"""The files of a run that a kill at any moment leaves in order: growing ones, the checkpoint, a lock on the folder."""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase.io.jsonio import decode, encode

from ase_nbody.files.writing import write_whole

try:
    import fcntl
except ImportError:  # Windows: that two runs share a folder is not noticed there
    fcntl = None  # type: ignore[assignment]


class ResumeError(ValueError):
    """A run that cannot be started or continued in its folder; the message says why and what to do."""


class GrowingFile:
    """A file that is only appended to. Length and CRC-32 of its good part are known and kept in the checkpoint.

    What lies beyond the good part, left by a kill in the middle of an ``append``, is cut away.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.length, self.checksum = path, 0, 0

    def append(self, payload: bytes) -> None:
        """Write ``payload`` behind the good part and wait until the disk has it."""
        if not payload:
            return
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            file.seek(self.length)
            file.write(payload)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self.length += len(payload)
        self.checksum = zlib.crc32(payload, self.checksum)

    def state(self) -> dict[str, int]:
        """What ``cut_back`` needs to know."""
        return {"length": self.length, "crc32": self.checksum}

    def cut_back(self, state: Mapping[str, int]) -> None:
        """Make the file what it was when ``state`` was taken.

        Raises:
            ResumeError: it is shorter now, or its beginning has changed.
        """
        self.length, self.checksum = state["length"], state["crc32"]
        if not self.length:
            return
        found, checksum = 0, 0
        if self.path.exists():
            with open(self.path, "rb") as file:
                while chunk := file.read(min(1 << 20, self.length - found)):
                    found, checksum = found + len(chunk), zlib.crc32(chunk, checksum)
        if found < self.length or checksum != self.checksum:
            damage = f"has only {found} of them left" if found < self.length else "has other contents now"
            raise ResumeError(
                f"{self.path} was {self.length} bytes long at the checkpoint and {damage}: it was changed since. "
                "Put the original back, or start the run in another folder."
            )
        os.truncate(self.path, self.length)


class Checkpoint:
    """The file with the state of a run: JSON, in which arrays and floats keep their last bit. Never a torn one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file atomically."""
        write_whole(self.path, encode(dict(state)).encode())

    def read(self) -> dict[str, Any] | None:
        """The state, or None if there is no file.

        Raises:
            ResumeError: the file is not a checkpoint.
        """
        if not self.path.exists():
            return None
        try:
            state = decode(self.path.read_text(), always_array=False)
        except (ValueError, TypeError, KeyError) as error:
            raise ResumeError(
                f"{self.path} is not a readable checkpoint ({error}). Start the run in another folder."
            ) from error
        if not isinstance(state, dict) or state.get("format") != 1:
            raise ResumeError(
                f"{self.path} is not a checkpoint of format 1, which this release reads. Take another folder."
            )
        return state

    def remove_leftovers(self) -> None:
        """Remove what kills during ``write`` have left beside the file."""
        for path in self.path.parent.glob(f".{self.path.name}.*"):
            path.unlink()


class FolderLock:
    """One run at a time in a folder. The lock is the process's: it ends with it, however that ends.

    Raises:
        ResumeError: another process runs in the folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / ".lock", "a")  # noqa: SIM115 (held as long as the lock)
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ResumeError(f"another run is going on in {folder}: wait for it, or take another folder") from error

    def release(self) -> None:
        """Let others in."""
        self._file.close()
