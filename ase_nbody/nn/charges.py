"""Partial charges and the dipole moment of a molecule, from the outputs of its parts. Nothing here is learnt.

Charges are in e, dipoles in e Angstrom, all in float64. The heads of the network give atomic dipoles and raw
charges, whose sum is arbitrary. Here the sum is corrected, and the moment of the whole molecule is formed.
"""

import torch
from ase.data import atomic_masses
from torch import Tensor

from ase_nbody.hierarchy.reduction import sum_by_structure
from ase_nbody.so3.constants import ExactConstants


class AtomicMasses(ExactConstants):
    """``table``: standard atomic masses in u by atomic number (119,), in float64 whatever the dtype of the network."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__(torch.float64)
        self.register_constant("table", atomic_masses)


def conserved_charges(raw: Tensor, structure: Tensor, total_charge: Tensor) -> Tensor:
    """Charges that sum to the charge of their structure: each atom gets an equal share of what is missing.

        q_i = raw_i + (Q - sum_j raw_j) / n        sums over the n atoms of the structure that i belongs to

    Args:
        raw: charges of the atoms (N,) in e.
        structure: the structure that each atom belongs to (N,).
        total_charge: Q of each structure (B,) in e.

    Returns:
        q_i (N,) in e, float64. A lone atom has its structure's whole charge.
    """
    raw, total_charge = raw.to(torch.float64), total_charge.to(torch.float64)
    n_structures = total_charge.shape[0]
    n_atoms = sum_by_structure(torch.ones_like(raw), structure, n_structures)
    missing = total_charge - sum_by_structure(raw, structure, n_structures)
    return raw + (missing / n_atoms.clamp(min=1.0))[structure]  # 1: a structure may have no atoms


def molecular_dipole(
    charges: Tensor, atomic_dipoles: Tensor, positions: Tensor, masses: Tensor, structure: Tensor, n_structures: int
) -> Tensor:
    """Dipole moments of molecules about their centres of mass.

        mu = sum_i [ q_i (r_i - R) + mu_i ],        R = sum_i m_i r_i / sum_i m_i

    The moment of a neutral molecule does not depend on R. That of an ion does: it is the moment about the centre of
    mass, and programs that take another origin give another moment.

    Args:
        charges: q_i (N,) in e.
        atomic_dipoles: mu_i (3, N) in e Angstrom.
        positions: r_i (N, 3) in Angstrom, float64; a molecule must not be wrapped into a cell.
        masses: m_i (N,) in any unit; see ``AtomicMasses``.
        structure: the structure that each atom belongs to (N,).
        n_structures: number of structures, B.

    Returns:
        mu (B, 3) in e Angstrom, float64; zero where a structure has no atoms.
    """
    weights = masses.to(torch.float64).unsqueeze(1)
    mass = sum_by_structure(weights, structure, n_structures)
    centre = sum_by_structure(weights * positions, structure, n_structures) / torch.where(mass > 0.0, mass, 1.0)
    moments = charges.to(torch.float64).unsqueeze(1) * (positions - centre[structure])
    return sum_by_structure(moments + atomic_dipoles.T.to(torch.float64), structure, n_structures)
