"""Invariant read-out: the energy of a part from its degree-0 fragments."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ReadOut(nn.Module):
    """epsilon = a(z) . s + b(z) . silu(s W): linear in the scalars s of a part, plus one hidden layer.

    There is no bias, so a part without children has the energy zero and a lone atom its isolated-atom energy.
    """

    def __init__(self, n_species: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Parameter(0.1 * torch.randn(n_species, channels, dtype=torch.float64) / channels**0.5)
        self.hidden = nn.Parameter(torch.randn(channels, hidden, dtype=torch.float64) / channels**0.5)
        self.output = nn.Parameter(0.1 * torch.randn(n_species, hidden, dtype=torch.float64) / hidden**0.5)

    def forward(self, scalars: Tensor, species: Tensor) -> Tensor:
        """Scalars ``(parts, channels)`` and one-hot species ``(parts, species)`` -> energies ``(parts,)``."""
        hidden = functional.silu(scalars @ self.hidden)
        return (scalars * (species @ self.linear)).sum(-1) + (hidden * (species @ self.output)).sum(-1)
