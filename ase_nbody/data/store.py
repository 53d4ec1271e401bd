"""Labelled structures on disk, mapped into memory: sets that need not fit into it, shared by all who read them."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.reading import LabelledStructure, Weights
from ase_nbody.structure import Structure

_FRAME = np.dtype(
    [
        ("first", "<i8"),
        ("count", "<i8"),
        ("cell", "<f8", (3, 3)),
        ("pbc", "?", (3,)),
        ("energy", "<f8"),
        ("stress", "<f8", (3, 3)),
        ("weights", "<f8", (3,)),
    ]
)
_ATOM = np.dtype([("number", "<i8"), ("position", "<f8", (3,)), ("force", "<f8", (3,))])


class FrameStore(Sequence[LabelledStructure]):
    """Structures of a folder, made when they are asked for; equal to those that were written, to the bit.

    Args:
        folder: what ``write`` has made.
        chosen: which of its structures, in which order; default: all.
    """

    def __init__(self, folder: Path, chosen: NDArray[np.int64] | None = None) -> None:
        self.folder = folder
        self._frames = _mapped(folder / "frames.bin", _FRAME)
        self._atoms = _mapped(folder / "atoms.bin", _ATOM)
        self._chosen = np.arange(len(self._frames)) if chosen is None else chosen

    @classmethod
    def write(cls, frames: Iterable[LabelledStructure], folder: Path, key: dict[str, Any]) -> "FrameStore":
        """Write structures one by one; a folder that was written whole with the same ``key`` is taken as it is.

        Args:
            frames: the structures, of which no more than one is kept in memory.
            folder: where they are written; another store there is replaced.
            key: JSON-able description of where the structures come from.
        """
        seal = folder / "key.json"
        if seal.is_file() and json.loads(seal.read_text()) == key:
            return cls(folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with open(folder / "frames.bin", "wb") as table, open(folder / "atoms.bin", "wb") as atoms:
            first = 0
            for frame in frames:
                structure, count = frame.structure, len(frame.structure)
                labels = (frame.energy, frame.stress, frame.weights)
                row = (first, count, structure.cell, structure.pbc, *labels)
                table.write(np.array([row], dtype=_FRAME).tobytes())
                block = np.empty(count, dtype=_ATOM)
                block["number"], block["position"], block["force"] = (
                    structure.numbers,
                    structure.positions,
                    frame.forces,
                )
                atoms.write(block.tobytes())
                first += count
        seal.write_text(json.dumps(key))
        return cls(folder)

    def take(self, indices: Sequence[int]) -> "FrameStore":
        """Some of the structures, in another order."""
        return FrameStore(self.folder, self._chosen[np.asarray(indices, dtype=np.int64)])

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> LabelledStructure: ...

    @overload
    def __getitem__(self, index: slice) -> list[LabelledStructure]: ...

    def __getitem__(self, index: int | slice) -> LabelledStructure | list[LabelledStructure]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = self._frames[self._chosen[index]]
        atoms = self._atoms[row["first"] : row["first"] + row["count"]]
        return LabelledStructure(
            structure=Structure(
                numbers=np.array(atoms["number"]),
                positions=np.array(atoms["position"]),
                cell=np.array(row["cell"]),
                pbc=np.array(row["pbc"]),
            ),
            energy=float(row["energy"]),
            forces=np.array(atoms["force"]),
            stress=np.array(row["stress"]),
            weights=Weights(*map(float, row["weights"])),
        )

    def __iter__(self) -> Iterator[LabelledStructure]:
        return (self[number] for number in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameStore, (self.folder, self._chosen)  # the files, not their contents, go to other processes


def _mapped(path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.zeros(0, dtype=kind)
