"""Beyond the densest surroundings of the training data, the states of a part fade out.

The state of a part is a sum over its children, products of states are its powers, and the next level takes powers of
these again: at nine times the density of the data a network may give 1e9 times the energy. So each aggregated state is
multiplied by

    g(x) = 1 - x^3 (10 - 15 x + 6 x^2),   x = (rho_i / rho_0 - 1) / (w - 1), held between 0 and 1
    rho_i = sum_j (1 - (r_ij / R)^2)^3

with rho_0 the highest density of children in the training data, for the species at the centre, and w = 2. So g = 1, to
the last bit, wherever there are data, and it has two continuous derivatives. From w rho_0 on, the part has the zero
state, as if it were alone: it learns nothing from its children and shows its parents nothing. What is left of its
energy is that of an isolated atom, the repulsion of the nuclei, and the embedded-atom potential if the network stands
on one (``embedded_atom.py``).
"""

from collections.abc import Mapping

import numpy as np
from ase.data import atomic_numbers
from torch import Tensor

from ase_nbody.nn.radial import cutoff_function
from ase_nbody.so3.constants import ExactConstants

FADED = 2.0  # w, the density at which nothing is left, as a multiple of the highest one in the data


class DensityFade(ExactConstants):
    """g of each part. It has no weights.

    Args:
        densest: rho_0 by chemical symbol. Parts at other species do not fade.
        radius: R in Angstrom, that of the level.
    """

    inverse: Tensor

    def __init__(self, densest: Mapping[str, float], radius: float) -> None:
        super().__init__()
        inverse = np.zeros(len(atomic_numbers))
        for symbol, density in densest.items():
            inverse[atomic_numbers[symbol]] = 1.0 / density
        self.radius = radius
        self.register_constant("inverse", inverse)

    def forward(self, centre: Tensor, distance: Tensor) -> Tensor:
        """Atomic numbers of the centres (P,) and distances (P, K) in Angstrom -> g (P,)."""
        density = cutoff_function(distance, self.radius).sum(-1)
        x = ((density * self.inverse[centre] - 1.0) / (FADED - 1.0)).clamp(0.0, 1.0)
        return 1.0 - x * x * x * (10.0 - x * (15.0 - 6.0 * x))
