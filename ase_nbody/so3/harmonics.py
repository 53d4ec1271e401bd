"""Real spherical harmonics of unit vectors, built by the Clebsch-Gordan product itself.

    Y_l = c_l (Y_{l-1} ⊗ Y_1)^l

is the stretched coupling; c_l follows from Y_l0 = sqrt(2 l + 1) at the pole. This is plain tensor algebra: it can be
differentiated twice and compiled, which not every library's kernel allows. Tests compare it with e3nn and scipy.
"""

import math

import torch
from torch import Tensor

from ase_nbody.so3.clebsch_gordan import clebsch_gordan
from ase_nbody.so3.constants import ExactConstants


class SphericalHarmonics(ExactConstants):
    """All components up to ``l_max`` of unit vectors: (3, ...) -> (components, ...), component first as in a state.

    =================  ====================  ==================================
    symbol             variable              shape
    =================  ====================  ==================================
    Y_1                ``vector``            (3, ...)
    Y_{l-1}            ``blocks[-1]``        (2 l - 1, ...)
    c_l C^l_{l-1, 1}   ``raise_l``           (2 l + 1, 2 l - 1, 3), a constant
    =================  ====================  ==================================
    """

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.l_max = l_max
        pole = math.sqrt(3) * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)  # Y_1 at the pole
        value = pole  # Y_l at the pole
        for degree in range(2, l_max + 1):
            coupling = clebsch_gordan(degree - 1, 1, degree).movedim(-1, 0)  # (2l + 1, 2l - 1, 3)
            raised = torch.tensordot(coupling, torch.outer(value, pole), dims=2)
            coupling = coupling * math.sqrt(2 * degree + 1) / raised[degree]
            value = torch.tensordot(coupling, torch.outer(value, pole), dims=2)
            self.register_constant(f"raise_{degree}", coupling)

    def forward(self, unit: Tensor) -> Tensor:
        """Harmonics ``((l_max + 1)^2, ...)`` of unit vectors ``(3, ...)``."""
        vector = math.sqrt(3) * unit
        blocks = [torch.ones_like(vector[:1]), vector]
        for degree in range(2, self.l_max + 1):
            product = blocks[-1].unsqueeze(1) * vector  # (2l - 1, 3, ...)
            blocks.append(torch.tensordot(getattr(self, f"raise_{degree}"), product, dims=2))
        return torch.cat(blocks[: self.l_max + 1])
