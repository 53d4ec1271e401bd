"""Structures for the pretraining, from molecular dynamics at many temperatures with a tight-binding method.

GFN2-xTB (Bannwarth, Ehlert, Grimme, JCTC 15, 1652 (2019)) takes milliseconds for a structure; density-functional theory
takes minutes. The error of GFN2-xTB is a smooth function of the positions. So a network that has learnt GFN2-xTB needs
the user's few frames only to learn this difference. Many short runs start from these frames and heat them up, so that
the structures spread around the frames and beyond.
"""

import contextlib
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
from numpy.typing import NDArray

from ase_nbody.data import DataError, LabelledStructure
from ase_nbody.files.writing import write_whole
from ase_nbody.training.config import ConfigError, PretrainingConfig

FRAMES_NAME = "frames.extxyz"  # the file that ``write_frames`` writes

_RUNS_NAME = "nbody_pretraining_runs"  # the folder of the runs' own files, which are removed at the end
_ORIGIN_NAME = "frames.txt"  # says where the frames come from; it is written before them

_FRAMES_PER_RUN = 40
_TIME_STEP = 1.0 * units.fs
_FRICTION = 0.02 / units.fs
_LARGEST_FORCE_EV_PER_ANGSTROM = 30.0  # a molecule with a larger force has come apart
_MAX_FRAMES_FOR_SHIFT = 200  # at most this number of frames of the data determine the shift of the energies
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


def write_frames(data: Sequence[LabelledStructure], config: PretrainingConfig, folder: Path) -> Path:
    """Write the structures of the pretraining to ``folder/frames.extxyz``, unless they are there already.

    Each run of molecular dynamics writes a file of its own, and the files are joined when all runs are finished. A
    process that was killed therefore continues with the first unfinished run, and writes the same structures as an
    uninterrupted one.

    Args:
        data: molecules to start from.
        config: the number of structures, their temperatures and the method.
        folder: where to write.

    Returns:
        Path of the file: energies in eV at the zero of the data, forces in eV/Angstrom.

    Raises:
        ConfigError: tblite is not installed, or the folder holds structures of other data or another configuration, or
            files under our names that a pretraining did not write.
        DataError: the data are periodic, or no run gives a structure.
    """
    path, origin_file, runs = folder / FRAMES_NAME, folder / _ORIGIN_NAME, folder / _RUNS_NAME
    first = Atoms(data[0].structure.numbers).get_chemical_formula()
    origin = f"{config}, from {len(data)} structures, the first {first}\n"
    if origin_file.is_file() and origin_file.read_text() != origin:
        raise ConfigError(
            f"{folder} holds {origin_file.read_text().strip()}, not {origin.strip()}: choose another folder"
        )
    require_own_structures(folder)
    if path.is_file():
        return path
    if any(frame.structure.pbc.any() for frame in data):
        raise DataError("pretraining is for molecules, but the data are periodic: leave out the entry 'pretraining'")
    shift = energy_shift(data, tight_binding(config.method))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(origin_file, origin.encode())
    runs.mkdir(exist_ok=True)
    files = []
    n_runs = -(-config.frames // _FRAMES_PER_RUN)  # rounded up
    for number in range(n_runs):
        file = runs / f"{number:05d}.extxyz"
        if not file.is_file():
            rng = np.random.default_rng([config.seed, number])
            start = data[int(rng.integers(len(data)))]
            # Each run has a new calculator: a used one would start from other charges and end in another trajectory.
            found = list(_frames_of_run(start, tight_binding(config.method), config, rng, shift))
            text = io.StringIO()
            ase.io.write(text, found, format="extxyz")
            write_whole(file, text.getvalue().encode())
        files.append(file)
    frames = b"".join(file.read_bytes() for file in files)
    if not frames:
        raise DataError(f"{config.method} gives no structure from these data: are their positions in Angstrom?")
    write_whole(path, frames)
    _remove_runs(runs, files)
    return path


def _remove_runs(folder: Path, files: Sequence[Path]) -> None:
    """Remove the files of the runs and what kills left of them, and the folder if nothing else is in it."""
    for file in files:
        for own in (file, *folder.glob(f".{file.name}.*")):
            own.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _frames_of_run(
    start: LabelledStructure,
    calculator: Calculator,
    config: PretrainingConfig,
    rng: np.random.Generator,
    shift: dict[int, float],
) -> Iterator[Atoms]:
    """Labelled frames of one run of Langevin dynamics. The run ends early if the molecule comes apart."""
    atoms = Atoms(start.structure.numbers, start.structure.positions)
    atoms.calc = calculator
    temperature = rng.uniform(*config.temperatures)
    thermalize_momenta(atoms, temperature, rng=rng)
    dynamics = Langevin(atoms, _TIME_STEP, temperature_K=temperature, friction=_FRICTION, fixcm=False, rng=rng)
    energy_zero = sum(shift[number] for number in atoms.numbers.tolist())
    for _ in range(_FRAMES_PER_RUN):
        try:
            dynamics.run(config.steps_apart)
            energy, forces = atoms.get_potential_energy() + energy_zero, atoms.get_forces()
        except CalculatorError:  # the charges did not converge
            return
        if not np.abs(forces).max() < _LARGEST_FORCE_EV_PER_ANGSTROM:
            return
        frame = Atoms(atoms.numbers, atoms.positions)
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        yield frame


def energy_shift(data: Sequence[LabelledStructure], calculator: Calculator) -> dict[int, float]:
    """Energy c_z in eV to add to the calculator's energies for each atom of element z, so that they match the data's.

    The c_z solve sum_z n_z(frame) c_z = E(frame) - E_calculator(frame) by least squares, where n_z counts the atoms of
    element z. If the frames do not determine them, the solution of least norm is taken.

    Args:
        data: molecules with energies in eV; frames without an energy are left out.
        calculator: the calculator whose energies are shifted.

    Returns:
        c_z by atomic number; zeros if no energies can be compared.
    """
    elements = sorted({number for frame in data for number in frame.structure.numbers.tolist()})
    counts: list[NDArray[np.int64]] = []
    differences = []
    with_energy = [frame for frame in data if np.isfinite(frame.energy)]
    for frame in with_energy[:_MAX_FRAMES_FOR_SHIFT]:
        numbers = frame.structure.numbers
        try:
            energy = Atoms(numbers, frame.structure.positions, calculator=calculator).get_potential_energy()
        except CalculatorError:
            continue
        counts.append((numbers[:, None] == elements).sum(0))
        differences.append(frame.energy - energy)
    if not differences:
        return dict.fromkeys(elements, 0.0)
    solution = np.linalg.lstsq(np.array(counts, dtype=np.float64), np.array(differences), rcond=None)[0]
    return dict(zip(elements, solution.tolist(), strict=True))
