"""Whatever the program around has set in torch, has forked or runs at the same time: the results are the same."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import ase
import numpy as np
import pytest
import torch

from ase_nbody import Evaluator, NBodyCalculator, NBodyNetwork, load_model
from ase_nbody.engines import evaluate_together
from ase_nbody.files.archive import save_model
from ase_nbody.runtime.threads import ThreadLock
from ase_nbody.so3.clebsch_gordan import clebsch_gordan, gaunt_coefficient
from ase_nbody.structure import Structure


@pytest.fixture(scope="module")
def model(make_network, tmp_path_factory):
    """A committee of two files."""
    folder = tmp_path_factory.mktemp("models")
    members = [make_network(seed, repulsion=True) for seed in range(2)]
    return [str(save_model(member, folder / f"{number}.nbody")) for number, member in enumerate(members)]


@pytest.fixture
def _nothing_kept():
    """Constants that are computed once are computed anew, under what a test sets."""
    clebsch_gordan.cache_clear()
    gaunt_coefficient.cache_clear()


@pytest.fixture
def structures(systems):
    """Methanol in many geometries."""
    found = [systems["molecule"]() for _ in range(8)]
    for number, atoms in enumerate(found):
        atoms.rattle(0.05, seed=number)
    return found


# --- inference mode, default device and dtype -------------------------------------------------------------------------


@pytest.mark.usefixtures("_nothing_kept")
def test_made_and_used_in_inference_mode_and_after_it(model, systems):
    atoms, crystal = systems["molecule"](), systems["triclinic"]()
    with torch.inference_mode():
        calc = NBodyCalculator(model)
        forces = calc.get_property("forces", atoms)
        assert len(calc.evaluate([crystal, atoms])) == 2
        spread = calc.forces_spread
    expected = NBodyCalculator(model)  # what is kept for all networks was made in inference mode
    np.testing.assert_array_equal(expected.get_property("forces", atoms), forces)
    np.testing.assert_array_equal(expected.forces_spread, spread)
    calc.reset()
    np.testing.assert_array_equal(calc.get_property("forces", atoms), forces)
    np.testing.assert_array_equal(calc.get_property("stress", crystal), expected.get_property("stress", crystal))


@pytest.mark.usefixtures("_nothing_kept")
def test_networks_made_or_changed_in_inference_mode(make_config, network, systems):
    atoms = systems["molecule"]()
    with torch.inference_mode():
        made = NBodyNetwork(make_config())
        changed = copy.deepcopy(network).to(torch.float32).to(torch.float64)
    for one in (made, changed):
        single = copy.deepcopy(one)
        calc = NBodyCalculator(one)
        assert np.isfinite(calc.get_property("forces", atoms)).all()
        assert not any(tensor.is_inference() for tensor in calc.networks[0].buffers())
        assert np.isfinite(NBodyCalculator(single, dtype="float32").get_property("forces", atoms)).all()
    assert all(weight.requires_grad and not weight.is_inference() for weight in made.parameters())


@pytest.fixture
def _default_device():
    torch.set_default_device("meta")  # tensors there have no numbers, so that one of them spoils everything
    yield
    torch.set_default_device(None)


@pytest.mark.usefixtures("_nothing_kept")
def test_a_default_device(model, systems, request):
    atoms, periodic = systems["molecule"](), systems["triclinic"]()
    expected = NBodyCalculator(model)
    request.getfixturevalue("_default_device")
    calc = NBodyCalculator(model)
    for one in (atoms, periodic):
        np.testing.assert_array_equal(calc.get_property("forces", one), expected.get_property("forces", one))
    assert calc.evaluate([atoms, periodic])[0]["energy"] == pytest.approx(expected.get_property("energy", atoms))
    assert len(calc.part_energies) == 2
    assert pickle.loads(pickle.dumps(calc)).networks[0].one_hot.device.type == "cpu"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_default_dtype(dtype, model, systems):
    expected = NBodyCalculator(model).get_property("forces", systems["molecule"]())
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        calc = NBodyCalculator(model)
        np.testing.assert_array_equal(calc.get_property("forces", systems["molecule"]()), expected)
    finally:
        torch.set_default_dtype(before)


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["calculator", "together", "evaluator"])
def test_one_engine_of_several_threads(engine, model, structures):
    """Every thread asks for the results of its own structure; all begin at once, again and again."""
    shared = NBodyCalculator(model)
    alone = NBodyCalculator(model)
    expected = [(alone.get_property("energy", one), alone.get_property("forces", one)) for one in structures]
    if engine == "together":
        evaluate_together(shared, structures)
    begin = threading.Barrier(len(structures), timeout=60)

    def evaluated(number):
        atoms = structures[number]
        if engine == "evaluator":
            found = shared.evaluator.follow(Structure.from_atoms(atoms))
            return found.mean("energy"), found.mean("forces")
        if engine == "calculator":
            atoms.calc = shared
        return atoms.get_potential_energy(), atoms.get_forces()

    def work(number):
        found = []
        for _ in range(6):
            begin.wait()
            if engine == "together":
                structures[number].calc.reset()
            found.append(evaluated(number))
        return found

    with ThreadPoolExecutor(len(structures)) as pool:
        for results, (energy, forces) in zip(pool.map(work, range(len(structures))), expected, strict=True):
            for found in results:
                assert found[0] == pytest.approx(energy, rel=1e-13)
                np.testing.assert_allclose(found[1], forces, atol=1e-11)


def test_a_lock_is_free_in_every_copy():
    """Also while another thread holds the original."""
    lock = ThreadLock()
    with lock, lock:
        for twin in (copy.copy(lock), copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
            with ThreadPoolExecutor(1) as pool, twin:
                assert pool.submit(lambda: 1).result(timeout=10) == 1
            entered = threading.Thread(target=lambda twin=twin: twin.__enter__())
            entered.start()
            entered.join(timeout=10)
            assert not entered.is_alive()


# --- forked processes -------------------------------------------------------------------------------------------------

FORKED = """
import multiprocessing, sys, threading
import torch
from ase.build import molecule
from ase_nbody import NBodyCalculator

