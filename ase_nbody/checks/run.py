"""The list of all checks, and ``run_checks``, which runs them one after the other."""

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import ase
from ase.calculators.calculator import BaseCalculator

from ase_nbody.checks.case import Case, evaluate, make_case
from ase_nbody.checks.compression import compression, random_starts
from ase_nbody.checks.derivatives import forces, stress, stresses
from ase_nbody.checks.dimers import dimer_curves
from ase_nbody.checks.dynamics import hot_run, nve
from ase_nbody.checks.extensivity import far_copies, parts, supercell
from ase_nbody.checks.finding import Finding
from ase_nbody.checks.reproducibility import (
    compiled,
    compiled_blocks,
    compiled_training,
    determinism,
    single_precision,
)
from ase_nbody.checks.smoothness import leaving_atom
from ase_nbody.checks.symmetry import inversion, permutation, rotation, translation
from ase_nbody.dynamics.ensembles import check_temperature
from ase_nbody.runtime.extrapolation import ExtrapolationWarning

Progress = Callable[[str, int, int], None]


class Check(NamedTuple):
    """A check.

    Attributes:
        function: runs the check.
        every: run it on every structure; False for checks that are slow or need no structure. They use the first one.
    """

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
    "compiled blocks": Check(compiled_blocks, every=False),
    "compiled training": Check(compiled_training, every=False),
    "leaving atom": Check(leaving_atom, every=False),
    "dimers": Check(dimer_curves, every=False),
    "NVE": Check(nve, every=False),
    "hot NVT": Check(hot_run, every=False),
    "compression": Check(compression, every=False),
    "random starts": Check(random_starts, every=False),
}

COMPILED = ("compiled", "compiled blocks", "compiled training")  # these need a C++ compiler and minutes


def run_checks(
    calculator: BaseCalculator,
    structures: Sequence[ase.Atoms],
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
    large: bool = False,
    float32: BaseCalculator | None = None,
    temperature: float = 300.0,
    steps: int = 500,
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Check a calculator, and yield each finding as soon as it is known.

    Args:
        calculator: any ASE calculator with energy and forces in float64; its own state changes.
        structures: the structures to check it on; they stay as they are. Slow checks use only the first one.
        only: names of the checks to run, out of ``CHECKS``; empty runs all.
        without: names of checks to leave out.
        large: also run ``compiled blocks``, the check of the native code for large systems; ``only`` can name it too.
        float32: the same potential in single precision; for an ``NBodyCalculator`` this function makes it.
        temperature: of the training data in K.
        steps: length of the runs of molecular dynamics; a step takes 0.5 fs with hydrogen, else up to 2 fs.
        progress: called before each check with its name, the number of finished checks and the number of all checks.

    Raises:
        ValueError: there is no structure, a structure has no atoms, a check is unknown, or asked for and left out, no
            check is left, or the temperature is 0 K or not between 0 and 1e6 K.
        Exception: whatever the calculator raises on the given structures. An error that it raises later, on a changed
            structure, becomes a failed finding.
    """
    _require(structures, only, without)
    _refuse_contradictions(only, without, large)
    check_temperature("nve", temperature)
    if temperature == 0:
        raise ValueError("the temperature of the checks must be above 0 K: the runs of dynamics start from it")
    cases = [
        make_case(calculator, atoms, float32=float32, temperature=temperature, steps=steps) for atoms in structures
    ]
    for case in cases:
        evaluate(calculator, case.atoms)
    chosen = [name for name in CHECKS if (name in only if only else large or name != "compiled blocks")]
    chosen = [name for name in chosen if name not in without]
    if not chosen:  # otherwise nothing would have failed
        raise ValueError(f"no check is left: all of them should run, and {', '.join(without)} be left out")
    plan = [(name, case) for name in chosen for case in (cases if CHECKS[name].every else cases[:1])]
    for done, (name, case) in enumerate(plan):
        if progress is not None:
            progress(name, done, len(plan))
        yield from (replace(finding, system=case.label) for finding in _findings(name, case))


def _findings(name: str, case: Case) -> list[Finding]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # checks leave the training data on purpose
            findings = list(CHECKS[name].function(case))
    except Exception as error:  # a calculator may raise anything on a structure that it cannot handle
        reason = (str(error).strip() or "no message").splitlines()[0]
        return [Finding(name, "evaluation", float("nan"), upper=0.0, note=f"{type(error).__name__}: {reason}")]
    return findings


def _require(structures: Sequence[ase.Atoms], only: Collection[str], without: Collection[str]) -> None:
    unknown = [name for name in (*only, *without) if name not in CHECKS]
    if unknown:
        raise ValueError(f"no check is called {', '.join(map(repr, unknown))}; the checks are {', '.join(CHECKS)}")
    if not structures:
        raise ValueError("there is no structure to check the calculator on: give at least one")
    if any(len(atoms) == 0 for atoms in structures):
        raise ValueError("a structure without atoms shows nothing: leave it out")


def _refuse_contradictions(only: Collection[str], without: Collection[str], large: bool) -> None:
    """Refuse to leave out a check that is asked for: the others would pass, and nobody would miss it."""
    wanted = only or (("compiled blocks",) if large else ())
    if missed := [name for name in wanted if name in without]:
        raise ValueError(
            f"{', '.join(missed)} should both run and be left out: give one of the two (nbody check: --no-compile "
            f"leaves out what {'--only names' if only else '--large asks for'})"
        )
