"""The figures of a training report: learning curves, parity plots and the distribution of force errors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ase_nbody.data import LABELS, Label
from ase_nbody.files.page import png
from ase_nbody.training.compared import Part, per_atom

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKED_EPOCHS = 30  # with at most this number of epochs, each is marked by a dot
_MARGIN = 0.04  # of the range of a parity plot
_LARGEST_PERCENTILE = 99.5  # of the force errors; larger ones are beyond the histogram

Draw = Callable[[], "Figure"]


def figures(parts: Sequence[Part], history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, str, bytes]]:
    """Draw the figures of a report; yield the name, the caption and the PNG image of each.

    Args:
        parts: sets of structures with both labels.
        history: a row of errors for each epoch; if empty, there are no learning curves.
    """
    for name, caption, draw in _drawings(parts, history):
        yield name, caption, png(draw())


def _drawings(parts: Sequence[Part], history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, str, Draw]]:
    if history:
        yield "learning", "Validation errors over the epochs", partial(learning_curves, history)
    for label in LABELS:
        if any(part.pairs(label)[0].size for part in parts):
            caption = f"{quantity_of(label)}: prediction against reference".capitalize()
            yield f"parity_{label.name}", caption, partial(parity_plot, parts, label)
    part = next((part for part in reversed(parts) if part.element_errors()), None)
    if part is not None:
        yield "force_errors", f"Force errors by element, {part.name} set", partial(force_histogram, part)


def learning_curves(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Mean absolute errors over the epochs, with a panel for each unit.

    Args:
        history: rows with ``epoch`` and columns such as ``forces_H mae (meV/Angstrom)``.
    """
    from matplotlib.ticker import LogFormatter, MaxNLocator

    epochs = [row["epoch"] for row in history]
    panels: dict[str, list[str]] = {}
    for column in history[0]:
        if " mae " in column:
            panels.setdefault(_parsed(column)[1], []).append(column)
    figure = _figure(7.0, 0.6 + 2.2 * max(1, len(panels)))
    grid = figure.subplots(max(1, len(panels)), sharex=True, squeeze=False)[:, 0]
    for axes, (unit, columns) in zip(grid, panels.items(), strict=False):
        for column in columns:
            errors = [row[column] for row in history]
            axes.plot(epochs, errors, "." if len(epochs) == 1 else ".-" if len(epochs) <= _MARKED_EPOCHS else "-", lw=1)
            axes.lines[-1].set_label(_parsed(column)[0])
        axes.set(ylabel=f"MAE ({unit})")
        if any(row[column] > 0.0 for row in history for column in columns):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2.0, 0.5)))
        _legend_beside(axes)
    grid[-1].set(xlabel="epoch", xlim=(min(epochs) - 0.5, max(epochs) + 0.5))
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels()
    return figure


def parity_plot(parts: Sequence[Part], label: Label) -> "Figure":
    """Predictions against references in a square with equal axes, and the errors of each set."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(5.0, 5.0)
    axes = figure.subplots()
    unit, error_unit = (written(per_atom(label, unit)) for unit in (label.unit, label.error_unit))
    known = [(part.name, *part.pairs(label)) for part in parts]
    known = [one for one in known if one[1].size]
    for number, (name, reference, predicted) in enumerate(known):
        axes.plot(reference.ravel(), predicted.ravel(), ".", ms=3, alpha=0.5, color=f"C{number}")
        mae = 1e3 * np.abs(predicted - reference).mean()
        rmse = 1e3 * np.sqrt(np.mean((predicted - reference) ** 2))
        errors = f"{name}: MAE {mae:.3g}, RMSE {rmse:.3g} {error_unit}"
        place = (0.03, 0.97 - 0.05 * number)
        box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1.0}
        axes.text(*place, errors, transform=axes.transAxes, va="top", size=9, color=f"C{number}", bbox=box)
    values = np.concatenate([array.ravel() for _, *both in known for array in both])
    low, high = float(values.min()), float(values.max())
    margin = _MARGIN * (high - low) or 1e-3 * max(1.0, abs(high))
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="black", lw=0.5, zorder=0)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.set(xlabel=f"reference {quantity_of(label)} ({unit})", ylabel=f"predicted {quantity_of(label)} ({unit})")
    return figure


def force_histogram(part: Part) -> "Figure":
    """The distribution of the force errors on each element."""
    figure = _figure(7.0, 4.0)
    axes = figure.subplots()
    errors = {symbol: 1e3 * error.ravel() for symbol, error in part.element_errors().items()}
    widest = float(np.percentile(np.abs(np.concatenate(list(errors.values()))), _LARGEST_PERCENTILE))
    for symbol, error in errors.items():
        heights, edges = np.histogram(error, bins=80, range=(-widest, widest))
        width = edges[1] - edges[0]
        shown = max(1, heights.sum())  # all errors of a rare element may lie beyond
        axes.stairs(heights / (shown * width), edges, label=symbol)
    axes.set(xlabel=f"force error ({written('meV/Angstrom')})", ylabel="density")
    _legend_beside(axes)
    return figure


def quantity_of(label: Label) -> str:
    """What ``Part.pairs`` compares for a label, in words."""
    return {"energy": "energy per atom", "dipole": "dipole moment"}.get(label.name, label.name)


def written(unit: str) -> str:
    """A unit as people write it: Angstrom³ instead of Angstrom^3."""
    return unit.replace("^3", "³")


def _parsed(column: str) -> tuple[str, str]:
    """The quantity in words and the unit of a column such as ``forces_H mae (meV/Angstrom)``."""
    quantity, _, unit = column.partition(" mae ")
    name, _, rest = quantity.partition("_")
    words = {"forces": f"forces on {rest}", "charges": f"charges of {rest}"}.get(name) if rest else name
    return words or quantity.replace("_", " "), written(unit.strip("()"))


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _legend_beside(axes: "Axes") -> None:
    """Put the legend to the right of the axes, where it hides no data."""
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
