"""Which machine code this computer's processor can run."""

import functools
import hashlib
import platform
from collections.abc import Mapping
from typing import Any

import torch


@functools.cache
def processor_key() -> str:
    """A key of the instructions that the processor knows: 8 hexadecimal digits.

    The C++ compiler uses all of them (``-march=native``), but torch's own word, such as ``AVX512``, tells only some of
    them. Where computers of a cluster share a home folder, code of another processor would end the process.
    """
    tell = getattr(torch.cpu, "get_capabilities", dict)  # came after torch 2.6; it tells sizes of caches, too
    known: Mapping[str, Any] = tell()
    instructions = sorted(name for name, present in known.items() if present is True)
    words = [platform.machine(), torch.backends.cpu.get_cpu_capability(), *instructions]
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]
