"""``Evaluator`` evaluates networks on structures, without ASE. The calculator and every other engine hold one."""

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from ase_nbody.hierarchy.build import VerletHierarchy, build_hierarchy
from ase_nbody.hierarchy.tables import Hierarchy, concatenate
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.network.outputs import Output, outputs_of
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.coverage_watch import CoverageWatch
from ase_nbody.runtime.evaluation import Evaluation, EvaluationError, require_finite, split_batch
from ase_nbody.runtime.extrapolation import ProximityWatch
from ase_nbody.runtime.memory import free_memory, is_out_of_memory, needed_memory, too_large
from ase_nbody.runtime.runner import Runner
from ase_nbody.runtime.threads import torch_threads
from ase_nbody.structure import Structure, StructureError

DTYPES = {"float64": torch.float64, "float32": torch.float32}
BATCH_ATOMS = 2000  # atoms in a batch of structures that are evaluated side by side
SERIAL_EDGES = 4000  # up to this number of edges, torch's threads only wait for each other
_SAFE_EDGES = 100_000  # edges of a hierarchy for which memory is not a concern


class Evaluator:
    """Evaluates one network, or the members of a committee, on structures of any kind.

    Args:
        networks: the networks. Those that have this device and dtype already are shared, others are copied.
        device: where to evaluate, as torch names it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        dtype: ``"float64"`` or ``"float32"``.
        compile: evaluate with native code; see ``Runner``.
        threads: CPU threads of an evaluation; default: torch's number, but one for systems so small that threads would
            only wait for each other.
        skin: distance in Angstrom by which the neighbour search reaches farther than needed, so that its result serves
            for many steps. It changes the speed, never the result.

    Raises:
        ValueError: one of the arguments is not allowed, the device is not available, or the networks have no species in
            common.

    Warns, once:
        ExtrapolationWarning: atoms are closer together than in the training data (see ``ProximityWatch``), or their
            surroundings are unlike all of these (see ``CoverageWatch``).
    """

    def __init__(
        self,
        networks: NBodyNetwork | Sequence[NBodyNetwork],
        *,
        device: str = "cpu",
        dtype: str = "float64",
        compile: bool = False,
        threads: int | None = None,
        skin: float = 0.5,
    ) -> None:
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if not isinstance(skin, float | int) or not 0.0 <= skin < np.inf:
            raise ValueError(f"skin must be a finite distance of at least 0 Angstrom, got {skin!r}")
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise ValueError(f"threads must be a whole number of at least 1, got {threads!r}")
        self.device, self.threads = _existing_device(device), threads
        several = [networks] if isinstance(networks, NBodyNetwork) else list(networks)
        if not several:
            raise ValueError("a committee needs at least one network, got none")
        self.networks = [_in_place(network, self.device, DTYPES[dtype]) for network in several]
        if not self.species:
            raise ValueError("the networks of a committee need species in common, and these have none")
        layouts = [network.config.layout for network in self.networks]
        self.layouts = list(dict.fromkeys(layouts))
        self._layout_of = [self.layouts.index(layout) for layout in layouts]  # of each network
        self._is_known = np.zeros(len(chemical_symbols) + 1, dtype=bool)  # the last: numbers beyond the table
        self._is_known[[atomic_numbers[symbol] for symbol in self.species]] = True
        self._runners = [Runner(network, compile=compile) for network in self.networks]
        self.followed = [VerletHierarchy(layout, skin, self.device) for layout in self.layouts]
        self._proximity = ProximityWatch([network.config.closest_distances for network in self.networks])
        self._coverage = CoverageWatch([network.config.coverage for network in self.networks])
        self._fitted_edges = _SAFE_EDGES  # of the largest hierarchy that fitted into the memory

    @property
    def species(self) -> tuple[str, ...]:
        """Chemical symbols that every network knows, by atomic number."""
        known = set.intersection(*(set(network.config.species) for network in self.networks))
        return tuple(symbol for symbol in chemical_symbols if symbol in known)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What every network gives beside energies, forces and virials."""
        first, *others = [outputs_of(network.config.outputs) for network in self.networks]
        return tuple(output for output in first if all(output in of_other for of_other in others))

    def forget(self) -> None:
        """Search neighbours anew at the next call of ``follow``, which then depends on nothing but its structure.

        The age of a neighbour list changes the order in which terms are added, and so the last digit of a result.
        """
        for hierarchy in self.followed:
            hierarchy.forget()

    def follow(self, structure: Structure) -> Evaluation:
        """Evaluate a structure that moves from call to call: its neighbour list is kept while it is valid.

        Raises:
            StructureError: species that a network does not know, or a crowd of atoms (see ``find_pairs``).
            EvaluationError: the result is not finite, or the system does not fit into memory.
        """
        hierarchies = self._hierarchies(structure, lambda layout: self.followed[layout].update(structure))
        predictions = self._predict(hierarchies, [structure])
        by_network = [hierarchies[layout] for layout in self._layout_of]
        return self._trusted(Evaluation(structure, predictions, by_network))

    def evaluate(self, structures: Sequence[Structure]) -> list[Evaluation]:
        """Evaluate many structures side by side, in batches of up to ``BATCH_ATOMS`` atoms.

        The results equal those of ``follow`` to round-off; its neighbour lists stay as they are.

        Raises:
            StructureError, EvaluationError: see ``follow``. The message begins with the number of the structure, unless
                a whole batch does not fit into memory.
        """
        found: list[Evaluation] = []
        for batch in _batches([len(structure) for structure in structures], BATCH_ATOMS):
            here = [structures[number] for number in batch]
            separate = []
            for number, structure in zip(batch, here, strict=True):
                try:
                    separate.append(self._hierarchies(structure, self._searcher(structure)))
                except StructureError as error:
                    raise StructureError(f"structure {number}: {error}") from error
            joined = [concatenate(hierarchies) for hierarchies in zip(*separate, strict=True)]
            by_network = [split_batch(prediction, here) for prediction in self._predict(joined, here)]
            for number, structure, *predictions in zip(batch, here, *by_network, strict=True):
                try:
                    found.append(self._trusted(Evaluation(structure, predictions)))
                except EvaluationError as error:
                    raise EvaluationError(f"structure {number}: {error}") from error
        return found

    def _searcher(self, structure: Structure) -> Callable[[int], Hierarchy]:
        return lambda layout: build_hierarchy(structure, self.layouts[layout], device=self.device)

    def _hierarchies(self, structure: Structure, make: Callable[[int], Hierarchy]) -> list[Hierarchy]:
        """The hierarchy of a structure for each layout. Unknown species are refused before any is made."""
        self._refuse_unknown_species(structure)
        hierarchies = [make(layout) for layout in range(len(self.layouts))]
        self._proximity.check(structure)
        return hierarchies

    def _trusted(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation, if it is finite. An atom unlike all training data causes a warning."""
        require_finite(evaluation)
        self._coverage.check(evaluation)
        return evaluation

    def _refuse_unknown_species(self, structure: Structure) -> None:
        known = self._is_known.take(structure.numbers, mode="clip")
        if not known.all():
            unknown = [_symbol(number) for number in np.unique(structure.numbers[~known])]
            raise StructureError(
                f"the model knows {', '.join(self.species)}, but the structure contains {', '.join(unknown)}. "
                "Take a model trained on these species, or train one."
            )

    def _predict(self, hierarchies: Sequence[Hierarchy], structures: Sequence[Structure]) -> list[Prediction]:
        """What each network says about the structures; ``hierarchies`` holds one for each layout."""
        small = self.device.type == "cpu" and all(hierarchy.n_edges <= SERIAL_EDGES for hierarchy in hierarchies)
        with torch_threads(1 if self.threads is None and small else self.threads):
            geometry = self._geometry(structures)
            numbers = range(len(self.networks))
            return [self._predict_by(number, hierarchies[self._layout_of[number]], geometry) for number in numbers]

    def _geometry(self, structures: Sequence[Structure]) -> list[Tensor]:
        """Positions of all atoms (N, 3) and cells (B, 3, 3) in Angstrom, total charges (B,) in e."""
        arrays = (
            np.concatenate([structure.positions for structure in structures]),
            np.concatenate([structure.cell for structure in structures]).reshape(-1, 3, 3),
            np.array([structure.charge for structure in structures], dtype=np.float64),
        )
        return [torch.from_numpy(array).to(self.device) for array in arrays]

    def _predict_by(self, number: int, hierarchy: Hierarchy, geometry: Sequence[Tensor]) -> Prediction:
        network, n_edges = self.networks[number], hierarchy.n_edges
        if n_edges <= self._fitted_edges or needed_memory(network, hierarchy) < free_memory(self.device):
            try:  # without the estimate, Linux would grant the memory and kill the process when it uses it
                prediction = self._runners[number](hierarchy, *geometry)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                self._fitted_edges = max(self._fitted_edges, n_edges)
                return prediction
        # Raised only here, because the failed evaluation has let go of its memory by now.
        raise EvaluationError(too_large(network, hierarchy))


