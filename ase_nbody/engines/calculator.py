"""``NBodyCalculator``: ASE's calculator interface around an ``Evaluator``. It checks, keeps and converts results."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import Calculator, CalculatorSetupError, all_changes
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_nbody.engines.models import Model, evaluator_for, label_of, models_of
from ase_nbody.engines.results import (
    as_ase_errors,
    attach_spreads,
    changed_charge,
    changed_labels,
    explained_lack,
    results_of,
    spreads_of,
    structure_of,
    structures_of,
    with_own_electrons,
)
from ase_nbody.files.tensor_file import ModelFileError
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.evaluation import Evaluation, PartEnergies
from ase_nbody.runtime.evaluator import Evaluator
from ase_nbody.undisturbed import undisturbed


class NothingCalculated(CalculatorSetupError, AttributeError):
    """A result was asked for before any calculation. ``hasattr`` says no, as for any attribute that is not there."""


class NBodyCalculator(Calculator):
    """Energies, forces and stresses of a trained N-body network for ASE.

    >>> atoms.calc = NBodyCalculator("ethanol")  # doctest: +SKIP

    One pass gives all properties: ``energy``, ``free_energy`` (equal: there is no electronic temperature), ``energies``
    (N,), ``forces`` (N, 3), and for cells with a volume ``stress`` (6,) and per-atom ``stresses`` (N, 6), which sum to
    the stress. Models that predict charges also give ``charges`` (N,) in e and ``dipole`` (3,) in
    e Angstrom for structures without periodic directions; ``atoms.info["charge"]`` is then the total charge. Units: eV,
    Angstrom; ASE's sign and Voigt order. All results are float64.

    Several threads may share a calculator: each call waits for the one before it. Copies share nothing that changes. A
    pickle holds what made the calculator, and no results.

    Args:
        model: name of a shipped model, path of a model file, an ``NBodyNetwork``, or a list of these. Several networks,
            in a list or in one file, form a committee: the results are its mean, and ``energy_spread`` and
            ``forces_spread`` say how far its members disagree. A calculation also puts them into
            ``atoms.info["energy_spread"]`` and ``atoms.arrays["forces_spread"]``, where trajectories take them from.
        head: which head to take of a model that has several theories; default: the model's own.
        device: where to evaluate, as torch names it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        dtype: ``"float64"`` (default: smooth to round-off, for optimisation and phonons) or ``"float32"`` (faster).
        compile: evaluate with native code, two to three times as fast for small molecules. It is compiled at the first
            calculation (one to three minutes) and kept for later ones; see ``ase_nbody.runtime.runner.Runner``.
        threads: number of CPU threads of a calculation; default: torch's number, but one for systems so small that
            threads would only wait for each other.
        skin: distance in Angstrom by which the neighbour search reaches farther than needed, so that its result serves
            for many steps. It changes the speed, never the result.

    Raises:
        FileNotFoundError, ModelFileError: the model cannot be read, or has no such head (see ``load_model``).
        CalculatorSetupError: the dtype or device is unknown, there is no model, the committee has a network twice, the
            model does not know a species, or learnt other charges or spins alone, or the positions or the cell cannot
            be evaluated.
        CalculationFailed: the result is not finite, or the system does not fit into the memory.
        PropertyNotImplementedError: the model, or the structure, does not have what was asked for.

    Warns, once:
        ExtrapolationWarning: atoms are closer together, or surrounded otherwise, than in the training data.
        ChargeWarning: ``atoms.info["charge"]`` is not zero, and the model does not predict charges.
        PartsWarning: the model has labelled parts, and one of the structure's has atoms of several molecules.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]  # noqa: RUF012
    nolabel = True

    def __init__(
        self,
        model: Model | Sequence[Model] = (),  # ASE's commands make calculators without any keyword
        *,
        head: str | None = None,
        device: str = "cpu",
        dtype: str = "float64",
        compile: bool = False,
        threads: int | None = None,
        skin: float = 0.5,
    ) -> None:
        super().__init__()
        try:
            self.evaluator = evaluator_for(
                model, head, device=device, dtype=dtype, compile=compile, threads=threads, skin=skin
            )
        except ModelFileError:
            raise
        except ValueError as error:
            raise CalculatorSetupError(str(error)) from error
        with undisturbed():
            labels = list(map(label_of, models_of(model)))
        self.implemented_properties = [
            *self.implemented_properties,
            *(output.name for output in self.evaluator.outputs),
        ]
        self.parameters.update(
            model=labels if isinstance(model, list | tuple) else labels[0],
            **({} if head is None else {"head": head}),
            **asdict(self.evaluator.settings),
        )
        self._evaluation: Evaluation | None = None
        self._spreads: dict[str, Any] = {}

    def __repr__(self) -> str:
        return type(self).__name__ + repr(self.evaluator).removeprefix(type(self.evaluator).__name__)

    def _get_name(self) -> str:
        return "nbody"

    def get_spin_polarized(self) -> bool:
        """False: the model has no spin."""
        return False

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """The keywords of this calculator, JSON-able. Its hash stands for a network that was given as an object."""
        return dict(self.parameters)

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refuse all changes: the keywords are fixed once the calculator is made (ASE's interface)."""
        if kwargs:
            raise CalculatorSetupError(f"{', '.join(kwargs)} cannot be changed: make a new NBodyCalculator with it")
        return {}

    def forget(self) -> None:
        """Search neighbours anew at the next calculation, so that it depends on nothing but the structure.

        Otherwise it also depends on the age of the neighbour list, which decides in which order terms are added and so
        changes the last digits.
        """
        self.evaluator.forget()

    @property
    def networks(self) -> list[NBodyNetwork]:
        """The network, or the members of the committee, in the calculator's precision and on its device."""
        return self.evaluator.networks

    @property
    def is_labelled(self) -> bool:
        """Whether a model has levels of labelled parts, and so needs ``atoms.arrays["parts"]``."""
        return any(network.config.is_labelled for network in self.networks)

    @property
    def species(self) -> tuple[str, ...]:
        """Chemical symbols that every model of the committee knows."""
        return self.evaluator.species

    @property
    def allowed_atomic_numbers(self) -> frozenset[int]:
        """Atomic numbers of ``species``."""
        return frozenset(atomic_numbers[symbol] for symbol in self.species)

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation (ASE's interface).

        If the atoms have moved, nothing else is compared; in dynamics they move at every step. A change of the total
        charge counts only if the model gives charges, refuses some, or has ignored none yet, and one of the labels only
        if it has labelled parts.
        """
        before = self.atoms
        if before is not None and len(before) == len(atoms):
            with np.errstate(invalid="ignore"):  # infinite positions, which the next calculation refuses
                moved = not np.abs(atoms.positions - before.positions).max(initial=0.0) <= tol
            if moved:
                return ["positions"]
        charge = changed_charge(self, atoms, self.evaluator, watched=self.evaluator.warns_of_charge)
        return super().check_state(atoms, tol) + charge + changed_labels(self, atoms)

    def get_property(self, name: str, atoms: ase.Atoms | None = None, allow_calculation: bool = True) -> Any:
        """A result by its name, calculated if the atoms have changed (ASE's interface)."""
        # The lock is held from the comparison of the atoms to the reading of the result.
        with self.evaluator.lock, explained_lack(name, self, atoms):
            found = super().get_property(name, atoms, allow_calculation)
            if self._spreads and found is not None and atoms is not None:
                attach_spreads(atoms, self._spreads)
            return found

    def calculation_required(self, atoms: ase.Atoms, properties: Sequence[str]) -> bool:
        """Whether a result would have to be calculated (ASE's interface)."""
        with self.evaluator.lock:
            return bool(super().calculation_required(atoms, properties))

    def reset(self) -> None:
        """Forget the last results (ASE's interface)."""
        with self.evaluator.lock:
            super().reset()

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute everything that one pass gives, whatever was asked for (ASE's interface)."""
        with self.evaluator.lock, as_ase_errors():
            super().calculate(atoms, properties, system_changes)
            self.results, self._evaluation, self._spreads = {}, None, {}
            if self.atoms is None:
                raise CalculatorSetupError("no atoms to calculate: use atoms.calc = calculator, or calculate(atoms)")
            evaluation = self.evaluator.follow(structure_of(with_own_electrons(self.atoms), self.evaluator))
            self._evaluation, self._spreads = evaluation, spreads_of(evaluation)
            self.results = results_of(evaluation, self.evaluator.outputs)

    def evaluate(self, structures: Iterable[ase.Atoms]) -> list[dict[str, Any]]:
        """The results of many structures, evaluated side by side in batches of some thousand atoms.

        They equal those of single calculations to round-off. For small structures this is faster. It does not change
        the calculator's own results or the neighbour list of a running simulation.

        Args:
            structures: any structures, of any sizes: a list, a generator, a trajectory.

        Returns:
            For each structure, what ``results`` would hold after its calculation, in the same units; for a committee
            also ``energy_spread`` and ``forces_spread``.

        Raises:
            CalculatorSetupError, CalculationFailed: as in a calculation; the message gives the number of the structure.
        """
        with as_ase_errors():
            found = self.evaluator.evaluate(structures_of(structures, self.evaluator))
        outputs = self.evaluator.outputs
        return [results_of(evaluation, outputs) | spreads_of(evaluation) for evaluation in found]

    def __getstate__(self) -> dict[str, Any]:
        """What made the calculator: whoever unpickles it calculates anew."""
        return {**self.__dict__, "atoms": None, "results": {}, "_evaluation": None, "_spreads": {}}

    def __copy__(self) -> "NBodyCalculator":
        return self._twin(copy.copy(self.evaluator))

    def __deepcopy__(self, memo: dict[int, Any]) -> "NBodyCalculator":
        return self._twin(copy.deepcopy(self.evaluator, memo))

    def _twin(self, evaluator: Evaluator) -> "NBodyCalculator":
        """A calculator with the same results that shares nothing with this one but what never changes."""
        twin = type(self).__new__(type(self))
        with self.evaluator.lock:
            fixed = {"evaluator": evaluator, "_evaluation": self._evaluation}
            twin.__dict__.update(copy.deepcopy({**self.__dict__, **dict.fromkeys(fixed)}) | fixed)
        return twin

    # Results beyond ASE's properties. Each describes the structure that was calculated last.

    @property
    def energy_spread(self) -> float:
        """Standard deviation of the committee's energies in eV (0 for a single model)."""
        return float(self._last.spread("energy"))

    @property
    def forces_spread(self) -> NDArray[np.float64]:
        """Standard deviation of the committee's forces (N, 3) in eV/Angstrom (0 for a single model)."""
        return self._last.spread("forces")

    @property
    def part_energies(self) -> list[PartEnergies]:
        """For each level, the lowest first, the energies of its parts; for a committee the mean.

        Raises:
            CalculatorSetupError: the members of the committee have different hierarchies.
        """
        try:
            levels = self._last.part_energies
            return [PartEnergies(level.centres.copy(), level.energies.copy()) for level in levels]
        except ValueError as error:
            raise CalculatorSetupError(str(error)) from error

    @property
    def _last(self) -> Evaluation:
        """The last calculation, or an error if there is none."""
        if not self.results or self._evaluation is None:  # emptied by ASE's reset() and by a failed calculation
            raise NothingCalculated("nothing was calculated yet: call atoms.get_potential_energy() first")
        return self._evaluation
