"""``ResumableRun``: a run of molecular dynamics that continues exactly after a kill at any moment."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from ase.calculators.calculator import Calculator
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from numpy.typing import NDArray

from ase_nbody.dynamics.files import Checkpoint, FolderLock, GrowingFile, ResumeError, remove_leftovers
from ase_nbody.dynamics.frames import csv_line, foreign_columns, frame, row
from ase_nbody.dynamics.integrators import get_variables, set_variables, target_temperature
from ase_nbody.dynamics.picture import is_picture_of_a_run, write_picture
from ase_nbody.dynamics.ramp import TemperatureRamp
from ase_nbody.dynamics.same_run import LastFrame, describe, refuse_differences, refuse_moved, refuse_other_forces

_RESULTS = ("energy", "free_energy", "forces", "stress")  # what integrators and frames ask a calculator for
_LONGEST_ROW = 4096  # bytes


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
        ramp: a temperature that changes during the run.

    Raises:
        ResumeError: the folder holds a run and ``resume`` is False; or another run is using the folder; or the run
            there has other atoms, integrator, calculator or settings; or somebody changed its files.
        TypeError: ``integrators.MEMORY`` does not list the integrator.
        ValueError: ``interval`` is not positive, ``checkpoint`` is not a multiple of it, or the integrator is ASE's
            ``NoseHooverChainNVT`` and the atoms have constraints, which it does not hold.
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
        ramp: TemperatureRamp | None = None,
    ) -> None:
        self.dynamics, self.folder, self.interval = dynamics, Path(folder), interval
        self.checkpoint_interval = interval if checkpoint is None else checkpoint
        if interval < 1 or self.checkpoint_interval < 1 or self.checkpoint_interval % interval:
            raise ValueError(
                f"a checkpoint every {self.checkpoint_interval} steps does not go with a frame every {interval} steps: "
                "give a positive number of steps between frames and a multiple of it between checkpoints"
            )
        if type(dynamics) is NoseHooverChainNVT and dynamics.atoms.constraints:
            raise ValueError(
                "ASE's NoseHooverChainNVT gives constrained atoms momenta of its own and cools the others: take "
                "ase_nbody.dynamics.NoseHooverChain, with the same arguments"
            )
        given = {"steps between frames": interval, **(settings or {}), **(ramp.settings if ramp else {})}
        self._ramp = ramp
        self.settings, self._given = {**describe(dynamics), **given}, set(given)
        self._foreign, self.left_out = foreign_columns(dynamics.atoms)
        self.trajectory = GrowingFile(self.folder / "trajectory.extxyz")
        self.table = GrowingFile(self.folder / "table.csv")
        self.picture = self.folder / "run.png"
        self._checkpoint = Checkpoint(self.folder / "checkpoint.json")
        self._unsaved = _Unsaved()
        self._stopping, self._interrupted = False, False
        self._last: LastFrame | None = None
        self._lock = FolderLock(self.folder)
        try:
            self.resumed_at = self._start_or_resume(resume)
        except BaseException:
            self.close()
            raise
        if ramp is not None:
            dynamics.attach(ramp, interval=1)

    def run_to(self, steps: int) -> bool:
        """Run until the integrator has made ``steps`` steps in all, including those before a kill.

        Returns:
            True if the run got there, False if ``stop`` ended it. The checkpoint holds the last frame in both cases.

        Raises:
            ValueError: ``steps`` is not a whole number of intervals.
            ResumeError: the run was closed, its integrator was moved by others, or its folder was moved or removed.
            DynamicsStopped, CalculationFailed, OSError, ...: raised by a monitor, the calculator, the integrator or
                the disk. Another call goes on from the last checkpoint, and so does ``resume``.
        """
        if not self._lock.held:
            raise ResumeError(f"the run in {self.folder} was closed: make another ResumableRun with resume=True")
        self._lock.require_place()
        if self._interrupted:
            self._go_back()
        refuse_moved(self.folder, self._last, self.dynamics)
        if (steps - self.dynamics.nsteps) % self.interval:
            near = steps // self.interval * self.interval
            raise ValueError(
                f"{steps} steps are not a whole number of intervals between frames, each {self.interval} steps long; "
                f"take {near} or {near + self.interval}"
            )
        self._interrupted = True
        self._run_to(steps)
        self._interrupted = self._stopping = False
        return bool(self.dynamics.nsteps >= steps)

    def _run_to(self, steps: int) -> None:
        if self._ramp is not None:
            self._ramp()
        if not self.table.length:
            # The checkpoint comes before the other files: whenever a kill comes, they are never without it.
            self._unsaved = _Unsaved(state=self._state())
            self._save()
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

    def _go_back(self) -> None:
        """After an error: put everything back into the state of the last checkpoint, as ``resume`` does."""
        self._unsaved = _Unsaved()
        saved = self._checkpoint.read()
        if saved is not None:  # otherwise the first checkpoint failed, before the first step
            self._restore(saved)
        self._stopping = False

    def stop(self) -> None:
        """End ``run_to`` after the next frame. A signal handler or an observer may call it."""
        self._stopping = True

    def read_table(self) -> NDArray[np.void]:
        """The table as a structured array: ``run.read_table()["temperature_K"]``."""
        return np.atleast_1d(np.genfromtxt(self.table.path, delimiter=",", names=True))

    def draw(self) -> Path:
        """Draw temperature, energies and pressure over time into ``run.png``, and return its path.

        Raises:
            ImportError: matplotlib is not installed.
            FileExistsError: ``run.png`` is there already, and no run made it.
        """
        table = self.read_table()
        if self._ramp is None:
            target: float | NDArray[np.float64] | None = target_temperature(self.dynamics)
        else:
            target = np.array([self._ramp.temperature_at(step) for step in table["step"]])
        write_picture(self.picture, table, target)
        return self.picture

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
        for path in (self._checkpoint.path, self.picture):
            remove_leftovers(path)
        saved = self._checkpoint.read()
        if saved is None:
            for path in (self.trajectory.path, self.table.path, self.picture):
                if path.exists():
                    raise ResumeError(f"{path} exists, but no checkpoint to resume from: choose another folder")
            return None
        if not saved["step"] and self.picture.exists() and not is_picture_of_a_run(self.picture):
            raise ResumeError(f"{self.picture} is not the picture of a run: move it away, or choose another folder")
        if not resume and not saved["step"]:  # nothing is lost: it was refused or killed before its first checkpoint
            for path in (self.trajectory.path, self.table.path, self._checkpoint.path):
                path.unlink(missing_ok=True)
            return None
        if not resume:
            raise ResumeError(
                f"{self.folder} holds a run of {saved['step']} steps: continue it with resume=True (--resume), or "
                "choose another folder"
            )
        self._restore(saved)
        return int(saved["step"])

    def _take_frame(self) -> None:
        """Keep the present frame, its row and its state until the next checkpoint."""
        values = row(self.dynamics)
        header = "" if self.table.length or self._unsaved.rows else csv_line(list(values))
        rows = self._unsaved.rows + header + csv_line(list(values.values()))
        self._unsaved = _Unsaved(self._unsaved.frames + frame(self.dynamics, self._foreign), rows, self._state())
        self._last = LastFrame.of(self.dynamics)

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
        self._lock.require_place()
        self.trajectory.append(self._unsaved.frames.encode())
        self.table.append(self._unsaved.rows.encode())
        files = {file.path.name: file.state() for file in (self.trajectory, self.table)}
        self._checkpoint.write({"settings": self.settings, "files": files, **self._unsaved.state})
        self._unsaved = _Unsaved()

    def _restore(self, saved: Mapping[str, Any]) -> None:
        """Put atoms, integrator, calculator and files into the saved state."""
        refuse_differences(self.folder, saved["settings"], self.settings, self._given)
        atoms = self.dynamics.atoms
        try:
            atoms.set_cell(saved["cell"], apply_constraint=False)
            atoms.set_positions(saved["positions"], apply_constraint=False)
            atoms.set_momenta(saved["momenta"], apply_constraint=False)
            set_variables(self.dynamics, saved["variables"])
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            raise self._checkpoint.damaged(f"its state does not fit the integrator ({error})") from error
        self.dynamics.nsteps = int(saved["step"])
        forces = atoms.get_forces(apply_constraint=False)
        if saved["results"]:
            refuse_other_forces(self.folder, saved["results"]["forces"], forces)
        _results(atoms.calc).update(saved["results"])  # equal to round-off; they came from a list of another age
        for file in (self.trajectory, self.table):
            file.cut_back(saved["files"][file.path.name])
        self._require_last_row()
        self._last = LastFrame.of(self.dynamics)

    def _require_last_row(self) -> None:
        """Refuse a checkpoint of another moment than the last row of the table: the trajectory would have a jump."""
        step, kinetic = self.dynamics.nsteps, float(self.dynamics.atoms.get_kinetic_energy())
        last: dict[str, str] = {}
        if self.table.length:  # otherwise it was killed before its first frame
            with open(self.table.path, "rb") as file:
                names = file.readline()
                file.seek(max(0, self.table.length - _LONGEST_ROW))  # a long run has millions of rows
                values = file.read().splitlines()[-1]
            last = dict(zip(names.decode().split(","), values.decode().split(","), strict=False))
        ends = (int(last.get("step", 0)), float(last.get("kinetic_eV", kinetic)))
        if ends[0] != step or not np.isclose(ends[1], kinetic, rtol=1e-9, atol=0.0, equal_nan=True):
            raise self._checkpoint.damaged(
                f"it has a kinetic energy of {kinetic:.6g} eV at step {step}, but {self.table.path.name} ends with "
                f"{ends[1]:.6g} eV at step {ends[0]}"
            )

    def _forget_lists(self) -> None:
        forget = getattr(self.dynamics.atoms.calc, "forget", None)
        if forget is not None:
            forget()


def _results(calculator: Any) -> dict[str, Any]:
    """The calculator's cache of its last results; empty if it is not an ASE ``Calculator``."""
    return calculator.results if isinstance(calculator, Calculator) else {}
