"""``NBodyCalculator``: the network behind ASE's calculator interface. A thin shell: checks, caches, converts."""

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ase
import numpy as np
import torch
from ase.calculators.calculator import CalculationFailed, Calculator, CalculatorSetupError, all_changes
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from ase_nbody.files.archive import checksum, load_members
from ase_nbody.hierarchy.build import VerletHierarchy, build_hierarchy
from ase_nbody.hierarchy.tables import Hierarchy, concatenate
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import Prediction
from ase_nbody.runtime.blocks import BlockwiseEvaluation
from ase_nbody.runtime.compiled import CompiledEvaluation
from ase_nbody.runtime.extrapolation import ProximityWatch
from ase_nbody.runtime.memory import free_memory, is_out_of_memory, needed_memory, too_large
from ase_nbody.runtime.results import chunks, collect, geometry, members, split
from ase_nbody.runtime.threads import torch_threads
from ase_nbody.structure import Structure, StructureError

Model = str | os.PathLike[str] | NBodyNetwork
_DTYPES = {"float64": torch.float64, "float32": torch.float32}
_AT_ONCE = 2000  # atoms in a batch
_SMALL = 100_000  # neighbours in all, for which memory is not a concern


class PartEnergies(NamedTuple):
    """Energies of the parts of one level.

    Attributes:
        centres: atom at the centre of each part (P,).
        energies: energy of each part in eV (P,), without isolated-atom energies.
    """

    centres: NDArray[np.int64]
    energies: NDArray[np.float64]


