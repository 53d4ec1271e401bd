"""Radial functions of a pair distance, fading to zero with two continuous derivatives at the radius."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ase_nbody.so3.constants import ExactConstants


def cutoff_function(distance: Tensor, radius: Tensor | float) -> Tensor:
    """(1 - (r/radius)^2)^3 inside the radius and 0 outside: value, slope and curvature vanish there."""
    return (1.0 - (distance / radius).square()).relu() ** 3


class RadialBasis(ExactConstants):
    """B_n(r) = scale n^(1 - decay) j_0(n pi r/radius) f_c(r), n = 1 ... size: spherical Bessel functions, cut off.

    The waves of a free particle in a sphere (Gasteiger et al., ICLR 2020, eq. 7, where they have equal norm, decay 0),
    rapid ones with less amplitude: what comes in with less is learnt later. This preference for smooth potentials
    lowers the force error on unseen structures by a fifth (docs/design.md).

    Args:
        radius: in Angstrom.
        size: number of functions.
        decay: power of 1/n by which the norm falls.
        scale: factor of them all.
    """

    number: Tensor
    amplitude: Tensor

    def __init__(self, radius: float, size: int, decay: float = 1.0, scale: float = 1.0) -> None:
        super().__init__()
        self.radius = radius
        number = np.arange(1.0, size + 1.0)
        self.register_constant("number", number)
        self.register_constant("amplitude", scale * radius / math.pi * number**-decay)

    def forward(self, distance: Tensor) -> Tensor:
        """Distances ``(...)`` in Angstrom -> ``(size, ...)``; exactly zero from the radius on."""
        x, fading = torch.pi / self.radius * distance, cutoff_function(distance, self.radius) / distance
        if get_proxy_mode() is None:
            number, amplitude = (each.view(-1, *[1] * x.dim()) for each in (self.number, self.amplitude))
            return amplitude * (number * x).sin() * fading
        first, twice_cosine = torch.stack([x.sin() * fading, 2.0 * x.cos()])
        waves = [torch.zeros_like(first), first]  # a compiler makes one loop of it, with fewer sines:
        while len(waves) <= len(self.number):  # sin((n + 1) x) = 2 cos(x) sin(n x) - sin((n - 1) x)
            waves.append(twice_cosine * waves[-1] - waves[-2])
        amplitudes = self._exact["amplitude"].tolist()
        return torch.stack([amplitude * wave for amplitude, wave in zip(amplitudes, waves[1:], strict=True)])
