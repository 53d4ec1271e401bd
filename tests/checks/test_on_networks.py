"""The checks on N-body networks, with everything that other calculators do not offer."""

import pytest

from ase_nbody import LevelConfig, NBodyCalculator, NBodyNetwork
from ase_nbody.checks import CHECKS, COMPILED, run_checks
from ase_nbody.checks.case import make_case
from ase_nbody.checks.reproducibility import _arguments
from ase_nbody.nn.heads import VectorHead
from ase_nbody.runtime import blocks, compiled
from ase_nbody.training.compiled_step import CompiledPotential

SYMMETRIES = ("rotation", "inversion", "permutation", "translation", "determinism", "float32", "parts")


@pytest.fixture(scope="module")
def calculator(make_network):
    isolated = {"H": -13.6, "C": -1029.1, "O": -2041.3}
    network = make_network(species=("H", "C", "O"), isolated_atom_energies=isolated, repulsion=True)
    return NBodyCalculator(network)


def test_the_case_of_a_committee_and_of_its_settings(make_network, systems):
    """A pair is judged by what all members have seen; single precision is evaluated as the calculator is."""
    seen = ({"H-O": 0.9, "H-C": 1.0}, {"H-O": 1.1})
    members = [make_network(seed, closest_distances=one) for seed, one in enumerate(seen)]
    case = make_case(NBodyCalculator(members, threads=1, skin=0.3), systems["molecule"]())
    assert case.closest == {"H-O": 1.1}
    assert (case.float32.parameters["threads"], case.float32.parameters["skin"]) == (1, 0.3)
    assert case.float32.parameters["dtype"] == "float32"


@pytest.mark.parametrize("system", ["molecule", "triclinic", "wire", "lone carbon"])
def test_a_random_network_passes_what_does_not_depend_on_weights(system, calculator, systems, failures):
    assert not failures(calculator, systems[system](), *SYMMETRIES, "forces", "stress", "far copies", "supercell")


def test_per_atom_stresses_agree_with_their_definition(calculator, systems, failures):
    assert not failures(calculator, systems["molecule"](), "stresses")


def test_the_molecule_may_lose_an_atom_smoothly(calculator, systems, failures):
    assert not failures(calculator, systems["molecule"](), "leaving atom")


def test_a_network_with_a_kink_fails(calculator, systems, failures, monkeypatch):
    """With (1 - (r/R)^2) as the cutoff function, only the curvature of the energy jumps."""

    def kinked(distance, radius):
        return (1.0 - (distance / radius).square()).clamp(min=0.0)

    for module in ("radial", "repulsion"):
        monkeypatch.setattr(f"ase_nbody.nn.{module}.cutoff_function", kinked)
    failed = failures(calculator, systems["molecule"](), "leaving atom")
    assert any("curvature" in finding.measured for finding in failed)


def test_part_energies_that_do_not_sum_are_found(calculator, systems, failures, monkeypatch):
    parts = NBodyCalculator.part_energies.fget
    shifted = property(lambda self: [level._replace(energies=level.energies + 1e-6) for level in parts(self)])
    monkeypatch.setattr(NBodyCalculator, "part_energies", shifted)
    (failed,) = failures(calculator, systems["molecule"](), "parts")
    assert "hierarchy" in failed.measured


def test_charges_and_dipoles_are_checked_too(make_network, make_config, systems, failures, monkeypatch):
    first, second = make_config().levels
    network = make_network(levels=(first, second.model_copy(update={"l_out": 1})), outputs=("charges",))
    ion = systems["molecule"]()
    ion.info["charge"] = 1
    calculator = NBodyCalculator(network)
    assert not failures(calculator, ion, *SYMMETRIES)

    def fixed_in_space(self, fragments, one_hot):
        return fragments.sum(-1) + fragments.new_tensor([0.1, 0.0, 0.0]).unsqueeze(1)

    monkeypatch.setattr(VectorHead, "forward", fixed_in_space)
    failed = failures(calculator, ion, "rotation")
    assert failed
    assert all("dipole" in finding.note for finding in failed)


def test_committees_and_single_precision_are_checked_too(network, make_network, systems, failures):
    committee = NBodyCalculator([network, make_network(1)])
    assert not failures(committee, systems["molecule"](), *SYMMETRIES)
    single = NBodyCalculator(network, dtype="float32")
    assert failures(single, systems["molecule"](), "rotation"), "float32 is not good to 1e-10"


# The network claims to have seen few pairs of species, which is not what these tests are about.
of_native_code = pytest.mark.filterwarnings("ignore::ase_nbody.ExtrapolationWarning")


