"""``Remark``, what a check returns, and what the checks share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.labels import LabelledStructure

Frames = Sequence[LabelledStructure]


@dataclass(frozen=True)
class Remark:
    """One thing that a check noticed in the data.

    Attributes:
        severity: ``error`` if it spoils a training, ``warning`` if it may, ``note`` if it only describes the data.
        subject: what the remark is about, in a word or two.
        text: what was found, what it means, and what to do about it.
        frames: indices of the frames concerned.
    """

    severity: Literal["error", "warning", "note"]
    subject: str
    text: str
    frames: tuple[int, ...] = ()


def note(subject: str, *sentences: str) -> Remark:
    """A remark that describes the data."""
    return Remark("note", subject, " ".join(sentences))


def warning(subject: str, *sentences: str, frames: Iterable[int] = ()) -> Remark:
    """A remark on something that may spoil a training."""
    return Remark("warning", subject, " ".join(sentences), tuple(frames))


def error(subject: str, *sentences: str, frames: Iterable[int] = ()) -> Remark:
    """A remark on something that spoils a training."""
    return Remark("error", subject, " ".join(sentences), tuple(frames))


def where(mask: NDArray[np.bool_]) -> list[int]:
    """Indices at which a mask (frames,) is true."""
    return [int(index) for index in np.flatnonzero(mask)]


def is_atom(frame: LabelledStructure) -> bool:
    """Whether the frame is an isolated atom, in a periodic box or not."""
    return frame.structure.is_isolated_atom()
