"""The frames on whose forces a network errs most: for a table, and as a file to look at or to recompute."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from ase_nbody.data import LabelledStructure

N_WORST_FRAMES = 10


@dataclass(frozen=True)
class WorstFrame:
    """A frame with its reference and the prediction.

    Attributes:
        frame: the structure with the reference labels.
        predicted: the same structure with the network's labels.
        rmse: root-mean-square error of its forces in eV/Angstrom.
    """

    frame: LabelledStructure
    predicted: LabelledStructure
    rmse: float

    def row(self) -> tuple[str, ...]:
        """Where it comes from, its force and energy errors, and its worst atom, as words."""
        error = np.linalg.norm(self.predicted.forces - self.frame.forces, axis=1)
        atom = int(error.argmax())
        energy = 1e3 * (self.predicted.energy - self.frame.energy) / len(self.frame.structure)
        shown = f"{energy:+.3g}" if np.isfinite(energy) else "-"  # the frame may lack an energy
        where = f"{atom} ({chemical_symbols[self.frame.structure.numbers[atom]]})"
        return str(self.frame.source or "-"), f"{1e3 * self.rmse:.3g}", shown, where

    def atoms(self, set_name: str) -> Atoms:
        """The frame for ASE, with the reference as its results and the prediction under names of its own."""
        frame = self.frame
        atoms = frame.structure.to_atoms()
        labels: dict[str, Any] = {"energy": frame.energy} if np.isfinite(frame.energy) else {}
        if np.isfinite(frame.stress).all():
            labels["stress"] = full_3x3_to_voigt_6_stress(frame.stress)
        atoms.calc = SinglePointCalculator(atoms, forces=frame.forces, **labels)
        atoms.info |= {"set": set_name, "forces_rmse": self.rmse, "predicted_energy": self.predicted.energy}
        if frame.source is not None:
            atoms.info |= {"source": frame.source.path, "source_frame": frame.source.frame}
        if "stress" in labels and np.isfinite(self.predicted.stress).all():
            atoms.info["predicted_stress"] = full_3x3_to_voigt_6_stress(self.predicted.stress)
        atoms.arrays["predicted_forces"] = self.predicted.forces
        return atoms


def worst_frames(frames: Sequence[LabelledStructure], predicted: Sequence[LabelledStructure]) -> list[WorstFrame]:
    """The frames with the largest root-mean-square errors of forces, at most ten, the worst first.

    Args:
        frames: structures with reference labels. Those that lack forces are left out.
        predicted: the same structures with the network's labels.
    """
    found = []
    for frame, one in zip(frames, predicted, strict=True):
        rmse = float(np.sqrt(np.mean((one.forces - frame.forces) ** 2)))
        if np.isfinite(rmse):
            found.append(WorstFrame(frame, one, rmse))
    return sorted(found, key=lambda one: -one.rmse)[:N_WORST_FRAMES]


def as_extxyz(worst: Sequence[WorstFrame], set_name: str) -> bytes:
    """The frames as extxyz: energies in eV, forces in eV/Angstrom, stresses in eV/Angstrom^3 with ASE's sign."""
    text = io.StringIO()
    ase.io.write(text, [one.atoms(set_name) for one in worst], format="extxyz")
    return text.getvalue().encode()
