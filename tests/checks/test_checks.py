"""Every check passes on a good potential, and fails on one that is spoilt in the way that the check looks for."""

from itertools import count
from types import SimpleNamespace

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from ase_nbody.checks import CHECKS, run_checks
from ase_nbody.checks.case import energy_and_forces
from ase_nbody.checks.dimers import MAX_FALL_EV, MAX_HOLE_EV, DimerCurve, dimer
from ase_nbody.checks.reproducibility import _compared
from ase_nbody.checks.scans import QUANTITIES as QUANTITIES_OF_SCANS
from ase_nbody.checks.scans import Jump, find_jumps

QUANTITIES = {"stress": "virial", "stresses": "virials"}  # how the comparisons name them


def test_a_good_potential_passes_every_check(pair_potential, structure):
    findings = list(run_checks(pair_potential(), [structure], float32=pair_potential(), steps=100))
    assert [finding for finding in findings if finding.outcome == "failed"] == []
    assert {finding.check for finding in findings} == set(CHECKS) - {"compiled blocks"}
    applicable = {finding.check for finding in findings if finding.outcome == "passed"}
    expected = {"rotation", "inversion", "permutation", "translation", "forces", "parts", "determinism", "dimers"}
    expected |= {"NVE", "hot NVT", "leaving atom"} if len(structure) > 1 else set()
    expected |= {"supercell"} if structure.pbc.any() else {"far copies"}
    expected |= {"stress"} if structure.pbc.all() else set()
    assert applicable >= expected
    assert all(finding.note for finding in findings if finding.value is None)


def add_energy(term):
    """Add a function of the positions to the energy."""

    def spoil(atoms, results):
        results["energy"] = results["energy"] + term(atoms.positions)

    return spoil


def scale(name, factor=1.001):
    def spoil(atoms, results):
        if name in results:
            results[name] = results[name] * factor

    return spoil


@pytest.mark.parametrize("name", ["energy", "energies", "forces", "stress", "stresses"])
@pytest.mark.parametrize("shape", ["cluster", "crystal"])
def test_results_that_are_not_finite_pass_no_comparison(pair_potential, structures, shape, name):
    """What comes after NaN compares as larger than it, and 1e-16 of the next quantity passed."""
    structure = structures[shape]()
    compared = ["rotation", "inversion", "permutation", "translation", "determinism"]
    findings = list(run_checks(pair_potential(spoil=scale(name, np.nan)), [structure], only=compared))
    has = shape == "crystal" or not name.startswith("stress")
    assert {finding.outcome for finding in findings} == {"failed" if has else "passed"}
    assert all(finding.note in ("", f"largest in {QUANTITIES.get(name, name)}") for finding in findings if has)
    assert not any("none" in finding.note for finding in findings)


def nan_of_several(atoms, results):
    """Forces that are NaN where there are more atoms than in the cluster."""
    if len(atoms) > 5:
        results["forces"] = results["forces"] * np.nan


def test_the_largest_of_several_differences_is_nan_if_one_is(pair_potential, structures, failures):
    assert failures(pair_potential(spoil=nan_of_several), structures["cluster"](), "far copies")
    calls = count()
    sometimes = pair_potential(
        spoil=lambda atoms, results: scale("energy", np.nan if next(calls) > 9 else 1)(atoms, results)
    )
    assert failures(sometimes, structures["cluster"](), "forces")


def test_compiled_code_that_gives_nan_fails():
    class Found(dict):
        outputs = ()
        forces = torch.zeros(2, 3)

    right = Found(energies=torch.zeros(2), forces=torch.zeros(2, 3), virials=torch.zeros(2, 3, 3))
    wrong = Found(right, forces=torch.full((2, 3), torch.nan))
    network = SimpleNamespace(dtype=torch.float64, config=SimpleNamespace(cutoff=4.0))
    assert _compared("compiled", "", network, [(right, right)]).outcome == "passed"
    assert _compared("compiled", "", network, [(wrong, right), (right, right)]).outcome == "failed"
    strained = Found(right, virials=torch.full((2, 3, 3), 1e-6))  # the stress alone is wrong
    assert _compared("compiled", "", network, [(strained, right)]).outcome == "failed"


def roll_stresses(atoms, results):
    if "stresses" in results:
        results["stresses"] = np.roll(results["stresses"], 1, axis=0)


def count_calls(size):
    """Make the energy depend on how often it was asked for."""
    calls = count()

    def spoil(atoms, results):
        results["energy"] = results["energy"] + size * next(calls)

    return spoil


def swirl(atoms, results):
    """Add a force that is not a gradient."""
    results["forces"] = results["forces"] + 0.05 * np.cross([0.0, 0.0, 1.0], atoms.positions)


def noise(size):
    rng = np.random.default_rng(0)

    def spoil(atoms, results):
        results["energy"] = results["energy"] + size * rng.normal()

    return spoil


def chiral(positions):
    """A term that rotations do not change, but mirrors invert."""
    return 1e-6 * np.linalg.det(positions[1:4] - positions[0])


