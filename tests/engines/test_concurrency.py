"""Nothing left behind: threads, processes, and calculators that come and go change no result and leak nothing."""

import gc
import multiprocessing
import os
import threading
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import units
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB

from ase_nbody import NBodyCalculator
from ase_nbody.files.archive import save_model

WALKERS = 4


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    return str(save_model(network, tmp_path_factory.mktemp("model") / "model.nbody"))


@pytest.fixture
def structures(systems):
    """Methanol in many geometries."""
    atoms = systems["molecule"]()
    found = [atoms.copy() for _ in range(2 * WALKERS)]
    for number, copy in enumerate(found):
        copy.rattle(0.05, seed=number)
    return found


def evaluate(model, atoms):
    """Energy and forces by a calculator of its own."""
    atoms.calc = NBodyCalculator(model)
    return atoms.get_potential_energy(), atoms.get_forces().tolist()


def walk(model, atoms, steps=10):
    """Positions after a short run."""
    atoms = atoms.copy()
    atoms.calc = NBodyCalculator(model)
    VelocityVerlet(atoms, units.fs).run(steps)
    return atoms.positions.tolist()


def test_calculators_in_threads_give_the_bits_of_serial_ones(model, structures):
    """Two molecular-dynamics runs at a time, many times over, so that their steps interleave."""
    serial = [walk(model, atoms) for atoms in structures]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(walk, [model] * len(structures), structures)) == serial


def test_calculators_in_threads_may_share_one_network(network, structures):
    serial = [walk(network, atoms) for atoms in structures]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(walk, [network] * len(structures), structures)) == serial


def test_the_threads_did_run_at_the_same_time(model, structures):
    """Otherwise the tests above would show nothing. Both calculators wait for each other in mid-run."""
    meeting = threading.Barrier(2, timeout=60)

    def meet(atoms):
        atoms = atoms.copy()
        atoms.calc = NBodyCalculator(model)
        dynamics = VelocityVerlet(atoms, units.fs)
        dynamics.attach(meeting.wait, interval=1)
        dynamics.run(10)
        return atoms.positions.tolist()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(meet, structures[:2])) == [walk(model, atoms) for atoms in structures[:2]]


def test_workers_that_are_started_afresh(model, structures):
    serial = [evaluate(model, atoms.copy()) for atoms in structures]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        assert list(pool.map(evaluate, [model] * len(structures), structures)) == serial


def band(model, ends, parallel):
    images = [ends[0].copy() for _ in range(WALKERS)] + [ends[1].copy()]
    neb = NEB(images, parallel=parallel, method="improvedtangent")
    neb.interpolate()
    for image in images:
        image.calc = NBodyCalculator(model)
    return neb.get_forces(), [image.get_potential_energy() for image in images]


def test_a_band_whose_images_are_evaluated_in_threads(model, structures):
    """``NEB(parallel=True)`` uses one thread for each image."""
    (forces, energies), (others, again) = (band(model, structures[:2], parallel) for parallel in (True, False))
    assert np.abs(forces).max() > 0.1
    np.testing.assert_array_equal(forces, others)
    assert energies == again


@pytest.fixture
def _only_new_objects():
    """Objects from before are not counted, because what other tests have left may go at any time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def held() -> dict[str, int]:
    """What a process holds: objects, tensors, threads, open files."""
    gc.collect()
    objects = gc.get_objects()
    return {
        "objects": len(objects),
        "tensors": sum(torch.Tensor in type(each).__mro__ for each in objects),
        "calculators": sum(type(each) is NBodyCalculator for each in objects),
        "threads": len(os.listdir("/proc/self/task")),
        "files": len(os.listdir("/proc/self/fd")),
    }


def lifetimes(model, structures, count, keep=None) -> None:
    """Make, use and drop calculators; ``keep`` is called with each."""
    for number in range(count):
        atoms = structures[number % len(structures)].copy()
        atoms.calc = NBodyCalculator(model)
        atoms.get_forces()
        if keep is not None:
            keep(atoms.calc)


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads and files as Linux does")


@needs_proc
@pytest.mark.usefixtures("_only_new_objects")
def test_dropped_calculators_leave_nothing(model, structures):
    lifetimes(model, structures, 3)  # tables that are made once
    before = held()
    lifetimes(model, structures, 20)
    after = held()
    assert after.pop("objects") == pytest.approx(before.pop("objects"), abs=20)
    assert after == before


@needs_proc
@pytest.mark.usefixtures("_only_new_objects")
def test_a_leak_would_be_seen(model, structures):
    lifetimes(model, structures, 3)
    before, kept = held(), []
    lifetimes(model, structures, 3, keep=kept.append)
    after = held()
    assert after["calculators"] == before["calculators"] + 3
    assert after["tensors"] > before["tensors"] + 20
    assert after["objects"] > before["objects"] + 100


def traced(model, structures, count, keep=None) -> int:
    """Bytes of Python's memory, numpy's arrays included, that stay after some calculators have come and gone."""
    lifetimes(model, structures, 3)
    tracemalloc.start()
    try:
        lifetimes(model, structures, 3)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        lifetimes(model, structures, count, keep)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_memory_of_dropped_calculators_is_freed(model, structures):
    """What forty leave behind, in Python's own free lists, is less than what four hold."""
    kept = []
    four = traced(model, structures, 4, keep=kept.append)
    assert traced(model, structures, 40) < four


def resident() -> float:
    """Resident memory of the process in MB, with all that torch holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@needs_proc
def test_resident_memory_of_a_run_is_flat(model, systems):
    """A long run in which the atoms jump, so that neighbour lists are rebuilt at every step."""
    atoms = systems["triclinic"]()
    atoms.calc = NBodyCalculator(model, skin=0.0)
    sizes = []
    for step in range(200):
        atoms.rattle(0.01, seed=step)
        atoms.get_forces()
        sizes.append(resident())
    late = sizes[80:]
    assert np.polyfit(range(len(late)), late, 1)[0] < 0.01, "MB per step"
