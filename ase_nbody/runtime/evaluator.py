"""``Evaluator`` evaluates networks on structures, without ASE. The calculator and every other engine hold one."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from ase_nbody.hierarchy.build import VerletHierarchy, build_hierarchy
from ase_nbody.hierarchy.tables import Hierarchy, concatenate
from ase_nbody.network.electronic_states import unlearnt_state
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.network.outputs import Output, outputs_of
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.charge_watch import ChargeWatch
from ase_nbody.runtime.coverage_watch import CoverageWatch
from ase_nbody.runtime.evaluation import Evaluation, EvaluationError, require_finite, split_batch
from ase_nbody.runtime.extrapolation import ProximityWatch
from ase_nbody.runtime.fallback import is_out_of_memory
from ase_nbody.runtime.memory import MemoryGuard, too_large
from ase_nbody.runtime.parts_watch import PartsWatch
from ase_nbody.runtime.pickled import from_bytes, to_bytes
from ase_nbody.runtime.runner import Runner
from ase_nbody.runtime.settings import DTYPES, Settings, existing_device
from ase_nbody.runtime.threads import ThreadLock, fitting_threads
from ase_nbody.structure import Structure, StructureError
from ase_nbody.undisturbed import is_forked, torch_threads, undisturbed

BATCH_ATOMS = 2000  # atoms in a batch of structures that are evaluated side by side


class Evaluator:
    """Evaluates one network, or the members of a committee, on structures of any kind.

    Several threads may share one evaluator: each evaluation waits for the one before it. In a process that was forked,
    evaluations use one thread. Copies share the networks and nothing else; pickles hold networks and settings, and
    nothing that was computed.

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
        ChargeWarning: a structure has a total charge, and not all networks predict charges.
        PartsWarning: a network has labelled parts, and one of a structure's has atoms of several molecules.
    """

    @undisturbed()
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
        self.settings = Settings(device, dtype, compile, threads, skin)
        self.device, self.threads = existing_device(self.settings.device), self.settings.threads
        self.lock = ThreadLock()
        several = [networks] if isinstance(networks, NBodyNetwork) else list(networks)
        if not several:
            raise ValueError("a committee needs at least one network, got none")
        self.networks = [_in_place(network, self.device, DTYPES[self.settings.dtype]) for network in several]
        if not self.species:
            raise ValueError("the networks of a committee need species in common, and these have none")
        layouts = [network.config.layout for network in self.networks]
        self.layouts = list(dict.fromkeys(layouts))
        self._layout_of = [self.layouts.index(layout) for layout in layouts]  # of each network
        self._is_known = np.zeros(len(chemical_symbols), dtype=bool)
        self._is_known[[atomic_numbers[symbol] for symbol in self.species]] = True
        self._runners = [Runner(network, compile=self.settings.compile) for network in self.networks]
        self.followed = [VerletHierarchy(layout, self.settings.skin, self.device) for layout in self.layouts]
        self._proximity = ProximityWatch([network.config.closest_distances for network in self.networks])
        self._coverage = CoverageWatch([network.config.coverage for network in self.networks])
        self._configs = [network.config for network in self.networks]
        # Where one charge alone was learnt, all others are refused, and this one needs no warning.
        one_charge = any(len(config.total_charges or ()) == 1 for config in self._configs)
        self._charge = ChargeWatch(used=one_charge or any(output.name == "charges" for output in self.outputs))
        self._parts = PartsWatch(any(config.is_labelled for config in self._configs))
        self._memory = [MemoryGuard(network) for network in self.networks]

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

    def __repr__(self) -> str:
        several = f"{len(self.networks)} network{'s' * (len(self.networks) > 1)}"
        return f"{type(self).__name__}({', '.join(self.species)}; {several}; {self.device}, {self.settings.dtype})"

    @property
    def knows_states(self) -> bool:
        """Whether a network learnt certain total charges or spins alone, so that others are refused."""
        return any(config.total_charges or config.multiplicities for config in self._configs)

    @property
    def warns_of_charge(self) -> bool:
        """Whether a total charge would cause the warning that no network looks at it."""
        return not self._charge.quiet

    def forget(self) -> None:
        """Search neighbours anew at the next call of ``follow``, which then depends on nothing but its structure.

        The age of a neighbour list changes the order in which terms are added, and so the last digit of a result.
        """
        for hierarchy in self.followed:
            hierarchy.forget()

    def follow(self, structure: Structure) -> Evaluation:
        """Evaluate a structure that moves from call to call: its neighbour list is kept while it is valid.

        Raises:
            StructureError: species, a charge or a spin that a network does not know, or a crowd of atoms (see
                ``find_pairs``).
            EvaluationError: the result is not finite, or the system does not fit into memory.
        """
        with self.lock, undisturbed():
            hierarchies = self._hierarchies(structure, lambda layout: self.followed[layout].update(structure))
            predictions = self._predict(hierarchies, [structure])
            by_network = [hierarchies[layout] for layout in self._layout_of]
            return self._trusted(Evaluation(structure, predictions, by_network))

    def evaluate(self, structures: Iterable[Structure]) -> list[Evaluation]:
        """Evaluate many structures side by side, in batches of up to ``BATCH_ATOMS`` atoms.

        The results equal those of ``follow`` to round-off; its neighbour lists stay as they are.

        Raises:
            StructureError, EvaluationError: see ``follow``. The message begins with the number of the structure, unless
                a whole batch does not fit into memory.
        """
        if isinstance(structures, Structure):
            raise StructureError("many structures are a list, got a single Structure. Give [structure].")
        several = list(structures)
        found: list[Evaluation] = []
        for number, structure in enumerate(several):
            with _naming(number):
                self.require_known(structure)
        for batch in _batches([len(structure) for structure in several], BATCH_ATOMS):
            with self.lock, undisturbed():
                found += self._evaluate_batch(batch, several[batch.start : batch.stop])
        return found

    def _evaluate_batch(self, numbers: Sequence[int], structures: Sequence[Structure]) -> list[Evaluation]:
        """Evaluate structures in one pass; errors give their ``numbers``."""
        separate, found = [], []
        for number, structure in zip(numbers, structures, strict=True):
            with _naming(number):
                separate.append(self._hierarchies(structure, self._searcher(structure)))
        joined = [concatenate(hierarchies) for hierarchies in zip(*separate, strict=True)]
        by_network = [split_batch(prediction, structures) for prediction in self._predict(joined, structures)]
        for number, structure, *predictions in zip(numbers, structures, *by_network, strict=True):
            with _naming(number):
                found.append(self._trusted(Evaluation(structure, predictions)))
        return found

    def require_known(self, structure: Structure) -> None:
        """Refuse what is no structure, or has species, a charge or a spin that a network does not know.

        Raises:
            StructureError: see above; the message names the species, the charge or the spin.
        """
        if not isinstance(structure, Structure):
            raise StructureError(
                f"a structure is a Structure, got {type(structure).__name__}. For ase.Atoms use Structure.from_atoms."
            )
        known = self._is_known[structure.numbers]
        if not known.all():
            unknown = [chemical_symbols[number] for number in np.unique(structure.numbers[~known])]
            raise StructureError(
                f"the model knows {', '.join(self.species)}, but the structure contains {', '.join(unknown)}. "
                "Take a model trained on these species, or train one."
            )
        if fault := unlearnt_state(structure, self._configs):
            raise StructureError(fault)

    def __copy__(self) -> "Evaluator":
        return type(self)(self.networks, **asdict(self.settings))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Evaluator":
        return type(self)(copy.deepcopy(self.networks, memo), **asdict(self.settings))

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), to_bytes(self.networks, self.settings))

    def _searcher(self, structure: Structure) -> Callable[[int], Hierarchy]:
        return lambda layout: build_hierarchy(structure, self.layouts[layout], device=self.device)

    def _hierarchies(self, structure: Structure, make: Callable[[int], Hierarchy]) -> list[Hierarchy]:
        """The hierarchy of a structure for each layout. Unknown species are refused before any is made."""
        self.require_known(structure)
        hierarchies = [make(layout) for layout in range(len(self.layouts))]
        self._proximity.check(structure)
        self._charge.check(structure.charge)
        self._parts.check(structure)
        return hierarchies

    def _trusted(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation, if it is finite. An atom unlike all training data causes a warning."""
        require_finite(evaluation)
        self._coverage.check(evaluation)
        return evaluation

    def _predict(self, hierarchies: Sequence[Hierarchy], structures: Sequence[Structure]) -> list[Prediction]:
        """What each network says about the structures; ``hierarchies`` holds one for each layout."""
        with torch_threads(1 if is_forked() else self.threads or fitting_threads(*hierarchies)):
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
        network = self.networks[number]
        if network.config is not self._configs[number]:  # it was given another zero of energy
            self._configs[number] = network.config
            self._runners[number] = Runner(network, compile=self.settings.compile)
        if not self._memory[number].foresees_failure(hierarchy):
            try:
                return self._runners[number](hierarchy, *geometry)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
        # Raised only here, because the failed evaluation has let go of its memory by now.
        raise EvaluationError(too_large(network, hierarchy))


def _unpickled(kind: type[Evaluator], payload: bytes) -> Evaluator:
    networks, settings = from_bytes(payload)
    return kind(networks, **asdict(settings))


@contextlib.contextmanager
def _naming(number: int) -> Iterator[None]:
    """Let the errors of a structure begin with its number."""
    try:
        yield
    except (StructureError, EvaluationError) as error:
        raise type(error)(f"structure {number}: {error}") from error


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
    """The network on the given device with the given dtype: itself if it is there already, else a copy.

    A network that was changed in inference mode is copied too, because its tensors cannot be differentiated.
    """
    weights = list(network.parameters())
    usable = not any(tensor.is_inference() for tensor in [*weights, *network.buffers()])
    if usable and all(w.dtype == dtype and w.device == device and not w.requires_grad for w in weights):
        return network
    return copy.deepcopy(network).to(device=device, dtype=dtype).requires_grad_(False)
