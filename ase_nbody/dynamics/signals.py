"""The signals that end a run well: Ctrl-C, the end of a batch system's time, a terminal or connection that closes."""

import signal

# Windows has no SIGHUP.
ENDING_SIGNALS = tuple(one for one in signal.Signals if one.name in ("SIGINT", "SIGTERM", "SIGHUP"))


def is_free(number: int) -> bool:
    """Whether the program around leaves a signal as it was: it neither handles nor, as ``nohup`` does, ignores it."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
