"""Compare sets of labelled structures: sizes, elements, forces, closest distances, and which elements meet.

    python benchmarks/organic/compare.py ../shared/data/organic/train.npz MADE/*/part-*.npz

Each argument before ``--with`` belongs to the first set, and those after it to the second. Prints Markdown.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.vdw_alvarez import vdw_radii
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from shards import Arrays, geometries, owners, read
from teacher import Geometry

BONDED, MEETING = 1.25, 1.1  # in sums of covalent radii and of van der Waals radii
PERCENTILES = (5, 25, 50, 75, 95)
Pair = tuple[str, str]


def contacts(geometry: Geometry) -> tuple[float, set[Pair], set[Pair]]:
    """The closest distance in sums of covalent radii; pairs of elements that are bonded; those that meet otherwise."""
    i, j = np.triu_indices(len(geometry.numbers), 1)
    first, second = geometry.numbers[i], geometry.numbers[j]
    distances = pdist(geometry.positions)
    relative = distances / (covalent_radii[first] + covalent_radii[second])
    bonded = relative < BONDED
    meeting = ~bonded & (distances < MEETING * (vdw_radii[first] + vdw_radii[second]))
    return float(relative.min(initial=np.inf)), _pairs(first, second, bonded), _pairs(first, second, meeting)


def _pairs(first: NDArray, second: NDArray, chosen: NDArray) -> set[Pair]:
    codes = {tuple(sorted(ends)) for ends in zip(first[chosen].tolist(), second[chosen].tolist(), strict=True)}
    return {(chemical_symbols[low], chemical_symbols[high]) for low, high in codes}


def rows(data: Arrays) -> Iterator[str]:
    """The table of the subsets."""
    squares = (data["forces"].astype(float) ** 2).mean(axis=1)
    force = np.sqrt(np.bincount(owners(data), squares) / data["n_atoms"])
    closest = np.array([contacts(geometry)[0] for geometry in geometries(data)])
    yield "| subset | names | structures | atoms | forces, rms | spread of forces | closest distance |"
    yield "|---|---|---|---|---|---|---|"
    for subset in np.unique(data["subset"]):
        chosen = data["subset"] == subset
        columns = [data["n_atoms"][chosen], force[chosen], data["forces_std"][chosen], closest[chosen]]
        cells = [" ".join(f"{value:.3g}" for value in np.percentile(column, PERCENTILES)) for column in columns]
        yield f"| {subset} | {len(np.unique(data['name'][chosen]))} | {chosen.sum()} | {' | '.join(cells)} |"


def elements(data: Arrays) -> Iterator[str]:
    """In how many structures and names each element, each bond and each contact occurs."""
    names: dict[str, set[str]] = {}
    bonds: Counter[Pair] = Counter()
    meetings: Counter[Pair] = Counter()
    for geometry, name in zip(geometries(data), data["name"].tolist(), strict=True):
        for number in set(geometry.numbers.tolist()):
            names.setdefault(chemical_symbols[number], set()).add(name)
        _, bonded, meeting = contacts(geometry)
        bonds.update(bonded)
        meetings.update(meeting)
    yield "Names with " + ", ".join(f"{symbol} {len(found)}" for symbol, found in sorted(names.items()))
    symbols = sorted(names, key=chemical_symbols.index)
    every = [
        (low, high) for low, high in itertools.combinations_with_replacement(symbols, 2) if (low, high) != ("H", "H")
    ]
    for what, counts in (("bonded", bonds), ("meeting", meetings)):
        missing = [f"{low}-{high}" for low, high in every if not counts[low, high]]
        seldom = [f"{low}-{high} {counts[low, high]}" for low, high in every if 0 < counts[low, high] < 20]
        yield f"Pairs never {what}: {', '.join(missing) or 'none'}"
        yield f"Pairs {what} in fewer than 20 structures: {', '.join(seldom) or 'none'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first", type=Path, nargs="+")
    parser.add_argument("--with", type=Path, nargs="*", default=[], dest="second")
    options = parser.parse_args()
    for paths in filter(None, (options.first, options.second)):
        data = read(paths)
        print(f"\n{len(data['n_atoms'])} structures, {len(data['numbers'])} atoms of {paths[0]}", end="")
        print(f" and {len(paths) - 1} more files. Percentiles {PERCENTILES}.\n" if len(paths) > 1 else "\n")
        print("\n".join([*rows(data), "", *elements(data)]))


if __name__ == "__main__":
    main()
