"""Constants that stay exact when a module changes its dtype, and that all copies of the module share."""

import copy
import weakref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Constant:
    """An array in float64 and its tensors, of which there is one for each dtype and device as long as it is in use."""

    def __init__(self, value: NDArray[np.float64] | Tensor) -> None:
        array = value.numpy(force=True) if isinstance(value, Tensor) else value
        self.exact: NDArray[np.float64] = np.array(array, dtype=np.float64, order="C")
        self._tensors: weakref.WeakValueDictionary[tuple[torch.dtype, torch.device], Tensor] = (
            weakref.WeakValueDictionary()
        )

    def rounded(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The tensor. Whoever asks for it gets the same one, so it must not be changed."""
        tensor = self._tensors.get((dtype, device))
        if tensor is None:
            with torch.inference_mode(False):  # others may need it outside of that mode
                tensor = torch.tensor(self.exact, dtype=dtype, device=device)
            self._tensors[dtype, device] = tensor
        return tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> "Constant":
        return self

    def __getstate__(self) -> NDArray[np.float64]:
        return self.exact

    def __setstate__(self, exact: NDArray[np.float64]) -> None:
        self.__init__(exact)  # type: ignore[misc]


class ExactConstants(nn.Module):
    """A module whose constants are kept in float64 and rounded anew at every change of dtype or device.

    A plain buffer that goes to float32 and back carries an error of 1e-8 into float64, which is enough to spoil
    covariance at 1e-10. Constants are not part of the state dict, since they follow from the configuration. Copies
    share them: those of a committee would otherwise take gigabytes.

    Args:
        dtype: the dtype that the constants keep; default: that of the module, which starts in float64.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self._dtype = dtype
        self._constants: dict[str, Constant] = {}

    def register_constant(self, name: str, value: Constant | NDArray[np.float64] | Tensor) -> None:
        """Make ``value`` available as the attribute ``name``."""
        constant = value if isinstance(value, Constant) else Constant(value)
        self._constants[name] = constant
        self.register_buffer(name, constant.rounded(torch.float64, torch.device("cpu")), persistent=False)

    def exact(self, name: str) -> NDArray[np.float64]:
        """A constant in float64, whatever the dtype of the module."""
        return self._constants[name].exact

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        for name, constant in self._constants.items():
            found = getattr(self, name)
            if found.device.type != "meta":
                setattr(self, name, constant.rounded(self._dtype or found.dtype, found.device))
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "ExactConstants":
        for name in self._constants:
            tensor = getattr(self, name)
            memo[id(tensor)] = tensor
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__setstate__(copy.deepcopy(self.__dict__, memo))
        return other
