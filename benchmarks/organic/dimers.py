"""Interaction energies of molecular dimers: errors of models, and of GFN2-xTB beside them, by set and by distance.

    python benchmarks/organic/dimers.py MODEL ... --data ../shared/data/dimers_sapt/dimers.extxyz --xtb gfn2.npz

The interaction energy is that of the dimer less those of both molecules as they stand in it. Dimers with a charged
molecule are left out, and so are those with elements that one of the models does not know. The distance of a dimer is
the smallest distance of an atom of one molecule to one of the other, divided by the sum of their van der Waals radii
(Alvarez). The energies of GFN2-xTB on the others are kept in the file that ``--xtb`` names, with a digest of the
structures, and not computed again. Prints Markdown.
"""

import argparse
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.data.vdw_alvarez import vdw_radii
from judging import KCAL_PER_MOL, predicted, table
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from shards import write

from ase_nbody import NBodyCalculator

DISTANCES = (0.0, 0.65, 0.8, 0.95, 1.1, 1.3, np.inf)  # bounds of the classes
Dimer = tuple[Atoms, Atoms, Atoms]  # both together, the first, the second


def dimer(atoms: Atoms) -> Dimer:
    count = atoms.info["atoms_of_first"]
    return atoms, atoms[:count], atoms[count:]


def distance(both: Dimer) -> float:
    """The closest contact of the two molecules, in sums of van der Waals radii."""
    _, first, second = both
    radii = vdw_radii[first.numbers][:, None] + vdw_radii[second.numbers]
    return float((cdist(first.positions, second.positions) / radii).min())


def interactions(energies: Sequence[float]) -> NDArray:
    """Interaction energies (dimers,) from the energies of each dimer and its molecules, one after the other."""
    together, first, second = np.reshape(energies, (-1, 3)).T
    return together - first - second


def of_model(calculator: NBodyCalculator, dimers: Sequence[Dimer]) -> NDArray:
    """Interaction energies (dimers,) in eV."""
    structures = [bare(atoms) for both in dimers for atoms in both]
    return interactions([energy for energy, _ in predicted(calculator, structures)])


def of_tight_binding(dimers: Sequence[Dimer], path: Path | None) -> NDArray:
    """Interaction energies (dimers,) of GFN2-xTB in eV, NaN where it does not converge."""
    from ase.calculators.calculator import CalculatorError
    from tblite.ase import TBLite

    digest = digest_of(dimers)
    if path and path.is_file():
        known = np.load(path)
        if not isinstance(known, np.lib.npyio.NpzFile) or str(known["sha256"]) != digest:
            raise SystemExit(f"{path} has the energies of other dimers, or does not say of which: choose another file")
        return known["energies"]
    energies = []
    for number, both in enumerate(dimers, start=1):
        for atoms in both:
            free = bare(atoms)
            free.calc = TBLite(method="GFN2-xTB", verbosity=0)
            try:
                energies.append(free.get_potential_energy())
            except CalculatorError:
                energies.append(np.nan)
        if number % 500 == 0:
            print(f"GFN2-xTB: {number} of {len(dimers)} dimers", flush=True)
    found = interactions(energies)
    if path:
        write(path, {"energies": found, "sha256": np.array(digest)})
    return found


def digest_of(dimers: Sequence[Dimer]) -> str:
    """What tells these dimers, in this order, from all others."""
    digest = hashlib.sha256()
    for _, *molecules in dimers:
        for atoms in molecules:
            digest.update(np.int64([len(atoms), *atoms.numbers]).tobytes() + atoms.positions.tobytes())
    return digest.hexdigest()


def bare(atoms: Atoms) -> Atoms:
    """The structure without the labels of the file."""
    return Atoms(atoms.numbers, atoms.positions)


def between(low: float, high: float) -> str:
    """A class of distances in words."""
    return f"below {high}" if not low else f"above {low}" if high == np.inf else f"{low} to {high}"


def rows(groups: NDArray, titles: Sequence[str], reference: NDArray, methods: Sequence[NDArray]) -> Iterator[list[str]]:
    """For each group: how many dimers, how strong, and each method's mean absolute error in kcal/mol and in meV."""
    for number, title in enumerate(titles):
        chosen = groups == number
        if chosen.any():
            errors = [np.nanmean(abs(energies - reference)[chosen]) for energies in methods]
            cells = [f"{error / KCAL_PER_MOL:.2f} ({1000 * error:.0f})" for error in errors]
            strength = abs(reference[chosen]).mean() / KCAL_PER_MOL
            yield [title, str(chosen.sum()), f"{strength:.2f}", *cells]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True, help="dimers with interaction_energy, as extended XYZ")
    parser.add_argument("--xtb", type=Path, help="file for the interaction energies of GFN2-xTB (.npz)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take only every Nth dimer of the file")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    everything = ase.io.read(options.data, f"::{options.every}")
    calculators = [NBodyCalculator(model) for model in options.models]
    known = [{*calculator.species} for calculator in calculators]
    chosen, charged, unknown = [], Counter[str](), Counter[str]()
    for atoms in everything:
        if atoms.info["charge_first"] or atoms.info["charge_second"]:
            charged[atoms.info["set"]] += 1
        elif not all({*atoms.symbols} <= species for species in known):
            unknown[atoms.info["set"]] += 1
        else:
            chosen.append(atoms)
    dimers = [dimer(atoms) for atoms in chosen]
    reference = np.array([atoms.info["interaction_energy"] for atoms in chosen])
    methods = [*(of_model(calculator, dimers) for calculator in calculators), of_tight_binding(dimers, options.xtb)]
    print(f"{len(dimers)} dimers of neutral molecules.")
    for what, left_out in (("a charged one", charged), ("elements that a model does not know", unknown)):
        if left_out:
            print(f"{left_out.total()} with {what} are left out:", end=" ")
            print(", ".join(f"{name} {count}" for name, count in sorted(left_out.items())) + ".")
    print("Mean absolute errors of interaction energies in kcal/mol (meV).\n")
    columns = ["dimers", "mean strength, kcal/mol", *(f"`{model}`" for model in options.models), "GFN2-xTB"]
    names, sets = np.unique([atoms.info["set"] for atoms in chosen], return_inverse=True)
    classes = np.digitize(list(map(distance, dimers)), DISTANCES) - 1
    titles = list(itertools.starmap(between, itertools.pairwise(DISTANCES)))
    print(table(["", *columns], rows(np.zeros(len(dimers)), ["all"], reference, methods)) + "\n")
    print(table(["closest contact", *columns], rows(classes, titles, reference, methods)) + "\n")
    print(table(["set", *columns], rows(sets, names.tolist(), reference, methods)))
    if lost := int(np.isnan(methods[-1]).sum()):
        print(f"\nGFN2-xTB does not converge for {lost} dimers, which its errors leave out.")


if __name__ == "__main__":
    main()
