"""Do the teacher's labels agree with those in a file, are its forces gradients, and how far do its networks agree?

python benchmarks/organic/check_teacher.py ../shared/data/organic/train.npz --sources WHEELS [--members 300]

With ``--members`` it also prints what the four networks differ by on neutral structures: each from the mean of the
other three, and the mean of two from that of the other two. The labels are the mean of all four. No student can be
expected to follow them much more closely than the networks follow each other.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from frames import sound, wanted
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


def disagreement(teacher: Teacher, several: Sequence[Geometry]) -> Iterator[str]:
    """Mean absolute and root-mean-square differences of the four networks: a line for each comparison."""
    said = teacher.members(several)
    energies = np.stack([of_energy / of_forces.shape[1] for of_energy, of_forces in said], axis=1)
    forces = np.concatenate([of_forces.reshape(len(of_forces), -1) for _, of_forces in said], axis=1)
    for title, groups in (
        ("one network and the mean of the others", [((one,), np.setdiff1d(range(4), one)) for one in range(4)]),
        ("the means of two and two", [((0, other), np.setdiff1d(range(4), (0, other))) for other in (1, 2, 3)]),
    ):
        cells = []
        for values in (energies, forces):
            gaps = 1000 * np.stack([values[list(a)].mean(0) - values[list(b)].mean(0) for a, b in groups])
            cells.append(f"{abs(gaps).mean():.2f} ({np.sqrt((gaps**2).mean()):.2f})")
        yield f"{title}: energies {cells[0]} meV/atom, forces {cells[1]} meV/Angstrom, MAE (RMSE)"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--sources", type=Path, required=True, help="folder with the wheel of Auto3D")
    parser.add_argument("--members", type=int, default=0, help="structures on which the networks are compared")
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
    if options.members:
        neutral = np.flatnonzero(wanted(data, charged=False) & sound(data))
        for line in disagreement(teacher, [structures[index] for index in rng.permutation(neutral)[: options.members]]):
            print(line)


if __name__ == "__main__":
    main()
