"""``evaluate`` as native code, compiled ahead of time for any number of atoms and neighbours, and kept for next time.

Energy and pair gradients are traced to one graph of plain tensor operations with symbolic sizes, which AOTInductor
turns into a shared library. The weights are arguments of it: one library serves all networks of a configuration, a
committee's for instance. Libraries are kept in the user's own cache folder, never beside a model: a model that was
fetched from strangers cannot bring code with it.

Compiled code is not trusted: its first result, and every thousandth, is compared with eager evaluation. If they differ,
or compiling fails, a warning says why, once, and everything is evaluated eagerly from then on.
"""

import functools
import hashlib
import json
import math
import os
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from ase.data import atomic_numbers
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ase_nbody.blockwise import BlockwiseEvaluation
from ase_nbody.hierarchy import Hierarchy, build_hierarchy
from ase_nbody.network import NBodyNetwork
from ase_nbody.potential import Prediction, evaluate, pure_evaluation
from ase_nbody.structure import Structure

CHECK_EVERY = 1000  # evaluations
# Largest difference to eager evaluation: of forces in the largest force, of energies per atom in that times 1 Angstrom.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}

Library = Callable[..., list[Tensor]]


class CompiledEvaluation:
    """``evaluate`` of one network as compiled code, for one structure at a time.

    The library is loaded from the cache, or compiled (about a minute), at the first call. Structures with fewer than
    two atoms, parts, children or neighbours are evaluated eagerly, and large ones block by block, which is as fast.

    Args:
        network: the network, in its final dtype and place; its weights may change in place.
    """

    def __init__(self, network: NBodyNetwork) -> None:
        self.network = network
        self.calls = 0
        self._eager = BlockwiseEvaluation(network)
        self._library: Library | None = None
        self._failed = False

    def __call__(self, hierarchy: Hierarchy, positions: Tensor, cells: Tensor) -> Prediction:
        """As ``evaluate(network, hierarchy, positions, cells)``, and equal to it to round-off."""
        tables = hierarchy.tensors()
        if self._failed or len(cells) != 1 or _smallest(tables) < 2 or self._eager.pays(hierarchy):
            return self._eager(hierarchy, positions, cells)
        try:
            if self._library is None:
                self._library = load_library(self.network)
            energy, energies, forces, virials, *parts = self._library(
                [weight.detach() for weight in self.network.parameters()], tables, positions, cells
            )
            prediction = Prediction(energy, energies, forces, virials, tuple(parts))
            if self.calls % CHECK_EVERY == 0:
                _check(prediction, evaluate(self.network, hierarchy, positions, cells), self.network)
            self.calls += 1
        except Exception as error:  # whatever a compiler can fail with: a missing one, a bug of its own
            self._failed = True
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"evaluating without compiled code: {reason}", RuntimeWarning, stacklevel=2)
            return self._eager(hierarchy, positions, cells)
        return prediction

    def __getstate__(self) -> dict[str, Any]:
        """Copies and other processes load the library for themselves."""
        return {**self.__dict__, "_library": None}


def load_library(network: NBodyNetwork) -> Library:
    """The compiled code of the network's configuration, dtype and device: from the cache, or compiled now."""
    path = library_path(network)
    if not path.is_file():
        compile_library(network, path)
    return _load(str(path))


@functools.lru_cache(maxsize=16)
def _load(path: str) -> Library:
    return torch._inductor.aoti_load_package(path)


