"""Imports run one way through the layout of the package, and importing it changes nothing in the process."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ase_nbody

ROOT = Path(ase_nbody.__file__).parent

# A room imports only from those above it: a file or a folder of ``ase_nbody``.
LAYOUT = """
undisturbed
text
terminal
electrons
structure
so3
hierarchy
nn
network
prediction
potential
files
runtime
data
engines
dynamics
training
testing
checks
cli
earlier
models
ase_names
ase_plugin
openmm_plugin
__init__
""".strip().splitlines()
RANK = {name: rank for rank, name in enumerate(LAYOUT)}
EARLIER_NAMES = {path.stem for path in (ROOT / "earlier").glob("[a-z]*.py")}

# Where the rooms below the calculator may use ASE at all: the structure reads Atoms, others only tables of constants.
TABLES = {"ase.data", "ase.units"}
ASE_ALLOWED = {"hierarchy": set(), "so3": set()} | dict.fromkeys(
    ("nn", "network", "potential", "runtime", "files"), TABLES
)
# The algebra knows no atoms; tests may rely on the checks without relying on what they check.
ONLY_OWN = {"so3": {"so3"}, "testing": {"so3"}, "hierarchy": {"structure"}}


def imported_modules(source: str) -> set[str]:
    """Full names of all that a file imports, within functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write it out"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def violations(part: str, source: str) -> list[str]:
    """What a file of a part of the package (a top-level module or folder) must not import."""
    found = []
    for name in sorted(imported_modules(source)):
        package, _, rest = name.partition(".")
        if package == "ase_nbody" and rest:
            target = rest.split(".")[0]
            if target in EARLIER_NAMES:
                found.append(f"{part} imports {name}, an earlier name")
            if target not in RANK:
                continue  # a name that ase_nbody/__init__.py offers
            if target != part and RANK[target] >= RANK[part]:
                found.append(f"{part} imports {name}, which is not above it")
            if part in ONLY_OWN and target != part and target not in ONLY_OWN[part]:
                found.append(f"{part} imports {name}")
        if name == "ase_nbody" and part not in ("cli", "models", "__init__"):
            found.extend([] if _imports_submodules_only(source) else [f"{part} imports the package as a whole"])
        if package == "ase" and part in ASE_ALLOWED:
            tables = ASE_ALLOWED[part]
            if not any(name == table or name.startswith(f"{table}.") for table in tables):
                found.append(f"{part} imports {name}")
    return found


def _imports_submodules_only(source: str) -> bool:
    """Whether ``from ase_nbody import ...`` takes only modules that the layout lists."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "ase_nbody":
            return all(alias.name in RANK for alias in node.names)
    return False


FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_one_way(path):
    part = path.parts[0].removesuffix(".py")
    assert part in RANK, f"{path} has no place in the layout yet: add {part} to LAYOUT here, below what it imports"
    assert not violations(part, (ROOT / path).read_text())


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("so3", "from ase_nbody.structure import Structure"),
        ("so3", "from ase_nbody.hierarchy import Level"),
        ("so3", "import ase"),
        ("so3", "from ase.data import covalent_radii"),
        ("structure", "from ase_nbody.hierarchy.neighbours import find_pairs"),
        ("nn", "from ase_nbody.network import NBodyNetwork"),
        ("nn", "import ase_nbody.potential"),
        ("nn", "from ase_nbody import potential"),
        ("network", "def late():\n    from ase_nbody.files.archive import load_model"),
        ("potential", "import ase"),
        ("potential", "from ase import Atoms"),
        ("potential", "from ase.database import connect"),
        ("potential", "from ase.calculators.calculator import Calculator"),
        ("potential", "from ase_nbody.engines.calculator import NBodyCalculator"),
        ("data", "from ase_nbody import load_model"),
        ("data", "from ase_nbody.training import run"),
        ("testing", "from ase_nbody.network import NBodyNetwork"),
        ("nn", "from ase_nbody.archive import load_model"),
        ("data", "import ase_nbody.calculator"),
        ("training", "from ase_nbody.cli import main"),
    ],
)
def test_a_violation_is_found(part, line):
    assert violations(part, line)


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("nn", "from ase_nbody.hierarchy import Level"),
        ("nn", "from ase_nbody.nn.radial import RadialBasis"),
        ("potential", "from ase.data import atomic_numbers"),
        ("network", "from ase_nbody.so3 import Type"),
        ("cli", "from ase_nbody import load_model"),
        ("structure", "import ase"),
    ],
)
def test_what_is_allowed_is_not_called_a_violation(part, line):
    assert not violations(part, line)


def test_a_relative_import_is_refused():
    with pytest.raises(AssertionError, match="relative import"):
        violations("nn", "from ..network import NBodyNetwork")


# --- who differentiates ----------------------------------------------------------------------------------------------


DIFFERENTIATE = {"grad", "backward", "vjp", "jvp", "jacrev", "jacfwd", "jacobian", "hessian"}


def differentiations(source: str) -> list[int]:
    """Lines of a file that call ``torch.autograd.grad``, ``.backward()`` or the like, under whatever name."""
    tree = ast.parse(source)
    aliases = [alias for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    names = DIFFERENTIATE | {alias.asname for alias in aliases if alias.name in DIFFERENTIATE and alias.asname}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if ast.unparse(call.func).split(".")[-1] in names]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_only_the_potential_and_the_training_differentiate(path):
    found = differentiations((ROOT / path).read_text())
    if path.parts[0] in ("potential.py", "training"):
        return
    assert not found, f"{path} differentiates in lines {found}: leave it to potential.down"


@pytest.mark.parametrize(
    "line",
    [
        "torch.autograd.grad(energy, x)",
        "loss.backward()",
        "from torch.autograd import grad\ngrad(energy, x)",
        "from torch.autograd import grad as slope\nslope(energy, x)",
        "import torch.autograd as ag\nag.grad(energy, x)",
        "torch.func.grad(energy)(x)",
        "torch.func.vjp(energy, x)",
    ],
)
def test_a_differentiation_is_found(line):
    assert differentiations(line)


# --- importing -------------------------------------------------------------------------------------------------------

SIDE_EFFECTS = """
import logging, os, random, signal, sys, threading, warnings
import numpy, torch

