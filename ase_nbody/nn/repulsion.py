"""Short-range repulsion of the nuclei, the universal potential of Ziegler, Biersack and Littmark (ZBL, 1985).

    V(r)   = (e^2 / 4 pi eps0) Z_i Z_j / r * phi(r / a),   a = 0.46850 / (Z_i^0.23 + Z_j^0.23) Angstrom
    phi(x) = sum_k c_k exp(-d_k x)

It is multiplied with ``cutoff_function``, so that it ends where the training data begin (``closest_approach.py``), or
at the sum of the covalent radii if the closest distance is not known. It must not reach into the data: there its steep
tail raised the force error of ethanol by two fifths (docs/measurements.md).
"""

import numpy as np
import torch
from ase.data import covalent_radii
from ase.units import Bohr, Hartree
from torch import Tensor

from ase_nbody.nn.radial import cutoff_function
from ase_nbody.so3.constants import ExactConstants

_WEIGHTS, _RATES = np.array([(0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162)]).T


class ZBLRepulsion(ExactConstants):
    """The energy of each atom in eV: half of the ZBL energies of its pairs. Nothing here is learnt.

    ==========  =======================
    symbol      variable
    ==========  =======================
    c_k, d_k    ``weights, rates``
    r           ``distance``
    Z_i, Z_j    ``z_first, z_second``
    r / a       ``reduced``
    phi(r / a)  ``screening``
    ==========  =======================
    """

    radius: Tensor
    inverse_length: Tensor
    weights: Tensor
    rates: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_constant("radius", covalent_radii)
        self.register_constant("inverse_length", np.arange(len(covalent_radii), dtype=np.float64) ** 0.23 / 0.46850)
        self.register_constant("weights", _WEIGHTS)
        self.register_constant("rates", _RATES)

    def forward(self, first: Tensor, second: Tensor, distance: Tensor, reach: Tensor | None = None) -> Tensor:
        """Energies in eV of the centres.

        Args:
            first: atomic numbers of the centres (parts,).
            second: atomic numbers of the neighbours (parts, K).
            distance: distances in Angstrom (parts, K).
            reach: distances in Angstrom (parts, K) up to which to repel; default: the sums of the covalent radii.
        """
        first = first.unsqueeze(-1)
        cutoff = self.radius[first] + self.radius[second] if reach is None else reach
        z_first, z_second = first.to(distance), second.to(distance)
        reduced = distance * (self.inverse_length[first] + self.inverse_length[second])
        weights, rates = (each.view(-1, 1, 1) for each in (self.weights, self.rates))
        screening = (weights * torch.exp(-rates * reduced)).sum(0)
        coulomb = 0.5 * Hartree * Bohr * z_first * z_second / distance
        return (coulomb * screening * cutoff_function(distance, cutoff)).sum(-1)
