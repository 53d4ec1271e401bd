"""Do the teacher's labels agree with those in a file, and are its forces the gradient of its energy?

python benchmarks/organic/check_teacher.py ../shared/data/organic/train.npz --sources WHEELS
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from shards import geometries, read
from teacher import Geometry, Teacher

STRUCTURES, DIFFERENTIATED = 50, 10
DISPLACEMENT = 0.05  # Angstrom; energies carry some 1e-4 eV of rounding, for the network computes in float32


def along(teacher: Teacher, geometry: Geometry, direction: NDArray) -> float:
    """Minus the derivative of the energy along a direction, eV/Angstrom, by five-point differences."""
    shifts = DISPLACEMENT * np.array([-2, -1, 1, 2])
    moved = [geometry._replace(positions=geometry.positions + shift * direction) for shift in shifts]
    energies = np.array([label.energy for label in teacher(moved)])
    return float(-(energies @ [1, -8, 8, -1]) / (12 * DISPLACEMENT))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--sources", type=Path, required=True, help="folder with the wheel of Auto3D")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    data, teacher = read([options.file]), Teacher(options.sources)
    structures = geometries(data)
    forces = np.split(data["forces"], np.cumsum(data["n_atoms"])[:-1])
    molecules = np.flatnonzero(data["n_atoms"] > 1)  # energies of batches of single atoms were added up in some files
    chosen = rng.choice(molecules, STRUCTURES, replace=False)
    labels = teacher([structures[index] for index in chosen])
    pairs = list(zip(chosen, labels, strict=True))
    energy = max(abs(label.energy - data["energy"][index]) for index, label in pairs)
    force = max(float(abs(label.forces - forces[index]).max()) for index, label in pairs)
    spread = max(abs(label.forces_std - data["forces_std"][index]) for index, label in pairs)
    print(f"{STRUCTURES} structures: energies differ by at most {energy:.1e} eV, forces by {force:.1e} eV/Angstrom,")
    print(f"  spreads of forces by {spread:.1e} eV/Angstrom")
    worst = 0.0
    for index, label in pairs[:DIFFERENTIATED]:
        direction = rng.normal(size=forces[index].shape)
        direction /= np.linalg.norm(direction)
        found = along(teacher, structures[index], direction)
        worst = max(worst, abs(found - float((label.forces * direction).sum())))
    print(f"{DIFFERENTIATED} structures: forces differ from finite differences by at most {worst:.1e} eV/Angstrom")


if __name__ == "__main__":
    main()
