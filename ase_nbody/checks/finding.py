"""What a check finds: a number with its bound and outcome, or the reason why there is none. Findings are immutable."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Outcome = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True)
class Curve:
    """The points of one line in a plot."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Plot:
    """The curves from which a number follows.

    Attributes:
        x_label: quantity and unit of the abscissa.
        y_label: quantity and unit of the ordinate.
        curves: the lines.
        y_range: lowest and highest ordinate shown; None shows all.
        log: whether both axes are logarithmic.
    """

    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    y_range: tuple[float, float] | None = None
    log: bool = False


@dataclass(frozen=True)
class Finding:
    """The result of a check, one row of the table.

    Attributes:
        check: name of the check, which ``--only`` accepts.
        measured: what was measured, in words.
        value: the number; None if the check does not apply, and then ``note`` has the reason.
        unit: unit of the value; empty for a ratio.
        lower: smallest value that passes.
        upper: largest value that passes.
        note: where the value was found, or why there is none.
        plot: the curves that the value comes from.
        system: formula of the structure; the runner fills it in.
    """

    check: str
    measured: str
    value: float | None
    unit: str = ""
    lower: float = -math.inf
    upper: float = math.inf
    note: str = ""
    plot: Plot | None = None
    system: str = ""

    @property
    def outcome(self) -> Outcome:
        """A value within the bounds has passed, any other has failed, NaN included."""
        if self.value is None:
            return "not applicable"
        return "passed" if self.lower <= self.value <= self.upper else "failed"

    @property
    def bound(self) -> str:
        """The bounds as text: ``<= 1e-10``."""
        if self.value is None:
            return ""
        if math.isinf(self.lower):
            return f"<= {self.upper:g}"
        return f">= {self.lower:g}" if math.isinf(self.upper) else f"{self.lower:g} ... {self.upper:g}"

    def to_json(self) -> dict[str, Any]:
        """The row for JSON, without the curves. Infinite bounds become null, and so do values that are not finite."""
        row = asdict(self) | {"outcome": self.outcome}
        del row["plot"]
        return {
            key: None if isinstance(entry, float) and not math.isfinite(entry) else entry for key, entry in row.items()
        }


def not_applicable(check: str, measured: str, reason: str) -> Finding:
    """The row of a check that does not apply to the calculator or the structure."""
    return Finding(check, measured, None, note=reason)
