"""How much memory an evaluation takes, how much is free, and how a program keeps the memory that it frees."""

import contextlib
import ctypes
import math
import platform
import resource
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ase_nbody.hierarchy.tables import Hierarchy
from ase_nbody.network.config import LevelConfig
from ase_nbody.network.level import LevelTypes, NBodyLevel, n_functions
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.nn.gates import FirstOrderGate, ZerothOrderGate
from ase_nbody.nn.heads import ReadOut
from ase_nbody.nn.mixing import Mixing
from ase_nbody.nn.radial import RadialBasis
from ase_nbody.nn.species import SpeciesGain
from ase_nbody.nn.weights import undrawn_weights
from ase_nbody.potential import evaluate
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.runtime.runner import Runner
from ase_nbody.so3 import SphereQuadrature, SphericalHarmonics, Type

# Layers whose tensors ``MostMemory`` knows. Where a level has others, an evaluation is counted, unless it is tiny.
_KNOWN_LAYERS = (
    NBodyLevel,
    RadialBasis,
    Mixing,
    FirstOrderGate,
    ZerothOrderGate,
    SpeciesGain,
    ReadOut,
    SphericalHarmonics,
    SphereQuadrature,
)
_UNKNOWN_NUMBERS = 1e6  # for each edge and part
_SAFE_BYTES = 2.0**30  # by ``MostMemory``: such an evaluation takes a few hundred megabytes
_GROUPS_OF_PROCESS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Options of glibc's mallopt(3): the number of blocks that come straight from the system, the free bytes at which a heap
# shrinks, and the bytes that it then keeps.
_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_TOP_PAD = -4, -1, -2


def keep_freed_memory() -> None:
    """Let the process reuse up to 2 GiB of the memory that it frees, instead of giving it back to the system.

    Steps of a training or of dynamics free and take the same megabytes each time, and the system clears each page anew.
    That took a quarter of a training step. Each thread has heaps of its own, of 64 MiB, so that what it frees stays in
    its processor's cache. A heap must keep more than that, or glibc would still give back one that is empty. The
    setting holds for the whole process, so only a program (``nbody``) should make it, never a library. Without glibc
    this does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_M_TOP_PAD, 2**27)


class MemoryGuard:
    """Foresees evaluations that do not fit into memory: Linux would grant the memory and kill the process that uses it.

    The count takes some tenths of a second. It is made only where ``MostMemory`` exceeds what fitted before.

    Args:
        network: the network that evaluates. Its sizes must not change.
    """

    def __init__(self, network: NBodyNetwork) -> None:
        self._network = network
        self._most = MostMemory(network)
        self._fits = _SAFE_BYTES

    def foresees_failure(self, hierarchy: Hierarchy) -> bool:
        """Whether an evaluation needs more memory than there is."""
        most = self._most(hierarchy)
        if most <= self._fits:
            return False
        need, free = needed_memory(self._network, hierarchy), free_memory(hierarchy.numbers.device)
        if need >= free:
            return True
        self._fits = most * max(1.0, min(1.5, 0.5 * free / need))  # a system that moves needs no new count
        return False


class MostMemory:
    """More bytes than an evaluation takes at once, from the sizes of the tables and of the network alone.

    For each level it adds up the sizes of the tensors, each with the number of copies that the way up and the way down
    may have at the same time. What depends on the network is added up once, because every step of dynamics asks.
    """

    def __init__(self, network: NBodyNetwork) -> None:
        self._bytes = network.dtype.itemsize
        levels = zip(network.config.levels, network.taus, network.levels, strict=False)
        self._levels = [_numbers(config, below, level) for config, below, level in levels]

    def __call__(self, hierarchy: Hierarchy) -> float:
        """The bytes for a hierarchy of the network's layout."""
        numbers = 0.0
        for each, tables in zip(self._levels, hierarchy.levels, strict=False):
            numbers += each.edge * tables.child.numel() + each.part * tables.child.shape[0]
            numbers += each.parent * tables.parents.shape[-1]
        return numbers * self._bytes + 3 * hierarchy.n_bytes


class _Numbers(NamedTuple):
    """How many numbers an evaluation holds for each edge, part and parent of a level."""

    edge: float
    part: float
    parent: float


