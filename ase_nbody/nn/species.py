"""What depends on the chemical species: energies of lone atoms, states of the atoms, gains of a part's fragments.

The species are the chemical symbols that the network knows, in its order. Every table here grows with their number,
never with its square, so that many elements cost little. Atoms are given as one-hot rows (atoms, species): a look-up is
then a matrix product, whose derivative needs no scatter.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ase_nbody.nn.weights import Plan, Weight
from ase_nbody.so3 import State, Type, degrees
from ase_nbody.so3.constants import ExactConstants


class IsolatedAtoms(ExactConstants):
    """Energy in eV of each atom alone. Always in float64, because single meV matter in thousands of eV."""

    energy: Tensor

    def __init__(self, species: Sequence[str], energies: Mapping[str, float]) -> None:
        """``energies``: in eV by chemical symbol; 0 for species that it does not name."""
        super().__init__(torch.float64)
        self.register_constant("energy", np.array([energies.get(symbol, 0.0) for symbol in species]))

    def forward(self, one_hot: Tensor) -> Tensor:
        """One-hot rows ``(atoms, species)`` -> energies (atoms,), float64."""
        return one_hot.to(torch.float64) @ self.energy


class SpeciesEmbedding(nn.Module):
    """Level 0, the atoms: a state of type ``channels x 0`` for each species."""

    def __init__(self, n_species: int, channels: int) -> None:
        super().__init__()
        self.tau_out = Type.uniform(channels, 0)
        one_hot = torch.eye(n_species, channels, dtype=torch.float64)
        spread = self.weights(n_species, channels)["weight"].normal() / channels**0.5
        self.weight = nn.Parameter(one_hot if channels >= n_species else spread)

    @staticmethod
    def weights(n_species: int, channels: int) -> dict[str, Weight]:
        """One row for each species."""
        return {"weight": Weight((n_species, channels))}

    def forward(self, one_hot: Tensor) -> Tensor:
        """One-hot rows ``(atoms, species)`` -> state ``(1, atoms, channels)``."""
        return (one_hot @ self.weight).unsqueeze(0)


class SpeciesGain(nn.Module):
    """psi^l_c -> g^l_c(z) psi^l_c: a factor for each fragment, which the species z at the part's centre determines.

    The state has a uniform type here; ``SpeciesGainByIrrep`` is the same for any type.
    """

    degree: Tensor

    def __init__(self, n_species: int, tau: Type) -> None:
        super().__init__()
        self.weight = nn.Parameter(self.weights(n_species, tau)["weight"].ones())
        self.register_buffer("degree", torch.tensor(degrees(tau.l_max)), persistent=False)

    @staticmethod
    def weights(n_species: int, tau: Type) -> dict[str, Weight]:
        """g^l_c(z): ``(degrees, species, channels)``."""
        return {"weight": Weight((tau.l_max + 1, n_species, tau.channels))}

    def forward(self, state: Tensor, one_hot: Tensor) -> Tensor:
        """State ``(components, parts, channels)`` and one-hot rows ``(parts, species)`` -> state."""
        return state * (one_hot @ self.weight).index_select(0, self.degree)


class SpeciesGainByIrrep(nn.Module):
    """A factor for each fragment of a state of any type, which the species at the part's centre determines."""

    def __init__(self, n_species: int, tau: Type) -> None:
        super().__init__()
        self.tau = tau
        self.weight = nn.Parameter(self.weights(n_species, tau)["weight"].ones())

    @staticmethod
    def weights(n_species: int, tau: Type) -> dict[str, Weight]:
        """A row for each species, with the fragments in the order of ``tau.irreps``: ``(species, fragments)``."""
        return {"weight": Weight((n_species, tau.fragments))}

    def forward(self, state: State, one_hot: Tensor) -> State:
        """State of type ``tau`` and one-hot rows ``(parts, species)`` -> state."""
        gains = (one_hot @ self.weight).split(list(self.tau.irreps.values()), dim=1)
        pairs = zip(self.tau.blocks(state), gains, strict=True)
        return self.tau.state(tuple(block * gain for block, gain in pairs))


def species_gain(n_species: int, tau: Type) -> Plan:
    """The gains of a state by species, not built yet."""
    return Plan(SpeciesGain if tau.is_uniform else SpeciesGainByIrrep, n_species, tau)