def _batches(sizes: Sequence[int], largest: int) -> Iterator[range]:
    """Ranges of structures whose sizes sum to at most ``largest``; a larger structure is a batch of its own."""
    first, total = 0, 0
    for number, size in enumerate(sizes):
        if number > first and total + size > largest:
            yield range(first, number)
            first, total = number, 0
        total += size
    if sizes:
        yield range(first, len(sizes))


def _in_place(network: NBodyNetwork, device: torch.device, dtype: torch.dtype) -> NBodyNetwork:
    """The network on the given device with the given dtype: itself if it is there already, else a copy."""
    weights = list(network.parameters())
    if all(weight.dtype == dtype and weight.device == device and not weight.requires_grad for weight in weights):
        return network
    return copy.deepcopy(network).to(device=device, dtype=dtype).requires_grad_(False)


def _existing_device(name: str) -> torch.device:
    try:
        probe = torch.zeros(1, dtype=torch.float64, device=torch.device(name))
        probe.cpu()  # "meta" has no numbers
        return probe.device  # "cuda" is "cuda:0": compared with the weights' device
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} is not available here ({reason}). Use device='cpu'.") from error


def _symbol(number: int) -> str:
    return chemical_symbols[number] if 0 <= number < len(chemical_symbols) else f"atomic number {number}"
