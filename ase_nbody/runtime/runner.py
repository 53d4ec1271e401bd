"""``Runner`` runs one network in the way that suits the size of a system and the device. It makes all these choices.

    system                                     eagerly                        compiled
    small                                      whole                          one call of native code
    small, on a GPU                            recorded as a CUDA graph       the same, recorded
    large (see ``WHOLE_ATOMS``)                block by block                 block by block, each step native code
    with labelled levels, of any size          whole                          one call of native code

Native code is not trusted: its first result, and every thousandth, is compared with eager evaluation. If they differ,
or compiling fails, a warning says why, once, and everything is evaluated eagerly from then on. Code that has run out of
memory is called again the next time.
"""

import warnings

import torch
from torch import Tensor

from ase_nbody.hierarchy.tables import Hierarchy
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.network.outputs import PER_STRUCTURE
from ase_nbody.potential import evaluate
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.blocks import InBlocks, SplitHierarchy, Steps
from ase_nbody.runtime.compiled import CompiledSteps, CompiledWhole
from ase_nbody.runtime.cuda_graph import CudaGraphs
from ase_nbody.runtime.fallback import Fallback, first_line, is_out_of_memory
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.runtime.threads import warm_up_vector_functions
from ase_nbody.undisturbed import torch_threads

WHOLE_ATOMS = {"cpu": 2048, "cuda": 32768}  # in the largest system that is evaluated whole, by the kind of device
# The same for compiled code on a CPU, for each thread: compiled blocks cost less, and threads share them better.
WHOLE_ATOMS_COMPILED = 640
_NOTICE = "evaluating without compiled code"
CHECK_EVERY = 1000  # compiled evaluations
# Largest difference to eager evaluation, relative to the largest force in eV/Angstrom or to the network's energy scale
# in eV, whichever is larger. Energies per atom are compared with the same number, in eV; virials with its product with
# the largest radius; charges, and dipoles divided by the number of atoms, with 1.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


