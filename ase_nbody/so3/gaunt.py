"""The Gaunt product: a Clebsch-Gordan product evaluated by exact quadrature on the sphere.

A state x holds the coefficients of a function on the sphere, f(u) = sum_lm x_lm Y_lm(u). The pointwise product of two
such functions has the coefficients sum g C x y: this is the Clebsch-Gordan product with Gaunt's weights g. So the
product can be taken on the points of a Lebedev rule and projected back. If the rule is exact up to the sum of all
degrees, the result is exact and covariant to round-off (Luo, Chen, Krishnapriyan, ICLR 2024). Three factors cost hardly
more than two.
"""

import torch
from scipy.integrate import lebedev_rule
from torch import Tensor

from ase_nbody.so3.constants import ExactConstants
from ase_nbody.so3.without_folder import o3

# Degrees of the rules in scipy.integrate.lebedev_rule that have positive weights, up to 101. (scipy's end at 131.)
_LEBEDEV_DEGREES = (3, 5, 7, 9, 11, 15, 17, 19, 21, 23, 29, 31, 35, 41, 47, 53, 59, 65, 71, 77, 83, 89, 95, 101)


class SphereQuadrature(ExactConstants):
    """Functions on the points of a Lebedev rule: ``evaluate`` goes from coefficients to values, ``project`` back.

    Args:
        l_in: highest degree of the functions that are evaluated.
        l_out: highest degree that ``project`` keeps.
        degree: highest degree of the functions that are projected; for a product, the sum over its factors.

    Raises:
        ValueError: no tabulated rule is exact to ``degree + l_out``.
    """

    synthesis: Tensor
    analysis: Tensor

    def __init__(self, l_in: int, l_out: int, degree: int) -> None:
        super().__init__()
        exact = next((rule for rule in _LEBEDEV_DEGREES if rule >= degree + l_out), None)
        if exact is None:
            raise ValueError(
                f"a product of degree {degree} projected to l = {l_out} needs a quadrature exact to degree "
                f"{degree + l_out}, but the rules used here end at {_LEBEDEV_DEGREES[-1]}: lower l_max or body_order"
            )
        points, weights = lebedev_rule(exact)
        harmonics = o3.spherical_harmonics(
            list(range(max(l_in, l_out) + 1)), torch.from_numpy(points.T), normalize=True, normalization="component"
        ).numpy()  # (points, components)
        self.points = len(weights)
        self.register_constant("synthesis", harmonics[:, : (l_in + 1) ** 2])  # (points, components in)
        mean = weights / weights.sum()
        analysis = (harmonics * mean[:, None])[:, : (l_out + 1) ** 2].T  # (components out, points)
        self.register_constant("analysis", analysis)

    def evaluate(self, state: Tensor) -> Tensor:
        """Coefficients ``(components in, ...)`` -> values ``(points, ...)``; missing high degrees count as zero."""
        synthesis = self.synthesis[:, : state.shape[0]]
        return (synthesis @ state.flatten(1)).unflatten(1, state.shape[1:])

    def project(self, values: Tensor) -> Tensor:
        """Values ``(points, ...)`` -> coefficients ``(components out, ...)``."""
        return (self.analysis @ values.flatten(1)).unflatten(1, values.shape[1:])


def gaunt_product(x: Tensor, y: Tensor, l_out: int) -> Tensor:
    """Channel-wise Gaunt product of two states; equals ``clebsch_gordan_product(x, y, l_out)``.

    Args:
        x: state ``((l_x + 1)^2, ..., channels)``.
        y: state ``((l_y + 1)^2, ..., channels)`` of the same trailing shape.
        l_out: highest degree of the result.

    Returns:
        State ``((l_out + 1)^2, ..., channels)``.
    """
    l_x, l_y = (round(state.shape[0] ** 0.5) - 1 for state in (x, y))
    quadrature = SphereQuadrature(max(l_x, l_y), l_out, degree=l_x + l_y).to(x)
    return quadrature.project(quadrature.evaluate(x) * quadrature.evaluate(y))
