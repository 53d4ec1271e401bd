"""Run molecular dynamics in processes that are killed at random moments, or at every access to the disk; then let it
finish. Arguments: model, structure, ensemble, steps, kills (their number, or "accesses"), folder. Prints their number.
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

LONGEST = 0.3  # s that a process lives before it is killed


def run(atoms: ase.Atoms, ensemble: str, steps: int, folder: Path) -> None:
    rng = np.random.default_rng(0)
    draw_velocities(atoms, 300.0, rng)
    dynamics = make_dynamics(atoms, ensemble, timestep=0.5, temperature=300.0, rng=rng)
    with ResumableRun(dynamics, folder, interval=5, checkpoint=10, resume=True) as running:
        running.run_to(steps)


def killed(task: Callable[[], None], seconds: float | None = None) -> bool:
    """Do the task in another process, which is killed after some time or kills itself; whether it was."""
    child = os.fork()
    if not child:
        task()
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit("the run failed")
    return False


def suicidal(task: Callable[[], None], access: int) -> None:
    """Do the task, but die right before the given access to the disk that matters."""
    accesses = iter(range(1, access))

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            if next(accesses, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **keywords)

        return wrapped

    for name in ("fsync", "replace", "open"):
        setattr(os, name, dying(getattr(os, name)))
    task()


def main() -> None:
    model, structure, ensemble, steps, kills, folder = sys.argv[1:]
    torch.set_num_threads(1)
    atoms = ase.io.read(structure)
    atoms.calc = NBodyCalculator(model)
    atoms.get_forces()  # what torch does at its first evaluation is done once, before all children

    def task() -> None:
        try:
            run(atoms, ensemble, int(steps), Path(folder))
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)

    done = 0
    if kills == "accesses":
        # Seven of them make a checkpoint: die before each of the first fourteen, then of those that end a second one.
        while killed(partial(suicidal, task, 1 + done if done < 14 else 8 + done % 7)):
            done += 1
    else:
        moments = random.Random(folder)
        while done < int(kills) and killed(task, moments.uniform(0.0, LONGEST)):
            done += 1
    killed(task)
    print(done)


if __name__ == "__main__":
    main()
