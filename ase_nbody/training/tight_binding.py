"""Structures for the pretraining, from molecular dynamics at many temperatures with a tight-binding method.

GFN2-xTB (Bannwarth, Ehlert, Grimme, JCTC 15, 1652 (2019)) takes milliseconds for a structure; density-functional theory
takes minutes. The error of GFN2-xTB is a smooth function of the positions. So a network that has learnt GFN2-xTB needs
the user's few frames only to learn this difference. Many short runs start from these frames and heat them up, so that
the structures spread around the frames and beyond.
"""

import contextlib
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, CalculatorError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

from ase_nbody.data import DataError, LabelledStructure, energies_of_isolated_atoms
from ase_nbody.files.writing import leftovers_of, write_whole
from ase_nbody.structure import ISOLATED_ATOM_ANGSTROM, LABEL_ARRAYS
from ase_nbody.training.config import ConfigError, PretrainingConfig
from ase_nbody.training.molecules import EnergyShift, describe_ions, energy_shift, find_molecules, free_molecule
from ase_nbody.training.splits import take

FRAMES_NAME = "frames.extxyz"  # the file that ``write_frames`` writes

_RUNS_NAME = "nbody_pretraining_runs"  # the folder of the runs' own files, which are removed at the end
_ORIGIN_NAME = "frames.txt"  # says where the frames come from; it is written before them

_BEFORE_DIGEST = ", SHA-256 of the data "

_FRAMES_PER_RUN = 40
_TIME_STEP = 1.0 * units.fs
_FRICTION = 0.02 / units.fs
_LARGEST_FORCE_EV_PER_ANGSTROM = 30.0  # a molecule with a larger force has come apart
_MAX_SCF_ITERATIONS = 250


def tight_binding(method: str) -> Calculator:
    """The calculator of a tight-binding method.

    Args:
        method: ``GFN2-xTB`` or ``GFN1-xTB``.

    Raises:
        ConfigError: tblite is not installed.
    """
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise ConfigError("pretraining needs tblite: pip install tblite") from error
    return TBLite(method=method, verbosity=0, max_iterations=_MAX_SCF_ITERATIONS)


def require_own_structures(folder: Path) -> None:
    """Check that what has our names in the folder was written by a pretraining.

    Raises:
        ConfigError: it was not.
    """
    for own in (folder / FRAMES_NAME, folder / _RUNS_NAME):
        if own.exists() and not (folder / _ORIGIN_NAME).is_file():
            raise ConfigError(f"{own} was not written by a pretraining: move it away, or choose another folder")


