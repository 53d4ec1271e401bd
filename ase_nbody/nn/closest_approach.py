"""Below the closest distance r_0 in the training data, radial functions hold still and a known repulsion takes over.

Products of many radial functions that were fitted above r_0 can take any value below it: wells 1e9 eV deep were seen.
So the radial functions are evaluated at a distance s(r), which follows r down to a = 0.95 r_0 and is constant below
b = 0.92 r_0:

    s(r) = r                              for r >= a
    s(r) = (a + b) / 2 + (a - b) I(x)     for r < a,    x = max(0, (r - b) / (a - b))

I(x) = x^4 (5/2 - 3 x + x^2) is the integral of the smoothstep x^3 (10 - 15 x + 6 x^2). So s has three continuous
derivatives, and s(r) = r wherever there are data. Below b, only ZBL's repulsion (``repulsion.py``)
still changes with r. The idea is the inner cutoff of PACE (Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021)).
"""

from collections.abc import Mapping

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray
from torch import Tensor

from ase_nbody.so3.constants import ExactConstants

FOLLOWS, RESTS = 0.95, 0.92  # fractions of r_0


def held_distance(distance: Tensor, closest: Tensor) -> Tensor:
    """s(r) of the equation above: the distance, held where it is shorter than any in the training data.

    Args:
        distance: r in Angstrom, any shape.
        closest: r_0 in Angstrom, same shape, positive and finite.
    """
    follows, rests = FOLLOWS * closest, RESTS * closest
    x = ((distance - rests) / (follows - rests)).clamp(0.0, 1.0)
    integral = x.square().square() * (2.5 - x * (3.0 - x))
    # ``where``, because the gradient of ``maximum`` is wrong where both arguments are equal.
    return torch.where(distance < follows, 0.5 * (follows + rests) + (follows - rests) * integral, distance)


def pair_table(distances: Mapping[str, float]) -> NDArray[np.float64]:
    """Symmetric table (119, 119) of the distances by two atomic numbers; infinite for pairs that are not given.

    Args:
        distances: in Angstrom by pair of species, ``{"H-O": 0.9}``.
    """
    table = np.full((len(atomic_numbers), len(atomic_numbers)), np.inf)
    for pair, distance in distances.items():
        first, second = (atomic_numbers[symbol] for symbol in pair.split("-"))
        table[first, second] = table[second, first] = distance
    return table


class ClosestApproach(ExactConstants):
    """r_0 of each pair of species; infinite for pairs that the training data lack. It has no parameters."""

    table: Tensor

    def __init__(self, distances: Mapping[str, float]) -> None:
        """``distances``: r_0 in Angstrom by pair, ``{"H-O": 0.9}``."""
        super().__init__()
        self.register_constant("table", pair_table(distances))

    def forward(self, first: Tensor, second: Tensor, radius: float) -> Tensor:
        """r_0 in Angstrom (parts, K) of centres (parts,) and neighbours (parts, K), given by atomic number.

        Pairs that the training data lack, or have only beyond the ``radius``, get an r_0 for which s(r) >= radius
        everywhere, so that only the repulsion acts on them.
        """
        return self.table[first.unsqueeze(-1), second].clamp(max=radius / RESTS)
