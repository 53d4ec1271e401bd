"""Whether atoms, integrator and model are those of the run that they are to continue."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.io.jsonio import encode
from ase.md.md import MolecularDynamics
from numpy.typing import NDArray

from ase_nbody.dynamics.files import ResumeError
from ase_nbody.dynamics.integrators import settings_of
from ase_nbody.structure import labels_of


class LastFrame(NamedTuple):
    """The state of a run at its last frame."""

    step: int
    positions: NDArray[np.float64]
    momenta: NDArray[np.float64]
    cell: NDArray[np.float64]

    @classmethod
    def of(cls, dynamics: MolecularDynamics) -> "LastFrame":
        """A copy of the present state."""
        atoms = dynamics.atoms
        return cls(dynamics.nsteps, atoms.get_positions(), atoms.get_momenta(), atoms.cell.array.copy())


def refuse_moved(folder: Path, last: LastFrame | None, dynamics: MolecularDynamics) -> None:
    """Refuse to go on from another state than the last frame: the files of the run would not show what moved it.

    Raises:
        ResumeError: names what has changed.
    """
    if last is None:
        return
    now = LastFrame.of(dynamics)
    if now.step != last.step:
        raise ResumeError(
            f"the integrator is at step {now.step}, but the last frame of the run in {folder} is of step {last.step}: "
            "let run_to alone make the steps, or resume the run from its checkpoint"
        )
    for name, before, after in zip(LastFrame._fields[1:], last[1:], now[1:], strict=True):
        if not np.array_equal(before, after, equal_nan=True):
            raise ResumeError(
                f"something changed the {name} of the atoms since the last frame of the run in {folder} (step "
                f"{now.step}): let run_to alone move them, or start a run in another folder with them"
            )


def describe(dynamics: MolecularDynamics) -> dict[str, Any]:
    """What a continued run must share with the original: its settings, and the atoms except their state.

    The labels of parts are among it if the calculator needs them.
    """
    atoms = dynamics.atoms
    return {
        **settings_of(dynamics),
        "atomic numbers": atoms.numbers.copy(),
        "masses": atoms.get_masses(),
        "pbc": atoms.pbc.copy(),
        "constraints": [constraint.todict() for constraint in atoms.constraints],
        **({"labels of parts": labels_of(atoms)} if getattr(atoms.calc, "is_labelled", False) else {}),
    }


def refuse_differences(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], named: set[str]) -> None:
    """Refuse other settings than those of the run.

    Args:
        folder: of the run, for the message.
        before: settings of the run.
        now: settings of what is to continue it.
        named: the settings that the user gave by name. If one of them differs, the message leaves out what follows
            from it inside the integrator.

    Raises:
        ResumeError: names each entry that differs, with both values.
    """
    changed = [name for name in {**before, **now} if _encoded(before, name) != _encoded(now, name)]
    if any(name in named for name in changed):
        changed = [name for name in changed if name in named or name in ("integrator", "atomic numbers")]
    if changed:
        details = "; ".join(f"{name} was {_shown(before.get(name))} and is {_shown(now.get(name))}" for name in changed)
        has_ramps = "ramp" in changed and before.get("ramp") and now.get("ramp")
        ramp = " To prolong the run, give the ramp the length that it had (nbody md: --ramp-ps)." if has_ramps else ""
        raise ResumeError(
            f"the run in {folder} has other settings: {details}. "
            f"Resume it with the same settings, or choose another folder.{ramp}"
        )


def refuse_other_forces(folder: Path, before: NDArray[np.float64], now: NDArray[np.float64]) -> None:
    """Refuse a changed model, which would continue without an error, but on another trajectory.

    The tolerance allows for single precision.

    Raises:
        ResumeError: names the largest difference in eV/Angstrom.
    """
    deviation = np.abs(before - now)
    if not (deviation <= 1e-3 + 1e-3 * np.abs(before)).all():
        raise ResumeError(
            f"the calculator gives forces that differ by up to {deviation.max():.3g} eV/Angstrom from those of the run "
            f"in {folder}. Resume it with the model that it began with, or choose another folder."
        )


def _encoded(settings: Mapping[str, Any], name: str) -> str:
    """A setting as text that can be compared. ``nvt`` is another name of ``langevin``."""
    value = settings.get(name)
    return str(encode("langevin" if name == "ensemble" and value == "nvt" else value))


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    text = str(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
