"""Real spherical harmonics of pair vectors, built by the Clebsch-Gordan product itself.

    Y_l = c_l (Y_{l-1} ⊗ Y_1)^l ,

the stretched coupling, with c_l from Y_l0 = sqrt(2 l + 1) at the pole. Plain tensor algebra: it can be differentiated
twice and compiled, which library kernels do not all allow. Tested against e3nn and scipy.
"""

import functools
import math
import operator

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ase_nbody.so3.clebsch_gordan import clebsch_gordan
from ase_nbody.so3.constants import ExactConstants


class SphericalHarmonics(ExactConstants):
    """All components up to ``l_max`` of unit vectors: (3, ...) -> (components, ...), component first as in a state."""

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.l_max = l_max
        pole = math.sqrt(3) * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
        value = pole
        for degree in range(2, l_max + 1):
            coupling = clebsch_gordan(degree - 1, 1, degree).flatten(0, 1).T  # (2l + 1, (2l - 1) * 3)
            raised = coupling @ torch.outer(value, pole).flatten()
            coupling = coupling * math.sqrt(2 * degree + 1) / raised[degree]
            value = coupling @ torch.outer(value, pole).flatten()
            self.register_constant(f"raise_{degree}", coupling)

    def forward(self, unit: Tensor) -> Tensor:
        """Harmonics ``((l_max + 1)^2, ...)`` of unit vectors ``(3, ...)``."""
        vector = math.sqrt(3) * unit
        blocks = [torch.ones_like(vector[:1]), vector]
        for degree in range(2, self.l_max + 1):
            coupling = self._exact[f"raise_{degree}"]  # (2l + 1, (2l - 1) * 3)
            if get_proxy_mode() is None:
                outer = blocks[-1].unsqueeze(1) * vector  # (2l - 1, 3, ...)
                raised = getattr(self, f"raise_{degree}") @ outer.reshape(coupling.shape[1], unit[0].numel())
                blocks.append(raised.view(len(coupling), *unit.shape[1:]))
            else:  # a compiler makes one loop of the few products that there are
                below, axes = blocks[-1].unbind(0), vector.unbind(0)
                terms = [
                    [float(row[k]) * (below[k // 3] * axes[k % 3]) for k in np.flatnonzero(abs(row) > 1e-12)]
                    for row in coupling
                ]
                blocks.append(torch.stack([functools.reduce(operator.add, row) for row in terms]))
        return torch.cat(blocks[: self.l_max + 1])
