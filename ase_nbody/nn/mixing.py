"""The only linear map of the network: mixing of fragments of equal degree l (Kondor 2018, Proposition 1)."""

import torch
from torch import Tensor, nn

from ase_nbody.nn.weights import Plan, Weight
from ase_nbody.so3 import State, Type, by_degree


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

    Both types are uniform here; ``MixingByIrrep`` is the same map between any types.

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


class MixingByIrrep(nn.Module):
    """psi^l -> psi^l W^l between states of any types, with a matrix (tau_l in, tau_l out) for each irrep of the output.

    The matrices are called ``l0``, ``l1``, ..., and ``l1p``, ... for pseudo-tensors. These are never mixed with
    fragments of natural parity.

    Args:
        tau_in: type of the input, dense or in blocks.
        tau_out: type of the output, with at most the irreps of the input.
    """

    def __init__(self, tau_in: Type, tau_out: Type) -> None:
        super().__init__()
        if missing := [str(irrep) for irrep in tau_out.irreps if irrep not in tau_in.irreps]:
            raise ValueError(f"mixing cannot make fragments of degree {', '.join(missing)}: {tau_in} -> {tau_out}")
        self.tau_in, self.tau_out = tau_in, tau_out
        for name, weight in self.weights(tau_in, tau_out).items():
            self.register_parameter(name, nn.Parameter(weight.normal() / weight.shape[0] ** 0.5))

    @staticmethod
    def weights(tau_in: Type, tau_out: Type) -> dict[str, Weight]:
        """W^l for each irrep of the output: ``(channels in, channels out)``."""
        sizes = tau_in.irreps
        return {f"l{irrep}": Weight((sizes[irrep], count), matrix=True) for irrep, count in tau_out.irreps.items()}

    def forward(self, state: State) -> State:
        """State of type ``tau_in`` -> state of type ``tau_out``."""
        blocks = dict(zip(self.tau_in.irreps, self.tau_in.blocks(state), strict=True))
        return self.tau_out.state(
            tuple(
                (blocks[irrep].flatten(0, 1) @ getattr(self, f"l{irrep}")).unflatten(0, (irrep.components, -1))
                for irrep in self.tau_out.irreps
            )
        )

    def extra_repr(self) -> str:
        """Types in and out."""
        return f"{self.tau_in} -> {self.tau_out}"


def mixing(tau_in: Type, tau_out: Type) -> Plan:
    """The mixing between two types, not built yet."""
    return Plan(Mixing if tau_in.is_uniform and tau_out.is_uniform else MixingByIrrep, tau_in, tau_out)
