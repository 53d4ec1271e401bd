"""Hold one calculator and one structure, and take steps on request. ``run.py`` starts it in the package's environment.

    python worker.py '{"module": "make_mace", "size": "64x0e", "way": "eager", "dtype": "float32", "threads": 1,
                       "device": "cpu", "structure": "3BPA", "folder": "runs/speed/libraries", "memory": 10}'

Each line on stdin is a number of steps, and the answer is one line of JSON. The first answer comes without a request,
when the calculator is ready, compiled and warm.
"""

import contextlib
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase import units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from structures import structure

with contextlib.suppress(ImportError):  # ACE stands on JAX
    import torch

WARM_UP_EVALUATIONS = 3  # compilers trace the first few


def prepared(name: str) -> ase.Atoms:
    """The structure of a name at 300 K, at rest as a whole."""
    atoms = structure(name)
    thermalize_momenta(atoms, 300.0, rng=np.random.default_rng(0))
    Stationary(atoms)
    return atoms


def prepare(task: dict[str, Any]) -> tuple[ase.Atoms, int]:
    """The structure at 300 K with its calculator, and the number of weights of the model."""
    atoms = prepared(task["structure"])
    folder = Path(task["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    make = importlib.import_module(task["module"]).make
    species = sorted(set(atoms.get_chemical_symbols()))
    atoms.calc, parameters = make(task["size"], task["way"], task["dtype"], task["device"], species, folder)
    return atoms, parameters


def stepper(atoms: ase.Atoms) -> Callable[..., float]:
    """Make a function that takes a number of steps and returns the seconds per step.

    Every call starts from the same positions and velocities, and so all models follow the same path: their random
    forces are too small to matter within a few fs. A neighbour list with a skin is made at the start, and made anew
    when atoms have moved far enough. Packages without such a list search at every step anyway.
    """
    positions, momenta = atoms.get_positions(), atoms.get_momenta()
    forget = getattr(atoms.calc, "forget", lambda: None)

    def steps(number: int, at_start: Callable[[], None] = lambda: None) -> float:
        atoms.set_positions(positions)
        atoms.set_momenta(momenta)
        dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
        forget()
        atoms.get_forces()  # evaluate the start now, so that every step has exactly one evaluation
        at_start()
        began = time.perf_counter()
        dynamics.run(number)
        return (time.perf_counter() - began) / number

    return steps


def peak_memory(device: str) -> float:
    """The largest memory of this process so far in MB, on the GPU if it computes there."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()  # getrusage would include the memory of the parent
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    task = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what packages print goes to stderr, so that it is not taken for an answer
    if task["device"] == "cpu":
        limit = int(task["memory"] * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # otherwise Linux would kill some process
    if "torch" in sys.modules:
        torch.set_num_threads(task["threads"])
    try:
        atoms, parameters = prepare(task)
        steps = stepper(atoms)
        for _ in range(WARM_UP_EVALUATIONS):
            atoms.get_forces()
            atoms.rattle(0.02)
        print(json.dumps({"parameters": parameters}), file=answers)
        for line in sys.stdin:
            print(json.dumps({"seconds": steps(int(line)), "memory": peak_memory(task["device"])}), file=answers)
    except Exception as error:  # packages may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        found = f"{type(error).__name__}: {reason}"[:200]
        if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch raises a RuntimeError
            found = f"needs more than {task['memory']:g} GB"
        print(json.dumps({"error": found}), file=answers)
        raise


if __name__ == "__main__":
    main()
