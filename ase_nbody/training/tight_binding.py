"""Structures for the pretraining: molecular dynamics at many temperatures, labelled by a tight-binding method.

GFN2-xTB (Bannwarth, Ehlert, Grimme, JCTC 15, 1652 (2019)) costs milliseconds a structure where density-functional
theory costs minutes, and is wrong smoothly: what a network learns of it, it need not learn from the user's few frames
again. Many short runs start from these frames and heat up, so the structures spread around them and beyond.
"""

import io
import shutil
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

_FRAMES_PER_RUN = 40
_TIME_STEP, _FRICTION = 1.0 * units.fs, 0.02 / units.fs
_LARGEST_FORCE = 30.0  # eV/Angstrom; a run that meets a larger one has come apart
_COMPARED = 200  # frames of the data whose energies set the zero


def tight_binding(method: str) -> Calculator:
    """The calculator of a tight-binding method.

    Raises:
        ConfigError: tblite is not installed.
    """
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise ConfigError('pretraining needs tblite: pip install "ase-nbody[pretraining]"') from error
    return TBLite(method=method, verbosity=0, max_iterations=250)


def write_frames(data: Sequence[LabelledStructure], config: PretrainingConfig, folder: Path) -> Path:
    """Write the structures of the pretraining to ``folder/frames.extxyz``, unless they are there.

    Each run has a file of its own until all are done, so that what a kill interrupts goes on where it was; what is
    written does not depend on kills.

    Args:
        data: structures to start from, of molecules.
        config: how many structures, at which temperatures.
        folder: where to write.

    Raises:
        ConfigError: tblite is not installed, or the folder holds structures of other data or another configuration.
        DataError: the data are periodic, or no run gives a structure.
    """
    path, note = folder / "frames.extxyz", folder / "frames.txt"
    first = Atoms(data[0].structure.numbers).get_chemical_formula()
    origin = f"{config}, from {len(data)} structures, the first {first}\n"
    if note.is_file() and note.read_text() != origin:
        raise ConfigError(f"{folder} holds {note.read_text().strip()}, not {origin.strip()}: take another folder")
    if path.is_file():
        return path
    if any(frame.structure.pbc.any() for frame in data):
        raise DataError("pretraining is for molecules, but the data are periodic: leave out the entry 'pretraining'")
    shift = energy_shift(data, tight_binding(config.method))
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    write_whole(note, origin.encode())
    pieces = []
    for number in range(-(-config.frames // _FRAMES_PER_RUN)):
        piece = runs / f"{number:05d}.extxyz"
        if not piece.is_file():
            rng = np.random.default_rng([config.seed, number])
            start = data[int(rng.integers(len(data)))]
            # A calculator of its own: one that was used before starts from other charges, and ends elsewhere.
            found = list(_run(start, tight_binding(config.method), config, rng, shift))
            text = io.StringIO()
            ase.io.write(text, found, format="extxyz")
            write_whole(piece, text.getvalue().encode())
        pieces.append(piece)
    frames = b"".join(piece.read_bytes() for piece in pieces)
    if not frames:
        raise DataError(f"{config.method} gives no structure from these data: are they what their units say?")
    write_whole(path, frames)
    shutil.rmtree(runs)
    return path


def _run(
    start: LabelledStructure,
    calculator: Calculator,
    config: PretrainingConfig,
    rng: np.random.Generator,
    shift: dict[int, float],
) -> Iterator[Atoms]:
    """Labelled frames of one run of Langevin dynamics, which ends early if the molecule comes apart."""
    atoms = Atoms(start.structure.numbers, start.structure.positions)
    atoms.calc = calculator
    temperature = rng.uniform(*config.temperatures)
    thermalize_momenta(atoms, temperature, rng=rng)
    dynamics = Langevin(atoms, _TIME_STEP, temperature_K=temperature, friction=_FRICTION, fixcm=False, rng=rng)
    zero = sum(shift[number] for number in atoms.numbers.tolist())
    for _ in range(_FRAMES_PER_RUN):
        try:
            dynamics.run(config.steps_apart)
            energy, forces = atoms.get_potential_energy() + zero, atoms.get_forces()
        except CalculatorError:  # self-consistency was not reached
            return
        if not np.abs(forces).max() < _LARGEST_FORCE:
            return
        frame = Atoms(atoms.numbers, atoms.positions)
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        yield frame


def energy_shift(data: Sequence[LabelledStructure], calculator: Calculator) -> dict[int, float]:
    """Energy in eV by which each atom of an element moves the calculator's energies to the zero of those of the data.

    The least-squares solution of least norm of sum_z n_z(frame) c_z = E(frame) - E_calculator(frame).
    """
    elements = sorted({number for frame in data for number in frame.structure.numbers.tolist()})
    counts: list[NDArray[np.int64]] = []
    differences = []
    for frame in [frame for frame in data if np.isfinite(frame.energy)][:_COMPARED]:
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