def state():
    return {
        "dtype": torch.get_default_dtype(), "device": str(torch.get_default_device()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()), "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(), "torch rng": torch.random.get_rng_state().tolist(),
        "numpy rng": numpy.random.get_state()[1].tolist(), "rng": random.getstate(), "environment": dict(os.environ),
        "numpy errors": numpy.geterr(), "log": (logging.root.level, list(logging.root.handlers)),
        "interrupt": signal.getsignal(signal.SIGINT), "folder": os.getcwd(), "hook": sys.excepthook,
        "python threads": threading.active_count(),
    }

before = state()
import ase_nbody
after = state()
changed = [name for name in before if before[name] != after[name]]
assert not changed, f"import ase_nbody changed {changed}"
for name in ase_nbody.__all__:
    getattr(ase_nbody, name)
after = state()
changed = [name for name in before if before[name] != after[name]]
assert not changed, f"importing the public names changed {changed}"
print([name for name in ("lightning", "matplotlib", "tensorboard") if name in sys.modules])
"""


def test_import_is_silent_and_without_side_effects(tmp_path):
    """It warns of nothing, sets nothing for the process, and loads no extra dependency."""
    command = [sys.executable, "-c", SIDE_EFFECTS]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("archive", "files.archive", "load_members"),
        ("calculator", "engines.calculator", "NBodyCalculator"),
        ("extrapolation", "runtime.extrapolation", "ExtrapolationWarning"),
        ("together", "engines.side_by_side", "relax_together"),
    ],
)
def test_documented_modules_keep_their_earlier_names(old, new, name, tmp_path):
    """In every way to import them, in a process that has imported nothing else."""
    source = f"""
import ase_nbody.{old} as first
from ase_nbody.{old} import {name}
from ase_nbody import {old} as second
import importlib, ase_nbody.{new}
assert first is second is ase_nbody.{new} is importlib.import_module("ase_nbody.{old}")
assert {name} is ase_nbody.{new}.{name}
"""
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr


OPERATIONS = """
import importlib, pkgutil, traceback
from torch.utils._python_dispatch import TorchDispatchMode

class Ours(TorchDispatchMode):
    found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        frames = [frame for frame in traceback.extract_stack() if "<string>" not in frame.filename]
        callers = [frame for frame in frames if "/torch/" not in frame.filename and "importlib" not in frame.filename]
        if callers and "ase_nbody" in callers[-1].filename:
            self.found.append(f"{callers[-1].filename}, line {callers[-1].lineno}: {func}")
        return func(*args, **(kwargs or {}))

with Ours() as ours:
    import ase_nbody
    for module in pkgutil.walk_packages(ase_nbody.__path__, "ase_nbody."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ImportError as error:
                if error.name not in ("ipi", "openmm", "openmmml", "torch_sim"):  # engines that are not installed
                    raise
    {more}
print("\\n".join(ours.found))
"""


@pytest.mark.parametrize("more", ["", "from ase_nbody.so3 import gaunt_matrix; gaunt_matrix(1, 1, 1)"])
def test_no_file_runs_a_torch_operation_at_import(more, tmp_path):
    """Those of other packages are their own affair. The second case shows that one of ours would be seen."""
    command = [sys.executable, "-c", OPERATIONS.replace("{more}", more)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert bool(result.stdout.strip()) == bool(more), result.stdout


def test_modules_are_attributes_of_the_package(tmp_path):
    """As they are after ``import ase_nbody`` alone; what is no module is no attribute."""
    source = """
import ase_nbody
assert ase_nbody.archive.load_members is ase_nbody.files.archive.load_members
assert ase_nbody.engines.calculator.NBodyCalculator is ase_nbody.NBodyCalculator
assert not hasattr(ase_nbody, "nothing") and not hasattr(ase_nbody, "__wrapped__")
"""
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
