"""Write a model as LAMMPS reads it: with the machine code of its steps, for processors like this one."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from ase_nbody.engines.lammps.form import MAGIC, packed
from ase_nbody.files.archive import load_members
from ase_nbody.files.committee import refuse_repeated
from ase_nbody.files.writing import place_of, require_writable, write_whole
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.aot import kept_library
from ase_nbody.runtime.aot_cache import UntrustedCodeError, read_trusted, refuse_foreign
from ase_nbody.runtime.aot_package import unpacked
from ase_nbody.runtime.settings import DTYPES, Settings
from ase_nbody.runtime.vector_steps import vector_programs


def export_model(
    model: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    head: str | None = None,
    dtype: str = "float64",
    anew: bool = False,
    tell: Callable[[str], object] = print,
) -> tuple[str, ...]:
    """Write the file that ``pair_coeff`` names, and return the symbols of its species.

    The machine code is compiled if it is not kept from before, which takes some minutes. The file can be read by its
    owner alone, because whoever could change it could run code with the rights of those who use it.

    Args:
        model: model file or name of a shipped model; it may be a committee.
        path: the file to write. A file that this function wrote before is replaced.
        head: which head to take of a model that has several theories; default: the model's own.
        dtype: floating-point type of the network: ``"float64"`` or ``"float32"``.
        anew: compile again what is kept.
        tell: called with a sentence once nothing but compiling is left to do.

    Raises:
        ValueError: the model has levels of labelled parts, it is a committee that has a network twice, or there is no
            such dtype.
        FileExistsError: ``path`` is a file of another kind.
        FileNotFoundError, PermissionError: the folder of ``path`` does not exist, or this user may not write to it.
        UntrustedCodeError: others may write to the folder of ``path``, so that LAMMPS would refuse the file.
        Exception: see ``load_members`` and ``kept_library``.
    """
    path = place_of(Path(path))  # LAMMPS too judges the file behind a link
    kind = DTYPES[Settings(dtype=dtype).dtype]
    networks = load_members(model, head)
    refuse_repeated([networks], [str(model)])
    config = networks[0].config
    if config.is_labelled:
        raise ValueError(f"{model} has levels of labelled parts (parts: labels), which pair_style nbody does not know")
    _check_place(path)
    tell(f"Exporting {model} in {dtype}; compiling takes some minutes, once ...")
    networks = [network.to(kind) for network in networks]
    code = {name.removeprefix("vectors-"): _library(networks[0], name, anew) for name in vector_programs(networks[0])}
    write_whole(path, packed(networks, code), private=True)
    return config.species


def _library(network: NBodyNetwork, name: str, anew: bool) -> bytes:
    """The shared library of a step; torch packs it into an archive."""
    kept = kept_library(network, name, vector_programs(network)[name], anew=anew)
    with zipfile.ZipFile(io.BytesIO(unpacked(read_trusted(kept), kept.stem))) as package:
        (library,) = [entry for entry in package.namelist() if entry.endswith(".so")]
        return package.read(library)


def _check_place(path: Path) -> None:
    """Raise now, and not after minutes of compiling, if LAMMPS would refuse the file or another file would be lost."""
    if path.exists() and not _is_exported(path):
        raise FileExistsError(f"{path} exists and is no exported model; choose another name for --output")
    require_writable(path)
    folder = Path(os.path.realpath(path.absolute().parent))  # ``resolve`` raises no OSError where links form a circle
    status = os.stat(folder)
    if status.st_mode & 0o1000 and status.st_uid == 0:  # as in /tmp, nobody can exchange the files of others
        return
    try:
        refuse_foreign(folder, status)
    except UntrustedCodeError as error:
        raise UntrustedCodeError(f"{error}: LAMMPS would refuse a file of machine code there") from error


def _is_exported(path: Path) -> bool:
    if not path.is_file():  # a pipe would wait for a writer
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC)).startswith(MAGIC.split()[0].encode())
