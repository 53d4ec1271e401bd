"""The compiled training step: energies, forces and virials that can be differentiated by the weights."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ase_nbody.hierarchy.ghosts import Sizes, sizes_of, with_ghosts, with_rows
from ase_nbody.hierarchy.tables import Hierarchy
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import evaluate
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.compiled import pure_evaluation
from ase_nbody.runtime.fallback import Fallback
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.runtime.torch_cache import private_torch_cache
from ase_nbody.training.paddings import Paddings

Shapes = tuple[tuple[int, ...], ...]
System = tuple[Hierarchy, list[Tensor]]  # with positions, cells and, if the network gives charges, total charges

_MOST_SHAPES_COUNTED = 1000


class CompiledPotential:
    """``evaluate`` for training, compiled for tensor shapes that recur and for a few common sizes.

    The energy and its gradient are traced to one graph of plain tensor operations. The graph is compiled as a whole
    and can be differentiated by the weights. Compilation takes half a minute, so a set of shapes is compiled only when
    it appears for the ``patience``-th time, and at most ``most`` sets are compiled.

    Batches of molecules of many sizes hardly ever have the same shapes twice. They get ghosts, which change nothing, so
    that code for a few common sizes serves them all: see ``paddings``.

    All other batches are evaluated eagerly, with the same results. There are no ghosts for labelled parts. If
    compilation fails, one warning gives the reason, and whatever is not compiled yet is evaluated eagerly from then on.

    Attributes:
        paddings: the common sizes.

    Args:
        network: the network. Its weights may change in place.
        virials: whether virials are needed.
        patience: number of appearances after which a set of shapes is compiled.
        most: largest number of sets of shapes that are compiled.
    """

    def __init__(self, network: NBodyNetwork, *, virials: bool, patience: int = 20, most: int = 8) -> None:
        self.network, self.virials, self.patience, self.most = network, virials, patience, most
        self.paddings = Paddings()
        self.around: list[Callable[[], AbstractContextManager[None]]] = []  # entered around each compilation
        self._seen: Counter[Shapes] = Counter()
        self._chosen: set[Shapes] = set()  # to be compiled
        self._compiled: dict[tuple[Shapes, bool], Callable[..., tuple[Tensor, ...]]] = {}  # by ``short_rows`` too
        self._fallback = Fallback("compiling the training step failed, going on without")

    @property
    def failure(self) -> str | None:
        """Why compilation failed; None as long as it has not."""
        return self._fallback.reason

    @property
    def may_speed_up(self) -> bool:
        """Whether nothing is compiled yet, but may be."""
        return not (self._compiled or self._fallback.active)

    def state(self) -> dict[str, Any]:
        """Which shapes and sizes have appeared, and which are chosen: the last bit of a step depends on that."""
        seen = [[list(map(list, shapes)), count, shapes in self._chosen] for shapes, count in self._seen.items()]
        return {"shapes": seen, "paddings": self.paddings.state()}

    def restore(self, state: Mapping[str, Any] | Sequence[Any]) -> None:
        """Go on from what ``state`` returned, or from the shapes alone. What is chosen is compiled when it appears."""
        known: Mapping[str, Any] = state if isinstance(state, Mapping) else {"shapes": state}
        for shapes, count, chosen in known.get("shapes", ()):
            key = tuple(map(tuple, shapes))
            self._seen[key] = count
            if chosen:
                self._chosen.add(key)
        self.paddings.restore(known.get("paddings") or {})

    def backward_guard(self) -> AbstractContextManager[Any]:
        """What to enter around the backward pass: torch compiles it there if it compiled the forward pass anew."""
        return private_torch_cache() if self._compiled else contextlib.nullcontext()

    def __call__(
        self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor, total_charges: Tensor | None = None
    ) -> Prediction:
        """The same prediction as ``evaluate(..., create_graph=True)``."""
        geometry = [positions, cells]
        if total_charges is not None and self.network.config.outputs:
            geometry.append(total_charges)
        code = self._code_for((hierarchy, geometry))
        if code is None:
            return evaluate(for_eager(self.network), hierarchy, *geometry, create_graph=True, virials=self.virials)
        compiled, (padded, geometry) = code
        weights = list(self.network.parameters())
        with private_torch_cache():  # torch compiles anew if, for instance, a weight no longer wants a gradient
            found = compiled(weights, padded.tensors(), *geometry)
        prediction = Prediction.from_named(dict(zip(Prediction.names(self.network.config), found, strict=True)))
        return prediction if padded is hierarchy else prediction.of_first(hierarchy)

    def _code_for(self, system: System) -> tuple[Callable[..., tuple[Tensor, ...]], System] | None:
        """Compiled code that can evaluate a system, and the system with the ghosts that the code needs."""
        shapes, sizes = _shapes(system), sizes_of(system[0])
        if shapes in self._chosen:
            return self._compiled_for(system)
        room = None if system[0].is_labelled else self.paddings.room_for(sizes)
        if room is None:
            self._count(shapes)
            if shapes in self._chosen:
                self.paddings.forget(sizes)
                return self._compiled_for(system)
        if not system[0].is_labelled:
            self.paddings.add(sizes)
        return None if room is None else self._compiled_for(_with_ghosts(system, room), short_rows=True)

    def _count(self, shapes: Shapes) -> None:
        """Count an appearance of shapes, and choose them if there were enough. Rare ones are forgotten in the end."""
        self._seen[shapes] += 1
        if self._seen[shapes] >= self.patience and len(self._chosen) < self.most:
            self._chosen.add(shapes)
        if len(self._seen) > _MOST_SHAPES_COUNTED:
            kept = self._chosen.union(shapes for shapes, _ in self._seen.most_common(_MOST_SHAPES_COUNTED // 2))
            self._seen = Counter({shapes: count for shapes, count in self._seen.items() if shapes in kept})

    def _compiled_for(
        self, system: System, *, short_rows: bool = False
    ) -> tuple[Callable[..., tuple[Tensor, ...]], System] | None:
        """The code for the shapes of a system, compiled now if need be; None if that fails.

        ``short_rows``: see ``for_tracing``. Where shapes recur by themselves, steps are those of earlier releases, to
        the last bit.
        """
        key, (hierarchy, geometry) = (_shapes(system), short_rows), system
        if key not in self._compiled:
            if self._fallback.active:
                return None
            try:
                with contextlib.ExitStack() as stack, private_torch_cache():
                    for manager in self.around:
                        stack.enter_context(manager())
                    self._compiled[key] = self._compile(hierarchy.tensors(), *geometry, short_rows=short_rows)
            except Exception as error:  # a missing compiler, or a bug in it, can raise almost anything
                self._fallback.take(error)
                return None
        return self._compiled[key], system

    def _compile(
        self, tables: list[Tensor], *geometry: Tensor, short_rows: bool = False
    ) -> Callable[..., tuple[Tensor, ...]]:
        """Trace and compile the step for the shapes of these tensors, its backward pass included."""
        energy_and_gradient = pure_evaluation(
            self.network, create_graph=True, virials=self.virials, short_rows=short_rows
        )
        weights = list(self.network.parameters())  # the weights themselves: for copies, torch would compile again
        free = [weight for weight in weights if weight.requires_grad]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own internals
            compiled = torch.compile(make_fx(energy_and_gradient)(weights, tables, *geometry), dynamic=False)
            energy, _, forces, *_ = compiled(weights, tables, *geometry)
            if free:
                torch.autograd.grad(energy.sum() + forces.sum(), free, allow_unused=True)  # compiles the backward pass
        return compiled


def _shapes(system: System) -> Shapes:
    hierarchy, (_, cells, *_) = system
    return tuple(tuple(tensor.shape) for tensor in (cells, *hierarchy.tensors()))


def _with_ghosts(system: System, sizes: Sizes) -> System:
    """The system with ghosts up to these sizes: they are at the origin, without a cell and without a charge."""
    hierarchy, (positions, *of_structures) = system
    n_structures, n_atoms, *_ = sizes
    cells_and_charges = [with_rows(each, n_structures) for each in of_structures]
    return with_ghosts(hierarchy, sizes), [with_rows(positions, n_atoms), *cells_and_charges]
