"""Checks of a potential, for any ASE calculator. One table shows each measured value, its bound and the outcome.

>>> from ase.calculators.emt import EMT
>>> findings = list(run_checks(EMT(), [atoms]))  # doctest: +SKIP
>>> print_table(findings)  # doctest: +SKIP
"""

from ase_nbody.checks.finding import Curve, Finding, Plot
from ase_nbody.checks.report import print_table, require_plots, summary, write_html
from ase_nbody.checks.run import CHECKS, COMPILED, Progress, run_checks

__all__ = [
    "CHECKS",
    "COMPILED",
    "Curve",
    "Finding",
    "Plot",
    "Progress",
    "print_table",
    "require_plots",
    "run_checks",
    "summary",
    "write_html",
]
