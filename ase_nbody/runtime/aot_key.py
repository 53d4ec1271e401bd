"""The key of compiled code: code is used again exactly where compiling would give the same code."""

import functools
import hashlib
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ase_nbody.network.network import NBodyNetwork

# Files and folders of this package that decide what the code computes or how its arguments are packed: modules that run
# while a network is built (its constants become those of the code) or traced. ``tests/runtime/test_aot_key.py`` finds
# one that is missing here.
SOURCES = (
    "so3",
    "nn",
    "hierarchy/exchange.py",
    "hierarchy/reduction.py",
    "hierarchy/tables.py",
    "network/level.py",
    "network/network.py",
    "network/outputs.py",
    "network/types.py",
    "potential.py",
    "prediction.py",
    "runtime/aot.py",
    "runtime/blocks.py",
    "runtime/compiled.py",
    "runtime/formulas.py",
    "undisturbed.py",
)

PACKAGE = Path(__file__).parents[1]
# The sources are read when a key is first needed, not at import. If the package was upgraded in between, this process
# still runs the old modules, and their code would be kept under the key of the new ones. So a file that changed after
# this moment is refused, and nothing is compiled. Its ctime tells, which no installer can set to an earlier time.
_IMPORTED_NS = time.time_ns()


def library_key(network: NBodyNetwork) -> str:
    """The key of a network's compiled code: 32 hexadecimal digits.

    It depends on the configuration (every number of it becomes a constant of the code, but for those of the coverage),
    dtype, device, processor, version of torch, and ``SOURCES``.

    Raises:
        RuntimeError: one of these sources has changed since this process imported the package.
    """
    device = network.one_hot.device
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    digest = hashlib.sha256(
        json.dumps(network.config.model_dump(mode="json", exclude={"coverage"}), sort_keys=True).encode()
    )
    digest.update(f"{network.dtype} {device} {processor} {platform.machine()} {torch.__version__}".encode())
    digest.update(_own_sources())
    return digest.hexdigest()[:32]


@functools.cache
def _own_sources() -> bytes:
    return hash_sources(PACKAGE, _IMPORTED_NS)


def hash_sources(package: Path, imported_ns: int) -> bytes:
    """Hash of the names and contents of ``SOURCES`` in the folder of a package.

    Args:
        package: the folder.
        imported_ns: when its modules were imported, in nanoseconds since 1970.

    Raises:
        RuntimeError: a file has changed since.
    """
    digest = hashlib.sha256()
    for path in source_files(package):
        content, status = path.read_bytes(), path.stat()  # in this order: a change in between is noticed
        if max(status.st_mtime_ns, status.st_ctime_ns) > imported_ns:
            raise RuntimeError(f"{path} has changed since this process started; start it again to use compiled code")
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)} ".encode())
        digest.update(content)
    return digest.digest()


def source_files(package: Path) -> Iterator[Path]:
    """The files of ``SOURCES``, always in the same order."""
    for name in SOURCES:
        path = package / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]
