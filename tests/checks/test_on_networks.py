"""The checks on N-body networks, with everything that other calculators do not offer."""

import pytest

from ase_nbody import NBodyCalculator
from ase_nbody.checks import run_checks

SYMMETRIES = ("rotation", "inversion", "permutation", "translation", "determinism", "float32", "parts")


@pytest.fixture(scope="module")
def calculator(make_network):
    isolated = {"H": -13.6, "C": -1029.1, "O": -2041.3}
    network = make_network(species=("H", "C", "O"), isolated_atom_energies=isolated, repulsion=True)
    return NBodyCalculator(network)


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


def test_committees_and_single_precision_are_checked_too(network, make_network, systems, failures):
    committee = NBodyCalculator([network, make_network(1)])
    assert not failures(committee, systems["molecule"](), *SYMMETRIES)
    single = NBodyCalculator(network, dtype="float32")
    assert failures(single, systems["molecule"](), "rotation"), "float32 is not good to 1e-10"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_is_compared_with_eager(make_config, systems, monkeypatch):
    from ase_nbody import LevelConfig, NBodyNetwork
    from ase_nbody.training.compiled_step import CompiledPotential

    tiny = {"radius": 3.0, "channels": 2, "l_max": 1, "l_out": 0, "body_order": 2, "n_basis": 3, "hidden": 2}
    network = NBodyNetwork(
        make_config(species=("H", "C", "O"), levels=(LevelConfig(**tiny),), isolated_atom_energies={})
    )
    calculator, molecule = NBodyCalculator(network), systems["molecule"]()
    (finding,) = run_checks(calculator, [molecule], only=["compiled"])
    assert finding.outcome == "passed"

    def scaled(self, tables, positions, cells):
        return lambda *_: tuple(1.001 * value for value in _eager(network, molecule))

    def _eager(network, atoms):
        calculator.get_potential_energy(atoms)
        (found,) = calculator._last.predictions
        return found.energy, found.energies, found.forces, found.virials, *found.parts

    monkeypatch.setattr(CompiledPotential, "_compile", scaled)
    (finding,) = run_checks(calculator, [molecule], only=["compiled"])
    assert finding.outcome == "failed"

    def broken(self, tables, positions, cells):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(CompiledPotential, "_compile", broken)
    (finding,) = run_checks(calculator, [molecule], only=["compiled"])
    assert finding.outcome == "not applicable"
    assert "no compiler" in finding.note
