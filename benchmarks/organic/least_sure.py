"""Find the structures of which two networks are least sure, and label them with the teacher.

    python benchmarks/organic/least_sure.py OUTPUT.npz FIRST.nbody SECOND.nbody --start train.npz --sources WHEELS

From random structures of the given files, Langevin dynamics runs with the first network at each temperature. The
spread is half the difference of both networks' forces, root mean square over the components. Of each run the structure
with the largest spread is taken. Those with the largest spreads of all are labelled. A run ends where the spread says
that it has left chemistry.
"""

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from shards import arrays, geometries, read, write
from teacher import LARGEST_SPREAD, Geometry, Teacher, sound

from ase_nbody import ExtrapolationWarning, NBodyCalculator

TIMESTEP_FS, FRICTION_PER_FS = 0.5, 0.01
STEPS_BETWEEN_LOOKS = 20
LOST = 2.0  # eV/Angstrom; a spread above it belongs to a structure that has fallen apart


def run(
    start: Geometry, networks: list[NBodyCalculator], temperature: float, steps: int, rng: np.random.Generator
) -> Iterator[tuple[float, Geometry]]:
    """Spreads and structures of one run."""
    leading, other = networks
    atoms = Atoms(start.numbers, start.positions)
    if start.charge:
        atoms.info["charge"] = start.charge
    atoms.calc = leading
    thermalize_momenta(atoms, temperature, rng=rng)
    dynamics = Langevin(
        atoms,
        TIMESTEP_FS * units.fs,
        temperature_K=temperature,
        friction=FRICTION_PER_FS / units.fs,
        fixcm=False,
        rng=rng,
    )
    for _ in range(steps // STEPS_BETWEEN_LOOKS):
        dynamics.run(STEPS_BETWEEN_LOOKS)
        copy = atoms.copy()
        copy.calc = other
        spread = float(np.sqrt(((atoms.get_forces() - copy.get_forces()) ** 2).mean())) / 2
        if not sound(atoms.numbers, atoms.positions) or spread > LOST:
            return
        yield spread, Geometry(atoms.numbers.copy(), atoms.positions.copy(), start.charge)


def candidates(options: argparse.Namespace) -> list[tuple[float, str, Geometry]]:
    """The structure of each run with the largest spread, with its name; the largest spreads come first."""
    rng = np.random.default_rng(options.seed)
    networks = [NBodyCalculator(str(path)) for path in options.networks]
    data = read(options.start)
    fitting = np.flatnonzero((data["n_atoms"] > 1) & (data["n_atoms"] <= options.largest))
    if not options.charged:
        fitting = fitting[data["total_charge"][fitting] == 0]
    structures, found = geometries(data), []
    for number, index in enumerate(rng.choice(fitting, min(options.starts, len(fitting)), replace=False)):
        for temperature in options.temperatures:
            seen = list(run(structures[index], networks, temperature, options.steps, rng))
            if seen:
                spread, geometry = max(seen, key=lambda pair: pair[0])
                found.append((spread, str(data["name"][index]), geometry))
        if number % 20 == 19:
            print(f"{number + 1} starts, {len(found)} structures found", flush=True)
    return sorted(found, key=lambda candidate: -candidate[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("networks", type=Path, nargs=2)
    parser.add_argument("--start", type=Path, nargs="+", required=True, help="files with structures to start from")
    parser.add_argument("--sources", type=Path, required=True, help="folder with the wheel of Auto3D")
    parser.add_argument("--starts", type=int, default=500, help="structures to start from (default: %(default)s)")
    parser.add_argument("--largest", type=int, default=50, help="atoms of a start (default: %(default)s)")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[300.0, 600.0, 1000.0], help="K")
    parser.add_argument("--steps", type=int, default=1000, help="of 0.5 fs (default: %(default)s)")
    parser.add_argument("--keep", type=int, default=500, help="structures to label (default: %(default)s)")
    parser.add_argument("--charged", action="store_true", help="start from charged structures, too")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ExtrapolationWarning)  # it is what we look for
    chosen = candidates(options)[: options.keep]
    if not chosen:
        parser.error("every run left chemistry within its first steps: the networks are too unlike")
    labels = Teacher(options.sources)([geometry for *_, geometry in chosen])
    kept = [pair for pair in zip(chosen, labels, strict=True) if pair[1].forces_std <= LARGEST_SPREAD]
    if not kept:
        parser.error("the teacher is not sure of any of these structures either")
    geometries_, names = [geometry for (*_, geometry), _ in kept], [name for (_, name, _), _ in kept]
    write(options.output, arrays(geometries_, [label for _, label in kept], "unsure", names))
    spreads = [spread for (spread, *_), _ in kept]
    print(
        f"{options.output}: {len(kept)} structures, {len(chosen) - len(kept)} dropped where the teacher is unsure; "
        f"spread of the networks {min(spreads):.2f} to {max(spreads):.2f} eV/Angstrom"
    )


if __name__ == "__main__":
    main()
