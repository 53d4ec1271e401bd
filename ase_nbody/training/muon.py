"""The optimiser Muon (Jordan et al. 2024): steps along the momentum, orthogonalised by a Newton-Schulz iteration.

torch's own Muon takes matrices only; our weights are stacks ``(degrees, in, out)``, one matrix for each l.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """For each matrix U S V^T, approximately U V^T, by a quintic Newton-Schulz iteration in the dtype of the input.

    Args:
        matrices: stack of matrices (..., m, n).

    Returns:
        The stack (..., m, n). Its singular values lie between about 0.7 and 1.2.
    """
    transposed = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if transposed else matrices
    shape, x = x.shape, (x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)).reshape(-1, *x.shape[-2:])
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):  # x <- a x + (b x x^T + c (x x^T)^2) x, in three matrix products
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.reshape(shape)
    return x.mT if transposed else x


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions, of which the last two (in, out) are those of matrices.

    Args:
        params: the parameters.
        lr: learning rate. The singular values of an update are about ``lr * sqrt(max(1, in / out))``.
        momentum: factor by which the Nesterov momentum decays in each step.
        weight_decay: in each step, the parameters lose the fraction ``lr * weight_decay`` of their value.
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
