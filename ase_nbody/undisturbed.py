"""What the program around may have set, and how this package works regardless. Every door of the package uses it.

* Tensors that are made in torch's inference mode cannot be differentiated, not even later.
* A default device, as ``torch.set_default_device`` sets it, is not where a network's constants belong: a calculator has
  a device of its own.
* A forked process has only one of the threads of its parent. Torch does not know that: it shares the work on larger
  tensors among threads that are gone, and waits for ever.
"""

import contextlib
import os
from collections.abc import Iterator

import torch

_FIRST_PROCESS = os.getpid()  # the one that imported this file; a forked process has another number


def is_forked() -> bool:
    """Whether this process was forked from one that had imported this package. It must use one thread."""
    return os.getpid() != _FIRST_PROCESS


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Work outside of inference mode, with the CPU as default device, and in a forked process with one thread.

    Also a decorator: ``@undisturbed()``.
    """
    threads = torch.get_num_threads()
    alone = is_forked() and threads > 1
    if alone:
        torch.set_num_threads(1)
    try:
        with torch.inference_mode(False), _on_cpu():
            yield
    finally:
        if alone:
            torch.set_num_threads(threads)


def _on_cpu() -> contextlib.AbstractContextManager[object]:
    """The CPU as default device. Where it is already, nothing is set, because every call of torch would pay for it."""
    return contextlib.nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
