"""Molecules that a model never saw, relaxed and then hot: how many keep the bonds they began with?

    python benchmarks/organic/stable.py MODEL ../shared/data/organic/validation.npz --finished stable.jsonl

The molecules are the first 50 names, in sorted order, of one neutral molecule of at least 6 heavy atoms, each from its
first structure: relaxed, then 20 ps of Langevin dynamics at 500 K in steps of 0.5 fs. A bond is shorter than 1.3 times
the sum of the covalent radii. It counts as broken beyond 1.5 times, and a new one as formed below 1.15 times, so that a
vibration is neither.

Each finished molecule is a line of the file: the same command goes on where it was stopped. Another process with
``--backwards`` begins at the other end and shares the work.
"""

import argparse
import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import CalculatorError
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import BFGS
from judging import neutral
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ase_nbody import NBodyCalculator
from ase_nbody.files.archive import read_card

TEMPERATURE_K, TIMESTEP_FS, FRICTION_PER_FS = 500.0, 0.5, 0.01
BONDED, BROKEN, FORMED = 1.3, 1.5, 1.15  # in sums of covalent radii
LEAST_HEAVY_ATOMS = 6
LARGEST_FORCE_EV_PER_ANGSTROM, MOST_STEPS = 0.05, 500  # of the relaxation
STEPS_BETWEEN_LOOKS = 200


def molecules(path: Path, count: int) -> list[tuple[str, Atoms]]:
    """Names and first structures of the molecules."""
    first: dict[str, Atoms] = {}
    for found in neutral(path):
        single = "." not in found.name and " " not in found.name
        if single and (found.atoms.numbers > 1).sum() >= LEAST_HEAVY_ATOMS:
            first.setdefault(found.name, found.atoms)
    return sorted(first.items())[:count]


def stretches(atoms: Atoms) -> NDArray:
    """The distance of each pair of atoms, in sums of their covalent radii; infinite for an atom and itself."""
    radii = covalent_radii[atoms.numbers]
    relative = cdist(atoms.positions, atoms.positions) / (radii[:, None] + radii)
    np.fill_diagonal(relative, np.inf)
    return relative


def changed(bonded: NDArray, atoms: Atoms) -> str:
    """The first bond that is broken or formed, in words; empty if all are as they were."""
    now = stretches(atoms)
    broken, formed = bonded & ~(now < BROKEN), ~bonded & (now < FORMED)
    for what, where in (("broken", broken), ("formed", formed)):
        if where.any():
            i, j = np.argwhere(where)[0].tolist()
            return f"{atoms.symbols[i]}{i}-{atoms.symbols[j]}{j} {what}"
    return ""


def run(name: str, atoms: Atoms, picoseconds: float) -> dict[str, Any]:
    """Relax and heat one molecule; what happened to its bonds."""
    bonded = stretches(atoms) < BONDED
    try:
        relaxed = bool(BFGS(atoms, logfile=None).run(fmax=LARGEST_FORCE_EV_PER_ANGSTROM, steps=MOST_STEPS))
        found = {"name": name, "atoms": len(atoms), "relaxed": relaxed, "ps": 0.0, "change": changed(bonded, atoms)}
        for time_ps in [] if found["change"] else heated(name, atoms, picoseconds):
            found |= {"ps": round(time_ps, 4), "change": changed(bonded, atoms)}
            if found["change"]:
                break
    except CalculatorError as error:  # it came apart so violently that there are no forces
        return {"name": name, "atoms": len(atoms), "change": f"no forces: {error}"}
    return found


def heated(name: str, atoms: Atoms, picoseconds: float) -> Iterator[float]:
    """Run Langevin dynamics; gives the time in ps after every few steps. A name always has the same run."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    thermalize_momenta(atoms, TEMPERATURE_K, rng=rng)
    settings = {"temperature_K": TEMPERATURE_K, "friction": FRICTION_PER_FS / units.fs, "fixcm": False, "rng": rng}
    dynamics = Langevin(atoms, TIMESTEP_FS * units.fs, **settings)
    steps = round(1000 * picoseconds / TIMESTEP_FS)
    while dynamics.nsteps < steps:
        dynamics.run(min(STEPS_BETWEEN_LOOKS, steps - dynamics.nsteps))
        yield dynamics.nsteps * TIMESTEP_FS / 1000


def finished(path: Path) -> dict[str, dict[str, Any]]:
    """The molecules that are done, by name."""
    lines = path.read_text().splitlines() if path.is_file() else []
    whole = [line for line in lines if line.endswith("}")]  # a full disk or a kill cuts a line off
    return {found["name"]: found for found in map(json.loads, whole)}


def is_other(found: dict[str, Any], about: dict[str, Any]) -> bool:
    """Whether a line is of another experiment."""
    return any(found.get(key, value) != value for key, value in about.items())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    parser.add_argument("--finished", type=Path, required=True, help="file that holds a line for each molecule")
    parser.add_argument("--ps", type=float, default=20.0, help="length of each run (default: %(default)s)")
    parser.add_argument("--molecules", type=int, default=50, help="how many (default: %(default)s)")
    parser.add_argument("--eager", action="store_true", help="in float64 and without native code, for short trials")
    parser.add_argument("--backwards", action="store_true", help="begin with the last molecule")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    fast = {} if options.eager else {"dtype": "float32", "compile": True}
    calculator = NBodyCalculator(options.model, **fast)
    # What belongs together: lines of another model or length are another experiment. Earlier lines have no checksum.
    about = {"model": options.model, "checksum": read_card(options.model)["checksum"], "of": options.ps}
    chosen = molecules(options.file, options.molecules)
    for name, atoms in reversed(chosen) if options.backwards else chosen:
        done = finished(options.finished)
        if other := next((found for found in done.values() if is_other(found, about)), None):
            raise SystemExit(
                f"{options.finished} is of {other['model']} ({other.get('checksum', '')[:8]}) and {other['of']} ps: "
                "choose another file"
            )
        if name in done:
            continue
        atoms.calc, began = calculator, time.monotonic()
        found = run(name, atoms, options.ps) | about | {"seconds": round(time.monotonic() - began, 1)}
        with open(options.finished, "a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(found))  # ends a line that was cut off, if there is one
        print(f"{len(done) + 1:3d}  {name}: {found['change'] or 'all bonds kept'}, {found['seconds']} s", flush=True)
    done = finished(options.finished)
    here = [done[name] for name, _ in chosen if name in done]
    kept = sum(not found["change"] for found in here)
    print(f"{kept} of {len(here)} molecules have the bonds they began with after {options.ps:g} ps at", end=" ")
    print(f"{TEMPERATURE_K:g} K (`{options.model}`).")


if __name__ == "__main__":
    main()
