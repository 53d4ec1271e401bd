"""Muon: momentum, orthogonalised by a Newton-Schulz iteration (Jordan et al. 2024), batched over the degrees l.

torch's own Muon takes matrices only; ours are stacks ``(degrees, in, out)``, one matrix for each l.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Nearly U V^T of each matrix U S V^T: a quintic Newton-Schulz iteration in the dtype of the input.

    Args:
        matrices: (..., m, n). Singular values are driven into about 0.7 ... 1.2.
    """
    transposed = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if transposed else matrices
    shape, x = x.shape, (x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)).reshape(-1, *x.shape[-2:])
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):  # x <- a x + (b x x^T + c (x x^T)^2) x, in as few passes as there can be
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.reshape(shape)
    return x.mT if transposed else x


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions, the last two being matrices.

    Args:
        params: the parameters.
        lr: learning rate; an update has the root-mean-square singular value ``lr * sqrt(max(1, in/out))``.
        momentum: of the (Nesterov) momentum.
        weight_decay: the parameters lose ``lr * weight_decay`` of their value with each step.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1.0 - group["momentum"])
                direction = orthogonalise(parameter.grad.lerp(average, group["momentum"]))
                stretch = max(1.0, parameter.shape[-2] / parameter.shape[-1]) ** 0.5
                parameter.mul_(1.0 - group["lr"] * group.get("weight_decay", 0.0))
                parameter.add_(direction, alpha=-group["lr"] * stretch)
        return loss
