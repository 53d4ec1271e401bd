"""Constants that stay exact when a module changes its dtype."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class ExactConstants(nn.Module):
    """A module whose constants are kept in float64 and rounded anew at every change of dtype or device.

    A plain buffer that goes to float32 and back carries an error of 1e-8 into float64, which is enough to spoil
    covariance at 1e-10. Constants are not part of the state dict, since they follow from the configuration.

    Args:
        dtype: the dtype that the constants keep; default: that of the module, which starts in float64.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self._dtype = dtype
        self._exact: dict[str, NDArray[np.float64]] = {}

    def register_constant(self, name: str, value: NDArray[np.float64] | torch.Tensor) -> None:
        """Make ``value`` available as the attribute ``name``."""
        exact = (value.numpy() if isinstance(value, torch.Tensor) else value).astype(np.float64)
        self._exact[name] = exact
        self.register_buffer(name, torch.from_numpy(exact.copy()), persistent=False)

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        for name, exact in self._exact.items():
            rounded = getattr(self, name)
            if rounded.device.type != "meta":
                dtype = self._dtype or rounded.dtype
                setattr(self, name, torch.as_tensor(exact, dtype=dtype, device=rounded.device).clone())
        return self
