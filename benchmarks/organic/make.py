"""Make training data for a general organic model: structures of new molecules with the labels of a teacher.

    python benchmarks/organic/make.py FOLDER --sources WHEELS --avoid validation.npz --known train.npz

For each subset FOLDER gets files ``SUBSET/part-000.npz`` of 250 molecules each. A file is written whole, and what it
holds depends on its subset, its number and the molecules to avoid, not on the files before it. Files that exist are not
made again, so the same command goes on after a stop. All subsets grow together, so a part of the set is balanced, too.
"""

import argparse
import itertools
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from geometries import Conformer, cluster, embed, twisted
from molecules import Streams, canonical
from numpy.typing import NDArray
from shards import Arrays, arrays, singles, write
from springs import Springs
from teacher import LARGEST_SPREAD, Geometry, Label, Teacher, sound

# Molecules of each subset in a complete set.
SUBSETS = {"fragments": 6000, "rare": 4000, "small": 4500, "bonds": 1500, "drugs": 1500, "dimers": 2500, "charged": 0}
MOLECULES_PER_FILE = 250
NEWTON_STEPS = 2
HOTTEST, HOTTEST_IN_CLUSTERS, COLDEST = 1500.0, 600.0, 20.0  # K
SHARE_TWISTED = 0.15  # structures in which one rotatable bond is turned by any angle
BOND_SCALES = (0.85, 1.35)
CONTACT_GAPS, WIDE_GAPS, SHARE_WIDE = (-0.9, 0.6), (0.6, 5.0), 0.25  # Angstrom, from van der Waals contact
TRIALS = (1, 1, 8, 30)  # orientations of a neighbour, of which the best is taken


def conformers(teacher: Teacher, smiles: list[str], rng: np.random.Generator) -> dict[str, list[Conformer]]:
    """Conformers of each molecule near the teacher's minima."""
    found = {name: embed(name, int(rng.integers(2**31))) for name in smiles}
    for _ in range(NEWTON_STEPS):
        every = [conformer for several in found.values() for conformer in several]
        labels = iter(teacher([_geometry(conformer) for conformer in every]))
        found = {name: [_closer(conformer, next(labels)) for conformer in several] for name, several in found.items()}
    return {name: kept for name, several in found.items() if (kept := [part for part in several if _sound(part)])}


def _geometry(conformer: Conformer) -> Geometry:
    return Geometry(conformer.skeleton.numbers, conformer.positions, conformer.skeleton.charge)


def _closer(conformer: Conformer, label: Label) -> Conformer:
    positions = Springs(conformer.skeleton, conformer.positions).newton(label.forces.astype(float))
    return Conformer(conformer.skeleton, positions, label.charges)


def _sound(conformer: Conformer) -> bool:
    return sound(conformer.skeleton.numbers, conformer.positions)


def molecule(conformer: Conformer, stretched: bool, rng: np.random.Generator) -> NDArray:
    """Positions of a molecule at a random temperature, with a bond stretched or turned now and then."""
    skeleton = conformer.skeleton
    if rng.random() < SHARE_TWISTED:
        conformer = conformer._replace(positions=twisted(conformer, rng))
    if stretched and len(skeleton.bonds):
        bond = int(rng.integers(len(skeleton.bonds)))
        pulled = Springs(skeleton, conformer.positions).stretched(bond, rng.uniform(*BOND_SCALES))
        conformer = conformer._replace(positions=pulled)
    hottest = HOTTEST_IN_CLUSTERS if stretched else HOTTEST
    return Springs(skeleton, conformer.positions).thermal(rng.uniform(COLDEST, hottest), rng)


def neighbours(parts: list[Conformer], rng: np.random.Generator) -> NDArray:
    """Positions of molecules side by side, each at a random temperature."""
    warm = [
        part._replace(
            positions=Springs(part.skeleton, part.positions).thermal(rng.uniform(COLDEST, HOTTEST_IN_CLUSTERS), rng)
        )
        for part in parts
    ]
    gaps = [rng.uniform(*(WIDE_GAPS if rng.random() < SHARE_WIDE else CONTACT_GAPS)) for _ in parts[1:]]
    return cluster(warm, gaps, int(rng.choice(TRIALS)), rng)


