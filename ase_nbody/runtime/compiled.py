"""The potential as native code: small systems in one call, large ones with one call for each step of a block."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ase_nbody.hierarchy.ghosts import with_rows, with_sizes_of_two
from ase_nbody.hierarchy.tables import Groups, Hierarchy, Labelled, Level
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import Descent, System, evaluate
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.aot import Library, Traceable, load_library, sizes_of_weights, smallest
from ase_nbody.runtime.blocks import Steps
from ase_nbody.runtime.formulas import for_tracing
from ase_nbody.so3.fragments import Type


class CompiledWhole:
    """``potential.evaluate`` of one structure as compiled code, equal to it to round-off.

    The first call loads the library from the cache, or compiles it (one to three minutes). The code takes any sizes of
    at least two. A structure with one atom, part or neighbour gets ghosts.

    Args:
        network: the network, with its final dtype and device; its weights may change in place.
    """

    def __init__(self, network: NBodyNetwork) -> None:
        self.network = network
        self._library: Library | None = None
        self._small: tuple[Hierarchy, Hierarchy] | None = None  # the last one that got ghosts, without and with them

    def fits(self, hierarchy: Hierarchy) -> bool:
        """Whether the code can evaluate a hierarchy: one structure, and sizes of at least two, or ghosts for them.

        Labelled parts have no ghosts, and where charges add up to a total, ghosts would bear some of it. Nothing is to
        be done for no atoms.
        """
        if hierarchy.n_structures != 1 or not len(hierarchy.numbers):
            return False
        may_have_ghosts = hierarchy.numbers.device.type == "cpu" and not self.network.config.outputs
        return hierarchy.smallest_size >= 2 or (may_have_ghosts and not hierarchy.is_labelled)

    def __call__(self, hierarchy: Hierarchy, *geometry: Tensor) -> Prediction:
        """See ``potential.evaluate``."""
        if hierarchy.smallest_size < 2:
            larger, (positions, *others) = self._with_ghosts(hierarchy), geometry
            return self(larger, with_rows(positions, len(larger.numbers)), *others).of_first(hierarchy)
        if self._library is None:
            self._library = load_library(self.network, "whole", trace_whole)
        found = self._library([*hierarchy.tensors(), *geometry])
        return Prediction.from_named(dict(zip(Prediction.names(self.network.config), found, strict=True)))

    def _with_ghosts(self, hierarchy: Hierarchy) -> Hierarchy:
        if self._small is None or self._small[0] is not hierarchy:
            self._small = hierarchy, with_sizes_of_two(hierarchy)
        return self._small[1]

    def __getstate__(self) -> dict[str, Any]:
        """Copies and other processes load the library for themselves."""
        return {**self.__dict__, "_library": None, "_small": None}


class CompiledSteps(Steps):
    """The steps of a block as compiled code; blocks with fewer than two parts, rows or neighbours run eagerly."""

    def __init__(self, network: NBodyNetwork) -> None:
        super().__init__(network)
        self._libraries: dict[str, Library] = {}

    def load(self) -> None:
        """Load the libraries, or compile them, before several threads ask for them."""
        for name, trace in programs(self.network, large=True).items():
            if name != "whole" and name not in self._libraries:
                self._libraries[name] = load_library(self.network, name, trace)

    def up(self, number: int, level: Level, rows: Tensor, system: System) -> Tensor:
        """See ``Steps``."""
        if smallest(level.tensors()) < 2:
            return super().up(number, level, rows, system)
        return self._libraries[f"up-{number}"]([*level.tensors(), rows, *system])[0]

    def down(self, number: int, level: Level, rows: Tensor, slope: Tensor | None, system: System) -> Descent:
        """See ``Steps``."""
        if smallest(level.tensors()) < 2:
            return super().down(number, level, rows, slope, system)
        tensors = [*level.tensors(), rows, *system, *([] if slope is None else [slope])]
        found = self._libraries[f"down-{number}"](tensors)
        return _descent(dict(zip(_descent_names(self.network, number), found, strict=True)))

    def __getstate__(self) -> dict[str, Any]:
        """Copies and other processes load the libraries for themselves."""
        return {**self.__dict__, "_libraries": {}}


_SUMS = ("at centres", "at children")


def _descent_names(network: NBodyNetwork, number: int) -> tuple[str, ...]:
    """Names of the tensors that the compiled step down of a level gives, in order."""
    return (*NBodyNetwork.output_names(network.config, number), *_SUMS, *(["rows"] if number else []))


def _named(descent: Descent) -> dict[str, Tensor]:
    rows = {} if descent.rows is None else {"rows": descent.rows}
    return {**descent.outputs, **dict(zip(_SUMS, (descent.centres, descent.children), strict=True)), **rows}


def _descent(named: Mapping[str, Tensor]) -> Descent:
    """The inverse of ``_named``."""
    outputs = {name: tensor for name, tensor in named.items() if name not in (*_SUMS, "rows")}
    centres, children = (named[name] for name in _SUMS)
    return Descent(outputs, centres, children, named.get("rows"))


def programs(network: NBodyNetwork, *, large: bool) -> dict[str, Callable[[NBodyNetwork], Traceable]]:
    """The functions to trace and compile, by name. ``large`` adds the steps of blocks, for large systems.

    A network with labelled levels has no such steps, because it is always evaluated whole.
    """
    numbers = range(len(network.levels) if large and not network.config.is_labelled else 0)
    steps = [*(f"up-{number}" for number in numbers[:-1]), *(f"down-{number}" for number in numbers)]
    return {"whole": trace_whole, **{name: functools.partial(trace_step, name=name) for name in steps}}


def trace_whole(network: NBodyNetwork) -> Traceable:
    """``evaluate`` of one structure."""
    evaluation, sizes = pure_evaluation(network), distinct_sizes(network, 29)
    n_atoms = n_below = next(sizes)
    levels: list[Level] = []
    for config in network.config.levels:
        below = levels[-1].labelled if levels else None
        n_parts = n_below if config.parts == "all" or below is not None else next(sizes)
        n_children = n_below if config.children == "all" else next(sizes)
        level = _level(network, n_parts, next(sizes), n_children, next(sizes))
        if config.is_labelled:
            level = level.with_labels(_labelled(level, below, next(sizes), next(sizes)))
        levels.append(level)
        n_below = n_parts
    system = _system(network, n_atoms)
    hierarchy = Hierarchy(system.numbers, system.structure, 1, tuple(levels))
    tables = hierarchy.tensors()
    axes = [axes for level in levels for axes in (*_LEVEL_AXES, *_label_axes(level.labelled))]
    charge = [system.positions.new_zeros(1)] if network.config.outputs else []
    return Traceable(
        lambda weights, tensors: evaluation(weights, tensors[: len(tables)], *tensors[len(tables) :]),
        [*tables, system.positions, system.cells, *charge],
        [(0,), (0,), *axes, (0,), (), *(() for _ in charge)],
    )


def trace_step(network: NBodyNetwork, name: str) -> Traceable:
    """A step of a block, by its name (see ``programs``)."""
    direction, _, level_number = name.partition("-")
    number, sizes = int(level_number), distinct_sizes(network, 251)
    n_parts, n_rows, n_atoms = next(sizes), next(sizes), next(sizes)
    level, system = _level(network, n_parts, next(sizes), n_rows, next(sizes)), _system(network, n_atoms)
    width = len(_LEVEL_AXES)

    def up(network: NBodyNetwork, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        rows, *rest = tensors[width:]
        return (Steps(network).up(number, Level.from_tensors(tensors[:width]), rows, System(*rest)),)

    def down(network: NBodyNetwork, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        rows, *rest = tensors[width:]
        slope = rest.pop() if len(rest) > len(System._fields) else None
        found = _named(Steps(network).down(number, Level.from_tensors(tensors[:width]), rows, slope, System(*rest)))
        return tuple(found[name] for name in _descent_names(network, number))

    tensors = [*level.tensors(), _state(network, network.taus[number], n_rows), *system]
    axes = [*_LEVEL_AXES, (1,), (0,), (0,), (0,), (0,), ()]
    if direction == "down" and number < len(network.levels) - 1:
        tensors.append(_state(network, network.taus[number + 1], n_parts))
        axes.append((1,))
    return Traceable(pure_function(network, up if direction == "up" else down), tensors, axes)


# The axes of each of ``Level.tensors`` that may have any size.
_LEVEL_AXES = ((0,), (0,), (0,), (0, 1), (0, 1), (1, 2), (0, 1), (0, 1), (0, 1))


# The same for those of ``Groups``.
_GROUP_AXES = ((0, 1), (1, 2), (0, 1), (0, 1))


def _label_axes(labelled: Labelled | None) -> list[tuple[int, ...]]:
    """The same for ``Labelled.tensors``."""
    if labelled is None:
        return []
    return [(0, 1), *_GROUP_AXES, *([] if labelled.below is None else _GROUP_AXES)]


def distinct_sizes(network: NBodyNetwork, first: int) -> Iterator[int]:
    """Sizes that differ from each other and from those of the weights."""
    taken = sizes_of_weights(network)
    return (size for size in itertools.count(first) if size not in taken)


def _level(network: NBodyNetwork, n_parts: int, width: int, n_children: int, n_parents: int) -> Level:
    """A level of these sizes without edges. No two tables share a tensor, which would become one argument."""
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


def _labelled(level: Level, below: Labelled | None, n_members: int, n_below: int) -> Labelled:
    """What a level of labelled parts knows beside its tables; ``below``: the same of the level below, if labelled."""

    def groups(members: int) -> Groups:
        atom = level.centre.new_zeros(len(level.centre), members)
        return Groups(
            atom, atom.new_zeros(3, *atom.shape), torch.zeros_like(atom).double(), torch.zeros_like(atom).bool()
        )

    return Labelled(groups(n_members), level.mask.clone(), None if below is None else groups(n_below))


def _n_tables(network: NBodyNetwork) -> list[int]:
    """How many tables each level has."""
    labelled = [level.is_labelled for level in network.config.levels]
    return [Level.n_tables(here, below) for below, here in itertools.pairwise([False, *labelled])]


def _system(network: NBodyNetwork, n_atoms: int) -> System:
    """A system of ``n_atoms`` atoms without a species, all at one point."""
    numbers = torch.zeros(n_atoms, dtype=torch.int64, device=network.one_hot.device)
    positions = numbers.new_zeros(n_atoms, 3, dtype=torch.float64)
    one_hot, structure = network.one_hot[numbers], torch.zeros_like(numbers)
    return System(numbers, one_hot, structure, positions, positions.new_zeros(1, 3, 3))


def _state(network: NBodyNetwork, tau: Type, n_parts: int) -> Tensor:
    """States of ``n_parts`` parts, all zero."""
    return network.one_hot.new_zeros(tau.components, n_parts, tau.channels)


def pure_evaluation(
    network: NBodyNetwork, *, create_graph: bool = False, virials: bool = True, short_rows: bool = False
) -> Callable[..., tuple[Tensor, ...]]:
    """``potential.evaluate`` as a function of tensors alone (see ``pure_function``).

    Args:
        network: the network; its own weights are not used.
        create_graph: see ``evaluate``.
        virials: see ``evaluate``.
        short_rows: see ``for_tracing``.

    Returns:
        A function of the weights in the order of ``network.parameters()``, the tables of a hierarchy (see
        ``Hierarchy.tensors``), positions, cells and, for networks that give charges, total charges. It returns the
        tensors that ``Prediction.names`` lists.
    """

    def evaluation(network: NBodyNetwork, tables: list[Tensor], *geometry: Tensor) -> tuple[Tensor, ...]:
        hierarchy = Hierarchy.from_tensors(tables, len(geometry[1]), _n_tables(network))
        found = evaluate(network, hierarchy, *geometry, create_graph=create_graph, virials=virials).named()
        return tuple(found[name] for name in Prediction.names(network.config))

    return pure_function(network, evaluation, short_rows=short_rows)


def pure_function(
    network: NBodyNetwork, function: Callable[..., tuple[Tensor, ...]], *, short_rows: bool = False
) -> Callable[..., tuple[Tensor, ...]]:
    """Make ``function(network, *tensors)`` a function of (weights, *tensors), which can be traced.

    The weights come in the order of ``network.parameters()``.
    """

    class Function(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = for_tracing(network, short_rows=short_rows)

        def forward(self, *arguments: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
            return function(self.network, *arguments)

    module = Function()
    names = [name for name, _ in module.named_parameters()]

    def pure(weights: list[Tensor], *arguments: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        return functional_call(module, dict(zip(names, weights, strict=True)), arguments)

    return pure
