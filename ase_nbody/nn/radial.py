"""Radial functions of a pair distance, fading to zero with two continuous derivatives at the radius."""

import torch
from torch import Tensor

from ase_nbody.so3.constants import ExactConstants


def cutoff_function(distance: Tensor, radius: Tensor | float) -> Tensor:
    """(1 - (r/radius)^2)^3 inside the radius and 0 outside: value, slope and curvature vanish there."""
    return (1.0 - (distance / radius).square()).clamp(min=0.0) ** 3


class RadialBasis(ExactConstants):
    """B_n(r) = n^(1 - decay) j_0(n pi r/radius) f_c(r), n = 1 ... size: spherical Bessel functions, smoothly cut off.

    The waves of a free particle in a sphere (Gasteiger et al., ICLR 2020, eq. 7, where they have equal norm, decay 0),
    rapid ones with less amplitude: what comes in with less is learnt later. This preference for smooth potentials
    lowers the force error on unseen structures by a fifth (docs/design.md).

    Args:
        radius: in Angstrom.
        size: number of functions.
        decay: power of 1/n by which the norm falls.
    """

    wave_number: Tensor
    amplitude: Tensor

    def __init__(self, radius: float, size: int, decay: float = 1.0) -> None:
        super().__init__()
        self.radius = radius
        number = torch.arange(1, size + 1, dtype=torch.float64)
        self.register_constant("wave_number", torch.pi / radius * number)
        self.register_constant("amplitude", radius / torch.pi * number**-decay)

    def forward(self, distance: Tensor) -> Tensor:
        """Distances ``(...)`` in Angstrom -> ``(..., size)``; exactly zero from the radius on."""
        fading = (cutoff_function(distance, self.radius) / distance).unsqueeze(-1)
        return torch.sin(self.wave_number * distance.unsqueeze(-1)) * self.amplitude * fading
