"""Where torch's compiler keeps its own files: in a folder of this user alone, never where others could plant code.

By default torch keeps shared libraries in ``/tmp/torchinductor_USER`` and loads what it finds there. Whoever makes this
folder first would run code with the rights of the user who compiles.
"""

import contextlib
import functools
import operator
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

from ase_nbody.runtime.aot_cache import UntrustedCodeError, make_private, own_folders, refuse_foreign

_TORCH, _TRITON = "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"
# Precompiled headers are kept in torch's default folder, whatever the environment says.
_HEADERS = ("aot_inductor.precompile_headers", "cpp_cache_precompile_headers")
_LOCK = threading.RLock()  # the environment belongs to all threads


@contextlib.contextmanager
def private_torch_cache() -> Iterator[Path]:
    """Within it, torch's compilers keep their files in a folder of this user alone, and yield that folder.

    It replaces the folder that the environment names: torch puts its default there as soon as it is imported, so that
    nobody can tell whether the user chose it. Threads that compile wait for each other.
    """
    import torch._inductor.config as config

    with _LOCK:
        folder = _folder()
        places = {_TORCH: str(folder), _TRITON: str(folder / "triton")}
        # Some parts of torch ignore the environment and take a folder below that for temporary files.
        with (
            mock.patch.object(tempfile, "tempdir", str(folder)),
            mock.patch.dict(os.environ, places),
            config.patch({name: False for name in _HEADERS if _known(config, name)}),
        ):
            yield folder


def _known(config: ModuleType, name: str) -> bool:
    """Whether this version of torch has a setting."""
    try:
        operator.attrgetter(name)(config)
    except AttributeError:
        return False
    return True


def _folder() -> Path:
    """The folder beside the compiled code, or a new one that is removed when the process ends."""
    for parent in own_folders():
        folder = parent / "torch"
        with contextlib.suppress(OSError, UntrustedCodeError):
            make_private(folder)
            _refuse_open(folder.resolve())
            return folder.resolve()
    return Path(_temporary().name)


def _refuse_open(folder: Path) -> None:
    """Raise if others may write to a folder or the one above it, or may exchange any folder above them.

    Torch opens its files by their paths. So the folders farther above count too; there the sticky bit is enough.
    """
    if os.name != "posix":  # see ``read_trusted``
        return
    for distance, one in enumerate((folder, *folder.parents)):
        status = os.stat(one)
        if distance > 1 and status.st_mode & stat.S_ISVTX and status.st_uid == 0:
            continue
        refuse_foreign(one, status)


@functools.cache
def _temporary() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="ase-nbody-torch-")
