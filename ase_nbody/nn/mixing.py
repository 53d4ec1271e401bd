"""The only linear map of the network: mixing of fragments of equal degree l (Kondor 2018, Proposition 1)."""

import torch
from torch import Tensor, nn

from ase_nbody.nn.weights import Weight
from ase_nbody.so3 import Type, by_degree


class Mixing(nn.Module):
    """psi^l -> psi^l W^l with one matrix for each degree l: by Schur's lemma no other linear map is covariant.

    The components m of a fragment are not mixed, and there is no bias. So the zero state stays zero, and a part without
    children adds nothing to the energy.

    ======  ==========  ===================================
    symbol  variable    shape
    ======  ==========  ===================================
    psi^l   ``block``   (2 l + 1, parts, channels in)
    W^l     ``weight``  (channels in, channels out)
    ======  ==========  ===================================

    Args:
        tau_in: type of the input.
        tau_out: type of the output, with at most the degrees of the input.
    """

    def __init__(self, tau_in: Type, tau_out: Type) -> None:
        super().__init__()
        if tau_out.l_max > tau_in.l_max:
            raise ValueError(f"mixing cannot raise the degree: {tau_in} -> {tau_out}")
        self.tau_in, self.tau_out = tau_in, tau_out
        declared = self.weights(tau_in, tau_out)
        self.weight = nn.Parameter(declared["weight"].normal() / tau_in.channels**0.5)

    @staticmethod
    def weights(tau_in: Type, tau_out: Type) -> dict[str, Weight]:
        """W^l for each degree of the output: ``(degrees, channels in, channels out)``."""
        return {"weight": Weight((tau_out.l_max + 1, tau_in.channels, tau_out.channels), matrix=True)}

    def forward(self, state: Tensor) -> Tensor:
        """``(components, parts, channels in)`` -> ``(components, parts, channels out)``."""
        pairs = zip(by_degree(state), self.weight, strict=False)  # degrees beyond those of the weights are left out
        blocks = [block.flatten(0, 1) @ weight for block, weight in pairs]
        return torch.cat(blocks).unflatten(0, (self.tau_out.components, state.shape[1]))

    def extra_repr(self) -> str:
        """Types in and out."""
        return f"{self.tau_in} -> {self.tau_out}"
