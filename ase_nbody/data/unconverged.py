"""Outputs of programs whose self-consistency did not converge: ASE reads their energies and forces like all others."""

import re
from collections.abc import Iterable

from ase.io.formats import open_with_compression

# What a program writes once for each calculation that did not converge
_MARKS = {
    "aims-output": b"SELF-CONSISTENCY CYCLE DID NOT CONVERGE",
    "castep-castep": b"max. SCF cycles performed but system has not reached the groundstate",
    "espresso-out": b"convergence NOT achieved",
    "gamess-us-out": b"SCF IS UNCONVERGED",
    "gaussian-out": b"Convergence criterion not met",
}
_MOST_ITERATIONS = re.compile(rb"\bNELM(?:\s*=\s*|\">\s*)(\d+)")
_FEWEST_JUDGED = 2  # with a single iteration, nothing is meant to converge


def count_unconverged(path: str, kind: str) -> tuple[int, int | None]:
    """How many calculations in an output did not converge, and the number of the first one, from 0, if it is known.

    Args:
        path: the file.
        kind: ASE's name for its format. Files of formats without such marks are not opened.
    """
    if kind not in ("vasp-out", "vasp-xml", *_MARKS):
        return 0, None
    with open_with_compression(path, "rb") as lines:
        if kind in _MARKS:
            return sum(_MARKS[kind] in line for line in lines), None
        steps = _of_outcar(lines) if kind == "vasp-out" else _of_vasprun(lines)
        return len(steps), next(iter(steps), None)


def _of_outcar(lines: Iterable[bytes]) -> list[int]:
    """The ionic steps of an OUTCAR that took all electronic iterations and did not reach EDIFF."""
    found, step, most, iterations, reached = list[int](), 0, 0, 0, False
    for line in lines:
        if not most and (match := _MOST_ITERATIONS.search(line)):
            most = int(match[1])
        elif b" Iteration " in line:
            iterations += 1
        elif b"EDIFF is reached" in line:
            reached = True
        elif b"FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:  # once in each step, as ASE counts them
            if not reached and iterations >= most >= _FEWEST_JUDGED:
                found.append(step)
            step, iterations, reached = step + 1, 0, False
    return found


def _of_vasprun(lines: Iterable[bytes]) -> list[int]:
    """The ionic steps of a vasprun.xml that took all electronic iterations, so that the last one decided nothing."""
    found, step, most, iterations = list[int](), 0, 0, 0
    for line in lines:
        if not most and (match := _MOST_ITERATIONS.search(line)):
            most = int(match[1])
        elif b"<scstep" in line:
            iterations += 1
        elif b"</calculation>" in line:
            if iterations >= most >= _FEWEST_JUDGED:
                found.append(step)
            step, iterations = step + 1, 0
    return found
