"""Structures that move side by side and are evaluated in one pass: images of an elastic band, or many relaxations.

Small structures leave a processor idle; together they fill it. ASE moves the structures, and each of them has a
calculator of its own. The first calculator that is asked for a result evaluates all structures that have moved.
"""

from collections.abc import Sequence
from typing import Any

import ase
from ase.calculators.calculator import CalculationFailed, Calculator, CalculatorSetupError, all_changes
from ase.optimize.optimize import Dynamics, Optimizer

from ase_nbody.engines.calculator import NBodyCalculator
from ase_nbody.engines.results import (
    SPREADS,
    attach_spreads,
    changed_charge,
    changed_labels,
    explained_lack,
    with_own_electrons,
)


def evaluate_together(calculator: NBodyCalculator, structures: Sequence[ase.Atoms]) -> None:
    """Give each structure a calculator that evaluates it along with the others.

    Use it for elastic bands, which then need no ``allow_shared_calculator``, and before ``relax_together``:

    >>> evaluate_together(NBodyCalculator("ethanol"), images)  # doctest: +SKIP
    >>> band = NEB(images)  # doctest: +SKIP

    Results are the same as from ``calculator.evaluate``. If a structure cannot be evaluated, only its own calculator
    raises the error; so it is with a warning that the user has made an error.

    Args:
        calculator: evaluates all of them; its own results do not change.
        structures: any structures, of any sizes. Their ``calc`` is replaced.
    """
    companions: list[_Companion] = []
    for atoms in structures:
        atoms.calc = _Companion(calculator, atoms, companions)
        companions.append(atoms.calc)


def relax_together(optimizers: Sequence[Optimizer], fmax: float = 0.05, steps: int = 1000) -> list[bool]:
    """Let optimisers take their steps in turn, so that all their structures are evaluated in one pass.

    >>> evaluate_together(calculator, structures)  # doctest: +SKIP
    >>> relax_together([FIRE(atoms) for atoms in structures], fmax=0.01)  # doctest: +SKIP

    Args:
        optimizers: optimisers of ASE, one for each structure or for a filter around it; observers that are attached
            to them are called. Optimisers with a line search evaluate within their steps, so they gain nothing.
        fmax: a structure is relaxed, and moves no more, once no force on it exceeds this value in eV/Angstrom.
        steps: largest number of steps of each optimiser.

    Returns:
        For each optimiser, whether its structure is relaxed.

    Raises:
        TypeError: an optimiser cannot make a single step, as those that SciPy drives.
    """
    for optimizer in optimizers:
        if type(optimizer).step is Dynamics.step:
            raise TypeError(
                f"{type(optimizer).__name__} cannot make one step at a time, so no others can move beside it: take "
                "BFGS, LBFGS or FIRE"
            )
    # ``irun`` sets fmax, logs the start and calls the observers.
    relaxed = [next(optimizer.irun(fmax=fmax, steps=0)) for optimizer in optimizers]
    for _ in range(steps):
        moving = [(number, optimizers[number]) for number, done in enumerate(relaxed) if not done]
        for _, optimizer in moving:
            optimizer.step()
            optimizer.nsteps += 1
        for number, optimizer in moving:
            gradient = optimizer.optimizable.get_gradient()
            relaxed[number] = optimizer.gradient_converged(gradient)
            optimizer.log(gradient)
            optimizer.call_observers()
    return [bool(done) for done in relaxed]


class _Companion(Calculator):
    """The calculator of one of the structures that are evaluated together."""

    def __init__(self, calculator: NBodyCalculator, structure: ase.Atoms, companions: "list[_Companion]") -> None:
        super().__init__()
        self.calculator, self.structure, self.companions = calculator, structure, companions
        self.implemented_properties = calculator.implemented_properties
        self.spreads: dict[str, Any] = {}  # of a committee
        self.is_labelled = calculator.is_labelled

    def _get_name(self) -> str:
        return self.calculator.name

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """The keywords of the calculator that evaluates, which trajectories and databases keep beside its name."""
        return self.calculator.todict(skip_default)

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation, total charge and labels included (ASE's interface)."""
        evaluator = self.calculator.evaluator
        charge = changed_charge(self, atoms, evaluator, watched=evaluator.warns_of_charge)
        return super().check_state(atoms, tol) + charge + changed_labels(self, atoms)

    def get_property(self, name: str, atoms: ase.Atoms | None = None, allow_calculation: bool = True) -> Any:
        """A result by its name, calculated if the atoms have changed; threads wait for each other (ASE's interface)."""
        with self.calculator.evaluator.lock, explained_lack(name, self, atoms):
            found = super().get_property(name, atoms, allow_calculation)
            if found is not None and atoms is not None:
                attach_spreads(atoms, self.spreads)
            return found

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate this structure and all others that have changed (ASE's interface)."""
        super().calculate(atoms, properties, system_changes)
        self.results: dict[str, Any] = {}
        moved = [other for other in self.companions if other is not self and other.check_state(other.structure)]
        try:
            self._evaluate_with(moved)
        except (CalculatorSetupError, CalculationFailed, Warning):  # again when the structure at fault is asked for
            self._evaluate_with([])

    def _evaluate_with(self, others: "Sequence[_Companion]") -> None:
        """Evaluate this structure and those of other companions in one pass, and give each its results.

        Whatever ends the pass, a companion never has results of another structure than its ``atoms``.
        """
        companions = [self, *others]
        structures = list(map(with_own_electrons, [self.atoms, *(other.structure.copy() for other in others)]))
        found = self.calculator.evaluate(structures)
        for companion, atoms, results in zip(companions, structures, found, strict=True):
            companion.spreads = {name: results.pop(name) for name in SPREADS if name in results}
            companion.results = results
            companion.atoms = atoms
