"""The weights that a layer will have, declared before it is built: a configuration may ask for terabytes.

A layer declares its weights in a static method that takes the arguments of its constructor,

    weights(...) -> {"name of the attribute": Weight(shape, matrix)},

and its constructor draws them from that declaration. In the same way, ``result_type(...)`` of a gate gives the type of
its result. Model files ask for the sizes before they read any weights, and the training asks which weights are matrices
for its optimisers.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_UNDRAWN = ContextVar("_UNDRAWN", default=False)


@contextmanager
def undrawn_weights() -> Iterator[None]:
    """Layers that this thread builds here have weights without numbers: they take no memory and no random numbers.

    The caller replaces them, with ``load_state_dict(..., assign=True)``.
    """
    token = _UNDRAWN.set(True)
    try:
        yield
    finally:
        _UNDRAWN.reset(token)


@dataclass(frozen=True)
class Weight:
    """A weight before it exists.

    Attributes:
        shape: its sizes.
        matrix: whether its last two axes are a matrix that Muon may orthogonalise. Tables with one row for each species
            are not.
    """

    shape: tuple[int, ...]
    matrix: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def normal(self) -> Tensor:
        """Standard normal numbers of this shape, float64, from torch's global generator."""
        return self._empty() if _UNDRAWN.get() else torch.randn(self.shape, dtype=torch.float64)

    def ones(self) -> Tensor:
        """Ones of this shape, float64."""
        return self._empty() if _UNDRAWN.get() else torch.ones(self.shape, dtype=torch.float64)

    def _empty(self) -> Tensor:
        """A tensor that has this shape but no numbers."""
        return torch.empty(self.shape, dtype=torch.float64, device="meta")


class Plan:
    """A layer that is not built yet, but knows its weights.

    Args:
        layer: the class of the layer, which declares its weights as described above.
        arguments: the arguments of its constructor.
    """

    def __init__(self, layer: Any, *arguments: Any) -> None:
        self._layer, self._arguments = layer, arguments

    def weights(self) -> dict[str, Weight]:
        """The weights that the layer will have, by name."""
        declared: dict[str, Weight] = self._layer.weights(*self._arguments)
        return declared

    def result_type(self) -> Any:
        """The type of the layer's result."""
        return self._layer.result_type(*self._arguments)

    def build(self) -> Any:
        """The layer, with new weights."""
        return self._layer(*self._arguments)


def build_into(module: nn.Module, layers: Mapping[str, Plan | None]) -> None:
    """Build the layers in their order, and give them to the module under their names; None for missing layers."""
    for name, layer in layers.items():
        setattr(module, name, None if layer is None else layer.build())


def declared_by(layers: Mapping[str, Plan | None]) -> dict[str, Weight]:
    """The weights of layers by the names that they have in the module that holds these; None for missing layers."""
    found: dict[str, Weight] = {}
    for name, layer in layers.items():
        if layer is not None:
            found |= prefixed(name, layer.weights())
    return found


def prefixed(prefix: str, weights: dict[str, Weight]) -> dict[str, Weight]:
    """The weights of a layer by the names that they have in a module, where the layer is called ``prefix``."""
    return {f"{prefix}.{name}": weight for name, weight in weights.items()}
