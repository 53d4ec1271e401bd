"""``NBodyCalculator``: ASE's calculator interface around an ``Evaluator``. It checks, keeps and converts results."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import CalculationFailed, Calculator, CalculatorSetupError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from ase_nbody.files.archive import checksum, load_members
from ase_nbody.files.committee import refuse_repeated
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.network.outputs import Output
from ase_nbody.runtime.evaluation import Evaluation, EvaluationError, PartEnergies
from ase_nbody.runtime.evaluator import Evaluator
from ase_nbody.structure import Structure, StructureError

Model = str | os.PathLike[str] | NBodyNetwork


class NBodyCalculator(Calculator):
    """Energies, forces and stresses of a trained N-body network for ASE.

    >>> atoms.calc = NBodyCalculator("ethanol")  # doctest: +SKIP

    One pass gives all properties: ``energy``, ``free_energy`` (equal: there is no electronic temperature), ``energies``
    (N,), ``forces`` (N, 3), and for systems periodic in three directions ``stress`` (6,) and per-atom ``stresses``
    (N, 6), which sum to the stress. Models that predict charges also give ``charges`` (N,) in e and ``dipole`` (3,) in
    e Angstrom for structures without periodic directions; ``atoms.info["charge"]`` is then the total charge. Units: eV,
    Angstrom; ASE's sign and Voigt order. All results are float64.

    Args:
        model: name of a shipped model, path of a model file, an ``NBodyNetwork``, or a list of these. Several networks,
            in a list or in one file, form a committee: the results are its mean, and ``energy_spread`` and
            ``forces_spread`` say how far its members disagree.
        device: where to evaluate, as torch names it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        dtype: ``"float64"`` (default: smooth to round-off, for optimisation and phonons) or ``"float32"`` (faster).
        compile: evaluate with native code, two to three times as fast for small molecules. It is compiled at the first
            calculation (one to three minutes) and kept for later ones; see ``ase_nbody.runtime.runner.Runner``.
        threads: number of CPU threads of a calculation; default: torch's number, but one for systems so small that
            threads would only wait for each other.
        skin: distance in Angstrom by which the neighbour search reaches farther than needed, so that its result serves
            for many steps. It changes the speed, never the result.

    Raises:
        FileNotFoundError, ModelFileError: the model cannot be read (see ``load_members``).
        CalculatorSetupError: the dtype or device is unknown, the committee is empty or has a network twice, the model
            does not know a species, or the positions or the cell cannot be evaluated.
        CalculationFailed: the result is not finite, or the system does not fit into the memory.

    Warns, once:
        ExtrapolationWarning: atoms are closer together, or surrounded otherwise, than in the training data.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]  # noqa: RUF012
    nolabel = True

    def __init__(
        self,
        model: Model | Sequence[Model],
        *,
        device: str = "cpu",
        dtype: str = "float64",
        compile: bool = False,
        threads: int | None = None,
        skin: float = 0.5,
    ) -> None:
        super().__init__()
        models = _committee(model)
        members = [_networks(member) for member in models]
        labels = list(map(_label, models))
        try:
            if len(models) > 1:
                refuse_repeated(members, labels)
            self.evaluator = Evaluator(
                [*itertools.chain(*members)], device=device, dtype=dtype, compile=compile, threads=threads, skin=skin
            )
        except ValueError as error:
            raise CalculatorSetupError(str(error)) from error
        self.implemented_properties = [
            *self.implemented_properties,
            *(output.name for output in self.evaluator.outputs),
        ]
        self.parameters.update(
            model=labels if isinstance(model, list | tuple) else labels[0],
            device=device,
            dtype=dtype,
            compile=compile,
            threads=threads,
            skin=skin,
        )
        self._evaluation: Evaluation | None = None

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
    def species(self) -> tuple[str, ...]:
        """Chemical symbols that every model of the committee knows."""
        return self.evaluator.species

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation (ASE's interface).

        If the atoms have moved, nothing else is compared; in dynamics they move at every step. A change of the total
        charge counts only if the model gives charges.
        """
        before = self.atoms
        if before is not None and len(before) == len(atoms):
            with np.errstate(invalid="ignore"):  # infinite positions, which the next calculation refuses
                moved = not np.abs(atoms.positions - before.positions).max(initial=0.0) <= tol
            if moved:
                return ["positions"]
        return super().check_state(atoms, tol) + changed_charge(self, atoms)

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute everything that one pass gives, whatever was asked for (ASE's interface)."""
        super().calculate(atoms, properties, system_changes)
        self.results, self._evaluation = {}, None
        if self.atoms is None:
            raise CalculatorSetupError("no atoms to calculate: use atoms.calc = calculator, or calculate(atoms)")
        with _as_ase_errors():
            self._evaluation = self.evaluator.follow(Structure.from_atoms(self.atoms))
        self.results = results_of(self._evaluation, self.evaluator.outputs)

    def evaluate(self, structures: Sequence[ase.Atoms]) -> list[dict[str, Any]]:
        """The results of many structures, evaluated side by side in batches of some thousand atoms.

        They equal those of single calculations to round-off. For small structures this is faster. It does not change
        the calculator's own results or the neighbour list of a running simulation.

        Args:
            structures: any structures, of any sizes.

        Returns:
            For each structure, what ``results`` would hold after its calculation, in the same units; for a committee
            also ``energy_spread`` and ``forces_spread``.

        Raises:
            CalculatorSetupError, CalculationFailed: as in a calculation; the message gives the number of the structure.
        """
        with _as_ase_errors():
            found = self.evaluator.evaluate(_structures(structures))
        outputs = self.evaluator.outputs
        return [results_of(evaluation, outputs) | _spreads_of(evaluation) for evaluation in found]

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
            return self._last.part_energies
        except ValueError as error:
            raise CalculatorSetupError(str(error)) from error

    @property
    def _last(self) -> Evaluation:
        """The last calculation, or an error if there is none."""
        if not self.results or self._evaluation is None:  # emptied by ASE's reset() and by a failed calculation
            raise CalculatorSetupError("nothing was calculated yet: call atoms.get_potential_energy() first")
        return self._evaluation


def results_of(evaluation: Evaluation, outputs: Sequence[Output] = ()) -> dict[str, Any]:
    """The results of an evaluated structure under ASE's names, with further ``outputs``; for a committee the mean."""
    structure = evaluation.structure
    energy, energies, forces = (evaluation.mean(name) for name in ("energy", "energies", "forces"))
    results = {"energy": float(energy), "free_energy": float(energy), "energies": energies, "forces": forces}
    if structure.pbc.all():
        stresses = evaluation.mean("virials") / structure.volume
        results["stresses"] = full_3x3_to_voigt_6_stress(stresses)
        results["stress"] = full_3x3_to_voigt_6_stress(stresses.sum(axis=0))
    for output in outputs:
        if not (output.molecular and structure.pbc.any()):
            results[output.name] = evaluation.mean(output.name)
    return results


def _spreads_of(evaluation: Evaluation) -> dict[str, Any]:
    """The spreads of a committee; empty for a single network."""
    if len(evaluation.predictions) == 1:
        return {}
    return {"energy_spread": float(evaluation.spread("energy")), "forces_spread": evaluation.spread("forces")}


def changed_charge(calculator: Calculator, atoms: ase.Atoms) -> list[str]:
    """``["charge"]`` if the total charge of the atoms has changed and the calculator's model gives charges."""
    before = calculator.atoms
    if before is None or "charges" not in calculator.implemented_properties:
        return []
    same = np.array_equal(before.info.get("charge", 0), atoms.info.get("charge", 0))  # whatever stands there
    return [] if same else ["charge"]


@contextlib.contextmanager
def _as_ase_errors() -> Iterator[None]:
    """Turn errors of the structure and of the evaluation into ASE's errors."""
    try:
        yield
    except StructureError as error:
        raise CalculatorSetupError(str(error)) from error
    except EvaluationError as error:
        raise CalculationFailed(str(error)) from error


def _structures(atoms: Sequence[ase.Atoms]) -> list[Structure]:
    """The structures of the atoms. If one cannot be evaluated, the error gives its number."""
    structures = []
    for number, one in enumerate(atoms):
        try:
            structures.append(Structure.from_atoms(one))
        except StructureError as error:
            raise StructureError(f"structure {number}: {error}") from error
    return structures


def _committee(model: Model | Sequence[Model]) -> list[Model]:
    """The models as a list."""
    models: list[Any] = list(model) if isinstance(model, list | tuple) else [model]
    if not models:
        raise CalculatorSetupError("a committee needs at least one model, got an empty list")
    for member in models:
        if not isinstance(member, str | os.PathLike | NBodyNetwork):
            raise CalculatorSetupError(f"a model is a name, a path or an NBodyNetwork, got {type(member).__name__}")
    return models


def _networks(model: Model) -> list[NBodyNetwork]:
    """The network of a model, or all networks if the model is a file that holds a committee."""
    return [model] if isinstance(model, NBodyNetwork) else load_members(model)


def _label(model: Model) -> str:
    """The name or path of a model, or the hash of a network."""
    if isinstance(model, NBodyNetwork):
        return "sha256:" + checksum(model.config.model_dump(mode="json"), model.state_dict())
    return os.fspath(model)
