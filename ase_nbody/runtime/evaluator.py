"""``Evaluator`` evaluates networks on structures, without ASE. The calculator and every other engine hold one."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from ase_nbody.hierarchy.build import VerletHierarchy, build_hierarchy
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.hierarchy.tables import Hierarchy, concatenate
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.prediction import Prediction, output_names
from ase_nbody.runtime.extrapolation import ProximityWatch
from ase_nbody.runtime.memory import free_memory, is_out_of_memory, needed_memory, too_large
from ase_nbody.runtime.runner import Runner
from ase_nbody.runtime.threads import torch_threads
from ase_nbody.structure import Structure, StructureError

DTYPES = {"float64": torch.float64, "float32": torch.float32}
BATCH_ATOMS = 2000  # atoms in a batch of structures that are evaluated side by side
SERIAL_EDGES = 4000  # up to this number of edges, torch's threads only wait for each other
_SAFE_EDGES = 100_000  # edges of a hierarchy for which memory is not a concern


class EvaluationError(RuntimeError):
    """A structure could not be evaluated: its results are not finite, or it does not fit into memory."""


class PartEnergies(NamedTuple):
    """Energies of the parts of one level.

    Attributes:
        centres: atom at the centre of each part (P,).
        energies: energy of each part in eV (P,), without isolated-atom energies.
    """

    centres: NDArray[np.int64]
    energies: NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """What M networks say about one structure of N atoms. Units: eV, Angstrom, e.

    Attributes:
        structure: the structure.
        predictions: one for each network.
        hierarchies: the hierarchy that each network was evaluated on; empty if the structure was in a batch.
    """

    structure: Structure
    predictions: Sequence[Prediction]
    hierarchies: Sequence[Hierarchy] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that every network gives beside energies, forces and virials."""
        first, *others = (prediction.outputs for prediction in self.predictions)
        return tuple(name for name in first if all(name in other for other in others))

    def members(self, name: str) -> NDArray[np.float64]:
        """What each network says, by name.

        The first axis counts the networks: ``energy`` (M,), ``energies`` (M, N), ``forces`` (M, N, 3), ``virials``
        (M, N, 3, 3), ``charges`` (M, N), ``dipole`` (M, 3).
        """
        return np.stack(self._arrays(name))

    def mean(self, name: str) -> NDArray[np.float64]:
        """The mean over the networks, as a new array."""
        first, *others = self._arrays(name)
        return self.members(name).mean(axis=0) if others else first.copy()

    def _arrays(self, name: str) -> list[NDArray[np.float64]]:
        """What each network says; on a CPU the arrays share the memory of the predictions."""
        arrays = [prediction[name].numpy(force=True) for prediction in self.predictions]
        return [array[0] for array in arrays] if name in ("energy", "dipole") else arrays  # a batch of one structure

    @property
    def is_finite(self) -> bool:
        """Whether all energies and forces are finite; virials follow from these."""
        return all(math.isfinite(array.sum()) for name in ("energies", "forces") for array in self._arrays(name))

    def spread(self, name: str) -> NDArray[np.float64]:
        """The standard deviation over the networks; zero for a single one."""
        return np.asarray(self.members(name).std(axis=0))

    @cached_property
    def part_energies(self) -> list[PartEnergies]:
        """Energies of the parts of each level, the lowest first: the mean over networks that share one hierarchy.

        Raises:
            ValueError: the networks have different hierarchies, or the structure was evaluated in a batch.
        """
        if any(hierarchy is not self.hierarchies[0] for hierarchy in self.hierarchies[1:]):
            raise ValueError("the committee's members have different hierarchies: ask each one by itself")
        if not self.hierarchies:
            raise ValueError("structures evaluated in a batch have no energies of parts: evaluate them one by one")
        parts = Prediction.mean(self.predictions).parts
        levels = zip(self.hierarchies[0].levels, parts, strict=True)
        return [PartEnergies(level.centre.cpu().numpy(), part.double().cpu().numpy()) for level, part in levels]


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
        ExtrapolationWarning: atoms are closer together than in the training data (see ``ProximityWatch``).
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
        self.networks = [_in_place(network, self.device, DTYPES[dtype]) for network in several]
        layouts = [network.config.layout for network in self.networks]
        self.layouts = list(dict.fromkeys(layouts))
        self._layout_of = [self.layouts.index(layout) for layout in layouts]  # of each network
        self._is_known = np.zeros(len(chemical_symbols) + 1, dtype=bool)  # the last: numbers beyond the table
        self._is_known[[atomic_numbers[symbol] for symbol in self.species]] = True
        self._runners = [Runner(network, compile=compile) for network in self.networks]
        self.followed = [VerletHierarchy(layout, skin, self.device) for layout in self.layouts]
        self._proximity = ProximityWatch([network.config.closest_distances for network in self.networks])
        self._fitted_edges = _SAFE_EDGES  # of the largest hierarchy that fitted into the memory

    @property
    def species(self) -> tuple[str, ...]:
        """Chemical symbols that every network knows, by atomic number."""
        known = set.intersection(*(set(network.config.species) for network in self.networks))
        return tuple(symbol for symbol in chemical_symbols if symbol in known)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that every network gives beside energies, forces and virials, such as ``charges``."""
        names = [output_names(network.config) for network in self.networks]
        return tuple(name for name in names[0] if all(name in others for others in names))

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
        return _finite(Evaluation(structure, predictions, by_network))

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
            by_network = [_split(prediction, here) for prediction in self._predict(joined, here)]
            for number, structure, *predictions in zip(batch, here, *by_network, strict=True):
                try:
                    found.append(_finite(Evaluation(structure, predictions)))
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


def _split(prediction: Prediction, structures: Sequence[Structure]) -> list[Prediction]:
    """Split the prediction of a batch into one for each structure, without the energies of parts."""
    sizes = [len(structure) for structure in structures]
    of_structures = {"energy", "dipole"}  # all others belong to atoms
    named = {name: t for name, t in prediction.named().items() if not name.startswith("part_energies")}
    pieces = {name: tensor.split(1 if name in of_structures else sizes) for name, tensor in named.items()}
    return [
        Prediction.from_named({name: split[index] for name, split in pieces.items()}) for index in range(len(sizes))
    ]


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


def _finite(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation, or raise ``EvaluationError`` if it has NaN or infinite values."""
    if not evaluation.is_finite:
        raise EvaluationError(f"the model gave NaN or infinite values. {_closest_pair(evaluation.structure)}")
    return evaluation


def _closest_pair(structure: Structure) -> str:
    """A sentence that names the two closest atoms, periodic images included."""
    pairs = find_pairs(structure, 1.0)
    if not len(pairs):
        return "No two atoms are closer than 1 Angstrom: it is the model that is at fault."
    closest = pairs.distance.argmin()
    first, second, distance = pairs.first[closest], pairs.second[closest], pairs.distance[closest]
    return f"The closest atoms, {first} and {second}, are {distance:.3g} Angstrom apart."


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
