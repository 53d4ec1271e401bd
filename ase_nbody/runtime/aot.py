"""Functions of tensors as native code: compiled ahead of time for any sizes, and kept for later use.

A function of a network's weights and some tensors is traced to one graph of plain tensor operations with symbolic
sizes, and AOTInductor turns the graph into a shared library. The weights are arguments of the library, so one library
serves all networks of a configuration, such as the members of a committee. Libraries are kept in the user's own cache
folder (see ``aot_cache``) and never beside a model: a model from a stranger cannot bring code with it.
"""

import io
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from ase_nbody.files.writing import write_whole
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.aot_cache import cache_folder, read_trusted, trusted_place
from ase_nbody.runtime.aot_key import library_key
from ase_nbody.runtime.aot_loader import is_full, load_code, torch_is_tested
from ase_nbody.runtime.aot_package import DamagedCodeError, packed, signature, unpacked
from ase_nbody.runtime.fallback import first_line
from ase_nbody.runtime.torch_cache import private_torch_cache

Library = Callable[[Sequence[Tensor]], list[Tensor]]  # from the tensors of a ``Traceable`` to what its function returns


@dataclass(frozen=True)
class Traceable:
    """A function, and what it is traced with.

    Attributes:
        function: takes the weights in the order of ``network.parameters()`` and a list of tensors; returns tensors.
        tensors: an example of that list. An axis that is not free always has the size that it has here. No free axis
            may be as long as one of the weights or constants (see ``sizes_of_weights``), or it would become a constant.
        free: for each tensor, the axes that may have any size of at least two.
    """

    function: Callable[[list[Tensor], list[Tensor]], tuple[Tensor, ...]]
    tensors: list[Tensor]
    free: list[tuple[int, ...]]


def load_library(network: NBodyNetwork, name: str, trace: Callable[[NBodyNetwork], Traceable]) -> Library:
    """The compiled code of what ``trace`` returns: from the cache, or compiled now.

    It reads the network's weights at every call; they may change in place.

    Raises:
        Exception: see ``kept_library``.
        RuntimeError: the code cannot be loaded; the message says how to get it anew.
    """
    traceable = trace(network)
    path = kept_library(network, name, lambda _: traceable)
    try:
        code = load_code(str(path), network.one_hot.device, _taken(network, traceable))
    except Exception as error:
        if is_full(error):
            place = tempfile.gettempdir()
            raise RuntimeError(f"{path} cannot be loaded, because {place} is full: make room there") from error
        raise RuntimeError(
            f"{path} cannot be loaded ({first_line(error)}): remove it, and it is compiled anew"
        ) from error
    weights = [weight.detach().contiguous() for weight in network.parameters()]

    def library(tensors: Sequence[Tensor]) -> list[Tensor]:
        """The code ignores strides and reads memory in the order that the example had."""
        return code(weights, [tensor.contiguous() for tensor in tensors])

    return library


def kept_library(
    network: NBodyNetwork, name: str, trace: Callable[[NBodyNetwork], Traceable], *, anew: bool = False
) -> Path:
    """The path of the compiled code, which is compiled now if it is not kept yet, is damaged, or is wanted ``anew``.

    If several processes need it at once, one compiles and the others wait: torch's compiler works in a cache that they
    share, and would pack what another process has half written. If other users may have written to ``library_path``,
    the code is kept elsewhere (see ``trusted_place``).

    Raises:
        Exception: see ``compile_library``.
        DamagedCodeError: the file is damaged, and this user may not replace it.
    """
    path, traceable = trusted_place(library_path(network, name)), trace(network)
    taken = _taken(network, traceable)
    if not anew and _damage(path, taken) is None:
        return path
    try:
        with FileLock(path.with_suffix(".lock"), mode=0o600):
            if anew or _damage(path, taken) is not None:
                compile_library(network, traceable, path)
    except PermissionError as error:  # of the lock, or of the file
        if not path.exists():
            raise
        reason, remedy = _damage(path, taken) or "as asked", "remove it, or set NBODY_CACHE to another folder"
        raise DamagedCodeError(f"this user may not replace {path} ({reason}): {remedy}") from error
    return path


