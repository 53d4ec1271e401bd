"""Compiled code is held against eager evaluation, and must never be in the way."""

import copy
import pickle
import re
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet

from ase_nbody import NBodyCalculator, NBodyConfig, NBodyNetwork, save_model
from ase_nbody.network.config import LevelConfig
from ase_nbody.potential import evaluate
from ase_nbody.runtime import aot, aot_loader, blocks, compiled, runner
from ase_nbody.runtime.aot import Traceable, compile_library, kept_library, library_path, sizes_of_weights
from ase_nbody.runtime.aot_loader import load_code, torch_is_tested
from ase_nbody.runtime.aot_package import packed, signature
from ase_nbody.runtime.compiled import programs
from ase_nbody.runtime.formulas import for_eager
from ase_nbody.runtime.runner import Runner


@pytest.fixture
def _cached(native_code, monkeypatch):
    """The cache with all native code, and from here on no compiler."""
    monkeypatch.setenv("NBODY_CACHE", str(native_code))
    monkeypatch.setattr(aot, "compile_library", lambda *_: pytest.fail("compiled again"))


@pytest.fixture
def arguments(hierarchy_of, small_network):
    def make(atoms):
        positions, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
        return hierarchy_of(small_network, atoms), positions, cell.unsqueeze(0)

    return make


def assert_equal(found, expected, tolerance=1e-11):
    for name in ("energy", "energies", "forces", "virials"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=tolerance, atol=tolerance)
    for one, other in zip(found.parts, expected.parts, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("_cached")
def test_equals_eager_evaluation_on_every_system(system, arguments, small_network):
    """A single atom, or one without neighbours, gets ghosts for it."""
    given, evaluation = arguments(system), Runner(small_network, compile=True)
    for _ in range(2):
        assert_equal(evaluation(*given), evaluate(small_network, *given))
    assert evaluation.compiled_calls == (2 if len(system) else 0)


def test_every_choice_of_a_level_compiles(make_network, hierarchy_of, systems, native_code, monkeypatch):
    """One small network that takes all of them: its code gives what eager evaluation gives, for several sizes."""
    monkeypatch.setenv("NBODY_CACHE", str(native_code))
    small = {"channels": "2x0 + 1x1", "body_order": 3, "message_channels": 2, "hidden": 2, "n_basis": 3, "n_radial": 1}
    form = {"product": "clebsch_gordan", "parity": "both", "children_gate": True}
    levels = (LevelConfig(radius=4.0, l_out=1, **small), LevelConfig(radius=3.5, l_out=0, **small, **form))
    pairs = {"C-O": 1.1, "Na-Cl": 2.6}
    potential = {"lengths": pairs, "repulsion": pairs, "binding": {"C": 0.8, "Cl": 0.5}, "decay": (5.0, 1.2)}
    densest = ({"C": 2.0, "O": 2.0, "Cl": 0.5}, {"C": 2.0, "Na": 0.5})  # so that states have half faded
    network = make_network(levels=levels, densest=densest, embedded_atom=potential)
    evaluation = Runner(network, compile=True)
    for name in ("molecule", "triclinic", "slab in a box", "lone carbon"):
        atoms = systems[name]()
        given = hierarchy_of(network, atoms), torch.tensor(atoms.positions), torch.tensor(atoms.cell.array).unsqueeze(0)
        assert_equal(evaluation(*given), evaluate(network, *given))
    assert evaluation.compiled_calls == 4


@pytest.mark.usefixtures("_cached")
@pytest.mark.parametrize("repeats", [(2, 1, 1), (3, 2, 1), (3, 3, 3)])
def test_one_library_serves_all_sizes(repeats, arguments, small_network):
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(repeats)
    crystal.rattle(0.1, seed=0)
    given = arguments(crystal)
    evaluation = Runner(small_network, compile=True)
    assert_equal(evaluation(*given), evaluate(small_network, *given))
    assert evaluation.compiled_calls == 1


@pytest.mark.usefixtures("_cached")
@pytest.mark.parametrize("parts", [1, 3, 7])
def test_large_systems_are_evaluated_by_compiled_steps(parts, system, arguments, small_network, monkeypatch):
    """Block by block; blocks with fewer than two parts or rows are evaluated eagerly."""
    monkeypatch.setitem(blocks.BLOCK_PARTS, "cpu", (parts, parts))
    monkeypatch.setitem(runner.WHOLE_ATOMS, "cpu", 2 * parts)
    monkeypatch.setattr(runner, "CHECK_EVERY", 10**9)
    given = arguments(system)
    evaluation = Runner(small_network, compile=True)
    evaluation.compiled_calls = 1  # so that it is not checked by itself
    assert_equal(evaluation(*given), evaluate(small_network, *given))
    assert not evaluation._fallback.active


@pytest.mark.usefixtures("_cached")
def test_wrong_steps_are_noticed_and_abandoned(arguments, small_network, systems, monkeypatch):
    monkeypatch.setitem(blocks.BLOCK_PARTS, "cpu", (3, 3))
    monkeypatch.setitem(runner.WHOLE_ATOMS, "cpu", 6)
    given = arguments(systems["triclinic"]().repeat(2))
    load = compiled.load_library

    def wrong(network, name, trace):
        library = load(network, name, trace)
        return lambda *inputs: [1.001 * tensor for tensor in library(*inputs)] if name == "down-1" else library(*inputs)

    monkeypatch.setattr(compiled, "load_library", wrong)
    evaluation = Runner(small_network, compile=True)
    with pytest.warns(RuntimeWarning, match="differ from eager ones"):
        found = evaluation(*given)
    assert_equal(found, evaluate(small_network, *given))


@pytest.fixture
def _fresh_loader():
    """Before and after the test nothing is loaded, and nothing has been said."""
    load_code.cache_clear()
    aot_loader._say_once.cache_clear()
    yield
    load_code.cache_clear()
    aot_loader._say_once.cache_clear()


@pytest.fixture
def load_whole(native_code, small_network, monkeypatch):
    """Loads the code of the whole small network, by whichever loader is chosen."""
    monkeypatch.setenv("NBODY_CACHE", str(native_code))
    path = str(library_path(small_network, "whole"))  # a key of the version of torch that compiled it
    return lambda: load_code(path, torch.device("cpu"))


@pytest.fixture
def whole_arguments(arguments, small_network, systems):
    """Weights and tensors that this code takes."""
    hierarchy, positions, cells = arguments(systems["triclinic"]())
    return list(small_network.parameters()), [*hierarchy.tensors(), positions, cells]


def untested(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "99.1.0+cpu")


def without_private_functions(monkeypatch):
    monkeypatch.delattr(torch._C._aoti, "alloc_tensors_by_stealing_from_void_ptrs")


def failing_at_load(monkeypatch):
    def fail(path):
        raise RuntimeError("the compiled code failed")

    monkeypatch.setattr(aot_loader, "_CInterface", fail)


@pytest.mark.usefixtures("_fresh_loader")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (untested, "was not tested with torch 99.1.0"),
        (without_private_functions, "fails with torch .*alloc_tensors_by_stealing"),
        (failing_at_load, "fails with torch .*the compiled code failed"),
    ],
)
def test_both_loaders_give_the_same_bits(change, reason, load_whole, whole_arguments, monkeypatch, capsys):
    """Torch's public loader serves all versions; where it has to, one sentence on stderr says so once."""
    assert torch_is_tested(), "add this version to TESTED_TORCH once the tests of this folder pass with it"
    private, own_kind = load_whole(), aot_loader._CInterface
    assert isinstance(private, own_kind)
    expected = private(*whole_arguments)
    assert capsys.readouterr().err == ""

    change(monkeypatch)
    for _ in range(2):  # loaded anew, and silently the second time
        load_code.cache_clear()
        public = load_whole()
    said = capsys.readouterr().err
    assert re.search(reason, said)
    assert said.count("public loader") == 1
    found = public(*whole_arguments)
    assert not isinstance(public, own_kind)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("_fresh_loader")
