"""``ResumableRun``: a run of molecular dynamics that continues exactly after a kill at any moment."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from ase.calculators.calculator import Calculator
from ase.io.jsonio import encode
from ase.md.md import MolecularDynamics
from numpy.typing import NDArray

from ase_nbody.dynamics.files import Checkpoint, FolderLock, GrowingFile, ResumeError
from ase_nbody.dynamics.frames import csv_line, frame, row
from ase_nbody.dynamics.integrators import get_variables, set_variables, settings_of

_RESULTS = ("energy", "free_energy", "forces", "stress")  # what integrators and frames ask a calculator for


class _Unsaved(NamedTuple):
    """What the next checkpoint will write: text for trajectory and table, and the state at the last frame."""

    frames: str = ""
    rows: str = ""
    state: dict[str, Any] | None = None


class ResumableRun:
    """Run an ASE integrator and keep frames, a table and a checkpoint in a folder.

    >>> with ResumableRun(dynamics, "run", interval=20, resume=True) as run:  # doctest: +SKIP
    ...     run.run_to(10_000)

    A script makes atoms and integrator as if for a new run. If the folder holds a run and ``resume`` is True, the state
    of that run replaces theirs.

    On the same machine and with the same number of threads, the resumed run equals the unbroken one to the last bit.
    Two things ensure that: the checkpoint holds everything that the integrator remembers, and the calculator builds
    its neighbour lists anew after every frame (the age of a list decides in which order terms are added). A calculator
    without a method ``forget`` continues to the last bit only if its results depend on nothing but the structure;
    otherwise it continues to round-off.

    The folder holds ``trajectory.extxyz``, ``table.csv`` (columns named with their unit) and ``checkpoint.json``.

    Args:
        dynamics: integrator of a class that ``integrators.MEMORY`` lists; its atoms have a calculator.
        folder: where the files are, one run in each folder; made if it does not exist.
        interval: steps between frames.
        checkpoint: steps between checkpoints. Frames reach the disk with the checkpoint, so a kill can lose this many
            steps. A multiple of ``interval``; default: ``interval``.
        resume: continue the run in the folder if there is one. Without ``resume``, such a run raises an error.
        settings: JSON-able; further settings that a continued run must share with the original.

    Raises:
        ResumeError: the folder holds a run and ``resume`` is False; or another run is using the folder; or the run
            there has other atoms, integrator, calculator or settings; or somebody changed its files.
        TypeError: ``integrators.MEMORY`` does not list the integrator.
        ValueError: ``interval`` is not positive, or ``checkpoint`` is not a multiple of it.
    """

    def __init__(
        self,
        dynamics: MolecularDynamics,
        folder: str | os.PathLike[str],
        *,
        interval: int = 10,
        checkpoint: int | None = None,
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.dynamics, self.folder, self.interval = dynamics, Path(folder), interval
        self.checkpoint_interval = interval if checkpoint is None else checkpoint
        if interval < 1 or self.checkpoint_interval < 1 or self.checkpoint_interval % interval:
            raise ValueError(
                f"a checkpoint every {self.checkpoint_interval} steps does not go with a frame every {interval} steps: "
                "give a positive number of steps between frames and a multiple of it between checkpoints"
            )
        self.settings = {**_describe(dynamics), "steps between frames": interval, **(settings or {})}
        self.trajectory = GrowingFile(self.folder / "trajectory.extxyz")
        self.table = GrowingFile(self.folder / "table.csv")
        self._checkpoint = Checkpoint(self.folder / "checkpoint.json")
        self._unsaved = _Unsaved()
        self._stopping = False
        self._lock = FolderLock(self.folder)
        try:
            self.resumed_at = self._start_or_resume(resume)
        except BaseException:
            self.close()
            raise

    def run_to(self, steps: int) -> bool:
        """Run until the integrator has made ``steps`` steps in all, including those before a kill.

        Returns:
            True if the run got there, False if ``stop`` ended it. The checkpoint holds the last frame in both cases.

        Raises:
            ValueError: ``steps`` is not a whole number of intervals.
            DynamicsStopped, CalculationFailed, ...: raised by a monitor, the calculator or the integrator. The run can
                be resumed from the last checkpoint.
        """
        if (steps - self.dynamics.nsteps) % self.interval:
            near = steps // self.interval * self.interval
            raise ValueError(
                f"{steps} steps are not a whole number of intervals between frames, each {self.interval} steps long; "
                f"take {near} or {near + self.interval}"
            )
        if not self.table.length:
            self._take_frame()
            self._save()
        while self.dynamics.nsteps < steps and not self._stopping:
            self._forget_lists()
            try:
                self.dynamics.run(self.interval)
            except BaseException:
                self._save()  # up to the last frame
                raise
            self._take_frame()
            if self.dynamics.nsteps % self.checkpoint_interval == 0:
                self._save()
        self._save()
        return bool(self.dynamics.nsteps >= steps)

    def stop(self) -> None:
        """End ``run_to`` after the next frame. A signal handler or an observer may call it."""
        self._stopping = True

    def read_table(self) -> NDArray[np.void]:
        """The table as a structured array: ``run.read_table()["temperature_K"]``."""
        return np.atleast_1d(np.genfromtxt(self.table.path, delimiter=",", names=True))

    def close(self) -> None:
        """Let other runs use the folder."""
        self._lock.release()

    def __enter__(self) -> "ResumableRun":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start_or_resume(self, resume: bool) -> int | None:
        """Start a run in the folder or resume the one there. Return the step it resumes at, None for a new run."""
        self._checkpoint.remove_leftovers()
        saved = self._checkpoint.read()
        if saved is None:
            for file in (self.trajectory, self.table):
                if file.path.exists():
                    raise ResumeError(f"{file.path} exists, but no checkpoint to resume from: choose another folder")
            # The checkpoint comes before the other files: whenever a kill comes, they are never without it.
            self._unsaved = _Unsaved(state=self._state())
            self._save()
            return None
        if not resume:
            raise ResumeError(
                f"{self.folder} holds a run of {saved['step']} steps: continue it with resume, or choose another folder"
            )
        self._restore(saved)
        return int(saved["step"])

    def _take_frame(self) -> None:
        """Keep the present frame, its row and its state until the next checkpoint."""
        values = row(self.dynamics)
        header = "" if self.table.length or self._unsaved.rows else csv_line(list(values))
        rows = self._unsaved.rows + header + csv_line(list(values.values()))
        self._unsaved = _Unsaved(self._unsaved.frames + frame(self.dynamics), rows, self._state())

    def _state(self) -> dict[str, Any]:
        """A copy of everything that the rest of the run depends on."""
        atoms = self.dynamics.atoms
        atoms.get_forces()
        return {
            "step": self.dynamics.nsteps,
            "positions": atoms.get_positions(),
            "momenta": atoms.get_momenta(),
            "cell": atoms.cell.array.copy(),
            "variables": get_variables(self.dynamics),
            "results": {name: np.copy(value) for name, value in _results(atoms.calc).items() if name in _RESULTS},
        }

    def _save(self) -> None:
        """Write what is unsaved, the checkpoint last.

        A kill in between leaves the old checkpoint, and the next run cuts the files back to it.
        """
        if self._unsaved.state is None:
            return
        self.trajectory.append(self._unsaved.frames.encode())
        self.table.append(self._unsaved.rows.encode())
        files = {file.path.name: file.state() for file in (self.trajectory, self.table)}
        self._checkpoint.write({"format": 1, "settings": self.settings, "files": files, **self._unsaved.state})
        self._unsaved = _Unsaved()

    def _restore(self, saved: Mapping[str, Any]) -> None:
        """Put atoms, integrator, calculator and files into the saved state."""
        _refuse_differences(self.folder, saved["settings"], self.settings)
        atoms = self.dynamics.atoms
        atoms.set_cell(saved["cell"], apply_constraint=False)
        atoms.set_positions(saved["positions"], apply_constraint=False)
        atoms.set_momenta(saved["momenta"], apply_constraint=False)
        set_variables(self.dynamics, saved["variables"])
        self.dynamics.nsteps = int(saved["step"])
        forces = atoms.get_forces(apply_constraint=False)
        if saved["results"]:
            _refuse_other_forces(self.folder, saved["results"]["forces"], forces)
        _results(atoms.calc).update(saved["results"])  # equal to round-off; they came from a list of another age
        for file in (self.trajectory, self.table):
            file.cut_back(saved["files"][file.path.name])

    def _forget_lists(self) -> None:
        forget = getattr(self.dynamics.atoms.calc, "forget", None)
        if forget is not None:
            forget()


def _results(calculator: Any) -> dict[str, Any]:
    """The calculator's cache of its last results; empty if it is not an ASE ``Calculator``."""
    return calculator.results if isinstance(calculator, Calculator) else {}