class NBodyCalculator(Calculator):
    """Energies, forces and stresses of a trained N-body network for ASE.

    >>> atoms.calc = NBodyCalculator("ethanol")  # doctest: +SKIP

    One pass gives all properties: ``energy``, ``free_energy`` (equal: there is no electronic temperature), ``energies``
    (N,), ``forces`` (N, 3), and for systems periodic in three directions ``stress`` (6,) and per-atom ``stresses``
    (N, 6), which sum to the stress. Units: eV, Angstrom; ASE's sign and Voigt order. All results are float64.

    Args:
        model: name of a shipped model, path of a model file, an ``NBodyNetwork``, or a list of these. Several networks,
            listed or in one file, are a committee, whose mean is returned and whose spread is in ``energy_spread`` and
            ``forces_spread``.
        device: where to evaluate, as torch names it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        dtype: ``"float64"`` (default: smooth to round-off, for optimisation and phonons) or ``"float32"`` (faster).
        compile: evaluate by native code: two to three times as fast for small molecules. Compiled at the first
            calculation (one to three minutes) and kept for later ones; see ``CompiledEvaluation``.
        threads: CPU threads of a calculation; default: torch's number.
        skin: distance in Angstrom by which the neighbour search reaches farther than needed, so that its result serves
            for many steps. It changes the speed, never the result.

    Raises:
        FileNotFoundError, ModelFileError: the model cannot be read (see ``load_members``).
        CalculatorSetupError: an unknown dtype or device, an empty committee, species that the model does not know,
            positions or a cell that cannot be evaluated.
        CalculationFailed: the result is not finite, or the system does not fit into the memory.

    Warns, once:
        ExtrapolationWarning: atoms are closer together than in the training data (see ``ProximityWatch``).
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
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise CalculatorSetupError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}")
        if not isinstance(skin, float | int) or not 0.0 <= skin < np.inf:
            raise CalculatorSetupError(f"skin must be a finite distance of at least 0 Angstrom, got {skin!r}")
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise CalculatorSetupError(f"threads must be a whole number of at least 1, got {threads!r}")
        models = _committee(model)
        self._device = _existing_device(device)
        networks = [network for member in models for network in _networks(member)]
        self.networks = [_prepare(network, self._device, _DTYPES[dtype]) for network in networks]
        self.parameters.update(
            model=[_label(member) for member in models] if isinstance(model, list | tuple) else _label(models[0]),
            device=device,
            dtype=dtype,
            compile=compile,
            threads=threads,
            skin=skin,
        )
        layouts = [network.config.layout for network in self.networks]
        self._layouts = list(dict.fromkeys(layouts))
        self._layout_of = [self._layouts.index(layout) for layout in layouts]  # of each network
        self._known = np.zeros(len(chemical_symbols) + 1, dtype=bool)  # at its ends for numbers beyond them
        self._known[[atomic_numbers[symbol] for symbol in self.species]] = True
        evaluation = CompiledEvaluation if compile else BlockwiseEvaluation
        self._evaluations = [evaluation(network) for network in self.networks]
        self._verlet = [VerletHierarchy(layout, skin, self._device) for layout in self._layouts]
        self._predictions: list[Prediction] = []
        self._proximity = ProximityWatch([network.config.closest_distances for network in self.networks])
        self._fits = _SMALL  # the largest number of neighbours that fitted into the memory

    def _get_name(self) -> str:
        return "nbody"

    def get_spin_polarized(self) -> bool:
        """False: the model has no spin."""
        return False

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """The keywords that make this calculator, JSON-able; a network given as an object is named by its hash."""
        return dict(self.parameters)

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refused: the keywords are fixed once the calculator is made (ASE's interface)."""
        if kwargs:
            raise CalculatorSetupError(f"{', '.join(kwargs)} cannot be changed: make a new NBodyCalculator with it")
        return {}

    def forget(self) -> None:
        """Search neighbours anew at the next calculation, which then depends on nothing but the structure.

        The age of a neighbour list changes in which order terms are added, hence the last digit of a result.
        """
        for followed in self._verlet:
            followed.forget()

    @property
    def species(self) -> tuple[str, ...]:
        """Chemical symbols that every model of the committee knows."""
        known = set.intersection(*(set(network.config.species) for network in self.networks))
        return tuple(symbol for symbol in chemical_symbols if symbol in known)

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate everything that one pass gives, whatever was asked for (ASE's interface)."""
        super().calculate(atoms, properties, system_changes)
        self.results, self._predictions = {}, []
        if self.atoms is None:
            raise CalculatorSetupError("no atoms to calculate: use atoms.calc = calculator, or calculate(atoms)")
        structure, hierarchies = self._prepared(self.atoms, self._followed)
        with torch_threads(self.parameters["threads"]):
            self._predictions = self._predict(hierarchies, [structure])
        self.results = collect(structure, self._predictions)

    def evaluate(self, structures: Sequence[ase.Atoms]) -> list[dict[str, Any]]:
        """The results of many structures, evaluated side by side in batches of some thousand atoms.

        Equal to those of one by one to round-off, and faster where the structures are small. Neither the calculator's
        own results nor the neighbour list of a running simulation are touched.

        Args:
            structures: any structures, of any sizes.

        Returns:
            For each structure what ``results`` would hold after its calculation, and ``energy_spread`` and
            ``forces_spread`` of a committee. Units as there.

        Raises:
            CalculatorSetupError, CalculationFailed: as a calculation, with the number of the structure.
        """
        results: list[dict[str, Any]] = []
        for first, last in chunks([len(atoms) for atoms in structures], _AT_ONCE):
            prepared = []
            for number in range(first, last):
                try:
                    prepared.append(self._prepared(structures[number], self._searched))
                except CalculatorSetupError as error:
                    raise CalculatorSetupError(f"structure {number}: {error}") from error
            batch = [structure for structure, _ in prepared]
            together = [concatenate(each) for each in zip(*(each for _, each in prepared), strict=True)]
            with torch_threads(self.parameters["threads"]):
                found_by = [split(prediction, batch) for prediction in self._predict(together, batch)]
            for number, structure, *predictions in zip(range(first, last), batch, *found_by, strict=True):
                try:
                    found = collect(structure, predictions)
                except CalculationFailed as error:
                    raise CalculationFailed(f"structure {number}: {error}") from error
                if len(predictions) > 1:
                    found["energy_spread"] = float(members(predictions, "energy").std(axis=0)[0])
                    found["forces_spread"] = members(predictions, "forces").std(axis=0)
                results.append(found)
        return results

    def _prepared(
        self, atoms: ase.Atoms, hierarchy: Callable[[int, Structure], Hierarchy]
    ) -> tuple[Structure, list[Hierarchy]]:
        """A structure that can be evaluated and its hierarchy for each layout, or an error that says why it cannot."""
        try:
            structure = Structure.from_atoms(atoms)
            self._refuse_unknown_species(structure)
            hierarchies = [hierarchy(number, structure) for number in range(len(self._layouts))]
            self._proximity.check(structure)
        except StructureError as error:
            raise CalculatorSetupError(str(error)) from error
        return structure, hierarchies

    def _followed(self, layout: int, structure: Structure) -> Hierarchy:
        """The hierarchy that follows a moving structure."""
        return self._verlet[layout].update(structure)

    def _searched(self, layout: int, structure: Structure) -> Hierarchy:
        """The hierarchy of one structure, for once."""
        return build_hierarchy(structure, self._layouts[layout], device=self._device)

    def _predict(self, hierarchies: Sequence[Hierarchy], structures: Sequence[Structure]) -> list[Prediction]:
        """What each network predicts."""
        of_each = enumerate(self._layout_of)
        return [self._predict_by(member, hierarchies[layout], structures) for member, layout in of_each]

    def _predict_by(self, member: int, hierarchy: Hierarchy, structures: Sequence[Structure]) -> Prediction:
        network = self.networks[member]
        size = hierarchy.n_edges
        fits = size <= self._fits or needed_memory(network, hierarchy) < free_memory(self._device)
        if fits:  # else Linux would promise the memory and kill the process when it uses it
            try:
                positions, cells = geometry(structures, self._device)
                prediction = self._evaluations[member](hierarchy, positions, cells)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                self._fits = max(self._fits, size)
                return prediction
        raise CalculationFailed(too_large(network, hierarchy))  # here, where the failed pass has let go of its memory

    def _refuse_unknown_species(self, structure: Structure) -> None:
        known = self._known.take(structure.numbers, mode="clip")
        if not known.all():
            unknown = [_symbol(number) for number in np.unique(structure.numbers[~known])]
            raise CalculatorSetupError(
                f"the model knows {', '.join(self.species)}, but the structure contains {', '.join(unknown)}. "
                "Take a model trained on these species, or train one."
            )

    # What a calculation gives beyond ASE's properties; each describes the last structure that was calculated.

    @property
    def energy_spread(self) -> float:
        """Standard deviation of the committee's energies in eV (0 for a single model)."""
        self._require_calculation()
        return float(members(self._predictions, "energy").std(axis=0)[0])

    @property
    def forces_spread(self) -> NDArray[np.float64]:
        """Standard deviation of the committee's forces (N, 3) in eV/Angstrom (0 for a single model)."""
        self._require_calculation()
        return members(self._predictions, "forces").std(axis=0)

    @property
    def part_energies(self) -> list[PartEnergies]:
        """For each level from below, the energies of its parts; the mean of a committee of equal hierarchies."""
        self._require_calculation()
        if len(self._verlet) > 1:
            raise CalculatorSetupError("the committee's members have different hierarchies: ask each one by itself")
        hierarchy = self._verlet[0].hierarchy
        members = zip(*(prediction.parts for prediction in self._predictions), strict=True)
        means = [torch.stack(parts).double().mean(dim=0).cpu().numpy() for parts in members]
        return [
            PartEnergies(level.centre.cpu().numpy(), mean) for level, mean in zip(hierarchy.levels, means, strict=True)
        ]

    def _require_calculation(self) -> None:
        if not self.results:  # emptied by ASE's reset() and by a failed calculation
            raise CalculatorSetupError("nothing was calculated yet: call atoms.get_potential_energy() first")


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
    """The network of a model, or the networks of a file that holds a committee."""
    return [model] if isinstance(model, NBodyNetwork) else load_members(model)


def _prepare(network: NBodyNetwork, device: torch.device, dtype: torch.dtype) -> NBodyNetwork:
    """The network in the given place and precision; one that is there already is shared, never changed."""
    weights = list(network.parameters())
    if all(weight.dtype == dtype and weight.device == device and not weight.requires_grad for weight in weights):
        return network
    return copy.deepcopy(network).to(device=device, dtype=dtype).requires_grad_(False)


def _label(model: Model) -> str:
    if isinstance(model, NBodyNetwork):
        return "sha256:" + checksum(model.config.model_dump(mode="json"), model.state_dict())
    return os.fspath(model)


def _existing_device(name: str) -> torch.device:
    try:
        probe = torch.zeros(1, dtype=torch.float64, device=torch.device(name))
        probe.cpu()  # "meta" has no numbers
        return probe.device  # "cuda" is "cuda:0": compared with the weights' device
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise CalculatorSetupError(
            f"device {name!r} is not available here ({str(error).splitlines()[0]}). Use device='cpu'."
        ) from error


def _symbol(number: int) -> str:
    return chemical_symbols[number] if 0 <= number < len(chemical_symbols) else f"atomic number {number}"
