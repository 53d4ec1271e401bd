"""Structures pressed together as a whole: what a network must know to stay sane outside the density of its data.

    python benchmarks/organic/pressed.py OUTPUT.npz FILE.npz ... --sources WHEELS

Neutral structures of the files are drawn at random, and all their lengths are multiplied by a factor. Where the
teacher's networks still agree, their labels are taken. Further inwards they contradict each other, so the rise of the
energy and the forces are those of GFN2-xTB (tblite), which follows the teacher within some percent as far as the
teacher can be followed (``--compare`` prints both).
"""

import argparse
from pathlib import Path

import ase
import numpy as np
import torch
from ase.calculators.calculator import CalculationFailed
from frames import sound, wanted
from numpy.typing import NDArray
from shards import arrays, geometries, read, write
from tblite.ase import TBLite
from teacher import LARGEST_SPREAD, Geometry, Label, Teacher

SCALES = (0.4, 0.97)  # of all lengths
LARGEST = 30  # atoms
COMPARED = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


def of_tight_binding(geometry: Geometry) -> tuple[float, NDArray]:
    """Energy in eV and forces in eV/Angstrom (atoms, 3) of GFN2-xTB; NaN where it does not converge."""
    atoms = ase.Atoms(geometry.numbers, geometry.positions, calculator=TBLite(method="GFN2-xTB", verbosity=0))
    try:
        return atoms.get_potential_energy(), atoms.get_forces()
    except CalculationFailed:
        return np.nan, np.full(atoms.positions.shape, np.nan)


def scaled(geometry: Geometry, scale: float) -> Geometry:
    """The structure with all lengths multiplied by ``scale``."""
    return geometry._replace(positions=scale * geometry.positions)


def labelled(geometry: Geometry, energy: float, pressed: Geometry, label: Label) -> Label:
    """The label of a pressed structure: the teacher's, or the ``energy`` of the free one and the rise of GFN2-xTB."""
    if label.forces_std <= LARGEST_SPREAD:
        return label
    before, _ = of_tight_binding(geometry)
    after, forces = of_tight_binding(pressed)
    return label._replace(energy=energy + after - before, forces=forces, energy_std=0.0, forces_std=0.0)


def compare(several: list[Geometry], teacher: Teacher) -> None:
    """Print the median over the structures of the rise of both energies, and the spread of the teacher's forces."""
    print("| scale | teacher, eV/atom | GFN2-xTB, eV/atom | spread of the teacher's forces, eV/Angstrom |")
    print("|---|---|---|---|")
    begin = np.array([[teacher([geometry])[0].energy, of_tight_binding(geometry)[0]] for geometry in several])
    sizes = np.array([len(geometry.numbers) for geometry in several])
    for scale in COMPARED:
        pressed = [scaled(geometry, scale) for geometry in several]
        labels = teacher(pressed)
        energies = [[label.energy, of_tight_binding(one)[0]] for label, one in zip(labels, pressed, strict=True)]
        rise = np.nanmedian((energies - begin) / sizes[:, None], axis=0)
        spread = np.median([label.forces_std for label in labels])
        print(f"| {scale:.2f} | {rise[0]:.2f} | {rise[1]:.2f} | {spread:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--sources", type=Path, required=True, help="folder with the wheel of Auto3D")
    parser.add_argument("--structures", type=int, default=4000, help="how many (default: %(default)s)")
    parser.add_argument("--compare", type=int, default=0, metavar="N", help="print both methods on N structures first")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, teacher = np.random.default_rng(0), Teacher(options.sources)
    data = read(options.files)
    eligible = np.flatnonzero(wanted(data, charged=False) & sound(data) & (data["n_atoms"] <= LARGEST))
    if not len(eligible):
        parser.error(f"the files have no neutral structures of 2 to {LARGEST} atoms that are apart")
    chosen = rng.choice(eligible, min(options.structures, len(eligible)), replace=False)
    every = geometries(data)
    if options.compare:
        compare([every[index] for index in chosen[: options.compare]], teacher)
    pressed = [scaled(every[index], rng.uniform(*SCALES)) for index in chosen]
    labels = [
        labelled(every[index], float(data["energy"][index]), geometry, label)
        for index, geometry, label in zip(chosen, pressed, teacher(pressed), strict=True)
    ]
    kept = [row for row, label in enumerate(labels) if np.isfinite(label.energy)]
    write(
        options.output,
        arrays(
            [pressed[row] for row in kept],
            [labels[row] for row in kept],
            "pressed",
            data["name"][chosen[kept]].tolist(),
        ),
    )
    print(f"{options.output}: {len(kept)} of {len(chosen)} structures")


if __name__ == "__main__":
    main()