def write_frames(
    data: Sequence[LabelledStructure],
    config: PretrainingConfig,
    folder: Path,
    *,
    reach: float = ISOLATED_ATOM_ANGSTROM,
) -> Path:
    """Write the structures of the pretraining to ``folder/frames.extxyz``, unless they are there already.

    Isolated atoms of the data are written there too, with the energies of the data.

    Each run of molecular dynamics writes a file of its own, and the files are joined when all runs are finished. A
    process that was killed therefore continues with the first unfinished run, and writes the same structures as an
    uninterrupted one.

    Args:
        data: molecules to start from, and isolated atoms.
        config: the number of structures, their temperatures and the method.
        folder: where to write.
        reach: distance in Angstrom beyond which images of an atom do not count (see ``Structure.is_isolated_atom``).

    Returns:
        Path of the file: energies in eV at the zero of the data, forces in eV/Angstrom.

    Raises:
        ConfigError: tblite is not installed, or the folder holds structures of other data or another configuration, or
            files under our names that a pretraining did not write.
        DataError: the data are periodic or hold what tight binding cannot do (see ``find_molecules``), or no run gives
            a structure.
    """
    path, origin_file, runs = folder / FRAMES_NAME, folder / _ORIGIN_NAME, folder / _RUNS_NAME
    molecules = take(data, find_molecules(data, reach))
    origin = _origin(data, config, molecules, reach)
    if origin_file.is_file():
        _require_same_origin(origin_file.read_text(), origin, folder)
    require_own_structures(folder)
    files = [runs / f"{number:05d}.extxyz" for number in range(-(-config.frames // _FRAMES_PER_RUN))]  # rounded up
    if path.is_file():
        _remove_runs(runs, files)  # a kill may have come between the two
        return path
    shift = energy_shift(molecules, tight_binding(config.method))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(origin_file, origin.encode())
    runs.mkdir(exist_ok=True)
    for number, file in enumerate(files):
        if not file.is_file():
            rng = np.random.default_rng([config.seed, number])
            start = molecules[int(rng.integers(len(molecules)))]
            # Each run has a new calculator: a used one would start from other charges and end in another trajectory.
            found = list(_frames_of_run(start, tight_binding(config.method), config, rng, shift))
            write_whole(file, _as_extxyz(found))
    frames = b"".join(file.read_bytes() for file in files)
    if not frames:
        raise DataError(
            f"{config.method} gives no structure from these data: are their positions in Angstrom, and their charges "
            "(atoms.info['charge']) right?"
        )
    write_whole(path, _as_extxyz(_isolated_atoms(data, reach)) + frames)
    _remove_runs(runs, files)
    return path


def _origin(
    data: Sequence[LabelledStructure], config: PretrainingConfig, molecules: Sequence[LabelledStructure], reach: float
) -> str:
    """One line on where the structures come from."""
    parts = [
        f"{config}, from {len(data)} structures",
        f"the first {Atoms(data[0].structure.numbers).get_chemical_formula()}",
    ]
    parts += [describe_ions(molecules)] if describe_ions(molecules) else []
    isolated = energies_of_isolated_atoms(data, reach)
    said = ", ".join(parts + ([f"with isolated {' and '.join(isolated)}"] if isolated else []))
    return f"{said}{_BEFORE_DIGEST}{_digest(data)}\n"


def _require_same_origin(found: str, origin: str, folder: Path) -> None:
    """Refuse structures of other data or another configuration. Earlier releases kept no digest."""
    before, _, digest = found.strip().partition(_BEFORE_DIGEST)
    now, _, own_digest = origin.strip().partition(_BEFORE_DIGEST)
    if before != now:
        raise ConfigError(f"{folder} holds {before}, not {now}: choose another folder")
    if digest not in ("", own_digest):
        raise ConfigError(
            f"{folder} holds structures that were made from other data of the same size, with the SHA-256 {digest}: "
            "put these data back, or choose another folder"
        )


def _digest(data: Sequence[LabelledStructure]) -> str:
    """SHA-256 of the structures, their charges, energies and forces."""
    total = hashlib.sha256()
    for frame in data:
        structure = frame.structure
        numbers = (structure.positions, structure.cell, structure.charge or 0.0, frame.energy, frame.forces)
        for values in (structure.numbers, structure.pbc, *numbers):
            total.update(np.ascontiguousarray(values, dtype=np.float64).tobytes())
    return total.hexdigest()


def _isolated_atoms(data: Sequence[LabelledStructure], reach: float) -> list[Atoms]:
    """The isolated atoms of the data, so that the network takes their energies from the data and fits none."""
    found = []
    for symbol, energy in energies_of_isolated_atoms(data, reach).items():
        atoms = Atoms(symbol)
        if data[0].structure.labels is not None:
            atoms.set_array(LABEL_ARRAYS[0], np.zeros(1, dtype=np.int64))
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((1, 3)))
        found.append(atoms)
    return found


def _as_extxyz(frames: Sequence[Atoms]) -> bytes:
    text = io.StringIO()
    ase.io.write(text, frames, format="extxyz")
    return text.getvalue().encode()


def _remove_runs(folder: Path, files: Sequence[Path]) -> None:
    """Remove the files of the runs and what kills left of them, and the folder if nothing else is in it."""
    for file in files:
        for own in (file, *leftovers_of(file)):
            own.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _frames_of_run(
    start: LabelledStructure,
    calculator: Calculator,
    config: PretrainingConfig,
    rng: np.random.Generator,
    shift: EnergyShift,
) -> Iterator[Atoms]:
    """Labelled frames of one run of Langevin dynamics. The run ends early if the molecule comes apart."""
    atoms = free_molecule(start.structure)
    atoms.calc = calculator
    temperature = rng.uniform(*config.temperatures)
    thermalize_momenta(atoms, temperature, rng=rng)
    dynamics = Langevin(atoms, _TIME_STEP, temperature_K=temperature, friction=_FRICTION, fixcm=False, rng=rng)
    energy_zero = shift.of(start.structure)
    for _ in range(_FRAMES_PER_RUN):
        try:
            dynamics.run(config.steps_apart)
            energy, forces = atoms.get_potential_energy() + energy_zero, atoms.get_forces()
        except CalculatorError:  # the charges did not converge
            return
        if not np.abs(forces).max() < _LARGEST_FORCE_EV_PER_ANGSTROM:
            return
        frame = Atoms(atoms.numbers, atoms.positions, info=atoms.info)
        if start.structure.labels is not None:
            frame.set_array(LABEL_ARRAYS[0], start.structure.labels)
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        yield frame
