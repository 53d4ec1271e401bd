"""Functions of tensors as native code: compiled ahead of time for any sizes, and kept for next time.

A function of a network's weights and some tensors is traced to one graph of plain tensor operations with symbolic
sizes, which AOTInductor turns into a shared library. The weights are arguments of it: one library serves all networks
of a configuration, a committee's for instance. Libraries are kept in the user's own cache folder, never beside a model:
a model that was fetched from strangers cannot bring code with it.
"""

import ctypes
import functools
import hashlib
import json
import os
import platform
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import torch
from filelock import FileLock
from torch import Tensor
from torch._C import _aoti
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from ase_nbody.network.network import NBodyNetwork

Library = Callable[[Sequence[Tensor]], list[Tensor]]  # from a ``Traceable``'s tensors to what its function gives


@dataclass(frozen=True)
class Traceable:
    """A function, and what it is traced with.

    Attributes:
        function: of the weights in the order of ``network.parameters()`` and of a list of tensors, to tensors.
        tensors: an example of the latter. Axes of one size are taken to have one size always, and an axis as long as
            one of the weights or constants would become a constant (see ``sizes_of_weights``).
        free: for each of them, the axes that may have any size of at least two.
    """

    function: Callable[[list[Tensor], list[Tensor]], tuple[Tensor, ...]]
    tensors: list[Tensor]
    free: list[tuple[int, ...]]


def load_library(network: NBodyNetwork, name: str, trace: Callable[[NBodyNetwork], Traceable]) -> Library:
    """The compiled code of what ``trace`` gives for networks of this configuration: from the cache, or compiled now.

    It reads the network's weights, which may change in place, at every call.
    """
    code = _load(str(kept_library(network, name, trace)), network.one_hot.device)
    weights = [weight.detach().contiguous() for weight in network.parameters()]

    def library(tensors: Sequence[Tensor]) -> list[Tensor]:
        """The code reads memory in the order that the example had, whatever the strides say."""
        return code([*weights, *(tensor.contiguous() for tensor in tensors)])

    return library


def kept_library(
    network: NBodyNetwork, name: str, trace: Callable[[NBodyNetwork], Traceable], *, anew: bool = False
) -> Path:
    """Path of that code, compiled now where it is not kept yet or wanted ``anew``.

    Of several processes that need it at once, one compiles and the others wait: torch's compiler works in a cache that
    they share, and packs what another one has half written.
    """
    path = library_path(network, name)
    if path.is_file() and not anew:
        return path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(path.with_suffix(".lock")):
        if anew or not path.is_file():
            compile_library(network, trace(network), path)
    return path


@functools.lru_cache(maxsize=64)
def _load(path: str, device: torch.device) -> Callable[[list[Tensor]], list[Tensor]]:
    """The code in a file, as a function of all weights and tensors."""
    if device.type == "cpu" and os.name == "posix":  # elsewhere a library that is in use cannot be removed
        return _Code(path)
    # Without its own bookkeeping of threads, which could not be recorded (see ``Replay``).
    index = -1 if device.index is None else device.index
    return torch._C._aoti.AOTIModelPackageLoader(path, "model", True, 1, index).run


class _Code:
    """A library for a CPU by its C interface (torch's csrc/inductor/aoti_runtime/interface.h), for several threads.

    Torch's own loader holds the interpreter's lock while the library works, so that threads would wait for each other.

    Raises:
        RuntimeError: the library cannot be loaded, or failed; it says on stderr why.
    """

    def __init__(self, path: str) -> None:
        with zipfile.ZipFile(path) as package, tempfile.TemporaryDirectory() as folder:
            (name,) = [name for name in package.namelist() if name.endswith(".so")]
            self._library = ctypes.CDLL(package.extract(name, folder))
        self._container, n_outputs = ctypes.c_void_p(), ctypes.c_size_t()
        most = ctypes.c_size_t(os.cpu_count() or 1)  # threads at a time
        self._call("CreateWithDevice", ctypes.byref(self._container), most, b"cpu", None)
        self._call("GetNumOutputs", self._container, ctypes.byref(n_outputs))
        self._n_outputs = n_outputs.value

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        handles = [_address(handle, None) for handle in _aoti.unsafe_alloc_void_ptrs_from_tensors(tensors)]
        given, found = (ctypes.c_void_p * len(handles))(*handles), (ctypes.c_void_p * self._n_outputs)()
        sizes = ctypes.c_size_t(len(given)), ctypes.c_size_t(len(found))
        self._call("Run", self._container, given, sizes[0], found, sizes[1], None, None)  # takes the handles over
        return _aoti.alloc_tensors_by_stealing_from_void_ptrs([_capsule(handle, None, None) for handle in found])

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, f"AOTInductorModelContainer{name}")(*arguments):
            raise RuntimeError(f"the compiled code failed in {name}")


