"""Training's step, compiled."""

import warnings
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ase_nbody.hierarchy.tables import Hierarchy
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import Prediction, evaluate
from ase_nbody.runtime.compiled import pure_evaluation
from ase_nbody.runtime.fallback import Fallback


class CompiledPotential:
    """``evaluate`` for training, compiled anew for each set of shapes that keeps returning.

    The energy and its gradient are traced to one graph of plain tensor operations, which is compiled as a whole and
    can be differentiated by the weights. Compiling takes half a minute, so a set of shapes is compiled at its
    ``patience``-th appearance, and never more than ``most`` are; all others are evaluated eagerly, with equal results.
    If compiling fails, a warning says why, once, and shapes that are not compiled yet are evaluated eagerly.

    Args:
        network: the network, whose weights may change in place.
        virials: whether virials are needed.
        patience: appearances of a set of shapes before it is compiled.
        most: how many sets of shapes are compiled.
    """

    def __init__(self, network: NBodyNetwork, *, virials: bool, patience: int = 20, most: int = 8) -> None:
        self.network, self.virials, self.patience, self.most = network, virials, patience, most
        self._seen: Counter[tuple[torch.Size, ...]] = Counter()
        self._compiled: dict[tuple[torch.Size, ...], Callable[..., tuple[Tensor, ...]]] = {}
        self._fallback = Fallback("compiling failed, going on without")

    def __call__(
        self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor, total_charges: Tensor | None = None
    ) -> Prediction:
        """As ``evaluate(..., create_graph=True)``."""
        tables, geometry = hierarchy.tensors(), [positions, cells]
        if total_charges is not None and self.network.config.outputs:
            geometry.append(total_charges)
        shapes = (cells.shape, *(table.shape for table in tables))
        self._seen[shapes] += 1
        due = self._seen[shapes] >= self.patience and len(self._compiled) < self.most
        if due and shapes not in self._compiled and not self._fallback.active:
            try:
                self._compiled[shapes] = self._compile(tables, *geometry)
            except Exception as error:  # whatever a compiler can fail with: a missing one, a bug of its own
                self._fallback.take(error)
        if shapes not in self._compiled:
            return evaluate(self.network, hierarchy, *geometry, create_graph=True, virials=self.virials)
        weights = list(self.network.parameters())
        found = self._compiled[shapes](weights, tables, *geometry)
        return Prediction.from_named(dict(zip(Prediction.names(self.network), found, strict=True)))

    def _compile(self, tables: list[Tensor], *geometry: Tensor) -> Callable[..., tuple[Tensor, ...]]:
        energy_and_gradient = pure_evaluation(self.network, create_graph=True, virials=self.virials)
        weights = list(self.network.parameters())  # themselves: for copies it would be compiled once more
        free = [weight for weight in weights if weight.requires_grad]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about its own inner workings
            compiled = torch.compile(make_fx(energy_and_gradient)(weights, tables, *geometry), dynamic=False)
            energy, _, forces, *_ = compiled(weights, tables, *geometry)
            if free:
                torch.autograd.grad(energy.sum() + forces.sum(), free, allow_unused=True)  # compiles that pass too
        return compiled
