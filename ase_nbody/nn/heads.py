"""Heads: outputs of a part from the fragments of its state, scalars from degree 0 and vectors from degree 1."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ase_nbody.nn.weights import Weight


class ReadOut(nn.Module):
    """epsilon = a(z) . s + b(z) . silu(s W): linear in the scalars s of a part, plus one hidden layer.

    There is no bias, so a part without children has the energy zero and a lone atom its isolated-atom energy. The same
    form serves for other invariants, such as charges. From scalars of order 1, new weights make outputs of order 0.1.

    ===========  =========================  ==================
    symbol       variable                   shape
    ===========  =========================  ==================
    s            ``scalars``                (parts, channels)
    a(z)         ``one_hot @ linear``       (parts, channels)
    W            ``hidden``                 (channels, hidden)
    silu(s W)    ``activations``            (parts, hidden)
    b(z)         ``one_hot @ output``       (parts, hidden)
    ===========  =========================  ==================
    """

    def __init__(self, n_species: int, channels: int, hidden: int) -> None:
        super().__init__()
        declared = self.weights(n_species, channels, hidden)
        self.linear = nn.Parameter(0.1 * declared["linear"].normal() / channels**0.5)
        self.hidden = nn.Parameter(declared["hidden"].normal() / channels**0.5)
        self.output = nn.Parameter(0.1 * declared["output"].normal() / hidden**0.5)

    @staticmethod
    def weights(n_species: int, channels: int, hidden: int) -> dict[str, Weight]:
        """``linear`` has a, ``hidden`` W and ``output`` b of the equation."""
        return {
            "linear": Weight((n_species, channels)),
            "hidden": Weight((channels, hidden), matrix=True),
            "output": Weight((n_species, hidden)),
        }

    def features(self, scalars: Tensor) -> Tensor:
        """[s, silu(s W)] ``(parts, channels + hidden)``: epsilon is linear in these, with the weights [a(z), b(z)]."""
        return torch.cat([scalars, functional.silu(scalars @ self.hidden)], dim=-1)

    def forward(self, scalars: Tensor, one_hot: Tensor) -> Tensor:
        """Scalars ``(parts, channels)`` and one-hot rows ``(parts, species)`` -> epsilon ``(parts,)``."""
        activations = functional.silu(scalars @ self.hidden)
        return (scalars * (one_hot @ self.linear)).sum(-1) + (activations * (one_hot @ self.output)).sum(-1)


class VectorHead(nn.Module):
    """mu = sum_c w_c(z) psi^1_c: a vector, such as a dipole, from the degree-1 fragments of a part.

    It is linear and has no bias, because covariance forbids a bias. So the zero state gives the zero vector.
    """

    def __init__(self, n_species: int, channels: int) -> None:
        super().__init__()
        declared = self.weights(n_species, channels)
        self.weight = nn.Parameter(0.1 * declared["weight"].normal() / channels**0.5)

    @staticmethod
    def weights(n_species: int, channels: int) -> dict[str, Weight]:
        """w_c(z): ``(species, channels)``."""
        return {"weight": Weight((n_species, channels))}

    def forward(self, fragments: Tensor, one_hot: Tensor) -> Tensor:
        """Degree-1 fragments ``(3, parts, channels)`` and one-hot rows -> vectors ``(3, parts)``: x, y and z."""
        return (fragments * (one_hot @ self.weight)).sum(-1)
