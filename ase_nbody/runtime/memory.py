"""How much memory an evaluation takes, how much is free, and how a program keeps the memory that it frees."""

import copy
import ctypes
import math
import platform
import resource
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ase_nbody.hierarchy.tables import Hierarchy
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import evaluate
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.runtime.runner import Runner

# Ratio of the peak to what is kept for the backward pass, which makes gradients of nearly the same size (measured: 1.9
# to 2.2).
_PEAK = 2.0
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or numpy, on any device, says that memory has run out."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error) or "out of memory" in str(error)


def needed_memory(network: NBodyNetwork, hierarchy: Hierarchy) -> float:
    """Roughly how many bytes an evaluation takes at its peak, counted on tensors that have shapes but no contents."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    meta = torch.device("meta")
    shapes = hierarchy.to(meta)
    positions = torch.empty(len(hierarchy.numbers), 3, dtype=torch.float64, device=meta)
    cells = torch.empty(hierarchy.n_structures, 3, 3, dtype=torch.float64, device=meta)
    with saved_tensors_hooks(count, lambda tensor: tensor):
        evaluate(for_eager(copy.deepcopy(network).to(meta)), shapes, positions, cells)
    whole = _PEAK * sum(kept.values())
    runner = Runner(network)
    if not runner.in_blocks(hierarchy, compiled=False):
        return whole
    tables = sum(table.nbytes for table in hierarchy.tensors())  # the blocks hold them once more
    levels = zip(network.taus[1:], hierarchy.levels, strict=True)
    states = sum(tau.components * tau.channels * len(level.centre) for tau, level in levels)
    at_once = max(runner.n_parts) * (torch.get_num_threads() if network.one_hot.device.type == "cpu" else 1)
    share = min(at_once / len(hierarchy.numbers), 1.0)
    return tables + 2 * states * network.dtype.itemsize + whole * share


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
    return max(min(amounts), 0.0)


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
