"""Random structures, sound and unsound, give finite and consistent results, or are refused with a sentence."""

import ase
import numpy as np
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ase_nbody import NBodyCalculator

lengths = st.one_of(st.floats(-8.0, 8.0), st.sampled_from([0.0, 1e-9, 1e-3, 0.5, 30.0, 1e4, 1e8]))
wild = st.one_of(lengths, st.sampled_from([np.nan, np.inf, -np.inf, 1e12, -1e15, 1e200, 1e308, 5e-324]))
symbols = st.sampled_from(["H", "H", "C", "O", "Na", "Cl", "Cu"])


@st.composite
def structures(draw) -> ase.Atoms:
    number = draw(st.integers(0, 12))
    odd = draw(st.integers(0, 3)) == 0  # most of them are nearly sound
    numbers = wild if odd else lengths
    species = draw(st.lists(st.sampled_from(["U", "X", "He"]) if odd else symbols, min_size=number, max_size=number))
    positions = draw(st.lists(numbers, min_size=3 * number, max_size=3 * number))
    if draw(st.booleans()):
        cell = np.array(draw(st.lists(numbers, min_size=9, max_size=9))).reshape(3, 3)
    else:
        cell = np.diag(draw(st.lists(st.floats(1.0, 9.0), min_size=3, max_size=3)))
    pbc = draw(st.lists(st.booleans(), min_size=3, max_size=3))
    atoms = ase.Atoms(species, positions=np.array(positions).reshape(-1, 3), pbc=pbc)
    atoms.cell.array[:] = cell
    return atoms


@settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(structures())
def test_a_finite_consistent_result_or_a_sentence(network, atoms: ase.Atoms) -> None:
    calc = NBodyCalculator(network)
    atoms.calc = calc
    try:
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    except (CalculatorSetupError, CalculationFailed) as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert len(refusal) > 30
        assert not calc.results
        return
    assert np.isfinite(energy)
    results = calc.results
    assert all(np.isfinite(value).all() for value in results.values())
    # Atoms on top of each other have huge terms that cancel, and their round-off remains.
    scale = 1.0 + max(np.abs(value).max(initial=0.0) for value in results.values()) * (1.0 + len(atoms))
    np.testing.assert_allclose(results["energies"].sum(), energy, atol=1e-9 * scale)
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-9 * scale)
    if atoms.pbc.all():
        np.testing.assert_allclose(results["stresses"].sum(axis=0), results["stress"], atol=1e-9 * scale)


def test_both_outcomes_occur(network) -> None:
    """The strategy would be useless if all of its structures were refused, or none of them."""
    outcomes = {True: 0, False: 0}

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(structures())
    def count(atoms: ase.Atoms) -> None:
        try:
            NBodyCalculator(network).get_property("energy", atoms)
        except (CalculatorSetupError, CalculationFailed):
            outcomes[False] += 1
        else:
            outcomes[True] += len(atoms) > 1

    count()
    assert min(outcomes.values()) > 10, outcomes
