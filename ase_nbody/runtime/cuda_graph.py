"""The same evaluation again and again: on a GPU as a CUDA graph, whose kernels are launched all at once.

A step of a small system is a thousand kernels of some microseconds each, which the host takes longer to launch than the
device to run. So the second evaluation with tables of the same sizes is recorded; later ones copy what is new to where
the recorded kernels read, and replay them. Rows of the tables are padded, so that few sizes occur in a run.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ase_nbody.hierarchy.tables import Hierarchy, concatenate
from ase_nbody.potential import Prediction

MOST_EDGES = 2_000_000  # padded ones included; of larger systems kernels run for longer than launching them takes
_ROOM = 8  # rows are padded to multiples of this
_MOST = 8  # sets of sizes that are kept at a time

Evaluation = Callable[[Hierarchy, Tensor, Tensor], Prediction]


@dataclass
class _Recording:
    """What recorded kernels read, and what they write once there is a graph of them."""

    hierarchy: Hierarchy
    positions: Tensor
    cells: Tensor
    warm: bool = False  # evaluated once, so that libraries have set themselves up
    graph: torch.cuda.CUDAGraph | None = None
    found: Prediction | None = None


class Replay:
    """An evaluation with the same results, recorded where that pays: on a GPU, for systems that are not large.

    If recording fails, a warning says why, once, and everything is evaluated kernel by kernel from then on.

    Args:
        evaluate: the evaluation, of a hierarchy, positions and cells. It must not wait for the device.
    """

    def __init__(self, evaluate: Evaluation) -> None:
        self.evaluate = evaluate
        self._recordings: dict[tuple[object, ...], _Recording] = {}
        self._last: tuple[Hierarchy, _Recording] | None = None
        self._pool: Any = None
        self._failed = False

    def __call__(self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor) -> Prediction:
        """As the evaluation."""
        if self._failed or not positions.is_cuda or hierarchy.n_edges > MOST_EDGES:
            return self.evaluate(hierarchy, positions, cells)
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(positions.device):
            recording = self._loaded(hierarchy, positions, cells)
            if not recording.warm:
                recording.warm = True
                return self.evaluate(recording.hierarchy, recording.positions, recording.cells)
            try:
                return self._replayed(recording)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._failed = True
                self._recordings, self._last = {}, None
                warnings.warn(f"no CUDA graph: {str(error).splitlines()[0]}", RuntimeWarning, stacklevel=2)
                return self.evaluate(hierarchy, positions, cells)

    def _loaded(self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor) -> _Recording:
        """The recording for tables of these sizes, with these tables, positions and cells in it."""
        if self._last is None or self._last[0] is not hierarchy:
            padded = replace(concatenate([hierarchy], _ROOM), n_structures=hierarchy.n_structures)
            sizes = (cells.shape, *(table.shape for table in padded.tensors()))
            if sizes not in self._recordings:
                if len(self._recordings) == _MOST:
                    self._recordings.clear()
                self._recordings[sizes] = _Recording(padded, positions.clone(), cells.clone())
            recording = self._recordings[sizes]
            for there, table in zip(recording.hierarchy.tensors(), padded.tensors(), strict=True):
                there.copy_(table)
            self._last = hierarchy, recording
        recording = self._last[1]
        recording.positions.copy_(positions)
        recording.cells.copy_(cells)
        return recording

    def _replayed(self, recording: _Recording) -> Prediction:
        """The results in memory of their own, which the next replay leaves alone."""
        if recording.graph is None or recording.found is None:
            self._pool = self._pool or torch.cuda.graph_pool_handle()  # one for all: only one runs at a time
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                recording.found = self.evaluate(recording.hierarchy, recording.positions, recording.cells)
            recording.graph = graph
        recording.graph.replay()
        return Prediction.from_tensors([tensor.clone() for tensor in recording.found.tensors()])

    def __getstate__(self) -> dict[str, Any]:
        """Copies and other processes record for themselves."""
        return {**self.__dict__, "_recordings": {}, "_last": None, "_pool": None}