class Runner:
    """``potential.evaluate`` of one network, with the same results to round-off.

    Args:
        network: the network, in its final dtype and place. Its weights may change in place; they get no
            gradients.
        compile: evaluate single structures with native code, which is loaded or compiled at the first call. It takes
            most structures; ``CompiledWhole.fits`` names those that are evaluated eagerly.
    """

    def __init__(self, network: NBodyNetwork, *, compile: bool = False) -> None:
        network = for_eager(network)
        self.network, self.compile = network, compile
        self._is_labelled = network.config.is_labelled
        self.compiled_calls = 0
        self._split = SplitHierarchy(network.one_hot.device)
        self._eager_steps, self._eager_whole = Steps(network), CudaGraphs(self._evaluate_whole)
        self._compiled_steps, self._compiled = CompiledSteps(network), CompiledWhole(network)
        self._compiled_whole = CudaGraphs(self._compiled)
        self._fallback = Fallback(_NOTICE)

    def __call__(
        self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor, total_charges: Tensor | None = None
    ) -> Prediction:
        """See ``potential.evaluate``."""
        given = (hierarchy, positions, cells, total_charges)
        if not self.compile or self._fallback.active or not self._compiled.fits(hierarchy):
            return self.eagerly(*given)
        try:
            found = self.compiled(*given)
            if self.compiled_calls % CHECK_EVERY == 0:
                _check(found, self.eagerly(*given), self.network)
            self.compiled_calls += 1
            return found
        except Exception as error:  # the compiler may be missing or have a bug
            failure = error.with_traceback(None)  # which would keep the memory of the failed evaluation
        # Code on a CPU does not say why it failed. Where memory runs out here too, it is not given up.
        found = self.eagerly(*given)
        if self.compiled_calls and is_out_of_memory(failure):  # otherwise it is the compiler that ran out of memory
            warnings.warn(f"{_NOTICE} this time: {first_line(failure)}", RuntimeWarning, stacklevel=2)
        else:
            self._fallback.take(failure)
        return found

    @property
    def n_parts(self) -> tuple[int, int]:
        """Parts in a block of the lowest level, and in one of the levels above."""
        return self._split.n_parts

    def in_blocks(self, hierarchy: Hierarchy, *, compiled: bool) -> bool:
        """Whether a hierarchy is so large that it is evaluated block by block; never with levels of labelled parts."""
        if self._is_labelled:
            return False
        kind = self.network.one_hot.device.type
        largest = WHOLE_ATOMS.get(kind, WHOLE_ATOMS["cuda"])
        if compiled and kind == "cpu":
            largest = min(largest, WHOLE_ATOMS_COMPILED * torch.get_num_threads())
        return len(hierarchy.numbers) > largest

    def eagerly(
        self,
        hierarchy: Hierarchy,
        positions: Tensor,
        cells: Tensor,
        total_charges: Tensor | None = None,
        *,
        blocks: bool | None = None,
    ) -> Prediction:
        """Evaluate operation by operation. ``blocks`` says whether block by block; None: as ``in_blocks`` says."""
        warm_up_vector_functions()
        geometry = self._geometry(positions, cells, total_charges)
        if self.in_blocks(hierarchy, compiled=False) if blocks is None else blocks:
            return self._evaluate_blocks(self._eager_steps, hierarchy, *geometry)
        if self._is_labelled:
            return self._evaluate_whole(hierarchy, *geometry)
        return self._eager_whole(hierarchy, *geometry)

    def compiled(
        self,
        hierarchy: Hierarchy,
        positions: Tensor,
        cells: Tensor,
        total_charges: Tensor | None = None,
        *,
        blocks: bool | None = None,
    ) -> Prediction:
        """Evaluate by native code, without a comparison. ``blocks``: see ``eagerly``.

        Raises:
            Exception: whatever the compiler raises.
        """
        warm_up_vector_functions()
        geometry = self._geometry(positions, cells, total_charges)
        if self.in_blocks(hierarchy, compiled=True) if blocks is None else blocks:
            self._compiled_steps.load()
            return self._evaluate_blocks(self._compiled_steps, hierarchy, *geometry)
        return (self._compiled if self._is_labelled else self._compiled_whole)(hierarchy, *geometry)

    def _geometry(self, positions: Tensor, cells: Tensor, total_charges: Tensor | None) -> tuple[Tensor, ...]:
        """The tensors that this network looks at: total charges only if it gives charges."""
        if not self.network.config.outputs:
            return positions, cells
        return positions, cells, cells.new_zeros(len(cells)) if total_charges is None else total_charges

    def _evaluate_whole(self, hierarchy: Hierarchy, *geometry: Tensor) -> Prediction:
        return evaluate(self.network, hierarchy, *geometry)

    def _evaluate_blocks(self, steps: Steps, hierarchy: Hierarchy, *geometry: Tensor) -> Prediction:
        with torch.inference_mode(False), torch.no_grad(), torch_threads(1) as threads:
            way = InBlocks(self._split(hierarchy), steps, threads)
            return evaluate(self.network, hierarchy, *geometry, way=way)


def _check(found: Prediction, expected: Prediction, network: NBodyNetwork) -> None:
    """Raise if compiled and eager evaluation differ by more than round-off.

    Raises:
        ArithmeticError: they differ; the message says in what and by how much.
    """
    largest = max(float(expected.forces.abs().max()), network.config.energy_scale)
    bounds = {"energies": largest, "forces": largest, "virials": largest * network.config.cutoff}
    bounds |= dict.fromkeys(expected.outputs, 1.0)
    for name, size in bounds.items():
        difference, bound = float((found[name] - expected[name]).abs().max()), TOLERANCE[network.dtype] * size
        if name in PER_STRUCTURE:  # a sum over the atoms, whose round-off grows with their number
            difference /= len(expected.energies)
        if not difference <= bound:
            raise ArithmeticError(f"its {name} differ from eager ones by {difference:.1e} (allowed: {bound:.1e})")
