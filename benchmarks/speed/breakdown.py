"""Measure where the time of our step goes: ASE, neighbours, tables, forward, backward; and what the processor could do.

    python benchmarks/speed/breakdown.py STRUCTURE SIZE DTYPE THREADS DEVICE

It prints one line of JSON: milliseconds per step of each part, eager and compiled (compiled code is forward, backward
and sums in one); the GFLOP of the matrix products of one evaluation; and the measured peak of the processor's own
matrix product in GFLOP/s.
"""

import contextlib
import functools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from ase.calculators.calculator import Calculator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from worker import prepare, stepper

import ase_nbody.hierarchy.build
from ase_nbody.engines.calculator import NBodyCalculator
from ase_nbody.hierarchy.build import VerletHierarchy
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.compiled import CompiledSteps, CompiledWhole
from ase_nbody.runtime.runner import Runner

STEPS = 20
ROUNDS = 5
PARTS: tuple[tuple[str, Any, str], ...] = (
    ("calculator", NBodyCalculator, "calculate"),
    ("ASE", Calculator, "calculate"),  # copies the atoms
    ("tables", VerletHierarchy, "update"),
    ("neighbours", ase_nbody.hierarchy.build, "find_edges"),
    ("sums", Runner, "eagerly"),
    ("forward", NBodyNetwork, "ascend"),
    ("backward", torch.autograd, "grad"),
    ("compiled", CompiledWhole, "__call__"),
    ("compiled", CompiledSteps, "up"),
    ("compiled", CompiledSteps, "down"),
)


@contextlib.contextmanager
def timed() -> Iterator[Counter[str]]:
    """Count the seconds inside the context that each of the ``PARTS`` takes, without the parts that it calls."""
    spent: Counter[str] = Counter()
    inner = [0.0]

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            inner.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                passed = time.perf_counter() - began
                spent[name] += passed - inner.pop()
                inner[-1] += passed

        return call

    before = [getattr(owner, attribute) for _, owner, attribute in PARTS]
    for (name, owner, attribute), function in zip(PARTS, before, strict=True):
        setattr(owner, attribute, watched(name, function))
    try:
        yield spent
    finally:
        for (_, owner, attribute), function in zip(PARTS, before, strict=True):
            setattr(owner, attribute, function)


def break_down(task: dict[str, Any]) -> dict[str, float]:
    """Milliseconds per step of each part, in the fastest of several rounds."""
    atoms, _ = prepare(task)
    steps = stepper(atoms)
    steps(1)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        with timed() as spent:
            total = steps(STEPS, spent.clear)
        found = {name: 1e3 * seconds / STEPS for name, seconds in spent.items() if name != "ASE"}
        found = {"ASE": 1e3 * total - sum(found.values()), **found, "step": 1e3 * total}
        best = min(best or found, found, key=lambda one: one["step"])
    return best


class Products(TorchDispatchMode):
    """Inside the context, counts the floating-point operations of matrix products.

    Torch's own counter does not work with ``autograd.grad``. Operations on the device "meta" do not count, because
    nothing computes them: the calculator uses them to estimate the memory that a large system needs.
    """

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Evaluate one operation and count it."""
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count and result.device.type != "meta":
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result


def products(task: dict[str, Any]) -> float:
    """GFLOP of the matrix products of one evaluation, forward and backward."""
    atoms, _ = prepare(task)
    with Products() as counter:
        atoms.get_forces()
    return counter.flops / 1e9


def peak(dtype: str, device: str) -> float:
    """GFLOP/s of the product of two large matrices, the best of several."""
    size = 8192 if device == "cuda" else 1536
    matrix = torch.rand(size, size, dtype=getattr(torch, dtype), device=device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = []
    for _ in range(20):
        wait()
        began = time.perf_counter()
        matrix @ matrix
        wait()
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times) / 1e9


def main() -> None:
    structure, size, dtype, threads, device = sys.argv[1:]
    torch.set_num_threads(int(threads))
    task = {"module": "make_nbody", "structure": structure, "size": size, "dtype": dtype, "device": device}
    task["folder"] = Path.cwd()
    found: dict[str, Any] = {way: break_down({**task, "way": way}) for way in ("eager", "compiled")}
    found |= {"gflop": products({**task, "way": "eager"}), "peak": peak(dtype, device)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
