"""The files in which compiled code is kept: torch's package, behind what it takes as arguments and a checksum.

Code that gets other arguments than it was compiled for ends the process, and so may code that is damaged. So both are
compared before any of it runs.
"""

import hashlib
import json
from collections.abc import Sequence

from torch import Tensor

_MAGIC = b"compiled code of ase-nbody\n"
_DIGITS = 64  # of SHA-256


class DamagedCodeError(RuntimeError):
    """The file does not hold the compiled code that is wanted, as it was written."""


def signature(weights: Sequence[Tensor], tensors: Sequence[Tensor], free: Sequence[Sequence[int]]) -> str:
    """What compiled code takes: dtype and sizes of all weights and tensors, in order; ``*`` for sizes that are free."""
    of_weights = [_form(weight, ()) for weight in weights]
    return json.dumps({"weights": of_weights, "tensors": list(map(_form, tensors, free))})


def _form(tensor: Tensor, free: Sequence[int]) -> str:
    sizes = ("*" if axis in free else str(size) for axis, size in enumerate(tensor.shape))
    return f"{str(tensor.dtype).removeprefix('torch.')}[{','.join(sizes)}]"


def packed(package: bytes, name: str, taken: str) -> bytes:
    """The content of a file.

    Args:
        package: a package of AOTInductor (``.pt2``).
        name: the name under which it is kept; it begins with the key.
        taken: what the code takes (see ``signature``).
    """
    head = f"{name}\n{taken}\n".encode()
    return _MAGIC + hashlib.sha256(head + package).hexdigest().encode() + b"\n" + head + package


def unpacked(content: bytes, name: str, taken: str | None = None) -> bytes:
    """The package in the content of a file.

    Args:
        content: what is in the file.
        name: the name under which it is kept.
        taken: what the code has to take; None: anything.

    Raises:
        DamagedCodeError: it is damaged or of another kind, was kept under another name, or takes something else.
    """
    start = len(_MAGIC) + _DIGITS + 1
    body = content[start:]
    digest = hashlib.sha256(body).hexdigest().encode()
    if content[:start] != _MAGIC + digest + b"\n":
        raise DamagedCodeError("the file is damaged, or it holds no compiled code")
    found_name, found_taken, package = body.split(b"\n", 2)
    if found_name.decode() != name:
        raise DamagedCodeError(f"the file holds other code, {found_name.decode()}")
    if taken is not None and found_taken.decode() != taken:
        raise DamagedCodeError("the file holds code that takes other tensors")
    return package
