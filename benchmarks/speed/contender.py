"""The models that take part, and the process that runs the steps of one of them."""

import contextlib
import json
import os
import select
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODULES = {
    "NBody": ("make_nbody", "own"),
    "MACE": ("make_mace", "mace"),
    "NequIP": ("make_nequip", "nequip"),
    "TensorNet": ("make_tensornet", "torchmd-net"),
}
# For all processes, as ``nbody`` does for itself: memory that is freed stays with the process. The system would clear
# pages that a process returns and takes again, and that takes time.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_TOP_PAD_": str(2**27)}


@dataclass(frozen=True)
class Model:
    """A model that is timed.

    Attributes:
        package: a key of ``MODULES``, which gives the module that makes the calculator, and the environment.
        size: a size that this module knows.
        way: ``eager``, ``compiled``, or ``cuEquivariance`` (with NVIDIA's kernels, only on a GPU).
    """

    package: str
    size: str
    way: str

    @property
    def name(self) -> str:
        """The name in the tables."""
        return self.package + f" {self.size}" + ("" if self.way == "eager" else f", {self.way}")


MODELS = (
    *(Model("NBody", size, way) for size in ("small", "medium", "record") for way in ("eager", "compiled")),
    *(
        Model("MACE", size, way)
        for size in ("64x0e", "128x0e+128x1o", "256x0e+256x1o+256x2e")
        for way in ("eager", "compiled", "cuEquivariance")
    ),
    *(
        Model("NequIP", size, way)
        for size in ("4 layers, l=1", "5 layers, l=3")
        for way in ("compiled", "cuEquivariance")
    ),
    Model("TensorNet", "128 x 2 layers", "eager"),
)


class Failure(Exception):
    """A model does not take part; the message says why."""


class Contender:
    """A process that holds a model and a structure.

    Args:
        python: the interpreter of the environment.
        task: the argument of ``worker.py``, which describes the entries.
        log: the file that gets the output of the process.
    """

    def __init__(self, python: Path, task: dict[str, Any], log: Path) -> None:
        own = {"OMP_NUM_THREADS": str(task["threads"]), "TORCHINDUCTOR_COMPILE_THREADS": "1", **KEEP_MEMORY}
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log.open("w")
        self.process = subprocess.Popen(
            [str(python), str(HERE / "worker.py"), json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **own},
        )

    def answer(self, patience: float) -> dict[str, Any]:
        """Wait for the next answer and return it.

        Raises:
            Failure: the answer did not come within ``patience`` seconds, or it is an error.
        """
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], patience)[0]:
            raise Failure(f"no answer within {patience:.0f} s")
        line = self.process.stdout.readline()
        found = json.loads(line) if line else {"error": f"ended with code {self.process.wait()}"}
        if "error" in found:
            raise Failure(found["error"])
        return found

    def steps(self, number: int, patience: float) -> dict[str, Any]:
        """Take ``number`` steps, and return the seconds per step and the largest memory so far in MB."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended, and ``answer`` reports that
            self.process.stdin.write(f"{number}\n")
            self.process.stdin.flush()
        return self.answer(patience)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.log.close()
