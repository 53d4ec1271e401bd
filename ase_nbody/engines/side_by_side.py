"""Structures that move side by side, evaluated in one pass: images of an elastic band, relaxations of many structures.

Small structures leave a processor idle; together they fill it. What moves them is ASE's: each structure gets a
calculator of its own, and the first that is asked for a result evaluates all that have moved since.
"""

from collections.abc import Sequence

import ase
from ase.calculators.calculator import CalculationFailed, Calculator, CalculatorSetupError, all_changes
from ase.optimize.optimize import Optimizer

from ase_nbody.engines.calculator import NBodyCalculator, changed_charge


def evaluate_together(calculator: NBodyCalculator, structures: Sequence[ase.Atoms]) -> None:
    """Give each structure a calculator that evaluates it along with the others.

    For elastic bands, whose images then need no ``allow_shared_calculator``, and for ``relax_together``:

    >>> evaluate_together(NBodyCalculator("ethanol"), images)  # doctest: +SKIP
    >>> band = NEB(images)  # doctest: +SKIP

    Results are those of ``calculator.evaluate``. An error is that of the structure that was asked for.

    Args:
        calculator: evaluates them all; its own results stay what they are.
        structures: any structures, of any sizes. Their ``calc`` is replaced.
    """
    companions: list[_Companion] = []
    for atoms in structures:
        atoms.calc = _Companion(calculator, atoms, companions)
        companions.append(atoms.calc)


def relax_together(optimizers: Sequence[Optimizer], fmax: float = 0.05, steps: int = 1000) -> list[bool]:
    """Let optimisers take their steps side by side, so that structures that are evaluated together move together.

    >>> evaluate_together(calculator, structures)  # doctest: +SKIP
    >>> relax_together([FIRE(atoms) for atoms in structures], fmax=0.01)  # doctest: +SKIP

    Args:
        optimizers: ASE's, one for each structure or filter of one, with what is attached to them. Those that search
            along lines evaluate within their steps and gain nothing.
        fmax: largest force in eV/Angstrom at which a structure is relaxed; it moves no more.
        steps: largest number of steps of each optimiser.

    Returns:
        Which of them are relaxed.
    """
    # Sets fmax, logs and observes the start.
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
    """The calculator of one of the structures."""

    def __init__(self, calculator: NBodyCalculator, structure: ase.Atoms, companions: "list[_Companion]") -> None:
        super().__init__()
        self.calculator, self.structure, self.companions = calculator, structure, companions
        self.implemented_properties = calculator.implemented_properties

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation, the total charge included (ASE's interface)."""
        return super().check_state(atoms, tol) + changed_charge(self, atoms)

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate all structures that are not what they were (ASE's interface)."""
        super().calculate(atoms, properties, system_changes)
        moved = [other for other in self.companions if other is not self and other.check_state(other.structure)]
        for other in moved:
            other.atoms = other.structure.copy()
        try:
            self._take([self, *moved])
        except (CalculatorSetupError, CalculationFailed):  # whose it is will be seen when it is asked for
            for other in moved:
                other.reset()
            self._take([self])

    def _take(self, companions: "Sequence[_Companion]") -> None:
        found = self.calculator.evaluate([companion.atoms for companion in companions])
        for companion, results in zip(companions, found, strict=True):
            companion.results = {name: results[name] for name in self.implemented_properties if name in results}
