"""What ``nbody md`` decides before it runs: structure, velocities, length and the distance of frames."""

import hashlib
import math
from pathlib import Path

import ase
import numpy as np

from ase_nbody.cli.keys import check_threads
from ase_nbody.data.structures import read_structures
from ase_nbody.dynamics.ensembles import check_conditions, check_temperature, draw_velocities
from ase_nbody.dynamics.files import Checkpoint
from ase_nbody.files.archive import read_card
from ase_nbody.files.example import example_structure
from ase_nbody.structure import Structure, StructureError

DEFAULT_INTERVAL = 20  # steps between frames
VELOCITIES = ("auto", "keep", "new")
_LEAST_INTERVAL, _MOST_INTERVAL = 5, 100  # of intervals that are chosen so that the run is a whole number of them
_MAX_STEPS = 10**12


def check_options(
    ensemble: str,
    timestep: float,
    temperature: float,
    pressure: float,
    velocities: str,
    ramp_to: float | None,
    ramp_ps: float | None,
    threads: int,
    bounds: dict[str, float | None],
) -> None:
    """Refuse options that are out of range, not numbers, or without effect, before anything is read or written.

    Raises:
        ValueError: names the option, its value and what is allowed.
    """
    check_conditions(ensemble, timestep, temperature, pressure)
    if pressure and ensemble != "npt":
        raise ValueError(f"--pressure {pressure:g} has no effect on --ensemble {ensemble}: leave it out or choose npt")
    if velocities not in VELOCITIES:
        raise ValueError(f"--velocities must be one of {', '.join(VELOCITIES)}, got {velocities!r}")
    if ramp_to is None and ramp_ps is not None:
        raise ValueError("--ramp-ps is the length of a ramp: give its final temperature, --ramp-to, too")
    if ramp_to is not None:
        check_temperature(ensemble, ramp_to)
        if ensemble == "nve":
            raise ValueError("--ramp-to needs a thermostat, and nve has none: choose another --ensemble")
    if ramp_ps is not None and not 0 < 1000 * ramp_ps / timestep <= _MAX_STEPS:
        raise ValueError(f"--ramp-ps must be a length above 0 ps and at most 1e12 steps, got {ramp_ps}")
    check_threads(threads)
    for name, bound in bounds.items():
        if bound is not None and not bound > 0:  # infinity sets no bound
            raise ValueError(f"--{name.replace('_', '-')} must be a number above 0, got {bound}")


def plan_length(
    ps: float | None, steps: int | None, timestep: float, interval: int | None, folder: Path | None
) -> tuple[int, int]:
    """The length of the run and the distance of its frames, both in steps.

    A length in ps that is a whole number of steps is kept to the step. Others are rounded up to whole intervals.
    Without an interval, the frames are 20 steps apart (or as far as in the run that ``folder`` holds), or as near to
    that as a whole number of intervals allows.

    Raises:
        ValueError: both or impossible lengths, or one that is not a whole number of intervals.
    """
    if ps is not None and steps is not None:
        raise ValueError("--ps and --steps both set the length of the run: give one of them")
    checkpoint = None if folder is None else Checkpoint(folder / "checkpoint.json")
    saved = checkpoint and checkpoint.read()
    if checkpoint and saved and interval is None:
        interval = saved["settings"].get("steps between frames")
        if type(interval) is not int or interval < 1:
            raise checkpoint.damaged(f"it says that its frames are {interval!r} steps apart")
    if steps is None:
        picoseconds = 1.0 if ps is None else ps
        exact = 1000 * picoseconds / timestep
        if not 0.0 <= exact <= _MAX_STEPS:
            raise ValueError(f"--ps must be a length of at least 0 ps and at most 1e12 steps, got {picoseconds}")
        steps = round(exact)
        if abs(exact - steps) > 1e-6 + 1e-12 * exact:
            every = interval or DEFAULT_INTERVAL
            return math.ceil(exact / every) * every, every
    if steps > _MAX_STEPS:
        raise ValueError(f"--steps must be at most 1e12, got {steps}")
    every = interval or _interval_for(steps)
    if steps % every:
        near = steps // every * every
        raise ValueError(
            f"{steps} steps are not a whole number of intervals between frames, each {every} steps long; "
            f"take {near} or {near + every}" + ("" if saved is not None else ", or another --interval")
        )
    return steps, every


