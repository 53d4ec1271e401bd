"""``Settings``: how to evaluate, as plain values that JSON can hold. Whoever takes these keywords checks them here."""

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True)
class Settings:
    """The keywords of an ``Evaluator``, which documents them. They are plain: ``torch.float32`` becomes ``"float32"``.

    Raises:
        ValueError: one of the values is not allowed.
    """

    device: str = "cpu"
    dtype: str = "float64"
    compile: bool = False
    threads: int | None = None
    skin: float = 0.5

    def __post_init__(self) -> None:
        plain = {
            "device": _device(self.device),
            "dtype": _dtype(self.dtype),
            "compile": _compile(self.compile),
            "threads": _threads(self.threads),
            "skin": _skin(self.skin),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)


def existing_device(name: str) -> torch.device:
    """The device of this name with its index: ``cuda`` is ``cuda:0``, as in tensors.

    Raises:
        ValueError: there is no such device here.
    """
    try:
        probe = torch.zeros(1, dtype=torch.float64, device=torch.device(name))
        probe.cpu()  # "meta" has no numbers
        return probe.device
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"device {name!r} is not available here ({why_missing(error)}). Use device='cpu', or --device cpu on the "
            "command line."
        ) from error


def why_missing(error: BaseException) -> str:
    """Why torch refuses a device, in a few words. For a name that is no device, torch lists dozens that few have."""
    words = str(error)
    if "device type at start" in words or "device string" in words:
        return "devices are named 'cpu', 'cuda', 'cuda:1', ..."
    return words.splitlines()[0].partition(". ")[0]


def _device(given: Any) -> str:
    name = str(given) if isinstance(given, str | torch.device) else given
    existing_device(name)
    return str(name)


def _dtype(given: Any) -> str:
    for name, dtype in DTYPES.items():
        if (isinstance(given, str) and given == name) or (isinstance(given, torch.dtype) and given == dtype):
            return name
    raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {given!r}")


def _compile(given: Any) -> bool:
    value = _number(given)
    if not isinstance(value, bool | np.bool_ | numbers.Integral) or value not in (0, 1):
        raise ValueError(f"compile must be True or False, got {given!r}")
    return bool(value)


def _threads(given: Any) -> int | None:
    value = _number(given)
    if value is None:
        return None
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"threads must be a whole number of at least 1, got {given!r}")
    return int(value)


def _skin(given: Any) -> float:
    value = _number(given)
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0.0 <= float(value) < np.inf:
        raise ValueError(f"skin must be a finite distance of at least 0 Angstrom, got {given!r}")
    return float(value)


def _number(given: Any) -> Any:
    """The number in an array of numpy that has no axes; anything else as it is."""
    return given.item() if isinstance(given, np.ndarray) and given.ndim == 0 else given
