"""The layout of the data: one file holds many structures, one after the other."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from teacher import Geometry, Label

PER_ATOM = {"numbers": np.uint8, "positions": np.float32, "forces": np.float32, "charges": np.float16}
PER_STRUCTURE = {
    "energy": np.float64,
    "total_charge": np.int8,
    "n_atoms": np.int16,
    "energy_std": np.float32,
    "forces_std": np.float32,
}
Arrays = dict[str, NDArray]


def arrays(geometries: Sequence[Geometry], labels: Sequence[Label], subset: str, names: Sequence[str]) -> Arrays:
    """The arrays of labelled structures. Units: Angstrom, eV, eV/Angstrom, e."""
    per_atom = {
        "numbers": [geometry.numbers for geometry in geometries],
        "positions": [geometry.positions for geometry in geometries],
        "forces": [label.forces for label in labels],
        "charges": [label.charges for label in labels],
    }
    per_structure = {
        "energy": [label.energy for label in labels],
        "total_charge": [geometry.charge for geometry in geometries],
        "n_atoms": [len(geometry.numbers) for geometry in geometries],
        "energy_std": [label.energy_std for label in labels],
        "forces_std": [label.forces_std for label in labels],
    }
    return {
        **{key: np.concatenate(per_atom[key]).astype(dtype) for key, dtype in PER_ATOM.items()},
        **{key: np.array(per_structure[key], dtype=dtype) for key, dtype in PER_STRUCTURE.items()},
        "subset": np.full(len(labels), subset),
        "name": np.array(names),
    }


def write(path: Path, data: Arrays) -> None:
    """Write the file whole: it appears under its name when nothing is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial.npz")
    np.savez_compressed(partial, **data)  # type: ignore[arg-type]
    os.replace(partial, path)


def read(paths: Iterable[Path]) -> Arrays:
    """All structures of the files, in one."""
    parts = [dict(np.load(path)) for path in paths]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def owners(data: Arrays) -> NDArray:
    """The number of the structure that each atom belongs to."""
    return np.repeat(np.arange(len(data["n_atoms"])), data["n_atoms"])


def geometries(data: Arrays) -> list[Geometry]:
    """The structures without labels."""
    ends = np.cumsum(data["n_atoms"])[:-1]
    numbers, positions = np.split(data["numbers"], ends), np.split(data["positions"], ends)
    charges = data["total_charge"].tolist()
    return [Geometry(*parts) for parts in zip(numbers, positions, charges, strict=True)]


def ionic(name: str) -> bool:
    """Whether a name in the data has ions among its molecules, though their charges may add up to zero."""
    return any(_charge(single) != 0 for single in singles(name))


def _charge(smiles: str) -> int:
    """The charge of a molecule in e, as its SMILES writes it: ``[NH3+]``, ``[O-]``, ``[Mg+2]``."""
    return sum(int(sign + (count or "1")) for sign, count in re.findall(r"([+-])(\d*)(?::\d+)?\]", smiles))


def singles(name: str) -> list[str]:
    """The molecules of a name in the data, each by itself: a prefix and dots divide them."""
    return name.split(" ")[-1].split(".")