def _damage(path: Path, taken: str) -> str | None:
    """Why the code that takes this cannot be loaded from a file; None if it can."""
    try:
        unpacked(read_trusted(path), path.stem, taken)
    except FileNotFoundError:
        return "it is not there"
    except DamagedCodeError as error:
        return str(error)
    return None


def _taken(network: NBodyNetwork, traceable: Traceable) -> str:
    return signature(list(network.parameters()), traceable.tensors, traceable.free)


def library_path(network: NBodyNetwork, name: str) -> Path:
    """Where the compiled code of a network's function is kept, whether it is there yet or not.

    The folder is ``NBODY_CACHE`` of the environment, or the user's cache folder. The file's name begins with a key of
    all that the code depends on (see ``library_key``).
    """
    return cache_folder() / f"{library_key(network)}-{name}.code"


def compile_library(network: NBodyNetwork, traceable: Traceable, path: Path) -> None:
    """Compile a function into ``path``, in a folder that exists. The file appears whole or not at all.

    Torch's compiler works in a folder of this user alone (see ``torch_cache``).

    A line on stderr tells the user what the process is waiting for.

    Raises:
        Exception: whatever torch's compiler raises, for instance if there is no C++ compiler.
        ValueError: a size that was to be free became a constant of the code.
        OSError: the file cannot be written, for instance because the disk is full.
    """
    if network.one_hot.device.type == "cpu" and torch_is_tested():  # other versions of torch find out after tracing
        from torch._inductor.cpp_builder import get_cpp_compiler  # private, and heavy

        with private_torch_cache():
            get_cpp_compiler()  # raises, before minutes are spent, if there is none
    kind = f"{path.stem.partition('-')[2]}, {str(network.dtype).removeprefix('torch.')}, {network.one_hot.device}"
    notice = f"Compiling the network ({kind}): this takes one to three minutes, once. The code is kept in {path.parent}"
    print(notice, file=sys.stderr, flush=True)
    with private_torch_cache():
        package = _package(network, traceable)
    write_whole(path, packed(package, path.stem, _taken(network, traceable)), private=True)


def _package(network: NBodyNetwork, traceable: Traceable) -> bytes:
    """The compiled function in torch's own form (``.pt2``)."""
    weights = [weight.detach() for weight in network.parameters()]
    sizes = ([_axes(weight, ()) for weight in weights], list(map(_axes, traceable.tensors, traceable.free)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own inner workings
        arguments = (weights, traceable.tensors)
        graph = make_fx(traceable.function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments)
        program = torch.export.export(graph, arguments, dynamic_shapes=sizes, strict=False)
        _refuse_fixed(program, sizes[1])
        package = io.BytesIO()  # torch's writer of files would end the process if the disk were full
        torch._inductor.aoti_compile_and_package(
            program, package_path=package, inductor_configs={"cpp.dynamic_threads": True}
        )
    return package.getvalue()


def _axes(tensor: Tensor, free: Sequence[int]) -> dict[int, object]:
    """For each axis, whether its size is free or that of the example, in the words of ``torch.export``."""
    any_size, fixed = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    return {axis: any_size if axis in free else fixed for axis in range(tensor.dim())}


def _refuse_fixed(program: torch.export.ExportedProgram, wanted: list[dict[int, object]]) -> None:
    """Raise if a size that was to be free became that of the example. The graph's last inputs are the tensors."""
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node, kinds in zip(inputs[-len(wanted) :], wanted, strict=True):
        for axis, kind in kinds.items():
            size = node.meta["val"].shape[axis]
            if kind == torch.export.Dim.AUTO and is_concrete_int(size):
                raise ValueError(f"size {size} of a table became a constant of the code")


def sizes_of_weights(network: NBodyNetwork) -> set[int]:
    """All sizes of weights and constants. No free axis of an example may have one of them.

    The tracer would take the size of such an axis for that of the weight, and the code for tables of 32 columns would
    read beyond the end of tables of 20.
    """
    return {size for tensor in (*network.parameters(), *network.buffers()) for size in tensor.shape}


def smallest(tensors: Sequence[Tensor]) -> int:
    """The smallest size of any axis of the tensors. Compiled code needs at least two on every free axis."""
    return min(min(tensor.shape) for tensor in tensors)
