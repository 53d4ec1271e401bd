"""The key of compiled code: code is used again exactly where compiling would give the same code."""

import hashlib
import json
import platform
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
    "potential.py",
    "prediction.py",
    "runtime/aot.py",
    "runtime/aot_package.py",
    "runtime/blocks.py",
    "runtime/compiled.py",
    "runtime/formulas.py",
    "undisturbed.py",
)

PACKAGE = Path(__file__).parents[1]


def library_key(network: NBodyNetwork) -> str:
    """The key of a network's compiled code: 32 hexadecimal digits.

    It depends on the configuration (every number of it becomes a constant of the code, but for those of the coverage),
    dtype, device, processor, version of torch, and ``SOURCES``.

    Raises:
        RuntimeError: the package was installed without its sources.
    """
    device = network.one_hot.device
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    digest = hashlib.sha256(
        json.dumps(network.config.model_dump(mode="json", exclude={"coverage"}), sort_keys=True).encode()
    )
    digest.update(f"{network.dtype} {device} {processor} {platform.machine()} {torch.__version__}".encode())
    if _OWN_SOURCES is None:
        raise RuntimeError(f"{PACKAGE} holds no sources, so compiled code cannot be told from that of other releases")
    digest.update(_OWN_SOURCES)
    return digest.hexdigest()[:32]


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


# If the package is upgraded while this process runs, its modules stay the old ones, and so does the key of their code.
_OWN_SOURCES = _hash_at_import()
