"""Beyond the densest data: potentials that fall without end are found, and sound ones pass."""

import ase
import numpy as np
import pytest
from ase.build import bulk

from ase_nbody import NBodyCalculator
from ase_nbody.checks import run_checks
from ase_nbody.checks.case import Case
from ase_nbody.checks.compression import START_DISTANCE, compression, random_start
from ase_nbody.checks.dynamics import closest_approach
from ase_nbody.network.coverage import Coverage

CHECKS = ("compression", "random starts")


def collapsing(morse):
    """A pair function that is sound at the distances of a crystal, with a hole without a bottom farther in."""

    def pair(r):
        energy, slope = morse(r)
        return energy - np.exp(12.0 * (1.9 - r)), slope + 12.0 * np.exp(12.0 * (1.9 - r))

    return pair


def outcomes(calculator, atoms: ase.Atoms) -> dict[str, str]:
    return {finding.check: finding.outcome for finding in run_checks(calculator, [atoms], only=CHECKS)}


@pytest.mark.parametrize("name", ["cluster", "crystal"])
def test_a_hole_without_a_bottom_fails_both(name, pair_potential, morse, structures):
    atoms = structures[name]()
    assert outcomes(pair_potential(), atoms) == dict.fromkeys(CHECKS, "passed")
    assert outcomes(pair_potential(collapsing(morse)), atoms) == dict.fromkeys(CHECKS, "failed")


def test_the_note_says_where_it_falls(pair_potential, morse, structures):
    (finding,) = run_checks(pair_potential(collapsing(morse)), [structures["crystal"]()], only=["compression"])
    assert finding.value > 1.0
    assert finding.note.startswith("at 0.4, from 0.94 inwards")


def test_a_network_is_judged_from_where_it_is_denser_than_its_data(make_network):
    """Farther out it may fall, towards the densest data."""
    coverage = {"bonded": {}, "densities": {"Cu": (0.5, 6.0)}, "radius": 4.0}
    (finding,) = run_checks(NBodyCalculator(make_network(coverage=coverage)), [bulk("Cu", a=4.4)], only=["compression"])
    scale = float(finding.note.split("from ")[1].split()[0])
    assert scale < 1.0, "at first it is thinner than the data"


def test_a_structure_that_is_never_denser_than_the_data_is_judged_too(pair_potential):
    """Two atoms have one neighbour each, however close they are: nothing was compared, and that passed."""

    def falling(r):
        return -100.0 / r, 100.0 / r**2

    coverage = Coverage(bonded={}, densities={"Cu": (0.5, 12.0)}, radius=4.0)
    case = Case(pair_potential(falling), ase.Atoms("Cu2", [[0.0, 0.0, 0.0], [2.5, 0.0, 0.0]]), coverage=coverage)
    (finding,) = compression(case)
    assert finding.outcome == "failed"
    assert finding.note == "at 0.4, from 0.86 inwards"


def test_a_lone_atom_has_nothing_to_press_against(pair_potential, structures):
    assert set(outcomes(pair_potential(), structures["atom"]()).values()) == {"not applicable"}


@pytest.mark.parametrize("atoms", [bulk("NaCl", "rocksalt", a=5.6), ase.Atoms("H4C2O", np.eye(7, 3) * 3.0)])
def test_random_starts_have_the_composition_and_one_close_pair(atoms):
    first, second = random_start(atoms, 0), random_start(atoms, 1)
    assert set(first.symbols) == set(atoms.symbols)
    assert (first.pbc == atoms.pbc).all()
    assert closest_approach(first) == pytest.approx(START_DISTANCE)
    assert not np.allclose(first.positions, second.positions)
