"""The compiled training step: energies, forces and virials that can be differentiated by the weights."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ase_nbody.hierarchy.tables import Hierarchy
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import evaluate
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.compiled import pure_evaluation
from ase_nbody.runtime.fallback import Fallback
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.runtime.torch_cache import private_torch_cache

Shapes = tuple[tuple[int, ...], ...]

_MAX_SHAPES_IN_STATE = 1000


class CompiledPotential:
    """``evaluate`` for training. It is compiled separately for each set of tensor shapes that recurs.

    The energy and its gradient are traced to one graph of plain tensor operations. The graph is compiled as a whole
    and can be differentiated by the weights. Compilation takes half a minute, so a set of shapes is compiled only when
    it appears for the ``patience``-th time, and at most ``most`` sets are compiled. All other batches are evaluated
    eagerly, with the same results. If compilation fails, one warning gives the reason, and shapes that are not compiled
    yet are evaluated eagerly from then on.

    Args:
        network: the network. Its weights may change in place.
        virials: whether virials are needed.
        patience: number of appearances after which a set of shapes is compiled.
        most: largest number of sets of shapes that are compiled.
    """

    def __init__(self, network: NBodyNetwork, *, virials: bool, patience: int = 20, most: int = 8) -> None:
        self.network, self.virials, self.patience, self.most = network, virials, patience, most
        self.around: list[Callable[[], AbstractContextManager[None]]] = []  # entered around each compilation
        self._seen: Counter[Shapes] = Counter()
        self._chosen: set[Shapes] = set()  # to be compiled
        self._compiled: dict[Shapes, Callable[..., tuple[Tensor, ...]]] = {}
        self._fallback = Fallback("compiling the training step failed, going on without")

    @property
    def failure(self) -> str | None:
        """Why compilation failed; None as long as it has not."""
        return self._fallback.reason

    @property
    def may_speed_up(self) -> bool:
        """Whether nothing is compiled yet, but may be."""
        return not (self._compiled or self._fallback.active)

    def state(self) -> list[Any]:
        """Which shapes have appeared how often, and which are chosen: the last bit of a step depends on that."""
        frequent = self._seen.most_common(_MAX_SHAPES_IN_STATE)
        return [[[list(shape) for shape in shapes], count, shapes in self._chosen] for shapes, count in frequent]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from what ``state`` returned. Chosen shapes are compiled when they appear next."""
        for shapes, count, chosen in state:
            key = tuple(map(tuple, shapes))
            self._seen[key] = count
            if chosen:
                self._chosen.add(key)

    def __call__(
        self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor, total_charges: Tensor | None = None
    ) -> Prediction:
        """The same prediction as ``evaluate(..., create_graph=True)``."""
        tables, geometry = hierarchy.tensors(), [positions, cells]
        if total_charges is not None and self.network.config.outputs:
            geometry.append(total_charges)
        shapes: Shapes = tuple(tuple(tensor.shape) for tensor in (cells, *tables))
        self._seen[shapes] += 1
        if self._seen[shapes] >= self.patience and len(self._chosen) < self.most:
            self._chosen.add(shapes)
        if shapes in self._chosen and shapes not in self._compiled and not self._fallback.active:
            try:
                with contextlib.ExitStack() as stack, private_torch_cache():
                    for manager in self.around:
                        stack.enter_context(manager())
                    self._compiled[shapes] = self._compile(tables, *geometry)
            except Exception as error:  # a missing compiler, or a bug in it, can raise almost anything
                self._fallback.take(error)
        if shapes not in self._compiled:
            return evaluate(for_eager(self.network), hierarchy, *geometry, create_graph=True, virials=self.virials)
        weights = list(self.network.parameters())
        with private_torch_cache():  # torch compiles anew if, for instance, a weight no longer wants a gradient
            found = self._compiled[shapes](weights, tables, *geometry)
        return Prediction.from_named(dict(zip(Prediction.names(self.network.config), found, strict=True)))

    def _compile(self, tables: list[Tensor], *geometry: Tensor) -> Callable[..., tuple[Tensor, ...]]:
        """Trace and compile the step for the shapes of these tensors, its backward pass included."""
        energy_and_gradient = pure_evaluation(self.network, create_graph=True, virials=self.virials)
        weights = list(self.network.parameters())  # the weights themselves: for copies, torch would compile again
        free = [weight for weight in weights if weight.requires_grad]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own internals
            compiled = torch.compile(make_fx(energy_and_gradient)(weights, tables, *geometry), dynamic=False)
            energy, _, forces, *_ = compiled(weights, tables, *geometry)
            if free:
                torch.autograd.grad(energy.sum() + forces.sum(), free, allow_unused=True)  # compiles the backward pass
        return compiled
