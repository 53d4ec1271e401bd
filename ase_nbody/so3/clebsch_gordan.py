"""The Clebsch-Gordan product, as it is defined. Tests compare the fast product of ``gaunt`` with it.

Kondor 2018, eq. (13): the product of two fragments of degrees l1 and l2 decomposes into fragments of the degrees
|l1 - l2| <= l <= l1 + l2,

    (x ⊗ y)^l_m = sum_{m1 m2} C^{l m}_{l1 m1, l2 m2} x^{l1}_{m1} y^{l2}_{m2} .

``coupled`` is this equation for one path (l1, l2) -> l. From fragments of natural parity, paths of odd l1 + l2 + l make
pseudo-tensors. ``clebsch_gordan_product`` sums over the paths of even l1 + l2 + l, which stay within natural parity.
"""

import functools
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ase_nbody.so3.without_folder import o3


@functools.cache
@torch.inference_mode(False)  # what is kept must serve everybody, whoever asks first
def clebsch_gordan(l1: int, l2: int, l3: int) -> Tensor:
    """Real Clebsch-Gordan coefficients (2 l1 + 1, 2 l2 + 1, 2 l3 + 1) in float64.

    They are orthonormal in the last index: sum_{m1 m2} C_{m1 m2 m} C_{m1 m2 m'} = delta_{m m'}.
    """
    with torch.device("cpu"):
        return math.sqrt(2 * l3 + 1) * o3.wigner_3j(l1, l2, l3, dtype=torch.float64)


def coupled(x: Tensor, y: Tensor, degree: int) -> Tensor:
    """(x ⊗ y)^l of the equation above: the fragment of one degree in the product of two fragments, for every path.

    Args:
        x: fragments ``(2 l1 + 1, ...)``.
        y: fragments ``(2 l2 + 1, ...)``; after the first dimension its shape broadcasts with that of ``x``.
        degree: l, from |l1 - l2| to l1 + l2.

    Returns:
        Fragments ``(2 l + 1, ...)``.
    """
    l1, l2 = (fragment.shape[0] // 2 for fragment in (x, y))
    return torch.einsum("abm,a...,b...->m...", clebsch_gordan(l1, l2, degree).to(x), x, y)


@functools.cache
def gaunt_coefficient(l1: int, l2: int, l3: int) -> float:
    """The number g with mean_u[Y_l1 Y_l2 Y_l3] = g * clebsch_gordan(l1, l2, l3), for component-normalised harmonics.

    This is the reduced matrix element of a product of harmonics (Wigner-Eckart). It is zero for odd l1 + l2 + l3.
    """
    pole = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64, device="cpu")
    left, right, out = (
        o3.spherical_harmonics(degree, pole, normalize=False, normalization="component") for degree in (l1, l2, l3)
    )
    # Y_l1 Y_l2 = sum_l3 g C Y_l3 holds at every point. Contracting it with C gives g Y_l3 for one l3.
    coupled = torch.einsum("abm,a,b->m", clebsch_gordan(l1, l2, l3), left, right)
    return float(coupled @ out / (2 * l3 + 1))


def clebsch_gordan_product(
    x: Tensor, y: Tensor, l_out: int, *, weights: Callable[[int, int, int], float] = gaunt_coefficient
) -> Tensor:
    """Channel-wise Clebsch-Gordan product of two states, summed over the paths (l1, l2) -> l with given weights.

    Args:
        x: state ``((l_x + 1)^2, ..., channels)``.
        y: state ``((l_y + 1)^2, ..., channels)``; after the first dimension its shape broadcasts with that of ``x``.
        l_out: highest degree of the result.
        weights: the weight of a path as a function of l1, l2 and l. With the default this is the Gaunt product.

    Returns:
        State ``((l_out + 1)^2, ..., channels)``.
    """
    l_x, l_y = (math.isqrt(state.shape[0]) - 1 for state in (x, y))
    blocks = []
    for l3 in range(l_out + 1):
        block = x.new_zeros((2 * l3 + 1, *torch.broadcast_shapes(x.shape[1:], y.shape[1:])))
        for l1 in range(l_x + 1):
            for l2 in range(abs(l1 - l3), min(l_y, l1 + l3) + 1):
                if (l1 + l2 + l3) % 2 == 0:
                    left, right = x[l1 * l1 : (l1 + 1) ** 2], y[l2 * l2 : (l2 + 1) ** 2]
                    block = block + weights(l1, l2, l3) * coupled(left, right, l3)
        blocks.append(block)
    return torch.cat(blocks)


def gaunt_matrix(l_x: int, l_y: int, l_out: int) -> Tensor:
    """Matrix ``((l_out + 1)^2, (l_x + 1)^2 (l_y + 1)^2)`` from all products x_i y_j to the Gaunt product of x and y."""
    matrix = torch.zeros((l_out + 1) ** 2, (l_x + 1) ** 2, (l_y + 1) ** 2, dtype=torch.float64)
    for l1, l2, l3 in itertools.product(range(l_x + 1), range(l_y + 1), range(l_out + 1)):
        if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0:
            rows, columns, out = (slice(degree**2, (degree + 1) ** 2) for degree in (l1, l2, l3))
            matrix[out, rows, columns] = gaunt_coefficient(l1, l2, l3) * clebsch_gordan(l1, l2, l3).movedim(2, 0)
    return matrix.flatten(1)
