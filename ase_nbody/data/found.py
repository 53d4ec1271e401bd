"""What a data file was found to hold: labels and their names, labels that structures cannot have, charges and spins."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ase_nbody.data.labels import LABELS, LabelledStructure
from ase_nbody.data.names import Names
from ase_nbody.text import printable

_ALWAYS_SAID = ("energy", "forces", "stress")
_CANNOT_HAVE = {
    "crystal": "structures that are not periodic in three directions have none",
    "molecule": "periodic structures have none",
}
# Names that tell of labels which are not read. They are only mentioned.
_LIKE = {
    "energy": re.compile(r"(?<!config_)energ(?!ies)|^e$|^e_|_e$|toten|^u0?$", re.I),
    "forces": re.compile(r"(?<!config_)forc|^f$|^f_|_f$|grad", re.I),
}
_OTHER_CHARGES = re.compile(r"^(total|net|tot|q)_?charge$|^q_?tot(al)?$", re.I)
_SPINS = re.compile(r"^(total_|initial_)?(spin|magmom|magnetization)s?$|^(n_?)?unpaired(_electrons)?$", re.I)
_MULTIPLICITIES = re.compile(r"multiplicity$|^mult$", re.I)


@dataclass
class Found:
    """What was found in one file.

    Attributes:
        path: the file.
        names: under which names the labels were read.
        frames: number of frames.
        labels: number of frames with each label.
        dropped: number of frames with a label that such a structure cannot have, by label.
        charged: number of frames with a total charge that is not zero.
        not_read: number of frames with a value under each name that says something of charge or spin and is not read.
        present: all names of values that the frames have.
    """

    path: str
    names: Names
    frames: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    charged: int = 0
    not_read: Counter[str] = field(default_factory=Counter)
    present: set[str] = field(default_factory=set)

    def add(self, frame: LabelledStructure, values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Count a frame.

        Args:
            frame: the frame as it was read.
            values: all values that the file has for it, by name.
            given: its labels as the file has them, by label, or None.
        """
        self.frames += 1
        self.present.update(values)
        for label in LABELS:
            if np.isfinite(getattr(frame, label.name)).all():
                self.labels[label.name] += 1
            elif given[label.name] is not None and not label.is_defined(frame.structure):
                self.dropped[label.name] += 1
        self.charged += frame.structure.charge != 0.0
        for name, value in values.items():
            if name != "charge" and _says_something(name, value):
                self.not_read[name] += 1

    def __str__(self) -> str:
        """In words: the labels and their names, then what is not used."""
        shown = [label for label in LABELS if self.labels[label.name] or label.name in _ALWAYS_SAID]
        sentences = [f"{printable(self.path)}: {_frames(self.frames)}: {', '.join(map(self._count, shown))}."]
        if self.names.unused:
            sentences.append(
                f"Not read, because labels of different names are never mixed: {_list(self.names.unused)}."
            )
        for label in LABELS:
            if self.dropped[label.name]:
                count, reason = self.dropped[label.name], _CANNOT_HAVE[label.needs]
                sentences.append(f"Left out: the {label.name} of {_frames(count)}, because {reason}.")
        for label_name, pattern in _LIKE.items():
            like = [] if self.labels[label_name] else self._like(pattern)
            if like:
                sentences.append(
                    f"Is one of these the {label_name}: {_list(like)}? Then name it, with data.keys or "
                    f"--key {label_name}={printable(like[0])}."
                )
        return " ".join(sentences)

    def ignored(self, *, uses_charge: bool) -> str:
        """In words: the charges and spins that a model ignores, or an empty string.

        Args:
            uses_charge: whether the model uses the total charge, as those that predict partial charges do.
        """
        sentences = []
        if self.charged and not uses_charge:
            sentences.append(
                f"{_frames(self.charged)} with a total charge (charge): the model ignores it. It uses charges only "
                "with network.outputs: [charges]."
            )
        for name, count in sorted(self.not_read.items()):
            remedy = " Name it charge if it is the total charge." if _OTHER_CHARGES.match(name) else ""
            sentences.append(f"{_frames(count)} with {printable(name)}: it is ignored.{remedy}")
        return f"{printable(self.path)}: {' '.join(sentences)}" if sentences else ""

    def _count(self, label: Any) -> str:
        names = [self.names.used[key] for key in (label.name, *_stands_for(label.name)) if key in self.names.used]
        shown = f" (named {_list(names)})" if names and self.labels[label.name] else ""
        return f"{self.labels[label.name]} with {label.name}{shown}"

    def _like(self, pattern: re.Pattern[str]) -> list[str]:
        read = {*self.names.used.values(), *self.names.unused}
        return sorted(name for name in self.present - read if pattern.search(name))[:5]


def _stands_for(label: str) -> tuple[str, ...]:
    return ("virial",) if label == "stress" else ()


def _says_something(name: str, value: Any) -> bool:
    """Whether an entry of a frame is a charge or a spin that is not zero (a multiplicity: not one)."""
    nothing = 1 if _MULTIPLICITIES.search(name) else 0
    if nothing == 0 and not _SPINS.search(name) and not _OTHER_CHARGES.search(name):
        return False
    array = np.asarray(value)
    return array.dtype.kind in "iuf" and bool((array != nothing).any())


def _frames(count: int) -> str:
    return f"{count} frame" if count == 1 else f"{count} frames"


def _list(names: Any) -> str:
    return ", ".join(map(printable, names))
