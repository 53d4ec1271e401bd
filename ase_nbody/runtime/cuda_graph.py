"""Evaluations of small systems on a GPU, recorded as CUDA graphs: all kernels are launched at once.

A step of a small system is a thousand kernels of some microseconds each. The host takes longer to launch them than the
device takes to run them. So the second evaluation with tables of the same sizes is recorded. Later ones copy new values
to where the recorded kernels read, and replay the kernels. Rows of the tables are padded, so that few sizes occur in a
run.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ase_nbody.hierarchy.tables import Hierarchy, concatenate
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.fallback import Fallback

MAX_EDGES = 2_000_000  # padded ones included; kernels of larger systems run for longer than it takes to launch them
_ROW_MULTIPLE = 8  # rows are padded to multiples of this
_MAX_RECORDINGS = 8  # recordings that are kept, one for each set of sizes

Evaluate = Callable[..., Prediction]  # from a hierarchy and the tensors of its geometry


@dataclass
class _Recording:
    """What the recorded kernels read, and what they write as soon as there is a graph."""

    hierarchy: Hierarchy
    geometry: tuple[Tensor, ...]
    warm: bool = False  # it was evaluated once, so libraries have set themselves up
    graph: torch.cuda.CUDAGraph | None = None
    found: Prediction | None = None


class CudaGraphs:
    """An evaluation with the same results, recorded where that pays: on a GPU, for systems that are not large.

    If recording fails, a warning says why, once, and everything is evaluated kernel by kernel from then on.

    Args:
        evaluate: takes a hierarchy and tensors of the geometry. It must not wait for the device.
    """

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate
        self._fallback = Fallback("no CUDA graph")
        self._recordings: dict[tuple[object, ...], _Recording] = {}
        self._last: tuple[Hierarchy, _Recording] | None = None
        self._pool: Any = None

    def __call__(self, hierarchy: Hierarchy, *geometry: Tensor) -> Prediction:
        """The same as ``evaluate``."""
        if self._fallback.active or not geometry[0].is_cuda or hierarchy.n_edges > MAX_EDGES:
            return self.evaluate(hierarchy, *geometry)
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(geometry[0].device):
            recording = self._loaded(hierarchy, geometry)
            if not recording.warm:
                found = self.evaluate(recording.hierarchy, *recording.geometry)
                recording.warm = True
                return found
            try:
                return self._replayed(recording)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._recordings, self._last = {}, None
                self._fallback.take(error)
                return self.evaluate(hierarchy, *geometry)

    def _loaded(self, hierarchy: Hierarchy, geometry: tuple[Tensor, ...]) -> _Recording:
        """The recording for tables of these sizes, after these tables and this geometry were copied into it."""
        if self._last is None or self._last[0] is not hierarchy:
            padded = replace(concatenate([hierarchy], _ROW_MULTIPLE), n_structures=hierarchy.n_structures)
            sizes = (hierarchy.n_structures, *(table.shape for table in padded.tensors()))
            if sizes not in self._recordings:
                if len(self._recordings) == _MAX_RECORDINGS:
                    self._recordings.clear()
                self._recordings[sizes] = _Recording(padded, tuple(tensor.clone() for tensor in geometry))
            recording = self._recordings[sizes]
            self._last = None  # an interrupt may leave tables of two hierarchies in the recording
            for there, table in zip(recording.hierarchy.tensors(), padded.tensors(), strict=True):
                there.copy_(table)
            self._last = hierarchy, recording
        recording = self._last[1]
        for there, tensor in zip(recording.geometry, geometry, strict=True):
            there.copy_(tensor)
        return recording

    def _replayed(self, recording: _Recording) -> Prediction:
        """Record if necessary, replay, and return copies of the results, which the next replay does not overwrite."""
        if recording.graph is None or recording.found is None:
            self._pool = self._pool or torch.cuda.graph_pool_handle()  # shared by all, because only one runs at a time
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                recording.found = self.evaluate(recording.hierarchy, *recording.geometry)
            recording.graph = graph
        recording.graph.replay()
        return Prediction.from_named({name: tensor.clone() for name, tensor in recording.found.named().items()})

    def __getstate__(self) -> dict[str, Any]:
        """Copies and other processes record for themselves."""
        return {**self.__dict__, "_recordings": {}, "_last": None, "_pool": None}