def test_a_file_that_no_loader_reads_is_an_error(tmp_path, capsys):
    path = tmp_path / "damaged.code"
    path.write_bytes(packed(b"no package", "damaged", ""))
    with pytest.raises(Exception, match=r"(?i)zip|archive|package|file"):
        load_code(str(path), torch.device("cpu"))
    assert "public loader" not in capsys.readouterr().err


@pytest.mark.usefixtures("_cached")
def test_weights_are_read_at_every_call(arguments, small_network, systems):
    network, given = copy.deepcopy(small_network), arguments(systems["triclinic"]())
    evaluation = Runner(network, compile=True)
    before = evaluation(*given)
    with torch.no_grad():
        network.levels[0].read_out.linear.mul_(2.0)
    assert_equal(evaluation(*given), evaluate(network, *given))
    assert float((evaluation(*given).energy - before.energy).abs()) > 1e-6


@pytest.mark.usefixtures("_cached")
def test_the_calculator_runs_dynamics_on_it(small_network, systems):
    """The same trajectory as the eager calculator's, through rebuilt neighbour lists, pickled and copied."""
    positions = []
    for make in (
        lambda: NBodyCalculator(small_network),
        lambda: NBodyCalculator(small_network, compile=True, threads=1),
        lambda: pickle.loads(pickle.dumps(NBodyCalculator(small_network, compile=True))),
        lambda: copy.deepcopy(NBodyCalculator(small_network, compile=True)),
    ):
        atoms = systems["triclinic"]().repeat((2, 1, 1))
        atoms.calc = make()
        atoms.set_velocities(np.random.default_rng(0).normal(scale=0.05, size=(len(atoms), 3)))
        VelocityVerlet(atoms, 1.0 * units.fs).run(20)
        positions.append(atoms.positions)
    for other in positions[1:]:
        np.testing.assert_allclose(other, positions[0], atol=1e-9)


