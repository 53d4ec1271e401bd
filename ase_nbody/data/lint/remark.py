"""One thing that was noticed in the data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.reading import LabelledStructure

Frames = Sequence[LabelledStructure]


@dataclass(frozen=True)
class Remark:
    """One thing that was noticed.

    Attributes:
        severity: ``error`` spoils a training, ``warning`` may, ``note`` describes.
        subject: in a word or two.
        text: what was found, what it means, what to do.
        frames: indices of the frames concerned.
    """

    severity: Literal["error", "warning", "note"]
    subject: str
    text: str
    frames: tuple[int, ...] = ()


def note(subject: str, *sentences: str) -> Remark:
    """A description."""
    return Remark("note", subject, " ".join(sentences))


def warning(subject: str, *sentences: str, frames: Iterable[int] = ()) -> Remark:
    """What may spoil a training."""
    return Remark("warning", subject, " ".join(sentences), tuple(frames))


def error(subject: str, *sentences: str, frames: Iterable[int] = ()) -> Remark:
    """What spoils a training."""
    return Remark("error", subject, " ".join(sentences), tuple(frames))


def where(mask: NDArray[np.bool_]) -> list[int]:
    """Indices at which a mask (frames,) is true."""
    return [int(index) for index in np.flatnonzero(mask)]


def is_atom(frame: LabelledStructure) -> bool:
    """Whether the frame is a single atom in empty space."""
    return len(frame.structure) == 1 and not frame.structure.pbc.any()