def _numbers(config: LevelConfig, below: Type, level: torch.nn.Module) -> _Numbers:
    if not all(isinstance(layer, _KNOWN_LAYERS) for layer in level.modules()):
        return _Numbers(_UNKNOWN_NUMBERS, _UNKNOWN_NUMBERS, 0.0)
    types, harmonics, n_degrees = LevelTypes.of(below, config), (config.l_max + 1) ** 2, config.l_max + 1
    n_basis = n_functions(config)
    n = types.n_radial or n_basis
    points = max((one.points for one in level.modules() if isinstance(one, SphereQuadrature)), default=0)
    message = types.message.components * types.message.channels
    edge = 100 + 8 * n_basis + 12 * harmonics + 4 * message
    part = 6 * types.gathered.components * types.gathered.channels
    if types.n_radial is None:
        edge += 6 * n * message
    else:
        edge += 4 * n * (n_degrees + harmonics)
        part += 3 * n * harmonics * message
    part += 3 * below.components * below.channels + 8 * types.state.components * types.state.channels
    part += (3 + 3 * config.body_order) * points * types.state.channels
    part += 6 * types.products.components * types.products.channels
    part += 6 * types.handed_up.components * types.handed_up.channels + 6 * config.hidden
    return _Numbers(edge, part, 3 * message)


class _Peak(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make and that are still alive, and the peak of this number."""

    def __init__(self, present: Iterable[Tensor]) -> None:
        """``present``: tensors that exist already and are not counted."""
        super().__init__()
        self.bytes, self.peak = 0, 0
        self._present = [tensor.untyped_storage() for tensor in present]
        self._alive = set(map(id, self._present))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it makes."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.bytes -= size


def needed_memory(network: NBodyNetwork, hierarchy: Hierarchy) -> float:
    """Roughly how many bytes an evaluation takes at its peak, counted on tensors that have shapes but no contents."""
    meta = torch.device("meta")
    with undrawn_weights():
        shapes_of_weights = NBodyNetwork(network.config).to(device=meta, dtype=network.dtype).requires_grad_(False)
    tables = hierarchy.to(meta)
    positions = torch.empty(len(hierarchy.numbers), 3, dtype=torch.float64, device=meta)
    cells = torch.empty(hierarchy.n_structures, 3, 3, dtype=torch.float64, device=meta)
    present = [*shapes_of_weights.parameters(), *shapes_of_weights.buffers(), *tables.tensors(), positions, cells]
    with _Peak(present) as counted:
        evaluate(for_eager(shapes_of_weights), tables, positions, cells)
    runner = Runner(network)
    if not runner.in_blocks(hierarchy, compiled=False):
        return float(counted.peak)
    own_tables = hierarchy.n_bytes  # the blocks hold them once more
    levels = zip(network.taus[1:], hierarchy.levels, strict=True)
    states = sum(tau.components * tau.channels * len(level.centre) for tau, level in levels)
    at_once = max(runner.n_parts) * (torch.get_num_threads() if network.one_hot.device.type == "cpu" else 1)
    share = min(at_once / len(hierarchy.numbers), 1.0)
    return own_tables + 2 * states * network.dtype.itemsize + counted.peak * share


def free_memory(device: torch.device) -> float:
    """Bytes that are still free on a device; infinite where the system does not tell."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + unused)
    amounts = [math.inf]
    if Path("/proc/meminfo").is_file():
        lines = Path("/proc/meminfo").read_text().splitlines()
        amounts += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            amounts.append(float(limit - resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])))
    return max(min([*amounts, *_left_by_groups()]), 0.0)


def _left_by_groups() -> Iterator[float]:
    """Bytes that each control group of this process leaves it: Linux kills what a container or a batch job exceeds."""
    lines = _GROUPS_OF_PROCESS.read_text().splitlines() if _GROUPS_OF_PROCESS.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            top, limit, used, cached = _GROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit = _GROUPS / "memory", "memory.limit_in_bytes"
            used, cached = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        group = top / path.lstrip("/")  # within a container this folder may be missing, and the top one has its limit
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                with contextlib.suppress(OSError, ValueError, KeyError):  # no limit, or it may not be read
                    amounts = [int((folder / name).read_text()) for name in (limit, used)]
                    shares = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    yield float(amounts[0] - amounts[1] + int(shares[cached]))  # what is cached can be dropped


def too_large(network: NBodyNetwork, hierarchy: Hierarchy) -> str:
    """A sentence that says how much memory an evaluation needs and how many atoms would fit."""
    device, atoms = hierarchy.numbers.device, len(hierarchy.numbers)
    need, free = needed_memory(network, hierarchy), free_memory(device)
    pairs = max(int(level.mask.sum()) for level in hierarchy.levels)
    fitting = max(1, int(atoms * min(free / need, 0.9)))
    return (
        f"out of memory: {atoms} atoms with {pairs} neighbours in all need about {need / 1e9:.2g} GB, and "
        f"{free / 1e9:.2g} GB are free on {device}: about {fitting} atoms would fit. "
        "Take a smaller system, dtype='float32', which needs half, or a device with more memory."
    )
