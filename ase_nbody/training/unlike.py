"""Frames of a data set with atoms whose surroundings occur nowhere in the training data of a model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ase_nbody.data import LabelledStructure
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.coverage_watch import CoverageWatch


@dataclass(frozen=True)
class UnlikeFrames:
    """Frames that hold atoms unlike the training data.

    Attributes:
        frames: number of these frames.
        of: number of all frames.
        first_frame: index of the first of them.
        atom: index of an atom in this frame that is unlike the training data.
        reason: what is different about it, in words.
    """

    frames: int
    of: int
    first_frame: int
    atom: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.frames} of {self.of} frames hold atoms unlike the training data; the first: frame "
            f"{self.first_frame}, {self.reason}. The model guesses there."
        )

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


def find_unlike(networks: Sequence[NBodyNetwork], data: Sequence[LabelledStructure]) -> UnlikeFrames | None:
    """Count the frames with atoms that are bonded, or packed, unlike every atom of their kind in the training data.

    Args:
        networks: the members of a committee. An atom must be covered for all of them.
        data: structures of elements that the networks know.

    Returns:
        What was found, or None if all frames are covered or the networks do not know their training data.
    """
    watch = CoverageWatch([network.config.coverage for network in networks])
    found = [
        (number, *unlike)
        for number, frame in enumerate(data)
        if (unlike := watch.first_unlike(frame.structure)) is not None
    ]
    return UnlikeFrames(len(found), len(data), *found[0]) if found else None
