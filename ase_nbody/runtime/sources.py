"""The sources that compiled code depends on, and their hash when the package was imported. It imports nothing heavy."""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

# Files and folders of this package that decide what the code computes or how its arguments are packed: modules that run
# while a network is built (its constants become those of the code) or traced. ``tests/runtime/test_aot_key.py`` finds
# one that is missing here.
SOURCES = (
    "so3",
    "nn",
    "hierarchy/exchange.py",
    "hierarchy/reduction.py",
    "hierarchy/tables.py",
    "network/config.py",
    "network/level.py",
    "network/network.py",
    "network/outputs.py",
    "network/types.py",
    "potential.py",
    "prediction.py",
    "runtime/aot.py",
    "runtime/aot_package.py",
    "runtime/blocks.py",
    "runtime/compiled.py",
    "runtime/formulas.py",
    "runtime/vector_steps.py",
    "undisturbed.py",
)

PACKAGE = Path(__file__).parents[1]


def hash_sources(package: Path) -> bytes:
    """Hash of the names and contents of ``SOURCES`` in the folder of a package.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for path in source_files(package):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)} ".encode())
        digest.update(content)
    return digest.digest()


def source_files(package: Path) -> Iterator[Path]:
    """The files of ``SOURCES``, always in the same order."""
    for name in SOURCES:
        path = package / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _hash_at_import() -> bytes | None:
    try:
        return hash_sources(PACKAGE)
    except OSError:  # an installation without sources
        return None


_AT_IMPORT = _hash_at_import()  # of the package, whose ``__init__`` imports this file first


@functools.cache
def own_sources() -> bytes:
    """The hash of the sources that this process runs.

    Later upgrades of the package do not change it: whoever asks has imported all of the sources by then.

    Raises:
        RuntimeError: the sources have changed since the package was imported, so that old and new modules may be mixed,
            or there are none.
    """
    if _AT_IMPORT is None:
        raise RuntimeError(f"{PACKAGE} holds no sources, so compiled code cannot be told from that of other releases")
    if _hash_at_import() != _AT_IMPORT:
        raise RuntimeError(f"{PACKAGE} has changed since this process started; start it again to use compiled code")
    return _AT_IMPORT
