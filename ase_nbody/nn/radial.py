"""Radial functions of a pair distance, fading to zero with two continuous derivatives at the radius."""

import torch
from torch import Tensor

from ase_nbody.so3.constants import ExactConstants


def cutoff_function(distance: Tensor, radius: Tensor | float) -> Tensor:
    """(1 - (r/radius)^2)^3 inside the radius and 0 outside: value, slope and curvature vanish there."""
    return (1.0 - (distance / radius).square()).clamp(min=0.0) ** 3


class RadialBasis(ExactConstants):
    """B_n(r) = j_0(n pi r/radius) f_c(r), n = 1 ... size: spherical Bessel functions times a smooth cutoff.

    The waves of a free particle in a sphere (Gasteiger et al., ICLR 2020, eq. 7), but scaled to one at the origin, not
    to equal norm: rapid functions come in with the amplitude 1/n. This preference for smooth potentials lowers the
    force error on unseen structures by a fifth (docs/design.md).
    """

    wave_number: Tensor

    def __init__(self, radius: float, size: int) -> None:
        super().__init__()
        self.radius = radius
        self.register_constant("wave_number", torch.pi / radius * torch.arange(1, size + 1, dtype=torch.float64))

    def forward(self, distance: Tensor) -> Tensor:
        """Distances ``(...)`` in Angstrom -> ``(..., size)``; exactly zero from the radius on."""
        phase = self.wave_number * distance.unsqueeze(-1)
        return torch.sin(phase) / phase * cutoff_function(distance, self.radius).unsqueeze(-1)
