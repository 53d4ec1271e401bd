"""An embedded-atom potential, on which a network stands: it learns what this potential lacks.

    E_i   = 1/2 sum_j A_ij exp(-p x_ij) f_c(r_ij)  -  c_i rho_i / (rho_i + rho_s)^(1/2),     x_ij = r_ij / d_ij - 1
    rho_i = sum_j exp(-2 q x_ij) f_c(r_ij)

This is the potential of Gupta (1981) and of Cleri and Rosato (Phys. Rev. B 48, 22 (1993)): a repulsion of pairs, and a
binding that grows as the root of the density, as the second moment of the density of states has it. Here f_c cuts it
off, and rho_s makes the root smooth where the density vanishes. A, c, p and q are fitted to the training data before
the network is (``data.embedded_atom``).

It knows what polynomials of a few neighbours cannot know: an atom that loses neighbours gains energy more and more
steeply, up to the energy of the lone atom, and an atom that gains too many is repelled exponentially.
"""

from collections.abc import Mapping

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor

from ase_nbody.nn.closest_approach import pair_table
from ase_nbody.nn.radial import cutoff_function
from ase_nbody.so3.constants import ExactConstants

SOFTENING = 0.3  # rho_s; a neighbour at the distance d has the density 1


class EmbeddedAtom(ExactConstants):
    """The energy of each atom in eV. Nothing here is learnt by gradients.

    ===================  ======================
    symbol               variable
    ===================  ======================
    x_ij                 ``stretch``
    A_ij                 ``repulsion``
    c_i                  ``binding``
    1 / d_ij             ``inverse_length``
    ===================  ======================

    Args:
        lengths: d in Angstrom by pair of species, ``{"H-O": 0.9}``. Pairs that are missing feel nothing.
        repulsion: A in eV by pair of species, for the same pairs.
        binding: c in eV by species.
        decay: p and q.
        radius: where f_c ends, in Angstrom.
    """

    inverse_length: Tensor
    repulsion: Tensor
    binding: Tensor
    present: Tensor

    def __init__(
        self,
        lengths: Mapping[str, float],
        repulsion: Mapping[str, float],
        binding: Mapping[str, float],
        decay: tuple[float, float],
        radius: float,
    ) -> None:
        super().__init__()
        self.decay, self.radius = decay, radius
        table = pair_table(lengths)
        by_species = np.zeros(len(table))
        for symbol, energy in binding.items():
            by_species[atomic_numbers[symbol]] = energy
        self.register_constant("inverse_length", 1.0 / table)
        self.register_constant("present", np.isfinite(table).astype(np.float64))
        energies = pair_table(repulsion)
        self.register_constant("repulsion", np.where(np.isfinite(energies), energies, 0.0))
        self.register_constant("binding", by_species)

    def forward(self, first: Tensor, second: Tensor, distance: Tensor) -> Tensor:
        """Energies in eV of the centres (P,).

        Args:
            first: atomic numbers of the centres (P,).
            second: atomic numbers of the neighbours (P, K).
            distance: distances in Angstrom (P, K).
        """
        pair = (first.unsqueeze(-1), second)
        stretch = distance * self.inverse_length[pair] - 1.0
        fading = cutoff_function(distance, self.radius) * self.present[pair]
        p, q = self.decay
        pairs = 0.5 * (self.repulsion[pair] * torch.exp(-p * stretch) * fading).sum(-1)
        density = (torch.exp(-2.0 * q * stretch) * fading).sum(-1)
        return pairs - self.binding[first] * density * (density + SOFTENING).rsqrt()
