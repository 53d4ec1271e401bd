"""``evaluate`` as native code: of small systems at once, of large ones block by block.

Compiled code is not trusted: its first result, and every thousandth, is compared with eager evaluation. If they differ,
or compiling fails, a warning says why, once, and everything is evaluated eagerly from then on.
"""

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ase_nbody.hierarchy.tables import Hierarchy, Level
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import Prediction, evaluate
from ase_nbody.runtime.aot import Library, Traceable, load_library, sizes_of_weights, smallest
from ase_nbody.runtime.blocks import BlockwiseEvaluation, Slopes, Steps, System
from ase_nbody.runtime.cuda_graph import Replay
from ase_nbody.so3.fragments import Type

CHECK_EVERY = 1000  # evaluations
# Largest difference to eager evaluation: of forces in the largest force, of energies per atom in that times 1 Angstrom.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


class CompiledEvaluation:
    """``evaluate`` of one network as compiled code, for one structure at a time.

    Libraries are loaded from the cache, or compiled (one to three minutes), at the first call. Structures with fewer
    than two atoms, parts, children or neighbours are evaluated eagerly.

    Args:
        network: the network, in its final dtype and place; its weights may change in place.
    """

    def __init__(self, network: NBodyNetwork) -> None:
        self.network = network
        self.calls = 0
        self._eager = BlockwiseEvaluation(network)
        self._small = Replay(self._whole)
        self._steps = CompiledSteps(network)
        self._library: Library | None = None
        self._failed = False

    def __call__(self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor) -> Prediction:
        """As ``evaluate(network, hierarchy, positions, cells)``, and equal to it to round-off."""
        if self._failed or cells.shape[0] != 1 or smallest(hierarchy.tensors()) < 2:
            return self._eager(hierarchy, positions, cells)
        try:
            if self._eager.pays(hierarchy, compiled=True):
                prediction = self._eager(hierarchy, positions, cells, self._steps)
            else:
                prediction = self._small(hierarchy, positions, cells)
            if self.calls % CHECK_EVERY == 0:
                _check(prediction, self._eager(hierarchy, positions, cells), self.network)
            self.calls += 1
        except Exception as error:  # whatever a compiler can fail with: a missing one, a bug of its own
            self._failed = True
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"evaluating without compiled code: {reason}", RuntimeWarning, stacklevel=2)
            return self._eager(hierarchy, positions, cells)
        return prediction

    def _whole(self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor) -> Prediction:
        if self._library is None:
            self._library = load_library(self.network, "whole", trace_whole)
        return Prediction.from_tensors(self._library([*hierarchy.tensors(), positions, cells]))

    def __getstate__(self) -> dict[str, Any]:
        """Copies and other processes load the library for themselves."""
        return {**self.__dict__, "_library": None}


class CompiledSteps(Steps):
    """The steps of a block as compiled code; of blocks with fewer than two parts, rows or neighbours eagerly."""

    def __init__(self, network: NBodyNetwork) -> None:
        super().__init__(network)
        self._libraries: dict[str, Library] = {}

    def load(self) -> None:
        """Load the libraries, or compile them."""
        for name, trace in programs(self.network, large=True).items():
            if name != "whole" and name not in self._libraries:
                self._libraries[name] = load_library(self.network, name, trace)

    def up(self, number: int, level: Level, rows: Tensor, system: System) -> Tensor:
        """As of ``Steps``, and equal to it to round-off."""
        tensors = [*level.tensors(), rows, *system]
        if smallest(level.tensors()) < 2:
            return super().up(number, level, rows, system)
        return self._libraries[f"up-{number}"](tensors)[0]

    def down(self, number: int, level: Level, rows: Tensor, slope: Tensor | None, system: System) -> Slopes:
        """As of ``Steps``, and equal to it to round-off."""
        tensors = [*level.tensors(), rows, *system, *([] if slope is None else [slope])]
        if smallest(level.tensors()) < 2:
            return super().down(number, level, rows, slope, system)
        return Slopes(*self._libraries[f"down-{number}"](tensors))

    def __getstate__(self) -> dict[str, Any]:
        """Copies and other processes load the libraries for themselves."""
        return {**self.__dict__, "_libraries": {}}


def programs(network: NBodyNetwork, *, large: bool) -> dict[str, Callable[[NBodyNetwork], Traceable]]:
    """What is to be traced and compiled, by name; with the steps of blocks if systems are to be ``large``."""
    numbers = range(len(network.levels))
    steps = [*(f"up-{number}" for number in numbers[:-1]), *(f"down-{number}" for number in numbers)] if large else []
    return {"whole": trace_whole, **{name: functools.partial(trace_step, name=name) for name in steps}}


def trace_whole(network: NBodyNetwork) -> Traceable:
    """``evaluate`` of one structure."""
    evaluation, sizes = pure_evaluation(network), _distinct(network, 29)
    n_atoms = n_below = next(sizes)
    levels = []
    for config in network.config.levels:
        n_parts = n_below if config.parts == "all" else next(sizes)
        n_children = n_below if config.children == "all" else next(sizes)
        levels.append(_level(network, n_parts, next(sizes), n_children, next(sizes)))
        n_below = n_parts
    system = _system(network, n_atoms)
    hierarchy = Hierarchy(system.numbers, system.structure, 1, tuple(levels))
    return Traceable(
        lambda weights, tensors: evaluation(weights, tensors[:-2], tensors[-2], tensors[-1]),
        [*hierarchy.tensors(), system.positions, system.cells],
        [(0,), (0,), *(axes for _ in levels for axes in _LEVEL_AXES), (0,), ()],
    )


