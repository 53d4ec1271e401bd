"""Give up a faster way of computing something at its first failure, with one warning that says why."""

import errno
import os
import warnings

import torch

_NO_ROOM = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
_LONGEST_LINE = 200  # characters of what a compiler says; the reason stands at the end


class Fallback:
    """Remembers whether a faster way failed. Copies and pickles remember it too.

    Use it around whatever the slower way can do too::

        if self.fallback.active:
            return slow()
        try:
            return fast()
        except RuntimeError as error:
            self.fallback.take(error)
            return slow()

    Args:
        notice: what the user is told, without a full stop, such as "evaluating without compiled code". The warning
            reads "notice: reason".

    Attributes:
        reason: first line of the error; None as long as the faster way is used.
    """

    def __init__(self, notice: str) -> None:
        self.notice = notice
        self.reason: str | None = None

    @property
    def active(self) -> bool:
        """Whether the faster way has failed, so that the slower one is used."""
        return self.reason is not None

    def take(self, error: BaseException, *, stacklevel: int = 3) -> None:
        """Use the slower way from now on. Only the first error is remembered, and only it gives a warning.

        Args:
            error: why the faster way failed.
            stacklevel: see ``warnings.warn``. By default, the warning names the line that called the function with the
                ``try``.
        """
        if self.active:
            return
        self.reason = first_line(error)
        warnings.warn(f"{self.notice}: {self.reason}", RuntimeWarning, stacklevel=stacklevel)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type if the message is empty.

    A compiler's message begins with the command and says only later that the disk is full, so that line is added.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    full = [line.strip() for line in lines[1:] if any(reason in line for reason in _NO_ROOM)]
    return f"{lines[0]}: {full[0][-_LONGEST_LINE:]}" if full else lines[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or numpy, on any device, says that memory has run out."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error) or "out of memory" in str(error)