@pytest.mark.usefixtures("_cached")
@pytest.mark.parametrize("error", [1e-6, float("nan")])
def test_wrong_code_is_noticed_and_abandoned(error, arguments, small_network, systems, monkeypatch):
    given = arguments(systems["triclinic"]())
    library = compiled.load_library(small_network, "whole", compiled.trace_whole)

    def wrong(*inputs):
        energy, energies, forces, *rest = library(*inputs)
        return [energy, energies, forces + error, *rest]

    monkeypatch.setattr(compiled, "load_library", lambda *_: wrong)
    evaluation = Runner(small_network, compile=True)
    with pytest.warns(RuntimeWarning, match="forces differ from eager ones") as caught:
        found = evaluation(*given)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once, never again
        assert_equal(found, evaluate(for_eager(small_network), *given), tolerance=0.0)
        assert_equal(evaluation(*given), found, tolerance=0.0)


@pytest.mark.parametrize("error", [1e-6, float("nan")])
def test_wrong_virials_are_noticed(error, hierarchy_of, network, systems, monkeypatch):
    """Energies and forces may be right all the same, and a run at constant pressure would go wrong."""
    atoms = systems["triclinic"]()
    given = hierarchy_of(network, atoms), torch.tensor(atoms.positions), torch.tensor(atoms.cell.array[None])

    def wrong(self, hierarchy, *geometry):
        found = evaluate(network, hierarchy, *geometry)
        return replace(found, virials=found.virials + error)

    monkeypatch.setattr(runner.CompiledWhole, "__call__", wrong)
    with pytest.warns(RuntimeWarning, match="virials differ from eager ones"):
        found = Runner(network, compile=True)(*given)
    assert_equal(found, evaluate(network, *given))


@pytest.mark.parametrize(("error", "noticed"), [(5e-10, False), (1e-7, True), (float("nan"), True)])
def test_dipoles_are_compared_per_atom(error, noticed, hierarchy_of, make_network, systems, monkeypatch):
    """Their round-off grows with the number of atoms: large molecules need not give up their code for it."""
    network = make_network(outputs=("charges",))
    atoms = systems["molecule"]()
    given = hierarchy_of(network, atoms), torch.tensor(atoms.positions), torch.zeros(1, 3, 3, dtype=torch.float64)

    def wrong(self, hierarchy, *geometry):
        found = evaluate(network, hierarchy, *geometry)
        return replace(found, outputs={**found.outputs, "dipole": found["dipole"] + len(atoms) * error})

    monkeypatch.setattr(runner.CompiledWhole, "__call__", wrong)
    evaluation = Runner(network, compile=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluation(*given)
    assert [("dipole differ" in str(warning.message)) for warning in caught] == [True] * noticed


@pytest.mark.usefixtures("_cached")
def test_code_is_checked_again_after_many_calls(arguments, small_network, systems, monkeypatch):
    given = arguments(systems["triclinic"]())
    evaluation = Runner(small_network, compile=True)
    monkeypatch.setattr(runner, "CHECK_EVERY", 3)
    evaluation(*given)
    library = evaluation._compiled._library
    evaluation._compiled._library = lambda *inputs: [1.001 * tensor for tensor in library(*inputs)]
    evaluation(*given)
    evaluation(*given)
    with pytest.warns(RuntimeWarning, match="differ"):
        assert_equal(evaluation(*given), evaluate(for_eager(small_network), *given), tolerance=0.0)


@pytest.mark.parametrize("error", [RuntimeError("the compiled code failed; stderr says why"), MemoryError()])
def test_code_is_not_given_up_where_nothing_else_has_memory(error, arguments, small_network, systems, monkeypatch):
    """A system that is too large says nothing of smaller ones."""
    given, calls = arguments(systems["molecule"]()), []

    def code(self, *inputs):
        calls.append(inputs)
        if len(calls) == 2:
            raise error
        return evaluate(for_eager(small_network), *inputs)

    monkeypatch.setattr(runner.CompiledWhole, "__call__", code)
    evaluation = Runner(small_network, compile=True)
    evaluation(*given)
    with monkeypatch.context() as patch:
        patch.setattr(runner.Runner, "eagerly", Mock(side_effect=MemoryError))
        with pytest.raises(MemoryError):
            evaluation(*given)
    evaluation(*given)
    assert len(calls) == 3


def test_code_that_ran_out_of_memory_once_is_called_again(arguments, small_network, systems, monkeypatch):
    given, calls = arguments(systems["molecule"]()), []

    def code(self, *inputs):
        calls.append(inputs)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(for_eager(small_network), *inputs)

    monkeypatch.setattr(runner.CompiledWhole, "__call__", code)
    evaluation = Runner(small_network, compile=True)
    evaluation(*given)
    with pytest.warns(RuntimeWarning, match="without compiled code this time: CUDA out of memory"):
        evaluation(*given)
    evaluation(*given)
    assert len(calls) == 3


def test_without_a_compiler_all_goes_on(small_network, systems, tmp_path, monkeypatch):
    monkeypatch.setenv("NBODY_CACHE", str(tmp_path))
    atoms, other = systems["triclinic"](), systems["triclinic"]()
    atoms.calc, other.calc = NBodyCalculator(small_network, compile=True), NBodyCalculator(small_network)
    with (
        torch._inductor.config.patch({"cpp.cxx": (str(tmp_path / "none"),)}),
        pytest.warns(RuntimeWarning, match="evaluating without compiled code"),
    ):
        assert atoms.get_potential_energy() == other.get_potential_energy()
    assert not list(tmp_path.glob("*.code"))


def test_where_several_need_the_code_at_once_one_compiles(small_network, monkeypatch, tmp_path):
    monkeypatch.setenv("NBODY_CACHE", str(tmp_path))
    compiled_by = []

    def compile_slowly(network, traceable, path):
        compiled_by.append(threading.get_ident())
        time.sleep(0.2)
        path.write_bytes(content)

    traceable = Traceable(lambda *_: (), [torch.zeros(11)], [(0,)])
    name = library_path(small_network, "whole").stem
    content = packed(b"code", name, signature(list(small_network.parameters()), traceable.tensors, traceable.free))
    monkeypatch.setattr(aot, "compile_library", compile_slowly)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(kept_library, small_network, "whole", lambda _: traceable) for _ in range(4)]
        paths = {one.result() for one in waiting}
    assert len(compiled_by) == 1
    assert [path.read_bytes() for path in paths] == [content]
    kept_library(small_network, "whole", lambda _: traceable, anew=True)
    assert len(compiled_by) == 2


