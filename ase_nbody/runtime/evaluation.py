"""``Evaluation``: what the networks say about one structure, and what is wrong if they say nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.hierarchy.tables import Hierarchy
from ase_nbody.network.outputs import PER_STRUCTURE
from ase_nbody.prediction import Prediction
from ase_nbody.structure import Structure
from ase_nbody.undisturbed import undisturbed

# Energies of an atom (eV) and forces (eV/Angstrom) beyond this come from atoms at one place. Their squares, and the
# velocities that follow from them, would soon overflow.
LARGEST_RESULT = 1e30


class EvaluationError(RuntimeError):
    """A structure could not be evaluated: its results are not finite or absurd, or it does not fit into memory."""


class PartEnergies(NamedTuple):
    """Energies of the parts of one level.

    Attributes:
        centres: atom at the centre of each part (P,); of a labelled part its first member.
        energies: energy of each part in eV (P,), without isolated-atom energies.
    """

    centres: NDArray[np.int64]
    energies: NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """What M networks say about one structure of N atoms. Units: eV, Angstrom, e.

    Attributes:
        structure: the structure.
        predictions: one for each network.
        hierarchies: the hierarchy that each network was evaluated on; empty if the structure was in a batch.
    """

    structure: Structure
    predictions: Sequence[Prediction]
    hierarchies: Sequence[Hierarchy] = ()

    def members(self, name: str) -> NDArray[np.float64]:
        """What each network says, by name.

        The first axis counts the networks: ``energy`` (M,), ``energies`` (M, N), ``forces`` (M, N, 3), ``virials``
        (M, N, 3, 3), ``charges`` (M, N), ``dipole`` (M, 3).
        """
        return np.stack(self._arrays(name))

    def mean(self, name: str) -> NDArray[np.float64]:
        """The mean over the networks, as a new array."""
        first, *others = self._arrays(name)
        return np.mean([first, *others], axis=0, dtype=np.float64) if others else np.array(first)

    def _arrays(self, name: str) -> list[NDArray[np.float64]]:
        """What each network says; on a CPU the arrays share the memory of the predictions."""
        arrays = [prediction[name].numpy(force=True) for prediction in self.predictions]
        return [array[0] for array in arrays] if name in PER_STRUCTURE else arrays  # a batch of one structure

    @property
    def is_sound(self) -> bool:
        """Whether all results are finite and below ``LARGEST_RESULT``; virials follow from energies and forces."""
        return self._largest() < LARGEST_RESULT  # false for NaN too

    @property
    def fault(self) -> str:
        """What is wrong with results that are not sound."""
        if not np.isfinite(self._largest()):
            return "NaN or infinite values"
        return f"results above {LARGEST_RESULT:g} (in eV, Angstrom, e)"

    def _largest(self) -> float:
        outputs = set.intersection(*({*prediction.outputs} for prediction in self.predictions))
        names = ("energies", "forces", *outputs)
        return float(np.max([abs(array).max(initial=0.0) for name in names for array in self._arrays(name)]))  # NaN too

    def spread(self, name: str) -> NDArray[np.float64]:
        """The standard deviation over the networks; zero for a single one."""
        return np.asarray(self.members(name).std(axis=0))

    @cached_property
    @undisturbed()
    def part_energies(self) -> list[PartEnergies]:
        """Energies of the parts of each level, the lowest first: the mean over networks that share one hierarchy.

        Raises:
            ValueError: the networks have different hierarchies, or the structure was evaluated in a batch.
        """
        if any(hierarchy is not self.hierarchies[0] for hierarchy in self.hierarchies[1:]):
            raise ValueError("the committee's members have different hierarchies: ask each one by itself")
        if not self.hierarchies:
            raise ValueError("structures evaluated in a batch have no energies of parts: evaluate them one by one")
        parts = Prediction.mean(self.predictions).parts
        levels = zip(self.hierarchies[0].levels, parts, strict=True)
        # Copies: the hierarchy serves the next evaluation too.
        tensors = [(level.centre, part.double()) for level, part in levels]
        return [PartEnergies(*(np.array(tensor.numpy(force=True)) for tensor in pair)) for pair in tensors]


def split_batch(prediction: Prediction, structures: Sequence[Structure]) -> list[Prediction]:
    """Split the prediction of a batch into one for each structure, without the energies of parts."""
    sizes = [len(structure) for structure in structures]
    named = {name: t for name, t in prediction.named().items() if not name.startswith("part_energies")}
    pieces = {name: tensor.split(1 if name in PER_STRUCTURE else sizes) for name, tensor in named.items()}
    return [
        Prediction.from_named({name: split[index] for name, split in pieces.items()}) for index in range(len(sizes))
    ]


def require_finite(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation, or raise ``EvaluationError`` if it has NaN, infinite or absurd values."""
    if not evaluation.is_sound:
        raise EvaluationError(f"the model gave {evaluation.fault}. {_closest_pair(evaluation.structure)}")
    return evaluation


def _closest_pair(structure: Structure) -> str:
    """A sentence that names the two closest atoms, periodic images included."""
    pairs = find_pairs(structure, 1.0)
    if not len(pairs):
        return "No two atoms are closer than 1 Angstrom: it is the model that is at fault."
    closest = pairs.distance.argmin()
    first, second, distance = pairs.first[closest], pairs.second[closest], pairs.distance[closest]
    return f"The closest atoms, {first} and {second}, are {distance:.3g} Angstrom apart."
