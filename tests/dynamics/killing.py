"""Run molecular dynamics in processes that are killed at random moments, or at every access to the disk.

Then let the run finish, and print the number of kills.
Arguments: model, structure, ensemble, steps, kills (a number, or "accesses"), folder.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch

from ase_nbody import NBodyCalculator
from ase_nbody.dynamics import ResumableRun
from ase_nbody.dynamics.ensembles import draw_velocities, make_dynamics

MAX_DELAY_S = 0.005  # from the end of a step to the kill: in the next step, or while a checkpoint is written


def run(atoms: ase.Atoms, ensemble: str, steps: int, folder: Path, after_step: Callable[[], Any]) -> None:
    rng = np.random.default_rng(0)
    draw_velocities(atoms, 300.0, rng)
    dynamics = make_dynamics(atoms, ensemble, timestep=0.5, temperature=300.0, rng=rng)
    dynamics.attach(after_step)
    with ResumableRun(dynamics, folder, interval=5, checkpoint=10, resume=True) as running:
        running.run_to(steps)


def killed(task: Callable[[Callable[[], Any]], None], steps: int = 0, seconds: float = 0.0) -> bool:
    """Do the task in another process and kill it ``seconds`` after ``steps`` steps.

    With ``steps`` = 0 only the task itself may kill its process. Return whether the process was killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        task(partial(os.write, writing, b"."))
        os._exit(0)
    os.close(writing)
    if steps:
        while steps and os.read(reading, 1):
            steps -= 1
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    else:
        while os.read(reading, 4096):
            pass
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit("the run failed")
    return False


def suicidal(task: Callable[[Callable[[], Any]], None], access: int, after_step: Callable[[], Any]) -> None:
    """Do the task, but die right before the given access to the disk."""
    accesses = iter(range(1, access))

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            if next(accesses, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **keywords)

        return wrapped

    for name in ("fsync", "replace", "open"):
        setattr(os, name, dying(getattr(os, name)))
    task(after_step)


def main() -> None:
    model, structure, ensemble, steps, kills, folder = sys.argv[1:]
    torch.set_num_threads(1)
    atoms = ase.io.read(structure)
    atoms.calc = NBodyCalculator(model)
    atoms.get_forces()  # so torch initialises itself once, before there are children

    def task(after_step: Callable[[], Any]) -> None:
        try:
            run(atoms, ensemble, int(steps), Path(folder), after_step)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)

    done = 0
    if kills == "accesses":
        # A checkpoint makes seven accesses. Die before each of the first fourteen, then at the last seven again.
        while killed(partial(suicidal, task, 1 + done if done < 14 else 8 + done % 7)):
            done += 1
    else:
        moments = random.Random(folder)
        longest = int(steps) // max(1, int(kills))  # steps: all lives together are too short for the run to end
        while done < int(kills) and killed(task, moments.randint(1, longest), moments.uniform(0.0, MAX_DELAY_S)):
            done += 1
    killed(task)
    print(done)


if __name__ == "__main__":
    main()