torch.set_num_threads(2)
parent = NBodyCalculator(sys.argv[1:], threads=2)

def evaluate(seed, calc=None):
    atoms = molecule("CH3OH", vacuum=2.0).repeat((2, 2, 2))  # enough for torch to share the work
    atoms.rattle(0.05, seed=seed)
    found = (calc or NBodyCalculator(sys.argv[1:], threads=2)).evaluate([atoms, molecule("CH3OH")])
    return [(results["energy"], results["forces"].tolist()) for results in found]

def with_parents(seed):
    return evaluate(seed, parent)

serial = [with_parents(seed) for seed in range(2)]
holding = threading.Event()
def hold():
    with parent.evaluator.lock:
        holding.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()  # another thread evaluates at the moment of the fork
holding.wait()
with multiprocessing.get_context("fork").Pool(2) as pool:
    inherited, own = pool.map_async(with_parents, range(2)), pool.map_async(evaluate, range(2))
    print(inherited.get(timeout=100) == serial, own.get(timeout=100) == serial, torch.get_num_threads())
"""


def test_forked_workers_do_not_wait_for_the_threads_of_their_parent(model):
    """The parent has evaluated with two threads, and the workers are asked to use two as well."""
    command = [sys.executable, "-W", "error", "-c", FORKED, *model]
    patient = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # threads that wait leave the processors to the others
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=patient)
    assert result.stdout == "True True 2\n", result.stderr


def test_a_loaded_network_and_an_evaluator_of_it(make_config, tmp_path, systems):
    """The doors below the calculator."""
    with torch.inference_mode():
        torch.manual_seed(0)
        path = save_model(NBodyNetwork(make_config()), tmp_path / "model.nbody")
        network = load_model(path)
        evaluator = Evaluator(network)
    assert not any(tensor.is_inference() for tensor in network.state_dict().values())
    atoms: ase.Atoms = systems["molecule"]()
    found = evaluator.follow(Structure.from_atoms(atoms)).mean("forces")
    np.testing.assert_array_equal(found, NBodyCalculator(path).get_property("forces", atoms))