def trace_step(network: NBodyNetwork, name: str) -> Traceable:
    """A step of a block, by its name (see ``programs``)."""
    direction, _, level_number = name.partition("-")
    number, sizes = int(level_number), _distinct(network, 251)
    n_parts, n_rows, n_atoms = next(sizes), next(sizes), next(sizes)
    level, system = _level(network, n_parts, next(sizes), n_rows, next(sizes)), _system(network, n_atoms)
    width = len(_LEVEL_AXES)

    def up(network: NBodyNetwork, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        rows, *rest = tensors[width:]
        return (Steps(network).up(number, Level(*tensors[:width]), rows, System(*rest)),)

    def down(network: NBodyNetwork, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        rows, *rest = tensors[width:]
        slope = rest.pop() if len(rest) > len(System._fields) else None
        found = Steps(network).down(number, Level(*tensors[:width]), rows, slope, System(*rest))
        return tuple(tensor for tensor in found if tensor is not None)

    tensors = [*level.tensors(), _state(network, network.taus[number], n_rows), *system]
    axes = [*_LEVEL_AXES, (1,), (0,), (0,), (0,), (0,), ()]
    if direction == "down" and number < len(network.levels) - 1:
        tensors.append(_state(network, network.taus[number + 1], n_parts))
        axes.append((1,))
    return Traceable(pure_function(network, up if direction == "up" else down), tensors, axes)


_LEVEL_AXES = ((0,), (0,), (0,), (0, 1), (0, 1), (1, 2), (0, 1), (0, 1), (0, 1))  # of ``Level.tensors`` of any size


def _distinct(network: NBodyNetwork, first: int) -> Iterator[int]:
    """Sizes that differ from each other and from those of the weights."""
    taken = sizes_of_weights(network)
    return (size for size in itertools.count(first) if size not in taken)


def _level(network: NBodyNetwork, n_parts: int, width: int, n_children: int, n_parents: int) -> Level:
    """A level of these sizes without edges. No two tables are one tensor, or they were one argument of the code."""
    zeros = functools.partial(torch.zeros, dtype=torch.int64, device=network.one_hot.device)
    return Level(
        centre=zeros(n_parts),
        own=zeros(n_parts),
        children=zeros(n_children),
        child=zeros(n_parts, width),
        atom=zeros(n_parts, width),
        shift=zeros(3, n_parts, width),
        mask=zeros(n_parts, width).bool(),
        parents=zeros(n_parents, n_children),
        parents_mask=zeros(n_parents, n_children).bool(),
    )


def _system(network: NBodyNetwork, n_atoms: int) -> System:
    """A system of so many atoms of no species, all in one place."""
    numbers = torch.zeros(n_atoms, dtype=torch.int64, device=network.one_hot.device)
    positions = numbers.new_zeros(n_atoms, 3, dtype=torch.float64)
    species, structure = network.one_hot[numbers], torch.zeros_like(numbers)
    return System(numbers, species, structure, positions, positions.new_zeros(1, 3, 3))


def _state(network: NBodyNetwork, tau: Type, n_parts: int) -> Tensor:
    """States of so many parts, all zero."""
    return network.one_hot.new_zeros(tau.components, n_parts, tau.channels)


def _check(found: Prediction, expected: Prediction, network: NBodyNetwork) -> None:
    """Raise if compiled and eager evaluation differ by more than round-off."""
    largest = max(float(expected.forces.abs().max()), network.config.energy_scale)
    bound = TOLERANCE[network.dtype] * largest
    for name in ("energies", "forces"):
        difference = float((getattr(found, name) - getattr(expected, name)).abs().max())
        if not difference <= bound:
            raise ArithmeticError(f"its {name} differ from eager ones by {difference:.1e} (allowed: {bound:.1e})")


def pure_evaluation(
    network: NBodyNetwork, *, create_graph: bool = False, virials: bool = True
) -> Callable[..., tuple[Tensor, ...]]:
    """``evaluate`` as a function of tensors alone (see ``pure_function``).

    Args:
        network: the network; its weights are not looked at.
        create_graph: as of ``evaluate``.
        virials: as of ``evaluate``.

    Returns:
        A function of the weights in the order of ``network.parameters()``, the tables of a hierarchy (see
        ``Hierarchy.tensors``), positions and cells, to the fields of the prediction, one after the other.
    """

    def evaluation(network: NBodyNetwork, tables: list[Tensor], positions: Tensor, cells: Tensor) -> tuple[Tensor, ...]:
        hierarchy = Hierarchy.from_tensors(tables, len(cells))
        found = evaluate(network, hierarchy, positions, cells, create_graph=create_graph, virials=virials)
        return tuple(found.tensors())

    return pure_function(network, evaluation)


def pure_function(
    network: NBodyNetwork, function: Callable[..., tuple[Tensor, ...]]
) -> Callable[..., tuple[Tensor, ...]]:
    """A function of a network and tensors as one of its weights, in order, and the tensors: for tracing."""

    class Function(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *arguments: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
            return function(self.network, *arguments)

    module = Function()
    names = [name for name, _ in module.named_parameters()]

    def pure(weights: list[Tensor], *arguments: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        return functional_call(module, dict(zip(names, weights, strict=True)), arguments)

    return pure
