"""What ``nbody md`` does while it runs: the progress bar, and signals that end the run after the next frame."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ase.md.md import MolecularDynamics
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ase_nbody.dynamics import ResumableRun
from ase_nbody.dynamics.integrators import temperature
from ase_nbody.dynamics.signals import ENDING_SIGNALS, is_free

NS_PER_DAY = 0.0864  # 1 fs per second


@contextmanager
def stopped_by_signals(run: ResumableRun) -> Iterator[list[int]]:
    """Let SIGINT, SIGTERM and SIGHUP end the run after the next frame, and a second one at once. Yield those received.

    Signals that are ignored, as ``nohup`` and the shell's background jobs ignore some, go on being ignored.
    """
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        run.stop()
        with suppress(OSError):  # after SIGHUP there is no terminal
            # Not ``print``: the signal may have interrupted one.
            os.write(2, b"Interrupted: running to the next frame. Interrupt again to stop at once.\n")

    before = {number: signal.signal(number, handle) for number in ENDING_SIGNALS if is_free(number)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Speed(ProgressColumn):
    """The speed in ns per day."""

    def render(self, task: Task) -> Text:
        """Show the speed; empty until it is known."""
        return Text(f"{task.speed * task.fields['timestep'] * NS_PER_DAY:.2f} ns/day" if task.speed else "")


class Bar:
    """A progress bar with temperature, speed and remaining time. Without a terminal it shows nothing."""

    def __init__(self, console: Console, steps: int, timestep: float, first: int, quiet: bool) -> None:
        columns = (BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} steps  {task.description}"))
        self._progress = Progress(
            *columns, _Speed(), TimeRemainingColumn(), console=console, disable=quiet or not console.is_terminal
        )
        self._task = self._progress.add_task("", total=steps, completed=first, timestep=timestep)

    def update(self, dynamics: MolecularDynamics) -> None:
        """Show the present step."""
        self._progress.update(self._task, completed=dynamics.nsteps, description=f"{temperature(dynamics):.0f} K")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
