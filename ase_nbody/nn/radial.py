"""Radial functions of a pair distance. They fade to zero at the radius, with two continuous derivatives."""

import math

import numpy as np
import torch
from torch import Tensor

from ase_nbody.so3.constants import ExactConstants

SOFTENING_ANGSTROM = 1.0  # the length a of ``LabelledRadialBasis``, that of a bond


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


class LabelledRadialBasis(RadialBasis):
    """The radial basis of labelled parts, whose members count at any distance and may lie at the part's position.

    With the softened distance rho = (r^2 + a^2)^(1/2), which is a smooth function of the vector r even at r = 0,

        B_n(r) = a_n sin(n pi rho / radius) f_c(r) / rho               other children, zero from the radius on
        M_n(r) = a_n sin(n pi t) / (t radius),  t = rho / (rho^2 + radius^2)^(1/2)      members, at any distance

    Both stand side by side as functions of one basis, each zero for children of the other kind, so a gate learns
    functions of its own for members. Harmonics are taken of u = r / rho in place of the direction r / |r|. They are
    homogeneous polynomials, Y_l(u) = (r / rho)^l Y_l(r / |r|), so all functions of degree l vanish as r^l, and nothing
    is singular where a child passes through the part's position. At r >> a they are those of ``RadialBasis``.

    Args:
        radius, size, decay, scale: see ``RadialBasis``. There are ``2 * size`` functions.
    """

    def of_vectors(self, vectors: Tensor, is_member: Tensor) -> tuple[Tensor, Tensor]:
        """The basis ``(2 * size, P, K)`` and the vectors u ``(3, P, K)`` that take the place of directions.

        Args:
            vectors: pair vectors ``(3, P, K)`` in Angstrom; padded ones are longer than the radius.
            is_member: True where an edge leads to a member ``(P, K)``, False where it is padded.
        """
        number, amplitude = (each.view(-1, 1, 1) for each in (self.number, self.amplitude))
        squared = vectors.square().sum(0)
        softened = (squared + SOFTENING_ANGSTROM**2).sqrt()
        fading = (1.0 - squared / self.radius**2).relu() ** 3 / softened
        others = (number * torch.pi / self.radius * softened).sin() * (fading * ~is_member)
        ratio = softened / (softened.square() + self.radius**2).sqrt()
        members = (number * torch.pi * ratio).sin() * (is_member / (ratio * self.radius))
        return torch.cat([amplitude * members, amplitude * others]), vectors / softened
