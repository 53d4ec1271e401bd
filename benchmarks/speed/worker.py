"""One calculator and one structure, stepped when asked. Runs in the environment of its package, started by ``run.py``.

    python worker.py '{"module": "make_mace", "size": "64x0e", "way": "eager", "dtype": "float32", "threads": 1,
                       "device": "cpu", "structure": "3BPA", "folder": "runs/speed/libraries", "memory": 10}'

Each line on stdin is a number of steps; the answer is one line of JSON. The first answer, unasked, says that the
calculator is ready, compiled and warm.
"""

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
import torch
from ase import units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from structures import structure

WARM_UP = 3  # evaluations: compilers look at the first few


def prepare(task: dict[str, Any]) -> tuple[ase.Atoms, int]:
    """The structure at 300 K with its calculator, and the number of the model's weights."""
    atoms = structure(task["structure"])
    thermalize_momenta(atoms, 300.0, rng=np.random.default_rng(0))
    Stationary(atoms)
    folder = Path(task["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    make = importlib.import_module(task["module"]).make
    species = sorted(set(atoms.get_chemical_symbols()))
    atoms.calc, parameters = make(task["size"], task["way"], task["dtype"], task["device"], species, folder)
    return atoms, parameters


def stepper(atoms: ase.Atoms) -> Callable[..., float]:
    """A function that takes so many steps and tells the seconds per step.

    It starts from the same positions and velocities every time, so that all models go the same way: their forces are
    random, and so small that they do not matter in a few fs. A neighbour list that can be kept is of the start, and
    built anew when atoms have moved far enough; packages without one search at every step anyway.
    """
    positions, momenta = atoms.get_positions(), atoms.get_momenta()
    forget = getattr(atoms.calc, "forget", lambda: None)

    def steps(number: int, at_start: Callable[[], None] = lambda: None) -> float:
        atoms.set_positions(positions)
        atoms.set_momenta(momenta)
        dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
        forget()
        atoms.get_forces()  # of the start: every step has one evaluation of its own
        at_start()
        began = time.perf_counter()
        dynamics.run(number)
        return (time.perf_counter() - began) / number

    return steps


def peak_memory(device: str) -> float:
    """The most memory that this process has had, on the GPU if it computes there, in MB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()  # getrusage would count what the parent had, too
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    task = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what packages print is not an answer
    if task["device"] == "cpu":
        limit = int(task["memory"] * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # else Linux would kill whatever it likes
    torch.set_num_threads(task["threads"])
    try:
        atoms, parameters = prepare(task)
        steps = stepper(atoms)
        for _ in range(WARM_UP):
            atoms.get_forces()
            atoms.rattle(0.02)
        print(json.dumps({"parameters": parameters}), file=answers)
        for line in sys.stdin:
            print(json.dumps({"seconds": steps(int(line)), "memory": peak_memory(task["device"])}), file=answers)
    except Exception as error:  # whatever a package fails with
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        found = f"{type(error).__name__}: {reason}"[:200]
        if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch's own is a RuntimeError
            found = f"needs more than {task['memory']:g} GB"
        print(json.dumps({"error": found}), file=answers)
        raise


if __name__ == "__main__":
    main()
