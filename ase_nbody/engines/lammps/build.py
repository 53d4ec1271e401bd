"""Compile the plugin for LAMMPS from the C++ sources in ``plugin/``, once for each LAMMPS and each version of torch."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock

from ase_nbody.engines.lammps.installed import Lammps, find_lammps
from ase_nbody.files.writing import write_whole
from ase_nbody.runtime.aot_cache import cache_folder, trusted_place

SOURCES = Path(__file__).parent / "plugin"
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall")
_SHOWN_LINES = 20  # of a compiler's complaints


def build_plugin(
    folder: str | os.PathLike[str] | None = None,
    *,
    compiler: str | None = None,
    anew: bool = False,
    tell: Callable[[str], object] = print,
) -> Path:
    """The path of the plugin, which is compiled if it is not kept from before.

    It is kept in the user's cache, as other native code is (see ``runtime.aot_cache``).

    Args:
        folder: see ``find_lammps``.
        compiler: see ``find_lammps``.
        anew: compile again.
        tell: called with sentences about what happens.

    Raises:
        FileNotFoundError: see ``find_lammps``.
        OSError: the compiler fails; the message holds what it says.
        UntrustedCodeError: there is no folder where nobody else can place code.
    """
    lammps = find_lammps(folder, compiler)
    path = trusted_place(plugin_path(lammps))
    with FileLock(path.with_suffix(".lock"), mode=0o600):
        if path.is_file() and not anew:
            return path
        tell(f"Compiling the plugin for LAMMPS {lammps.version or 'of unknown version'} ({lammps.headers}), once ...")
        write_whole(path, _compiled(lammps), private=True)
    return path


def plugin_path(lammps: Lammps) -> Path:
    """Where the plugin is kept, whether it is there yet or not. Its name ends as LAMMPS_PLUGIN_PATH wants."""
    digest = hashlib.sha256(f"{lammps} {torch.__version__} {_torch()} {_FLAGS}".encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    return cache_folder() / f"{digest.hexdigest()[:32]}-nbodyplugin.so"


def _torch() -> Path:
    return Path(torch.__file__).resolve().parent


def _library() -> Path:
    """The shared library of torch, which the plugin opens."""
    suffix = "dylib" if sys.platform == "darwin" else "so"
    return _torch() / "lib" / f"libtorch_cpu.{suffix}"


def _compiled(lammps: Lammps) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        target = Path(place, "nbodyplugin.so")
        command = [
            lammps.compiler,
            *_FLAGS,
            f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
            f"-DLAMMPS_{lammps.sizes}",
            f'-DNBODY_LAMMPS="{lammps.version}"',
            f'-DNBODY_TORCH="{torch.__version__}"',
            f'-DNBODY_TORCH_LIBRARY="{_library()}"',
            f"-I{lammps.headers}",
            "-isystem",
            str(_torch() / "include"),
            *map(str, sorted(SOURCES.glob("*.cpp"))),
            "-ldl",
            "-o",
            str(target),
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            last = "\n".join((done.stderr or done.stdout).strip().splitlines()[:_SHOWN_LINES])
            raise OSError(f"{lammps.compiler} could not compile the plugin against {lammps.headers}:\n{last}")
        return target.read_bytes()
