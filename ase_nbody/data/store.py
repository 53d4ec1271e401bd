"""Labelled structures on disk, mapped into memory: a data set may exceed it, and all processes share the mapping."""

import contextlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.labels import LABELS, DataError, LabelledStructure, Source, Weights
from ase_nbody.structure import Structure

_FRAME = np.dtype(
    [
        ("first", "<i8"),  # row of the first atom in atoms.bin
        ("count", "<i8"),
        ("cell", "<f8", (3, 3)),
        ("pbc", "?", (3,)),
        ("charge", "<f8"),
        ("multiplicity", "<i8"),  # 0 if nothing is said of the spin
        ("source", "<i8", (2,)),  # row of paths.json, number of the frame; -1 without a source
        ("labelled", "?"),
        ("weights", "<f8", (len(Weights._fields),)),
        *((label.name, "<f8", label.shape) for label in LABELS if not label.per_atom),
    ]
)
_ATOM = np.dtype(
    [
        ("number", "<i8"),
        ("position", "<f8", (3,)),
        ("label", "<i8"),  # of the part that the atom belongs to; -1 too if the frame is not labelled
        *((label.name, "<f8", label.shape) for label in LABELS if label.per_atom),
    ]
)
_FILES = ("key.json", "paths.json", "frames.bin", "atoms.bin")  # all that a store consists of
_RULES = 2  # changes when the same file would be read with other labels
_LAYOUT = f"{_FRAME.descr} {_ATOM.descr} {_RULES}"


class ByIndex(Sequence[LabelledStructure]):
    """Structures that are made when they are asked for: a sequence that stays as small as it is."""

    @abstractmethod
    def frame(self, index: int) -> LabelledStructure:
        """The structure of an index between 0 and the number of structures."""

    @overload
    def __getitem__(self, index: int) -> LabelledStructure: ...

    @overload
    def __getitem__(self, index: slice) -> list[LabelledStructure]: ...

    def __getitem__(self, index: int | slice) -> LabelledStructure | list[LabelledStructure]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return self.frame(range(len(self))[index])


class FrameStore(ByIndex):
    """The structures of a folder, read when they are asked for. They equal those that were written, to the last bit.

    Args:
        folder: a folder that ``write`` made.
        chosen: indices of the structures to use, in any order; default: all of them.
    """

    def __init__(self, folder: Path, chosen: NDArray[np.int64] | None = None) -> None:
        self.folder = folder
        self._frames = _map_file(folder / "frames.bin", _FRAME)
        self._atoms = _map_file(folder / "atoms.bin", _ATOM)
        self._paths: list[str] = json.loads((folder / "paths.json").read_text())
        self._chosen = np.arange(len(self._frames)) if chosen is None else chosen

    @classmethod
    def write(cls, frames: Iterable[LabelledStructure], folder: Path, key: dict[str, Any]) -> "FrameStore":
        """Write structures one by one, unless the folder already holds all of them under the same ``key``.

        Args:
            frames: the structures; only one of them at a time is kept in memory.
            folder: where they are written. An earlier store in the folder is removed first.
            key: JSON-able description of where the structures come from.

        Raises:
            DataError: the folder holds something other than a store.
        """
        seal, content = folder / "key.json", {"layout": _LAYOUT, "key": key}
        if folder.exists() and not cls.owns(folder):
            raise DataError(
                f"{folder} holds something other than frames that a training keeps there, so nothing is written: "
                "move it away, or choose another 'output'"
            )
        if _is_sealed(seal, content):
            return cls(folder)
        cls.remove(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "frames.bin", "wb") as table, open(folder / "atoms.bin", "wb") as atoms:
            first = 0
            paths: dict[str, int] = {}
            for frame in frames:
                row, block = _rows(frame, first)
                if frame.source is not None:
                    row["source"] = paths.setdefault(frame.source.path, len(paths)), frame.source.frame
                table.write(row.tobytes())
                atoms.write(block.tobytes())
                first += len(block)
        (folder / "paths.json").write_text(json.dumps(list(paths)))
        seal.write_text(json.dumps(content))
        return cls(folder)

    @staticmethod
    def owns(folder: Path) -> bool:
        """Whether the folder holds nothing but a store, complete or not."""
        return folder.is_dir() and all(path.name in _FILES and path.is_file() for path in folder.iterdir())

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove the files of a store, and the folder if nothing else is in it."""
        with contextlib.suppress(OSError):
            for name in _FILES:
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()

    def take(self, indices: Sequence[int]) -> "FrameStore":
        """Choose some of the structures, in any order."""
        return FrameStore(self.folder, self._chosen[np.asarray(indices, dtype=np.int64)])

    def __len__(self) -> int:
        return len(self._chosen)

    def frame(self, index: int) -> LabelledStructure:
        """Read the structure of an index."""
        row = self._frames[self._chosen[index]]
        atoms = self._atoms[row["first"] : row["first"] + row["count"]]
        labels: dict[str, Any] = {
            label.name: np.array((atoms if label.per_atom else row)[label.name]) for label in LABELS
        }
        return LabelledStructure(
            structure=Structure(
                numbers=atoms["number"],
                positions=atoms["position"],
                cell=row["cell"],
                pbc=row["pbc"],
                charge=float(row["charge"]),
                labels=atoms["label"] if row["labelled"] else None,
                multiplicity=int(row["multiplicity"]) or None,
            ),
            weights=Weights(*map(float, row["weights"])),
            source=Source(self._paths[row["source"][0]], int(row["source"][1])) if row["source"][0] >= 0 else None,
            **labels | {"energy": float(row["energy"])},
        )

    def __iter__(self) -> Iterator[LabelledStructure]:
        return (self[number] for number in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameStore, (self.folder, self._chosen)  # the files, not their contents, go to other processes


def _rows(frame: LabelledStructure, first: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The row of a frame (1,) and the rows of its atoms (N,), which begin at row ``first`` of atoms.bin."""
    structure = frame.structure
    row, block = np.empty(1, dtype=_FRAME), np.empty(len(structure), dtype=_ATOM)
    row["first"], row["count"], row["weights"] = first, len(structure), frame.weights
    row["source"] = -1
    row["cell"], row["pbc"], row["charge"] = structure.cell, structure.pbc, structure.charge
    row["multiplicity"] = structure.multiplicity or 0
    block["number"], block["position"] = structure.numbers, structure.positions
    row["labelled"], block["label"] = structure.labels is not None, -1 if structure.labels is None else structure.labels
    for label in LABELS:
        (block if label.per_atom else row)[label.name] = getattr(frame, label.name)
    return row, block


def _is_sealed(seal: Path, content: dict[str, Any]) -> bool:
    """Whether the store is complete and has this content. A seal that was cut short by a kill is none."""
    try:
        return bool(json.loads(seal.read_text()) == content)
    except (OSError, ValueError):
        return False


def _map_file(path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.zeros(0, dtype=kind)
