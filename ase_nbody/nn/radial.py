"""Radial functions of a pair distance. They fade to zero at the radius, with two continuous derivatives."""

import math

import numpy as np
import torch
from torch import Tensor

from ase_nbody.so3.constants import ExactConstants


def cutoff_function(distance: Tensor, radius: Tensor | float) -> Tensor:
    """(1 - (r/radius)^2)^3 inside the radius and 0 outside: value, slope and curvature vanish there."""
    return (1.0 - (distance / radius).square()).relu() ** 3


class RadialBasis(ExactConstants):
    """B_n(r) = a_n sin(n x) f_c(r) / r,   x = pi r / radius,   a_n = scale (radius / pi) n^-decay,   n = 1 ... size.

    These are the spherical Bessel functions j_0(n x) = sin(n x) / (n x) of a free particle in a sphere, cut off by f_c
    (Gasteiger et al., ICLR 2020, eq. 7, where all have the same norm: decay 0). Here functions that oscillate faster
    have smaller amplitudes, and what enters with a smaller amplitude is learnt later. This preference for smooth
    potentials lowers the force error on unseen structures by a fifth (docs/measurements.md).

    ==========  =============
    symbol      variable
    ==========  =============
    r           ``distance``
    x           ``x``
    f_c(r) / r  ``fading``
    n           ``number``
    a_n         ``amplitude``
    ==========  =============

    Args:
        radius: in Angstrom.
        size: number of functions.
        decay: power of 1/n by which the norm falls.
        scale: factor by which all functions are multiplied.
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
        number, amplitude = (each.view(-1, *[1] * distance.dim()) for each in (self.number, self.amplitude))
        x, fading = torch.pi / self.radius * distance, cutoff_function(distance, self.radius) / distance
        return amplitude * (number * x).sin() * fading
