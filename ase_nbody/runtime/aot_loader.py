"""Load compiled code with private interfaces of torch where they were tested, else with torch's public loader.

Both run the same code and give the same bits. The public loader holds the interpreter's lock while the code runs, so
that threads wait for each other.
"""

import ctypes
import errno
import functools
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ase_nbody.runtime.aot_cache import read_trusted
from ase_nbody.runtime.aot_package import unpacked
from ase_nbody.runtime.fallback import first_line

# Versions of torch whose private interfaces this package was tested with. Add one once tests/runtime passes with it.
TESTED_TORCH = ("2.13",)
MAX_LOADED_LIBRARIES = 64

Code = Callable[[list[Tensor], list[Tensor]], list[Tensor]]  # from weights and tensors to what the function returns


def torch_is_tested() -> bool:
    """Whether private interfaces of this version of torch may be used."""
    return ".".join(torch.__version__.split(".")[:2]) in TESTED_TORCH


@functools.lru_cache(maxsize=MAX_LOADED_LIBRARIES)
def load_code(path: str, device: torch.device, taken: str | None = None) -> Code:
    """The code that is kept in a file (see ``aot_package``), on the device that it was compiled for.

    Args:
        path: the file.
        device: the device.
        taken: what the code has to take (see ``signature``).

    If torch's public loader must be used, one sentence on stderr says so, once per process.

    Raises:
        UntrustedCodeError: other users may have written the file (see ``read_trusted``).
        DamagedCodeError: the file is damaged, or its code takes something else.
        OSError: the folder for temporary files is full.
        Exception: whatever torch's public loader raises.
    """
    content = unpacked(read_trusted(Path(path)), Path(path).stem, taken)
    with tempfile.TemporaryDirectory() as folder:  # loaders want a path, and nobody else can change this copy
        copy = Path(folder, "code.pt2")
        copy.write_bytes(content)
        return _load_copy(str(copy), device)


def _load_copy(path: str, device: torch.device) -> Code:
    """The code in a package that is needed only while it is loaded."""
    reason = f"was not tested with torch {torch.__version__}"
    if torch_is_tested():
        try:
            return _load_privately(path, device)
        except Exception as error:  # whatever an interface that is missing or has changed leads to
            if is_full(error):  # torch's loader would fail too, and leave its files behind
                raise
            reason = f"fails with torch {torch.__version__} ({first_line(error)})"
    code = _load_publicly(path, device)
    _say_once(reason)
    return code


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@functools.cache
def _say_once(reason: str) -> None:
    """A line on stderr, as for compiling. It is no warning: nothing is wrong, and a warning could be made an error."""
    print(
        f"Compiled code is run by torch's public loader, because the loader of ase-nbody {reason}. Results are the "
        "same, but threads that evaluate at the same time wait for each other.",
        file=sys.stderr,
        flush=True,
    )


def _load_publicly(path: str, device: torch.device) -> Code:
    """The code by ``torch._inductor.aoti_load_package``, which is what torch's documentation tells users to call."""
    if device.type == "cpu":
        model = torch._inductor.aoti_load_package(path)
    else:  # without locks between threads, which CUDA graphs cannot record; both options came after torch 2.6
        model = torch._inductor.aoti_load_package(path, run_single_threaded=True, device_index=_index(device))
    return lambda weights, tensors: list(model(weights, tensors))


def _load_privately(path: str, device: torch.device) -> Code:
    """The code by private interfaces of torch: the C interface on a CPU, torch's internal loader elsewhere."""
    if device.type == "cpu" and os.name == "posix":  # on Windows a library in use could not be removed from its folder
        return _CInterface(path)
    run = torch._C._aoti.AOTIModelPackageLoader(path, "model", True, 1, _index(device)).run
    return lambda weights, tensors: run([*weights, *tensors])


def _index(device: torch.device) -> int:
    return -1 if device.index is None else device.index


class _CInterface:
    """A library for a CPU by its C interface (torch's csrc/inductor/aoti_runtime/interface.h), for several threads.

    Unlike torch's own loaders it releases the interpreter's lock while the library runs.

    Raises:
        RuntimeError: the library cannot be set up, or a call of it failed; stderr says why.
        Exception: torch or the package lacks what this class needs.
    """

    def __init__(self, path: str) -> None:
        from torch._C import _aoti  # private, and so perhaps missing

        self._handles_of: Callable[[list[Tensor]], list[Any]] = _aoti.unsafe_alloc_void_ptrs_from_tensors
        self._tensors_of: Callable[[list[Any]], list[Tensor]] = _aoti.alloc_tensors_by_stealing_from_void_ptrs
        pointer, name, python = ctypes.c_void_p, ctypes.c_char_p, ctypes.pythonapi
        self._address_of = ctypes.PYFUNCTYPE(pointer, ctypes.py_object, name)(("PyCapsule_GetPointer", python))
        self._capsule_of = ctypes.PYFUNCTYPE(ctypes.py_object, pointer, name, pointer)(("PyCapsule_New", python))

        with zipfile.ZipFile(path) as package, tempfile.TemporaryDirectory() as folder:
            (library,) = [name for name in package.namelist() if name.endswith(".so")]
            self._library = ctypes.CDLL(package.extract(library, folder))
        self._run = self._function("Run")
        self._container, n_outputs = ctypes.c_void_p(), ctypes.c_size_t()
        max_threads = ctypes.c_size_t(os.cpu_count() or 1)  # that run the library at the same time
        _check(self._function("CreateWithDevice")(ctypes.byref(self._container), max_threads, b"cpu", None))
        _check(self._function("GetNumOutputs")(self._container, ctypes.byref(n_outputs)))
        self._n_outputs = n_outputs.value

    def __call__(self, weights: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
        inputs = _array(self._address_of(handle, None) for handle in self._handles_of([*weights, *tensors]))
        outputs = (ctypes.c_void_p * self._n_outputs)()
        sizes = ctypes.c_size_t(len(inputs)), ctypes.c_size_t(len(outputs))
        # The library takes over the handles of the inputs; those of the outputs become tensors.
        _check(self._run(self._container, inputs, sizes[0], outputs, sizes[1], None, None))
        return self._tensors_of([self._capsule_of(handle, None, None) for handle in outputs])

    def _function(self, name: str) -> Callable[..., int]:
        """A function of the library; it returns zero if all went well."""
        function: Callable[..., int] = getattr(self._library, f"AOTInductorModelContainer{name}")
        return function


def _array(addresses: Iterable[int | None]) -> "ctypes.Array[ctypes.c_void_p]":
    """Addresses as a C array."""
    found = list(addresses)
    return (ctypes.c_void_p * len(found))(*found)


def _check(status: int) -> None:
    if status:
        raise RuntimeError("the compiled code failed; stderr says why")
