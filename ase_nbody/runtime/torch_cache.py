"""Where torch's compiler keeps its own files: in a folder of this user alone, never where others could plant code.

By default torch keeps shared libraries in ``/tmp/torchinductor_USER`` and loads what it finds there. Whoever makes this
folder first would run code with the rights of the user who compiles.
"""

import contextlib
import functools
import operator
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from ase_nbody.runtime.aot_cache import UntrustedCodeError, make_private, may_write, own_folders, refuse_foreign
from ase_nbody.runtime.processor import processor_key

_TORCH, _TRITON = "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"
_HEADERS_OF_LIBRARIES = "aot_inductor.precompile_headers"
_HEADERS_OF_KERNELS = "cpp_cache_precompile_headers"
_PLAIN = re.compile(r"[\w/.,:+=@%~-]+")  # of a path
_USUAL_PLACES = ("/tmp", "/var/tmp")  # for temporary files, where the one of the environment cannot be used
_LOCK = threading.RLock()  # the environment belongs to all threads


@contextlib.contextmanager
def private_torch_cache() -> Iterator[Path]:
    """Within it, torch's compilers keep their files in a folder of this user alone, and yield that folder.

    It replaces the folder that the environment names: torch puts its default there as soon as it is imported, so that
    nobody can tell whether the user chose it. Threads that compile wait for each other.
    """
    with _LOCK:
        folder = _folder()
        places = {_TORCH: str(folder), _TRITON: str(folder / "triton")}
        # Some parts of torch ignore the environment and take a folder below that for temporary files.
        with (
            mock.patch.object(tempfile, "tempdir", str(folder)),
            mock.patch.dict(os.environ, places),
            _headers_in(folder),
        ):
            yield folder


@contextlib.contextmanager
def _headers_in(folder: Path) -> Iterator[None]:
    """Within it, torch precompiles headers in a folder, or not at all.

    A training step has some seventy kernels, and each takes a second or more to parse torch's headers. By default torch
    keeps them compiled, but below ``/tmp``, whatever the environment says, and remembers where. A library for
    evaluation is compiled in two pieces, which is less work than compiling their headers.
    """
    import torch._inductor.config as config
    from torch._inductor import codecache  # private, and heavy

    places: dict[str, Any] = {
        "_HEADER_DIR": str(folder / "headers"),
        "_HEADER_LOCK_DIR": str(folder / "headers" / "locks"),
    }
    compile_header = getattr(getattr(codecache, "_precompile_header", None), "__wrapped__", None)
    possible = (
        compile_header and all(hasattr(codecache, name) for name in places) and _has_openssl(os.environ.get("PATH", ""))
    )
    unwanted = [_HEADERS_OF_LIBRARIES] if possible else [_HEADERS_OF_LIBRARIES, _HEADERS_OF_KERNELS]
    with contextlib.ExitStack() as stack:
        stack.enter_context(config.patch({name: False for name in unwanted if _known(config, name)}))
        if possible:
            compiler = _remembered(compile_header, folder)
            stack.enter_context(mock.patch.multiple(codecache, **places, _precompile_header=compiler))
        yield


@functools.cache  # every step of a training asks
def _has_openssl(path: str) -> bool:
    """Whether the program with which torch names its headers is on this search path."""
    return shutil.which("openssl", path=path) is not None


@functools.cache
def _remembered(compile_header: Callable[..., str], folder: Path) -> Callable[..., str]:
    """A function of torch that compiles a header in this folder, and is called once for each header that is there."""
    remembered = functools.cache(compile_header)

    def compiled(*arguments: Hashable, **options: Hashable) -> str:
        header = remembered(*arguments, **options)
        if not os.path.exists(header):  # the user has emptied the cache
            remembered.cache_clear()
            header = remembered(*arguments, **options)
        return header

    return compiled


def _known(config: ModuleType, name: str) -> bool:
    """Whether this version of torch has a setting."""
    try:
        operator.attrgetter(name)(config)
    except AttributeError:
        return False
    return True


def folder_name() -> str:
    """The name of torch's folder beside the compiled code: code for another processor lies in another one."""
    return f"torch-{processor_key()}"


def _folder() -> Path:
    """The folder beside the compiled code, or a new one that is removed when the process ends."""
    for parent in own_folders():
        folder = parent / folder_name()
        if not _is_plain(folder):
            continue
        with contextlib.suppress(OSError, UntrustedCodeError):
            make_private(parent)
            _refuse_open(parent.resolve(), 1)  # before anything is left in it
            make_private(folder)
            _refuse_open(folder.resolve(), 0)
            if may_write(folder):
                return folder.resolve()
    return Path(_temporary().name)


def _refuse_open(folder: Path, distance: int) -> None:
    """Raise if others may write to torch's folder or the one above it, or may exchange any folder above them.

    Torch opens its files by their paths. So the folders farther above count too; there the sticky bit is enough.

    Args:
        folder: where to begin.
        distance: 0 for torch's folder, 1 for the one above it.
    """
    if os.name != "posix":  # see ``read_trusted``
        return
    for height, one in enumerate((folder, *folder.parents), distance):
        status = os.stat(one)
        if height > 1 and status.st_mode & stat.S_ISVTX and status.st_uid == 0:
            continue
        refuse_foreign(one, status)


def _is_plain(folder: Path) -> bool:
    """Whether torch can name files in a folder to the C++ compiler: it splits its command at spaces and quotes."""
    return _PLAIN.fullmatch(str(folder.resolve())) is not None


@functools.cache
def _temporary() -> "tempfile.TemporaryDirectory[str]":
    """A new folder, which is removed when the process ends; where torch can use it, if there is such a place."""
    places = [place for place in (tempfile.gettempdir(), *_USUAL_PLACES) if os.access(place, os.W_OK | os.X_OK)]
    place = next((place for place in places if _is_plain(Path(place))), None)
    return tempfile.TemporaryDirectory(prefix="ase-nbody-torch-", dir=place)
