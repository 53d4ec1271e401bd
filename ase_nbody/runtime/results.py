"""From structures to tensors and from predictions to ASE's results, for one structure and for many at once."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ase.calculators.calculator import CalculationFailed
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray
from torch import Tensor

from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.potential import Prediction
from ase_nbody.structure import Structure


def geometry(structures: Sequence[Structure], device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions of all atoms (N, 3) and cells (B, 3, 3) in Angstrom."""
    positions = np.concatenate([structure.positions for structure in structures])
    cells = np.concatenate([structure.cell for structure in structures]).reshape(-1, 3, 3)
    return torch.from_numpy(positions).to(device), torch.from_numpy(cells).to(device)


def collect(structure: Structure, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """ASE's results of a structure from the members' predictions: their mean."""
    energy = float(mean(predictions, "energy")[0])
    energies, forces = mean(predictions, "energies"), mean(predictions, "forces")
    results: dict[str, Any] = {"energy": energy, "free_energy": energy, "energies": energies, "forces": forces}
    if structure.pbc.all():
        stresses = mean(predictions, "virials") / structure.volume
        results["stresses"] = full_3x3_to_voigt_6_stress(stresses)
        results["stress"] = full_3x3_to_voigt_6_stress(stresses.sum(axis=0))
    if not math.isfinite(energies.sum() + forces.sum()):  # else the stress is, too
        raise CalculationFailed(f"the model gave NaN or infinite values. {_closest_pair(structure)}")
    return results


def mean(predictions: Sequence[Prediction], field: str) -> NDArray[np.float64]:
    """The mean of a field over all members' predictions, in memory of its own."""
    if len(predictions) == 1:
        return getattr(predictions[0], field).numpy(force=True).copy()
    return np.asarray(members(predictions, field).mean(axis=0))


def members(predictions: Sequence[Prediction], field: str) -> NDArray[np.float64]:
    """A field of all members' predictions (members, ...)."""
    return np.stack([getattr(prediction, field).detach().cpu().numpy() for prediction in predictions])


def split(prediction: Prediction, structures: Sequence[Structure]) -> list[Prediction]:
    """The prediction of a batch as one for each structure, without the parts' energies."""
    sizes = [len(structure) for structure in structures]
    fields = (prediction.energies, prediction.forces, prediction.virials)
    pieces = zip(prediction.energy.split(1), *(field.split(sizes) for field in fields), strict=True)
    return [Prediction(energy, energies, forces, virials, parts=()) for energy, energies, forces, virials in pieces]


def chunks(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) of runs of items whose sizes sum to ``most`` at the most, or that are single."""
    first, total = 0, 0
    for number, size in enumerate(sizes):
        if number > first and total + size > most:
            yield first, number
            first, total = number, 0
        total += size
    if sizes:
        yield first, len(sizes)


def _closest_pair(structure: Structure) -> str:
    """A sentence that names the two closest atoms, periodic images included."""
    pairs = find_pairs(structure, 1.0)
    if not len(pairs):
        return "No two atoms are closer than 1 Angstrom: it is the model that is at fault."
    closest = pairs.distance.argmin()
    first, second, distance = pairs.first[closest], pairs.second[closest], pairs.distance[closest]
    return f"The closest atoms, {first} and {second}, are {distance:.3g} Angstrom apart."
