"""What the program around may have set, and how this package works regardless. Every door of the package uses it.

* Tensors that are made in torch's inference mode cannot be differentiated, not even later.
* A default device, as ``torch.set_default_device`` sets it, is not where a network's constants belong: a calculator has
  a device of its own.
* A forked process has only one of the threads of its parent. Torch does not know that: it shares the work on larger
  tensors among threads that are gone, and waits for ever.
* A thread that is new to torch takes the number of torch's threads that any thread has set last, be it for one
  evaluation.
"""

import contextlib
import os
import threading
from collections.abc import Iterator

import torch

_FIRST_PROCESS = os.getpid()  # the one that imported this file; a forked process has another number
_borrowed: dict[object, tuple[int, int]] = {}  # numbers of threads before and during each evaluation that goes on
_of_thread = threading.local()


def is_forked() -> bool:
    """Whether this process was forked from one that had imported this package. It must use one thread."""
    return os.getpid() != _FIRST_PROCESS


def torch_threads_here() -> int:
    """Torch's number of threads in this thread. One that is new gets that of the program, not that of an evaluation."""
    number = torch.get_num_threads()
    if not getattr(_of_thread, "is_known", False):
        _of_thread.is_known = True
        going_on = list(_borrowed.values())
        if any(number == during for _, during in going_on) and not is_forked():
            number, _ = going_on[0]
            torch.set_num_threads(number)
    return number


@contextlib.contextmanager
def torch_threads(number: int | None) -> Iterator[int]:
    """Let operations of this thread use ``number`` of torch's threads inside the context; None changes nothing.

    Yields:
        The number of threads before.
    """
    before = torch_threads_here()
    if number is None or number == before:
        yield before
        return
    key = object()
    try:
        _borrowed[key] = before, number
        torch.set_num_threads(number)
        yield before
    finally:
        torch.set_num_threads(before)
        _borrowed.pop(key, None)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Work outside of inference mode, with the CPU as default device, and in a forked process with one thread.

    Also a decorator: ``@undisturbed()``.
    """
    with torch_threads(1 if is_forked() else None), torch.inference_mode(False), _on_cpu():
        yield


def _on_cpu() -> contextlib.AbstractContextManager[object]:
    """The CPU as default device. Where it is already, nothing is set, because every call of torch would pay for it."""
    return contextlib.nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
