"""What the commands that judge a model share: labelled molecules as ASE's structures, predictions, and tables."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray
from shards import geometries, read

from ase_nbody import NBodyCalculator

KCAL_PER_MOL = units.kcal / units.mol  # in eV
STRUCTURES_PER_BATCH = 200  # what one call keeps in memory


class Labelled(NamedTuple):
    """A structure without a total charge, with its labels.

    The total energy is in eV; the forces (atoms, 3) and their spread between the teacher's networks in eV/Angstrom.
    """

    name: str
    subset: str
    atoms: Atoms
    energy: float
    forces: NDArray
    spread: float


def neutral(path: Path) -> list[Labelled]:
    """The structures of more than one atom without a total charge, in the order of the file."""
    data = read([path])
    forces = np.split(data["forces"], np.cumsum(data["n_atoms"])[:-1])
    structures = geometries(data)
    return [
        Labelled(
            str(data["name"][index]),
            str(data["subset"][index]),
            Atoms(structures[index].numbers, structures[index].positions),
            float(data["energy"][index]),
            forces[index].astype(float),
            float(data["forces_std"][index]),
        )
        for index in np.flatnonzero((data["n_atoms"] > 1) & (data["total_charge"] == 0))
    ]


def predicted(calculator: NBodyCalculator, structures: Sequence[Atoms]) -> Iterator[tuple[float, NDArray]]:
    """Energies in eV and forces in eV/Angstrom, evaluated side by side."""
    for start in range(0, len(structures), STRUCTURES_PER_BATCH):
        for results in calculator.evaluate(structures[start : start + STRUCTURES_PER_BATCH]):
            yield results["energy"], results["forces"]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
