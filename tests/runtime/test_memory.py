"""Freed memory is used again, and an evaluation that would not fit into memory is foreseen."""

import os
import platform
import subprocess
import sys
from random import Random

import pytest
import torch
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed

from ase_nbody import LevelConfig, NBodyCalculator, NBodyConfig, NBodyNetwork
from ase_nbody.data import LABELS, LabelledStructure
from ase_nbody.runtime import memory
from ase_nbody.runtime.evaluation import EvaluationError
from ase_nbody.runtime.memory import MostMemory, needed_memory
from ase_nbody.runtime.runner import Runner
from ase_nbody.structure import Structure
from ase_nbody.training.evaluation import evaluate_model

STEPS = """
import resource, sys, threading, torch
from ase_nbody.runtime.memory import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()
def steps():
    for step in range(30):
        if step == 5:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [torch.ones(size) for size in (1_000_000, 5_000_000, 12_000_000)]
        del blocks
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if "thread" in sys.argv:
    thread = threading.Thread(target=steps)
    thread.start()
    thread.join()
else:
    steps()
"""


def faults(*arguments):
    command = [sys.executable, "-c", STEPS, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize("where", ["here", "thread"])
def test_freed_memory_is_not_given_back(where):
    assert faults("keep", where) < 0.1 * faults(where)


LIMITED = {"memory.max": "9000", "memory.current": "5000", "memory.stat": "inactive_file 100"}


@pytest.mark.parametrize(
    ("line", "place", "files", "is_limited"),
    [
        ("0::/job/step", "job", LIMITED, True),
        (
            "4:memory:/job",
            "memory/job",
            {
                "memory.limit_in_bytes": "9000",
                "memory.usage_in_bytes": "5000",
                "memory.stat": "cache 200\ntotal_inactive_file 100",
            },
            True,
        ),
        ("0::/", "", LIMITED, True),
        ("4:memory:/docker/4a1f", "memory", {"memory.limit_in_bytes": "4100", "memory.usage_in_bytes": "0"}, False),
        ("0::/job", "job", {**LIMITED, "memory.max": "max"}, False),
    ],
    ids=["a job above", "version 1", "a container", "incomplete", "no limit"],
)
def test_a_batch_job_may_not_use_all_memory_of_its_machine(line, place, files, is_limited, monkeypatch, tmp_path):
    (tmp_path / "of_process").write_text(f"7:cpu:/\n{line}\n")
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (tmp_path / place / name).write_text(f"{content}\n")
    monkeypatch.setattr(memory, "_GROUPS_OF_PROCESS", tmp_path / "of_process")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    assert (memory.free_memory(torch.device("cpu")) == 4100.0) is is_limited


# --- what an evaluation takes ----------------------------------------------------------------------------------------

SIZES = {"channels": (1, 16, 100), "n_basis": (1, 8, 100), "n_radial": (1, 16), "message_channels": (1, 32)}
DEGREES = {"l_max": (0, 8), "l_out": (0, 8), "body_order": (2, 8)}
SYSTEMS = {"ethanol": "CH3CH2OH", "water": "H2O"}


def random_network(seed: int) -> NBodyNetwork:
    """A network of any shape that a configuration allows, within reason."""
    random = Random(seed)

    def level(number: int) -> LevelConfig:
        entries = {name: random.choice(sizes) for name, sizes in SIZES.items()}
        degrees = {name: random.randint(*bounds) for name, bounds in DEGREES.items()}
        return LevelConfig(**entries, **degrees, hidden=random.choice((1, 200)), radius=random.choice((2.0, 5.0)))

    levels = tuple(map(level, range(random.randint(1, 2))))
    network = NBodyNetwork(NBodyConfig(species=("H", "C", "O"), levels=levels)).requires_grad_(False)
    return network.to(random.choice((torch.float32, torch.float64)))


@pytest.mark.parametrize("seed", range(12))
def test_the_quick_bound_is_never_below_the_count(seed, hierarchy_of):
    """So no evaluation that does not fit escapes the count; and few that fit are counted."""
    network = random_network(seed)
    atoms = molecule(SYSTEMS[("ethanol", "water")[seed % 2]])
    if seed % 3 == 0:
        atoms.positions *= 10.0  # parts without children take memory, too
    hierarchy = hierarchy_of(network, atoms)
    assert 1.0 < MostMemory(network)(hierarchy) / needed_memory(network, hierarchy) < 15.0


MEASURED = """
import sys, torch
from ase.build import molecule
from ase_nbody import LevelConfig, NBodyConfig, NBodyNetwork
from ase_nbody.hierarchy.build import build_hierarchy
from ase_nbody.runtime.memory import needed_memory
from ase_nbody.runtime.runner import Runner
from ase_nbody.structure import Structure

def of_process(name):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

torch.set_num_threads(1)
high = {"l_max": 8, "l_out": 8, "hidden": 1}
structure = Structure.from_atoms(molecule("CH3CH2OH"))
geometry = torch.tensor(structure.positions), torch.tensor(structure.cell)[None]
for number, shape in (
    (2, {"channels": 4, "n_radial": 16, "message_channels": 16, "body_order": 2}),
    (1, {"channels": 64, "body_order": 8}),
):
    config = NBodyConfig(species=("H", "C", "O"), levels=(LevelConfig(**high, **shape),) * number)
    network = NBodyNetwork(config).requires_grad_(False)
    hierarchy = build_hierarchy(structure, config.layout)
    need = needed_memory(network, hierarchy)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = of_process("VmRSS")
    Runner(network)(hierarchy, *geometry)
    print(need, of_process("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux to measure peaks")
def test_the_count_is_the_measured_peak():
    """Also where the network's own matrices take the most: hundreds of megabytes for a molecule of nine atoms."""
    result = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    for line in result.stdout.splitlines():
        need, measured = map(float, line.split())
        assert measured > 50e6
        assert need == pytest.approx(measured, rel=0.3)


def test_bytes_count_and_not_neighbours(monkeypatch):
    """A network with large matrices is refused on a molecule, before it takes the memory."""
    monkeypatch.setattr(memory, "_SAFE_BYTES", 1e6)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1e6)
    monkeypatch.setattr(Runner, "__call__", lambda *_: pytest.fail("evaluated"))
    atoms = molecule("CH3CH2OH")
    network = random_network(0).double()
    atoms.calc = NBodyCalculator(network)
    with pytest.raises(CalculationFailed, match=r"out of memory: 9 atoms with .* free on cpu"):
        atoms.get_potential_energy()


def test_an_evaluation_of_a_set_has_the_same_guard(monkeypatch, make_network):
    monkeypatch.setattr(memory, "_SAFE_BYTES", 1e5)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1e5)
    missing = {label.name: label.missing(6) for label in LABELS}
    frame = LabelledStructure(Structure.from_atoms(molecule("CH3OH")), **missing)
    with pytest.raises(EvaluationError, match=r"^frames 0 to 2: out of memory: 18 atoms"):
        evaluate_model(make_network(), [frame] * 3)


def test_a_system_that_moves_is_counted_once(monkeypatch, make_network, hierarchy_of, systems):
    """The count takes longer than a step."""
    monkeypatch.setattr(memory, "_SAFE_BYTES", 1.0)
    counted = []
    monkeypatch.setattr(memory, "needed_memory", lambda *given: counted.append(given) or 1e6)
    network = make_network()
    guard = memory.MemoryGuard(network)
    for size in (1.0, 0.98, 0.97):
        atoms = systems["triclinic"]()
        atoms.set_cell(size * atoms.cell.array, scale_atoms=True)
        assert not guard.foresees_failure(hierarchy_of(network, atoms))
    assert len(counted) == 1
