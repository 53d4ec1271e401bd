"""Outputs of several calculations in one file, of which ASE's readers would lose some, or mix one with another."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, NoReturn

import numpy as np
from ase.io.formats import open_with_compression
from numpy.typing import NDArray

from ase_nbody.data.labels import DataError
from ase_nbody.text import printable


class _Once(NamedTuple):
    """What the output of one structure has once, and what ASE takes of several."""

    mark: tuple[bytes, ...]  # all in one line
    things: str
    taken: str


_MIXED = "the positions of the first and the forces of the last"
_ONCE = {
    "vasp-out": _Once((b"ions per type",), "outputs", "the elements of the first for all"),
    "vasp-xml": _Once((b"<modeling",), "outputs", "the first alone"),
    "aims-output": _Once((b"Invoking FHI-aims",), "outputs", "one alone"),
    "castep-castep": _Once((b"Welcome", b"CASTEP"), "runs", "the last alone"),
    "gamess-us-out": _Once((b"GRADIENT OF THE ENERGY",), "gradients", _MIXED),
    "gamess-us-punch": _Once((b"$GRAD",), "gradients", _MIXED),
    "sdf": _Once((b"$$$$",), "structures", "the first alone"),
}
_GAUSSIAN_ENDS, _GAUSSIAN_AXES = b"1\\1\\GINC", (b"Input", b"Z-Matrix", b"Standard")
_SAME_ANGSTROM = 2e-3  # a job that goes on with the geometry of the one before prints it again, rounded
_ORCA_STEP_ENDS = (b"ORCA TERMINATED NORMALLY", b"ORCA GEOMETRY RELAXATION STEP")  # so ASE divides an output


def refuse_several(path: str, kind: str) -> None:
    """Refuse a file with the outputs of several calculations if ASE's reader does not keep them apart.

    Args:
        path: the file.
        kind: ASE's name for its format.

    Raises:
        DataError: it says what would be lost or mixed.
    """
    if kind not in (*_ONCE, "gaussian-out", "orca-output"):
        return
    with open_with_compression(path, "rb") as lines:
        if kind == "gaussian-out":
            _refuse_lost_jobs(path, lines)
        elif kind == "orca-output":
            _refuse_mixed_steps(path, lines)
        else:
            mark, things, taken = _ONCE[kind]
            count = sum(all(part in line for part in mark) for line in lines)
            if count > 1:
                _refuse(path, f"holds {count} {things}", taken)


def _refuse_lost_jobs(path: str, lines: Iterator[bytes]) -> None:
    """Refuse an output of Gaussian with other geometries after its first job, where ASE stops to read.

    The energy of an excited state is not read either, while forces belong to it.
    """
    geometries: list[NDArray[np.float64]] = []
    ended, excited, forces = False, False, False
    for line in lines:
        words = line.split()
        if line.strip().startswith(_GAUSSIAN_ENDS):
            ended = True
        elif len(words) == 2 and words[1] == b"orientation:" and words[0] in _GAUSSIAN_AXES:
            geometry = _table_of_gaussian(lines)
            if ended and not any(_same(geometry, other) for other in geometries):
                _refuse(path, "holds several jobs", "the first alone")
            geometries.append(geometry)
        excited |= line.lstrip().startswith(b"Total Energy, E(")
        forces |= b"Forces (Hartrees/Bohr)" in line
    if excited and forces:
        raise DataError(
            f"{printable(path)} has forces of an excited state, and ASE's reader takes the energy of the ground state "
            "for its energy. Write extxyz with the energies named E(...) in it."
        )


def _table_of_gaussian(lines: Iterator[bytes]) -> NDArray[np.float64]:
    """The numbers of a table (rows, columns) between its second and its third rule; empty if it is no table."""
    rows, rules = list[list[float]](), 0
    for line in lines:
        if line.strip().startswith(b"---"):
            rules += 1
            if rules == 3:
                break
        elif rules == 2:
            try:
                rows.append([float(word) for word in line.split()])
            except ValueError:
                break
    whole = bool(rows) and len({*map(len, rows)}) == 1
    return np.array(rows) if whole else np.zeros((0, 0))


def _same(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max(initial=0.0) < _SAME_ANGSTROM)


def _refuse_mixed_steps(path: str, lines: Iterable[bytes]) -> None:
    """Refuse an output of ORCA with more structures or energies after a gradient: ASE takes the last of them with it.

    ORCA writes steps of an optimisation so that ASE keeps them apart, but neither jobs nor several geometries.
    """
    geometry, energy, has_gradient = list[bytes](), b"", False
    lines = iter(lines)
    for line in lines:
        if any(end in line for end in _ORCA_STEP_ENDS):
            energy, has_gradient = b"", False
        elif b"CARTESIAN COORDINATES (ANGSTROEM)" in line:
            next(lines, b"")  # a rule
            found = _until_blank(lines)
            if has_gradient and found != geometry:
                _refuse(path, "holds several structures or jobs", "the positions of the last and the forces of another")
            geometry = found
        elif b"FINAL SINGLE POINT ENERGY" in line:
            value = line.split()[-1]
            if has_gradient and energy and value != energy:
                _refuse(path, "holds several jobs", "the energy of the last and the forces of another")
            energy = value
        elif b"CARTESIAN GRADIENT" in line:
            has_gradient = True


def _until_blank(lines: Iterator[bytes]) -> list[bytes]:
    found = []
    for line in lines:
        if not line.strip():
            break
        found.append(line.strip())
    return found


def _refuse(path: str, what: str, taken: str) -> NoReturn:
    raise DataError(
        f"{printable(path)} {what}, of which ASE's reader takes {taken}. Give each of them as a file of its own, or "
        "write extxyz."
    )