_address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


def library_path(network: NBodyNetwork, name: str) -> Path:
    """Where the compiled code of a network's function is kept, whether it is there yet or not.

    In the folder ``NBODY_CACHE`` of the environment, or the user's cache folder. The file's name depends on all that
    the code depends on: configuration, dtype, device, processor, versions of torch and of this package's sources.
    """
    device = network.one_hot.device
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    digest = hashlib.sha256(json.dumps(network.config.model_dump(mode="json"), sort_keys=True).encode())
    digest.update(f"{network.dtype} {device} {processor} {platform.machine()} {torch.__version__}".encode())
    digest.update(_sources())
    folder = os.environ.get("NBODY_CACHE") or platformdirs.user_cache_path("ase-nbody")
    return Path(folder) / f"{digest.hexdigest()[:32]}-{name}.pt2"


@functools.cache
def _sources() -> bytes:
    """Hash of this package's sources."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.digest()


def compile_library(network: NBodyNetwork, traceable: Traceable, path: Path) -> None:
    """Compile a function into ``path``, in a folder that exists; it appears whole or not at all. Says what is awaited.

    Raises:
        Exception: whatever torch's compiler fails with; there is no C++ compiler, for instance.
        ValueError: a size that was to be any became a constant of the code.
    """
    if network.one_hot.device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler  # heavy

        get_cpp_compiler()  # raises, before minutes are spent, if there is none
    kind = f"{path.stem.partition('-')[2]}, {str(network.dtype).removeprefix('torch.')}, {network.one_hot.device}"
    notice = f"Compiling the network ({kind}): one to three minutes, once. Kept in {path.parent}"
    print(notice, file=sys.stderr, flush=True)
    weights = [weight.detach() for weight in network.parameters()]
    sizes = ([_axes(weight, ()) for weight in weights], list(map(_axes, traceable.tensors, traceable.free)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own inner workings
        arguments = (weights, traceable.tensors)
        graph = make_fx(traceable.function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments)
        program = torch.export.export(graph, arguments, dynamic_shapes=sizes, strict=False)
        _refuse_fixed(program, sizes[1])
        unfinished = path.with_name(f"{path.stem}-{os.getpid()}.pt2")
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(unfinished), inductor_configs={"cpp.dynamic_threads": True}
        )
    os.replace(unfinished, path)


def _axes(tensor: Tensor, free: Sequence[int]) -> dict[int, object]:
    any_size, fixed = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    return {axis: any_size if axis in free else fixed for axis in range(tensor.dim())}


def _refuse_fixed(program: torch.export.ExportedProgram, wanted: list[dict[int, object]]) -> None:
    """Raise if a size that was to be any became that of the example. The graph's last inputs are the tensors."""
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node, kinds in zip(inputs[-len(wanted) :], wanted, strict=True):
        for axis, kind in kinds.items():
            size = node.meta["val"].shape[axis]
            if kind == torch.export.Dim.AUTO and is_concrete_int(size):
                raise ValueError(f"size {size} of a table became a constant of the code")


def sizes_of_weights(network: NBodyNetwork) -> set[int]:
    """All sizes of weights and constants, which no free axis of an example may have.

    The tracer would take one that it finds equal to such for another constant, and code for tables of 32 columns reads
    beyond those of 20.
    """
    return {size for tensor in (*network.parameters(), *network.buffers()) for size in tensor.shape}


def smallest(tensors: Sequence[Tensor]) -> int:
    """The smallest size of all tensors; code for any size is code for at least two."""
    return min(min(tensor.shape) for tensor in tensors)