def _describe(dynamics: MolecularDynamics) -> dict[str, Any]:
    """What a continued run must share with the original: its settings, and the atoms except their state."""
    atoms = dynamics.atoms
    return {
        **settings_of(dynamics),
        "atomic numbers": atoms.numbers.copy(),
        "masses": atoms.get_masses(),
        "pbc": atoms.pbc.copy(),
        "constraints": [constraint.todict() for constraint in atoms.constraints],
    }


def _refuse_differences(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [name for name in {**before, **now} if encode(before.get(name)) != encode(now.get(name))]
    if changed:
        details = "; ".join(f"{name} was {_short(before.get(name))} and is {_short(now.get(name))}" for name in changed)
        raise ResumeError(
            f"the run in {folder} has other settings: {details}. "
            "Resume it with the same settings, or choose another folder."
        )


def _refuse_other_forces(folder: Path, before: NDArray[np.float64], now: NDArray[np.float64]) -> None:
    """Refuse a changed model, which would continue without an error, but on another trajectory.

    The tolerance allows for single precision.
    """
    deviation = np.abs(before - now)
    if not (deviation <= 1e-3 + 1e-3 * np.abs(before)).all():
        raise ResumeError(
            f"the calculator gives forces that differ by up to {deviation.max():.3g} eV/Angstrom from those of the run "
            f"in {folder}. Resume it with the model that it began with, or choose another folder."
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
