"""The findings as a table on the terminal, and as one HTML file that opens without a network."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ase_nbody.checks.finding import Finding, Plot
from ase_nbody.files.page import page, paragraph, picture, png, require_plots, require_replaceable, table
from ase_nbody.files.writing import write_whole
from ase_nbody.terminal import plain

_COLOURS = {"passed": "green", "failed": "bold red", "not applicable": "dim"}
_HEAD = ("check", "structure", "measured", "value", "bound", "outcome", "note")


def summary(findings: Sequence[Finding]) -> str:
    """One line that counts the findings which passed, failed or were not applicable."""
    outcomes = [finding.outcome for finding in findings]
    return ", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("passed", "failed", "not applicable"))


def print_table(findings: Sequence[Finding], title: str = "", console: Console | None = None) -> None:
    """Print the table. In a file or a pipe, its lines are 160 characters wide."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=160)
    table = Table(title=plain(title) if title else None)
    for name in _HEAD:
        table.add_column(name, no_wrap=name not in ("measured", "note"))
    for finding in findings:
        *cells, outcome, note = _row(finding)
        table.add_row(*map(plain, cells), Text(outcome, style=_COLOURS[finding.outcome]), plain(note))
    console.print(table)


def write_html(findings: Sequence[Finding], path: str | os.PathLike[str], title: str) -> Path:
    """Write the report, plots included, as one HTML file.

    Raises:
        ImportError: matplotlib is not installed.
        FileExistsError: there is a file of this name that is not a report.
    """
    require_plots()
    path = Path(path)
    require_replaceable(path)
    rows = [_row(finding) for finding in findings]
    figures = [
        picture(_draw(finding.plot), f"{finding.check}: {finding.measured}") for finding in findings if finding.plot
    ]
    kinds = [finding.outcome.replace("not applicable", "dim") for finding in findings]
    write_whole(path, page(title, paragraph(summary(findings)), table(_HEAD, rows, kinds), *figures))
    return path


def _row(finding: Finding) -> tuple[str, ...]:
    value = "" if finding.value is None else f"{finding.value:.2g}"
    bound = f"{finding.bound} {finding.unit}".strip()
    outcome = "n/a" if finding.value is None else finding.outcome
    return finding.check, finding.system, finding.measured, value, bound, outcome, finding.note


def _draw(plot: Plot) -> bytes:
    """Draw the plot and return it as a PNG image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes: Any = figure.subplots()
    for curve in plot.curves:
        axes.plot(curve.x, curve.y, "o-" if plot.log else "-", lw=1, label=curve.label)
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
    if plot.log:
        axes.set(xscale="log", yscale="log")
    if plot.y_range is not None:
        axes.set_ylim(*plot.y_range)
    axes.legend(frameon=False)
    return png(figure)