def _interval_for(steps: int) -> int:
    """The default distance of frames, or the nearest one that divides ``steps``."""
    candidates = [*range(DEFAULT_INTERVAL, _LEAST_INTERVAL - 1, -1), *range(DEFAULT_INTERVAL + 1, _MOST_INTERVAL + 1)]
    for candidate in candidates:
        if steps % candidate == 0:
            return candidate
    if steps < _LEAST_INTERVAL:
        return steps
    near = steps // DEFAULT_INTERVAL * DEFAULT_INTERVAL
    raise ValueError(
        f"{steps} steps are not a whole number of intervals of {_LEAST_INTERVAL} to {_MOST_INTERVAL} steps between "
        f"frames: take {near} or {near + DEFAULT_INTERVAL} steps, or give --interval"
    )


def read_structure(structure: str | None, model: str) -> ase.Atoms:
    """The last frame of a structure file, or without a file the example in the model's card.

    Raises:
        ValueError: there is no such file, no atoms can be read from it, they are no structure (NaN, dummy atoms, a
            cell without a volume, ...), or the model has no example.
    """
    if structure is None:
        example = example_structure(read_card(model)["card"])
        if example is None:
            raise ValueError(f"the model {model} has no example structure: name a file, nbody md {model} STRUCTURE")
        return example.to_atoms()
    try:
        atoms = read_structures(structure, "-1", default="-1")[0]
    except FileNotFoundError:
        raise ValueError(f"there is no structure file {structure}") from None
    if not len(atoms):
        raise ValueError(f"{structure} must hold a structure, but its last frame has no atoms")
    try:
        Structure.from_atoms(atoms)
    except StructureError as error:  # said before velocities are drawn, which needs finite positions
        raise ValueError(f"{structure} holds no structure that can be simulated: {error}") from None
    if not np.isfinite(atoms.get_momenta()).all():
        raise ValueError(f"the velocities in {structure} are not all finite: correct the file")
    return atoms


def fingerprint(atoms: ase.Atoms) -> str:
    """The SHA-256 checksum of the structure that a run starts from."""
    digest = hashlib.sha256()
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, atoms.get_momenta()):
        digest.update(array.tobytes())
    if atoms.info.get("charge"):  # neutral structures have the checksum that they had before there were charges
        digest.update(repr(atoms.info["charge"]).encode())
    if (multiplicity := Structure.from_atoms(atoms).multiplicity) is not None:
        digest.update(f"multiplicity {multiplicity}".encode())
    return digest.hexdigest()


def give_velocities(atoms: ase.Atoms, velocities: str, temperature: float, rng: np.random.Generator) -> bool:
    """Draw velocities, or keep those of the file.

    Args:
        atoms: the structure; its momenta change.
        velocities: ``"auto"`` keeps those of the file unless all are zero (as files that cannot leave them out have
            them), ``"keep"`` keeps even zeros, and ``"new"`` draws.
        temperature: of the drawn velocities in K.
        rng: their random numbers.

    Returns:
        Whether velocities of the file that are not zero were kept.
    """
    moving = bool(atoms.get_momenta().any())
    if velocities == "new" or (velocities == "auto" and not moving):
        draw_velocities(atoms, temperature, rng)
        return False
    return moving


def refuse_hot_start(kelvin: float, bound: float, temperature: float, ensemble: str) -> None:
    """Refuse velocities of the file that are beyond the monitor's bound, which would end the run at step 0.

    Args:
        kelvin: temperature of the velocities in K.
        bound: of the monitor in K.
        temperature: the target in K.
        ensemble: of the run.

    Raises:
        ValueError: names both temperatures and the ways out.
    """
    if kelvin > bound:
        higher = f"--max-temperature {1.2 * kelvin:.0f}"
        ways = (
            f"{higher} lets them be"
            if ensemble == "nve"
            else f"--temperature {kelvin:.0f} --ramp-to {temperature:g} cools slowly; {higher} lets the thermostat cool"
        )
        raise ValueError(
            f"the velocities of the structure file have {kelvin:.0f} K, beyond the bound of {bound:.0f} K "
            f"(--max-temperature). --velocities new draws others at {temperature:g} K; {ways}"
        )