def shard(subset: str, number: int, names: list[str], structures: int, teacher: Teacher) -> Arrays:
    """One file's arrays: so many structures of each of the named molecules or clusters, less those without sense."""
    rng = np.random.default_rng([zlib.crc32(subset.encode()), number])
    several = conformers(teacher, list(dict.fromkeys(part for name in names for part in singles(name))), rng)
    made: list[tuple[str, Geometry]] = []
    for name in names:
        if not all(part in several for part in singles(name)):
            continue
        for _ in range(structures):
            parts = [several[part][rng.integers(len(several[part]))] for part in singles(name)]
            numbers = np.concatenate([part.skeleton.numbers for part in parts])
            positions = neighbours(parts, rng) if len(parts) > 1 else molecule(parts[0], subset == "bonds", rng)
            if sound(numbers, positions):
                made.append((name, Geometry(numbers, positions, sum(part.skeleton.charge for part in parts))))
    labels = teacher([geometry for _, geometry in made])
    kept = [(pair, label) for pair, label in zip(made, labels, strict=True) if label.forces_std <= LARGEST_SPREAD]
    return arrays(
        [geometry for (_, geometry), _ in kept], [label for _, label in kept], subset, [n for (n, _), _ in kept]
    )


def names_in(paths: list[Path]) -> set[str]:
    """The canonical SMILES of the molecules that the files have, each by itself."""
    parts = {part for path in paths for name in np.unique(np.load(path)["name"]) for part in singles(str(name))}
    return parts | {written for part in parts if (written := canonical(part))}


def work(options: argparse.Namespace, streams: Streams) -> Iterator[tuple[Path, str, int, list[str]]]:
    """The files that are still to be made, path, subset, number and names, so that all subsets grow together."""
    plan: list[tuple[float, int, Path, str]] = []
    left: dict[str, Iterator[str]] = {}
    for subset in options.subset or [name for name, count in SUBSETS.items() if count]:
        molecules = options.molecules or SUBSETS[subset] or MOLECULES_PER_FILE
        count = -(-molecules // MOLECULES_PER_FILE)
        paths = [options.folder / subset / f"part-{number:03d}.npz" for number in range(count)]
        if not all(path.is_file() for path in paths):
            left[subset] = itertools.islice(streams(subset), molecules)
            plan += [((number + 1) / count, number, path, subset) for number, path in enumerate(paths)]
    for _, number, path, subset in sorted(plan, key=lambda file: file[0]):
        names = list(itertools.islice(left[subset], MOLECULES_PER_FILE))  # drawn even if the file exists
        if names and not path.is_file():
            yield path, subset, number, names


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sources", type=Path, required=True, help="folder with the wheels of Auto3D and molsets")
    parser.add_argument("--avoid", type=Path, nargs="*", default=[], help="files whose molecules must not occur")
    parser.add_argument("--known", type=Path, nargs="*", default=[], help="files whose molecules need not occur again")
    parser.add_argument("--subset", nargs="*", choices=SUBSETS, help="default: all but charged")
    parser.add_argument("--molecules", type=int, help="of each subset (default: a complete set)")
    parser.add_argument("--structures", type=int, default=8, help="of each molecule (default: %(default)s)")
    parser.add_argument("--ions", action="store_true", help="let clusters have ions")
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no file after that time")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    began = time.monotonic()
    teacher = Teacher(options.sources)
    streams = Streams(options.sources, names_in(options.avoid), names_in(options.known), options.ions)
    for path, subset, number, names in work(options, streams):
        if time.monotonic() - began > 60 * options.minutes:
            break
        cpu = time.process_time()
        data = shard(subset, number, names, options.structures, teacher)
        write(path, data)
        count, atoms = len(data["n_atoms"]), len(data["numbers"])
        cpu = time.process_time() - cpu
        print(
            f"{path}: {len(np.unique(data['name']))} of {len(names)} molecules, {count} structures, {atoms} atoms, "
            f"{cpu:.0f} CPU-seconds, {1000 * cpu / max(atoms, 1):.2f} ms per atom",
            flush=True,
        )


if __name__ == "__main__":
    main()
