"""Errors of a model on neutral structures kept out of its training, by subset, size, teacher's spread and element.

    python benchmarks/organic/judge.py MODEL ../shared/data/organic/validation.npz

Total energies are compared as they are: nothing is fitted or subtracted. Prints Markdown.
"""

import argparse
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from frames import apart
from judging import Labelled, neutral, predicted, table
from numpy.typing import NDArray
from shards import ionic, singles
from teacher import Geometry

from ase_nbody import NBodyCalculator

KINDS = ("neutral molecules", "with ions", "clusters whose molecules count as bonded")
FEWEST_MOLECULES = 10  # with an element; from fewer, no error of the element follows
SIZES = (10, 20, 30, 40)  # atoms; each begins a class
SPREADS = (0.035, 0.045, 0.06)  # eV/Angstrom, between the teacher's networks; each begins a class
_ATOM = re.compile(r"\[\d*([A-Z][a-z]?|[a-z]{1,2})|(Br|Cl|[BCNOFPSI]|[bcnops])")  # of SMILES

Errors = list[tuple[float, NDArray]]  # of each structure: energy per atom in meV, forces (atoms, 3) in meV/Angstrom


def symbols_in(smiles: str) -> set[str]:
    """The elements that a SMILES names. Hydrogen, which it mostly leaves out, is always among them."""
    return {(bracketed or bare).capitalize() for bracketed, bare in _ATOM.findall(smiles)} | {"H"}


def measured(found: Labelled, energy: float, forces: NDArray) -> tuple[float, NDArray]:
    """The errors of one structure."""
    return 1000 * abs(energy - found.energy) / len(found.atoms), 1000 * abs(forces - found.forces)


def mean_errors(errors: Errors) -> list[str]:
    """Mean absolute errors of the force components and of the energies per atom, as cells of a row."""
    forces = np.concatenate([of_forces.ravel() for _, of_forces in errors])
    return [f"{forces.mean():.1f}", f"{np.mean([of_energy for of_energy, _ in errors]):.2f}"]


def row(title: str, data: list[Labelled], errors: Errors, chosen: Callable[[Labelled], bool]) -> list[object]:
    """A row on the structures that are chosen."""
    which = [number for number, found in enumerate(data) if chosen(found)]
    molecules = {single for number in which for single in singles(data[number].name)}
    return [title, len(which), len(molecules), *mean_errors([errors[number] for number in which])]


def kind(found: Labelled) -> str:
    """The first of ``KINDS`` is what ``frames.py`` writes for a training; the others are left out by it."""
    if not apart(Geometry(found.atoms.numbers, found.atoms.positions, 0), found.name):
        return KINDS[2]
    return KINDS[1] if ionic(found.name) else KINDS[0]


def rows(data: list[Labelled], errors: Errors) -> Iterator[list[object]]:
    """Neutral molecules: all structures, each subset, and classes of sizes and of spreads."""
    yield row(KINDS[0], data, errors, lambda found: True)
    for subset in sorted({found.subset for found in data}):
        yield row(subset, data, errors, lambda found, subset=subset: found.subset == subset)
    bounds = [2, *SIZES, max(len(found.atoms) for found in data) + 1]
    yield from classes(
        data, errors, bounds, lambda found: len(found.atoms), lambda low, high: f"{low} to {high - 1} atoms"
    )
    yield from classes(data, errors, (0.0, *SPREADS, np.inf), lambda found: found.spread, of_spread)


def classes(
    data: list[Labelled],
    errors: Errors,
    bounds: Sequence[float],
    value: Callable[[Labelled], float],
    title: Callable[[float, float], str],
) -> Iterator[list[object]]:
    """A row for each class of structures whose values lie between two bounds, unless it is empty."""
    for low, high in itertools.pairwise(bounds):
        if any(low <= value(found) < high for found in data):
            yield row(title(low, high), data, errors, lambda found, low=low, high=high: low <= value(found) < high)


def of_spread(low: float, high: float) -> str:
    """The title of a class of spreads in eV/Angstrom."""
    reach = f"{1000 * low:g} to {1000 * high:g}" if np.isfinite(high) else f"{1000 * low:g} or more"
    return f"the teacher's networks differ by {reach} meV/Angstrom"


def element_rows(data: list[Labelled], errors: Errors) -> Iterator[list[object]]:
    """Each element: structures and molecules that have it, their errors, and those of the forces on its atoms."""
    for symbol in sorted({symbol for found in data for symbol in found.atoms.symbols}, key=atomic_numbers.__getitem__):
        which = [number for number, found in enumerate(data) if symbol in found.atoms.symbols]
        names = {single for number in which for single in singles(data[number].name)}
        molecules = [name for name in names if symbol in symbols_in(name)]
        cells = ["-"] * 3
        if len(molecules) >= FEWEST_MOLECULES:
            own = [errors[number][1][data[number].atoms.symbols == symbol].ravel() for number in which]
            cells = [*mean_errors([errors[number] for number in which]), f"{np.concatenate(own).mean():.1f}"]
        yield [symbol, len(which), len(molecules), *cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    data = neutral(options.file)
    found = predicted(NBodyCalculator(options.model), [labelled.atoms for labelled in data])
    errors = [measured(labelled, *values) for labelled, values in zip(data, found, strict=True)]
    of_kind: dict[str, tuple[list[Labelled], Errors]] = {one: ([], []) for one in KINDS}
    for labelled, error in zip(data, errors, strict=True):
        structures, their_errors = of_kind[kind(labelled)]
        structures.append(labelled)
        their_errors.append(error)
    others = [row(one, *of_kind[one], lambda found: True) for one in KINDS[1:] if of_kind[one][0]]
    data, errors = of_kind[KINDS[0]]
    columns = ["structures", "molecules", "forces, meV/Angstrom", "energy, meV/atom"]
    print(f"`{options.model}` on structures of {options.file.name} without a total charge; mean absolute errors.\n")
    print(table(["", *columns], [*rows(data, errors), *others]))
    print(f"\nNeutral molecules with an element; of fewer than {FEWEST_MOLECULES} molecules there is no result.\n")
    print(table(["", *columns, "forces on its atoms"], element_rows(data, errors)))


if __name__ == "__main__":
    main()