@pytest.fixture
def native(small_network, native_code, systems, monkeypatch):
    """A calculator whose native code is there, and a structure; blocks are so small that it has several."""
    monkeypatch.setenv("NBODY_CACHE", str(native_code))
    monkeypatch.setitem(blocks.BLOCK_PARTS, "cpu", (3, 2))
    return NBodyCalculator(small_network), systems["slab"]().repeat((2, 1, 1))


@of_native_code
@pytest.mark.parametrize("name", ["compiled", "compiled blocks"])
def test_native_code_passes(name, native):
    calculator, atoms = native
    (finding,) = run_checks(calculator, [atoms], only=[name])
    assert (finding.check, finding.outcome) == (name, "passed")
    assert 0.0 < finding.value < 1e-10, "the same bits: it is not native code that was compared"


@of_native_code
@pytest.mark.parametrize(("name", "program"), [("compiled", "whole"), ("compiled blocks", "down-1")])
def test_wrong_native_code_fails(name, program, native, monkeypatch):
    """It is the code itself that is judged, not the calculator that would give it up."""
    load = compiled.load_library

    def wrong(network, loaded, trace):
        library = load(network, loaded, trace)
        return lambda *inputs: [(1.0 + 1e-8 * (loaded == program)) * tensor for tensor in library(*inputs)]

    monkeypatch.setattr(compiled, "load_library", wrong)
    calculator, atoms = native
    (finding,) = run_checks(calculator, [atoms], only=[name])
    assert finding.outcome == "failed"


@of_native_code
@pytest.mark.parametrize("name", ["compiled", "compiled blocks"])
def test_without_a_compiler_native_code_is_not_applicable(name, native, monkeypatch):
    def no_compiler(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(compiled, "load_library", no_compiler)
    calculator, atoms = native
    (finding,) = run_checks(calculator, [atoms], only=[name])
    assert finding.outcome == "not applicable"
    assert "no compiler" in finding.note


@of_native_code
def test_a_lone_atom_has_native_code_but_one_with_charges_has_not(native, systems, make_network):
    charged = NBodyCalculator(make_network(outputs=("charges",)))
    atoms = [systems["lone carbon"]()]
    (with_code,), (without,) = (list(run_checks(each, atoms, only=["compiled"])) for each in (native[0], charged))
    assert (with_code.outcome, without.outcome) == ("passed", "not applicable")
    assert "native code needs at least two" in without.note


def test_native_code_gets_the_numbers_that_it_was_traced_with(make_network, systems):
    """It reads memory without a look at the dtype: a charge in single precision became any number."""
    network = make_network(outputs=("charges",))
    ion = systems["molecule"]()
    ion.info["charge"] = 1
    hierarchy, *geometry = _arguments(make_case(NBodyCalculator(network), ion), network)
    traced = compiled.trace_whole(network).tensors
    assert [given.dtype for given in (*hierarchy.tensors(), *geometry)] == [example.dtype for example in traced]
    assert geometry[-1].tolist() == [1.0]


@of_native_code
@pytest.mark.parametrize("large", [False, True])
def test_code_of_blocks_is_checked_on_request(large, native):
    calculator, atoms = native
    others = [name for name in CHECKS if name not in COMPILED]
    found = run_checks(calculator, [atoms], without=[*others, "compiled training"], large=large)
    assert [finding.check for finding in found] == ["compiled", *(["compiled blocks"] if large else [])]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_compiled_training_step_is_compared_with_eager(make_config, systems, monkeypatch):
    tiny = {"radius": 3.0, "channels": 2, "l_max": 1, "l_out": 0, "body_order": 2, "n_basis": 3, "hidden": 2}
    network = NBodyNetwork(
        make_config(species=("H", "C", "O"), levels=(LevelConfig(**tiny),), isolated_atom_energies={})
    )
    calculator, molecule = NBodyCalculator(network), systems["molecule"]()
    (finding,) = run_checks(calculator, [molecule], only=["compiled training"])
    assert finding.outcome == "passed"

    def scaled(self, tables, *geometry, **options):
        calculator.get_potential_energy(molecule)
        (found,) = calculator._last.predictions
        return lambda *_: tuple(1.001 * value for value in found.named().values())

    monkeypatch.setattr(CompiledPotential, "_compile", scaled)
    (finding,) = run_checks(calculator, [molecule], only=["compiled training"])
    assert finding.outcome == "failed"

    def broken(self, tables, *geometry, **options):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(CompiledPotential, "_compile", broken)
    (finding,) = run_checks(calculator, [molecule], only=["compiled training"])
    assert finding.outcome == "not applicable"
    assert "no compiler" in finding.note