SPOILT = {
    "rotation": ("rotation", "random", "cluster", add_energy(lambda x: 1e-6 * (x - x.mean(axis=0))[0, 2])),
    "inversion": ("inversion", "inversion", "cluster", add_energy(chiral)),
    "permutation": ("permutation", "order", "cluster", add_energy(lambda x: 1e-6 * np.linalg.norm(x[0] - x[1]))),
    "translation": ("translation", "moved", "cluster", add_energy(lambda x: 1e-6 * x[0, 0])),
    "wrapping": ("translation", "images", "crystal", add_energy(lambda x: 1e-6 * np.linalg.norm(x[0] - x[1]))),
    "forces": ("forces", "differences", "crystal", scale("forces")),
    "forces of a molecule": ("forces", "differences", "cluster", scale("forces", 1.0 + 1e-5)),
    "stress": ("stress", "strains", "crystal", scale("stress")),
    "sum of stresses": ("stresses", "sum", "crystal", scale("stresses")),
    "each of the stresses": ("stresses", "bent", "cluster", roll_stresses),
    "far copies": ("far copies", "side by side", "slab", add_energy(lambda x: 1e-8 * len(x) ** 2)),
    "supercell": ("supercell", "repeated", "crystal", add_energy(lambda x: 1e-8 * len(x) ** 2)),
    "parts": ("parts", "per-atom", "cluster", scale("energies", 1.0 + 1e-8)),
    "determinism": ("determinism", "twice", "cluster", count_calls(1e-13)),
    "history": ("determinism", "another", "cluster", count_calls(1e-8)),
    "order of NVE": ("NVE", "power", "cluster", noise(0.01)),
    "drift in NVE": ("NVE", "drift", "cluster", swirl),
    "heating": ("hot NVT", "temperature", "crystal", scale("forces", -1.0)),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_potential_fails(case, pair_potential, structures, failures):
    check, measured, structure, spoil = SPOILT[case]
    failed = failures(pair_potential(spoil=spoil), structures[structure](), check)
    assert any(measured in finding.measured for finding in failed)


def test_a_chiral_energy_fails_in_the_mirror_only(pair_potential, structures, failures):
    assert not failures(pair_potential(spoil=add_energy(chiral)), structures["cluster"](), "rotation", "translation")


def test_single_precision_is_compared_with_double(pair_potential, structures, failures):
    wrong = pair_potential(spoil=scale("forces"))
    assert failures(pair_potential(), structures["cluster"](), "float32", float32=wrong)
    failed = failures(pair_potential(), structures["cluster"](), "NVE", float32=pair_potential(spoil=swirl))
    assert failed
    assert all("float32" in finding.measured for finding in failed)


# ---------------------------------------------------------------------------------------------------- pair functions


def with_term(morse, term, slope):
    """The Morse potential plus another pair function."""

    def pair(r):
        energy, derivative = morse(r)
        return energy + term(r), derivative + slope(r)

    return pair


def gauss(height, centre, width):
    def term(r):
        return height * np.exp(-(((r - centre) / width) ** 2))

    return term, lambda r: -2.0 * (r - centre) / width**2 * term(r)


def ramp(power, size, start=4.0):
    """A function that is zero beyond ``start``; its derivative of order ``power`` jumps there."""
    return (
        lambda r: size * np.clip(start - r, 0.0, None) ** power if power else size * (r < start),
        lambda r: -size * power * np.clip(start - r, 0.0, None) ** max(power - 1, 0) * (r < start),
    )


@pytest.mark.parametrize(("power", "quantity"), list(enumerate(("value", "slope", "curvature"))))
@pytest.mark.parametrize("check", ["dimers", "leaving atom"])
def test_jumps_are_found_and_the_quantity_is_named(check, power, quantity, pair_potential, morse, structures, failures):
    """Each jump is 1e-3 of the quantity nearby, at a radius that the check does not know."""
    kinked = pair_potential(with_term(morse, *ramp(power, 1e-3 * 2**power, start=4.0123)))
    failed = [finding for finding in failures(kinked, structures["cluster"](), check) if "jump" in finding.measured]
    assert quantity in failed[0].measured
    if check == "dimers":
        assert float(failed[0].note.split()[2]) == pytest.approx(4.0123, abs=5e-3)


@pytest.mark.parametrize("width", [1e-9, 1e-3])
def test_a_value_that_is_not_finite_between_the_points_of_a_scan_is_a_jump(width, pair_potential, morse):
    """As 0/0 at a cutoff. No comparison holds for NaN, so it was taken for smooth."""
    undefined = lambda r: np.where(np.abs(r - 4.0) < width, np.nan, 0.0)  # noqa: E731
    broken = pair_potential(with_term(morse, undefined, undefined))
    place = Jump(np.inf, pytest.approx(4.0, abs=2 * width))

    def path(places):
        return energy_and_forces(broken, [dimer("Cu", "Cu", r) for r in places])

    grid = np.arange(1.0, 6.0, 0.02) + 0.011
    assert find_jumps(path, grid, path(grid), known=[4.0]) == dict.fromkeys(QUANTITIES_OF_SCANS, place)


@pytest.mark.parametrize("check", ["dimers", "leaving atom"])
def test_steep_but_smooth_is_not_called_a_jump(check, pair_potential, morse, structures, failures):
    third = with_term(morse, *ramp(3, 0.05, start=4.0123))
    assert not failures(pair_potential(third), structures["cluster"](), check)
    steep = with_term(morse, *gauss(200.0, 0.0, 0.8))
    assert not failures(pair_potential(steep), structures["cluster"](), check)


@pytest.mark.parametrize(
    ("term", "measured"),
    [
        (gauss(-30.0, 1.4, 0.1), "hole"),
        (gauss(-3.0, 1.7, 0.05), "hole"),
        (gauss(-1000.0, 0.0, 0.6), "wall"),
        (gauss(-20.0, 2.5, 0.3), "lowest"),
    ],
)
def test_holes_and_missing_walls_are_found(term, measured, pair_potential, morse, structures, failures):
    failed = failures(pair_potential(with_term(morse, *term)), structures["cluster"](), "dimers")
    assert any(measured in finding.measured for finding in failed)


@pytest.mark.parametrize(("depth", "too_deep"), [(0.2, False), (0.8, True)])
def test_a_network_may_come_to_rest_on_the_way_into_a_well(depth, too_deep):
    """From 0.95 to 0.92 Angstrom the energy falls, and farther inwards it rises."""
    distances = np.arange(0.3, 5.0, 0.002)
    energies = np.interp(distances, [0.3, 0.92, 0.95, 5.0], [10.0, -1.0 - depth, -1.0, 0.0])
    curve = DimerCurve("H-H", distances, energies, shortest_bond=0.95, rest=0.92, seen=True, jumps={})
    assert curve.hole[0] == pytest.approx(0.0)
    assert curve.fall == pytest.approx(depth, abs=0.02)
    assert (curve.fall > MAX_FALL_EV) == too_deep
    hole = DimerCurve("H-H", distances, energies - 0.3 * (np.abs(distances - 0.8) < 0.05), 0.95, 0.92, True, {})
    assert hole.hole[0] > MAX_HOLE_EV


def test_atoms_that_collide_and_atoms_that_fly_off(pair_potential, structures, failures):
    def attraction(r):
        return -20.0 * np.exp(-r), 20.0 * np.exp(-r)

    failed = failures(pair_potential(attraction), structures["cluster"](), "hot NVT")
    assert "closest approach" in failed[0].measured

    def repulsion(r):
        return 20.0 * np.exp(-r), -20.0 * np.exp(-r)

    failed = failures(pair_potential(repulsion), structures["cluster"](), "hot NVT", steps=400)
    assert any("fragments" in finding.measured for finding in failed)


def test_a_fragment_that_meets_another_does_not_make_up_for_one_that_breaks():
    class Exchange(Calculator):
        """The first two atoms repel each other, and the last two, which are apart at first, attract each other."""

        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            x, forces, energy = self.atoms.positions, np.zeros((4, 3)), 0.0
            for first, stiffness, length in ((0, 1.0, 9.0), (2, 1.0, 4.0)):
                vector = x[first + 1] - x[first]
                longer = np.linalg.norm(vector) - length
                energy += 0.5 * stiffness * longer**2
                forces[first] = stiffness * longer * vector / np.linalg.norm(vector)
                forces[first + 1] = -forces[first]
            self.results = {"energy": energy, "forces": forces}

    atoms = ase.Atoms("Cu4", [[0.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 50.0, 0.0], [6.5, 50.0, 0.0]])
    found = run_checks(Exchange(), [atoms], only=["hot NVT"], temperature=10.0, steps=90)
    (fragments,) = [finding for finding in found if "fragments" in finding.measured]
    assert (fragments.value, fragments.outcome) == (1.0, "failed")


# --------------------------------------------------------------------------------------------- calculators of ASE


def test_lennard_jones_cut_off_is_not_smooth(failures):
    atoms = bulk("Ar", a=2.0 * 2**0.5 * 1.1)
    for smooth, jumps in ((False, {"slope", "curvature"}), (True, {"curvature"})):
        calculator = LennardJones(sigma=2.0, rc=5.5, ro=4.0, smooth=smooth)
        failed = failures(calculator, atoms, "dimers", "leaving atom")
        assert {finding.measured.split("energy's ")[1].split(",")[0] for finding in failed} == jumps


def test_emt_passes_all_but_smoothness(failures):
    failed = failures(EMT(), fcc111("Cu", (1, 1, 2), vacuum=5.0))
    assert "Cu-Cu at 5.87" in failed[0].note, "where its neighbour list ends"
    assert all("jump" in finding.measured for finding in failed)


def test_structures_are_left_as_they_are(pair_potential, structures):
    atoms = structures["crystal"]()
    atoms.set_constraint(ase.constraints.FixAtoms([0]))
    before = atoms.copy()
    list(run_checks(pair_potential(), [atoms], without=["dimers"], steps=50))
    assert atoms == before
    assert atoms.constraints
    assert atoms.calc is None