def library_path(network: NBodyNetwork) -> Path:
    """Where the compiled code of a network is kept, whether it is there yet or not.

    In the folder ``NBODY_CACHE`` of the environment, or the user's cache folder. The name depends on all that the code
    depends on: configuration, dtype, device, processor, versions of torch and of this package's sources.
    """
    device = network.one_hot.device
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    digest = hashlib.sha256(json.dumps(network.config.model_dump(mode="json"), sort_keys=True).encode())
    digest.update(f"{network.dtype} {device} {processor} {platform.machine()} {torch.__version__}".encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    folder = os.environ.get("NBODY_CACHE") or platformdirs.user_cache_path("ase-nbody")
    return Path(folder) / f"{digest.hexdigest()[:32]}.pt2"


def compile_library(network: NBodyNetwork, path: Path) -> None:
    """Compile the evaluation of a network into ``path``, which appears whole or not at all. Tells what it waits for.

    Raises:
        Exception: whatever torch's compiler fails with; there is no C++ compiler, for instance.
    """
    if network.one_hot.device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler  # heavy

        get_cpp_compiler()  # raises, before the minute is spent, if there is none
    kind = f"{str(network.dtype).removeprefix('torch.')}, {network.one_hot.device}"
    print(f"Compiling the network ({kind}): about a minute, once. Kept in {path.parent}", file=sys.stderr, flush=True)
    weights = [weight.detach() for weight in network.parameters()]
    hierarchy, positions, cells = _example(network)
    tables = hierarchy.tensors()
    if _smallest(tables) < 2:
        raise ValueError("a level of the network has no parts or children, whatever the structure")
    any_size, fixed = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    sizes = (
        [_axes(weight, fixed) for weight in weights],
        [_axes(table, any_size) | ({2: fixed} if table.dim() == 3 else {}) for table in tables],
        {0: any_size, 1: fixed},
        _axes(cells, fixed),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own inner workings
        arguments = (weights, tables, positions, cells)
        graph = make_fx(pure_evaluation(network), tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments)
        program = torch.export.export(graph, arguments, dynamic_shapes=sizes, strict=False)
        _refuse_fixed(program, sizes)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = path.with_name(f"{path.stem}-{os.getpid()}.pt2")
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(unfinished), inductor_configs={"cpp.dynamic_threads": True}
        )
    os.replace(unfinished, path)


def _refuse_fixed(program: torch.export.ExportedProgram, wanted: Any) -> None:
    """Raise if a size that was to be any became that of the example. The graph's last inputs are the arguments."""
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    axes = [*wanted[0], *wanted[1], *wanted[2:]]
    for node, kinds in zip(inputs[-len(axes) :], axes, strict=True):
        for axis, kind in kinds.items():
            size = node.meta["val"].shape[axis]
            if kind == torch.export.Dim.AUTO and isinstance(size, int):
                raise ValueError(f"size {size} of a table became a constant of the code")


def _smallest(tables: Sequence[Tensor]) -> int:
    """The smallest size of all tables; code for any size is code for at least two."""
    return min(min(table.shape) for table in tables)


def _axes(tensor: Tensor, kind: Any) -> dict[int, Any]:
    return dict.fromkeys(range(tensor.dim()), kind)


def _example(network: NBodyNetwork) -> tuple[Hierarchy, Tensor, Tensor]:
    """Some structure to trace with: every size is at least two, and the sizes differ wherever they may.

    None of them is a size of the weights or constants: the tracer would take one that it finds equal to such for
    another constant, and code for tables of 32 columns reads beyond those of 20.
    """
    fixed = {size for tensor in (*network.parameters(), *network.buffers()) for size in tensor.shape}
    fewest = max(27, 3 * len(network.config.species))
    for trial in range(100):
        structure = _grid(network, fewest + trial, narrowed=1.0 - 0.003 * trial)
        hierarchy = build_hierarchy(structure, network.config.layout)
        if not any(fixed & set(table.shape[:2]) for table in hierarchy.tensors()):
            device = network.one_hot.device
            cells = torch.tensor(structure.cell, device=device).unsqueeze(0)
            return hierarchy.to(device), torch.tensor(structure.positions, device=device), cells
    raise ValueError("no structure was found whose sizes all differ from those of the weights")


def _grid(network: NBodyNetwork, number: int, narrowed: float) -> Structure:
    """So many atoms of all species in turn near the points of a cubic grid, periodic in one direction."""
    rng = np.random.default_rng(0)
    per_side = math.ceil(round(number ** (1 / 3), 9))
    grid = np.stack(np.meshgrid(*[np.arange(per_side)] * 3), axis=-1).reshape(-1, 3)[:number]
    spacing = narrowed * min(2.0, 0.6 * min(level.radius for level in network.config.levels))
    species = network.config.species
    numbers = [atomic_numbers[species[i % len(species)]] for i in range(number)]
    return Structure(
        numbers=np.array(numbers),
        positions=spacing * (grid + rng.uniform(-0.1, 0.1, grid.shape)),
        cell=np.eye(3) * spacing * per_side,
        pbc=np.array([True, False, False]),
    )


def _check(found: Prediction, expected: Prediction, network: NBodyNetwork) -> None:
    """Raise if compiled and eager evaluation differ by more than round-off."""
    largest = max(float(expected.forces.abs().max()), network.config.energy_scale)
    bound = TOLERANCE[network.dtype] * largest
    for name in ("energies", "forces"):
        difference = float((getattr(found, name) - getattr(expected, name)).abs().max())
        if not difference <= bound:
            raise ArithmeticError(f"its {name} differ from eager ones by {difference:.1e} (allowed: {bound:.1e})")
