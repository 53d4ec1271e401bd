"""What ``nbody md`` does while it runs: the progress bar, and signals that end the run after the next frame."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from ase.md.md import MolecularDynamics
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ase_nbody.dynamics import ResumableRun

NS_PER_DAY = 0.0864  # 1 fs per second


@contextmanager
def stopped_by_signals(run: ResumableRun) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM end the run after the next frame, and a second one at once. Yield the signals received."""
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        run.stop()
        # Not ``print``: the signal may have interrupted one.
        os.write(2, b"Interrupted: running to the next frame. Interrupt again to stop at once.\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
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
        kelvin = f"{dynamics.atoms.get_temperature():.0f} K"
        self._progress.update(self._task, completed=dynamics.nsteps, description=kelvin)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
