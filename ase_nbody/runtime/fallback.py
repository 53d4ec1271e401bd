"""A faster way that may fail: a warning says why, once, and the slower way is taken from then on."""

import warnings


class Fallback:
    def __init__(self, what: str) -> None:
        self.what, self.active = what, False

    def take(self, error: BaseException) -> None:
        if not self.active:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"{self.what}: {reason}", RuntimeWarning, stacklevel=3)
        self.active = True
