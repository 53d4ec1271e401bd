"""Label small structures with another theory, for a second head of a general model.

    python benchmarks/organic/second_theory.py train.npz [--structures 120]
    nbody train benchmarks/organic/second_theory.yaml --threads 1

The theory is wB97X-D3(BJ)/def2-SVP from PySCF with density fitting. A third of the structures are clusters, a third
have rings, and each third consists of those on which the teacher's networks differ most, among ten times as many. They
have at most six heavy atoms and no charge, and each name occurs once. Every fourth goes to
``second_theory_test.extxyz``, the others to ``second_theory_train.extxyz``, both in ``runs/organic/``. Labelled
structures are not labelled again, so the same command goes on after a stop. It needs pyscf and pyscf-dispersion.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from dft import calculated, keep
from frames import sound, wanted
from numpy.typing import NDArray
from shards import geometries, owners, read

FUNCTIONAL, BASIS = "wb97x-d3bj", "def2-svp"
FOLDER = Path(__file__).resolve().parents[2] / "runs" / "organic"
MOST_HEAVY_ATOMS = 6
POOL = 10  # structures from which one is taken
ONE_IN_TEST = 4


def chosen(files: list[Path], count: int) -> Iterator[tuple[str, Atoms]]:
    """Names and structures, the kinds in turn."""
    data = read(files)
    heavy = np.bincount(owners(data), data["numbers"] > 1, minlength=len(data["n_atoms"]))
    small = np.flatnonzero(wanted(data, charged=False) & sound(data) & (heavy > 0) & (heavy <= MOST_HEAVY_ATOMS))
    small = np.random.default_rng(0).permutation(small)
    _, first = np.unique(data["name"][small], return_index=True)
    small = small[np.sort(first)]
    names = data["name"][small].astype(str)
    clusters, rings = np.char.find(names, ".") >= 0, np.char.find(names, "1") >= 0
    structures = geometries(data)
    kinds = [small[kind] for kind in (clusters, rings & ~clusters, ~rings & ~clusters)]
    each = -(-count // 3)
    if min(map(len, kinds)) < each:
        found = ", ".join(
            f"{len(kind)} {what}" for kind, what in zip(kinds, ("clusters", "rings", "others"), strict=True)
        )
        raise SystemExit(f"of {count} structures each kind has {each}, and the files have {found}: give --structures")
    kinds = [least_sure(kind[: POOL * each], data["forces_std"])[:each] for kind in kinds]
    for indices in zip(*kinds, strict=True):
        for index in indices:
            yield str(data["name"][index]), Atoms(structures[index].numbers, structures[index].positions)


def least_sure(indices: NDArray, spreads: NDArray) -> NDArray:
    """The indices in the order of falling spreads."""
    return indices[np.argsort(-spreads[indices], kind="stable")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--structures", type=int, default=120)
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    files = {is_test: FOLDER / f"second_theory_{'test' if is_test else 'train'}.extxyz" for is_test in (True, False)}
    known = {atoms.info["name"] for path in files.values() if path.is_file() for atoms in ase.io.read(path, ":")}
    for number, (name, atoms) in enumerate(chosen(options.files, options.structures)):
        if name in known:
            continue
        found = calculated(atoms, FUNCTIONAL, BASIS, forces=True)
        if found is None:
            print(f"{name}: the energy does not converge", flush=True)
            continue
        found.info["name"] = name
        keep(files[number % ONE_IN_TEST == ONE_IN_TEST - 1], [found])
        print(f"{number + 1}: {name}, {len(atoms)} atoms", flush=True)


if __name__ == "__main__":
    main()
