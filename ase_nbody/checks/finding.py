"""What a check finds: a number beside its bound, passed or failed, or the reason why there is none. Immutable."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Outcome = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True)
class Curve:
    """Points of a line in a plot."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Plot:
    """Curves that show where a number comes from.

    Attributes:
        x_label: quantity and unit of the abscissa.
        y_label: quantity and unit of the ordinate.
        curves: the lines.
        y_range: lowest and highest ordinate shown; default: all.
        log: both axes logarithmic.
    """

    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    y_range: tuple[float, float] | None = None
    log: bool = False


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Attributes:
        check: name of the check, as ``--only`` takes it.
        measured: what was measured, in words.
        value: the number; None where the check does not apply, for the reason in ``note``.
        unit: its unit; empty for a ratio.
        lower: least value that passes.
        upper: greatest value that passes.
        note: where the value was found, or why there is none.
        plot: the curves behind it.
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
        """Passed within the bounds; a value that is not a number fails."""
        if self.value is None:
            return "not applicable"
        return "passed" if self.lower <= self.value <= self.upper else "failed"

    @property
    def bound(self) -> str:
        """The bounds in words: ``<= 1e-10``."""
        if self.value is None:
            return ""
        if math.isinf(self.lower):
            return f"<= {self.upper:g}"
        return f">= {self.lower:g}" if math.isinf(self.upper) else f"{self.lower:g} ... {self.upper:g}"

    def to_json(self) -> dict[str, Any]:
        """The row as JSON holds it, without the curves; infinite bounds and values that are no numbers are null."""
        row = asdict(self) | {"outcome": self.outcome}
        del row["plot"]
        return {
            key: None if isinstance(entry, float) and not math.isfinite(entry) else entry for key, entry in row.items()
        }


def not_applicable(check: str, measured: str, reason: str) -> Finding:
    """The row of a check that the calculator or the structure has no use for."""
    return Finding(check, measured, None, note=reason)