def test_the_command_compiles_once(small_network, native_code, tmp_path, monkeypatch, nbody):
    """Into the cache, where the library is found the second time: by another name of the file, for a committee."""
    monkeypatch.setenv("NBODY_CACHE", str(native_code))
    other = copy.deepcopy(small_network)
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    save_model([small_network, other], tmp_path / "pair.nbody")
    code, out, err = nbody("compile", "--large", tmp_path / "pair.nbody")
    assert (code, err) == (0, "")
    for name in ("whole", "up-0", "down-0", "down-1"):
        assert str(library_path(small_network, name)) in out


def test_a_library_belongs_to_one_configuration_dtype_and_cache(small_network, network, monkeypatch, tmp_path):
    single = copy.deepcopy(small_network).to(torch.float32)
    paths = {library_path(one, "whole") for one in (small_network, single, network)}
    assert len(paths) == 3
    assert library_path(copy.deepcopy(small_network), "whole") in paths
    monkeypatch.setenv("NBODY_CACHE", str(tmp_path))
    assert library_path(network, "whole").parent == tmp_path


@pytest.mark.parametrize("channels", [32, 64])
@pytest.mark.parametrize("species", [("H", "C", "N", "O"), ("H", "O"), ("Si",)])
def test_the_example_has_no_size_of_the_weights(species, channels):
    """Four species, 32 channels: the table of heavy atoms had 32 columns, which became a constant of the code."""
    levels = (
        LevelConfig(channels=channels),
        LevelConfig(parts="heavy", children="heavy", channels=channels, l_out=0),
    )
    model = NBodyNetwork(NBodyConfig(species=species, levels=levels))
    for trace in programs(model, large=True).values():
        traceable = trace(model)
        free = {
            tensor.shape[axis] for tensor, axes in zip(traceable.tensors, traceable.free, strict=True) for axis in axes
        }
        assert not free & sizes_of_weights(model)
        assert len({id(tensor) for tensor in traceable.tensors}) == len(traceable.tensors)


def test_a_size_that_became_a_constant_is_refused(small_network, tmp_path):
    """``len`` makes the size of the example one, and code for 11 rows would read beyond tables of 5."""

    def fixed(weights, tensors):
        return (tensors[0] + torch.zeros(len(tensors[0])),)

    path = tmp_path / "some-name.pt2"
    with pytest.raises(ValueError, match="size 11 of a table became a constant"):
        compile_library(small_network, Traceable(fixed, [torch.zeros(11)], [(0,)]), path)
    assert not path.exists()
