"""All checks, one after the other."""

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import ase
from ase.calculators.calculator import BaseCalculator

from ase_nbody.checks.case import Case, evaluate, make_case
from ase_nbody.checks.derivatives import forces, stress, stresses
from ase_nbody.checks.dimers import dimer_curves
from ase_nbody.checks.dynamics import hot_run, nve
from ase_nbody.checks.extensivity import far_copies, parts, supercell
from ase_nbody.checks.finding import Finding
from ase_nbody.checks.reproducibility import compiled, determinism, single_precision
from ase_nbody.checks.smoothness import leaving_atom
from ase_nbody.checks.symmetry import inversion, permutation, rotation, translation
from ase_nbody.runtime.extrapolation import ExtrapolationWarning

Progress = Callable[[str, int, int], None]


class Check(NamedTuple):
    """A check, and whether it is made on every structure or on the first alone, because it is slow or needs none."""

    function: Callable[[Case], Iterator[Finding]]
    every: bool = True


CHECKS: dict[str, Check] = {
    "rotation": Check(rotation),
    "inversion": Check(inversion),
    "permutation": Check(permutation),
    "translation": Check(translation),
    "forces": Check(forces),
    "stress": Check(stress),
    "stresses": Check(stresses),
    "far copies": Check(far_copies),
    "supercell": Check(supercell),
    "parts": Check(parts),
    "determinism": Check(determinism),
    "float32": Check(single_precision),
    "compiled": Check(compiled, every=False),
    "leaving atom": Check(leaving_atom, every=False),
    "dimers": Check(dimer_curves, every=False),
    "NVE": Check(nve, every=False),
    "hot NVT": Check(hot_run, every=False),
}


def run_checks(
    calculator: BaseCalculator,
    structures: Sequence[ase.Atoms],
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
    float32: BaseCalculator | None = None,
    temperature: float = 300.0,
    steps: int = 500,
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Check a calculator, yielding each finding as soon as it is there.

    Args:
        calculator: any ASE calculator with energy and forces, in float64; its own state changes.
        structures: what it is checked on; they are left as they are. Slow checks are made on the first alone.
        only: names of the checks to make, of ``CHECKS``; default: all.
        without: names of checks to leave out.
        float32: the same potential in single precision; of an ``NBodyCalculator`` it is made here.
        temperature: of the training data in K.
        steps: length of the runs of molecular dynamics, each of 0.5 fs where there is hydrogen and up to 2 fs else.
        progress: called before each check with its name, the number of checks done and of all.

    Raises:
        ValueError: no structure, an empty one, or an unknown check.
        whatever the calculator raises on the structures as they are given; what it raises later is a failed finding.
    """
    _require(structures, only, without)
    cases = [
        make_case(calculator, atoms, float32=float32, temperature=temperature, steps=steps) for atoms in structures
    ]
    for case in cases:
        evaluate(calculator, case.atoms)
    chosen = [name for name in CHECKS if (not only or name in only) and name not in without]
    plan = [(name, case) for name in chosen for case in (cases if CHECKS[name].every else cases[:1])]
    for done, (name, case) in enumerate(plan):
        if progress is not None:
            progress(name, done, len(plan))
        yield from (replace(finding, system=case.label) for finding in _findings(name, case))


def _findings(name: str, case: Case) -> list[Finding]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # checks go where no data are, on purpose
            findings = list(CHECKS[name].function(case))
    except Exception as error:  # whatever a calculator can raise on a structure that it cannot cope with
        reason = (str(error).strip() or "no message").splitlines()[0]
        return [Finding(name, "evaluation", float("nan"), upper=0.0, note=f"{type(error).__name__}: {reason}")]
    return findings


def _require(structures: Sequence[ase.Atoms], only: Collection[str], without: Collection[str]) -> None:
    unknown = [name for name in (*only, *without) if name not in CHECKS]
    if unknown:
        raise ValueError(f"no check is called {', '.join(map(repr, unknown))}; there are {', '.join(CHECKS)}")
    if not structures:
        raise ValueError("no structure to check the calculator on: give at least one")
    if any(len(atoms) == 0 for atoms in structures):
        raise ValueError("a structure without atoms shows nothing: leave it out")
