"""Symmetries, extensivity and smoothness of the whole potential, and the public checks themselves."""

import ase
import ase.build
import numpy as np
import pytest
import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet
from ase.units import fs

from ase_nbody.engines.calculator import NBodyCalculator
from ase_nbody.nn.closest_approach import FOLLOWS, RESTS
from ase_nbody.prediction import Prediction
from ase_nbody.testing import assert_conservative, assert_stress_consistent, random_rotation

# --------------------------------------------------------------------------------------------------- symmetries


IDENTITY = torch.eye(3, dtype=torch.float64)


def assert_same(actual: Prediction, expected: Prediction, atoms=slice(None), rtol: float = 1e-10, turn=IDENTITY):
    """Equal energies, and forces and virials equal to the turned ones, for the atoms in another order."""
    energies, forces, virials = expected.energies[atoms], expected.forces[atoms], expected.virials[atoms]
    for name, value, reference in (
        ("energies", actual.energies, energies),
        ("forces", actual.forces, forces @ turn.T),
        ("virials", actual.virials, turn @ virials @ turn.T),
    ):
        scale = float(reference.abs().max()) if len(reference) else 0.0
        deviation = float((value - reference).abs().max()) if len(reference) else 0.0
        assert deviation <= rtol * scale, f"{name} deviate by {deviation:.1e}, the largest is {scale:.1e}"


def turned(atoms: ase.Atoms, rotation: torch.Tensor) -> ase.Atoms:
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ rotation.numpy().T)
    atoms.positions = atoms.positions @ rotation.numpy().T
    return atoms


ROTATIONS = {
    "rotation": random_rotation(0),
    "improper": random_rotation(1, improper=True),
    "inversion": -IDENTITY,
}


@pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS.keys())
def test_energy_is_invariant_and_forces_turn_along(rotation, any_network, predict, system):
    assert_same(predict(any_network, turned(system, rotation)), predict(any_network, system), turn=rotation)


BROKEN = {
    "transposed": random_rotation(0).T,
    "scaled": (1.0 + 1e-8) * random_rotation(0),
    "wrong parity": -random_rotation(0),
    "not turned": IDENTITY,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_broken_rotations_of_the_forces_are_refused(broken, network, predict, bound_system):
    actual, expected = predict(network, turned(bound_system, random_rotation(0))), predict(network, bound_system)
    with pytest.raises(AssertionError, match="deviate"):
        assert_same(actual, expected, turn=broken)


@pytest.mark.parametrize("matrix", [1.0 + 1e-6, "shear"])
def test_an_energy_that_is_not_invariant_is_refused(matrix, network, predict, bound_system):
    """The same checker sees that the system was not only turned, but also scaled or sheared by 1e-6."""
    deform = matrix * np.eye(3) if matrix != "shear" else np.eye(3) + 1e-6 * np.eye(3, k=1)
    rotation = random_rotation(0)
    with pytest.raises(AssertionError, match="deviate"):
        assert_same(
            predict(network, turned(bound_system, rotation @ torch.from_numpy(deform))),
            predict(network, bound_system),
            turn=rotation,
        )


def test_energy_is_invariant_under_translation(network, predict, system):
    moved = system.copy()
    moved.positions += [0.3, -17.1, 2.9]
    assert_same(predict(network, moved), predict(network, system))


def test_a_million_angstrom_from_the_origin(network, predict, bound_system):
    """Positions there are known to 1e-10 Angstrom; nothing more is lost."""
    moved = bound_system.copy()
    moved.positions += [1e6, -1e6, 1e6]
    assert_same(predict(network, moved), predict(network, bound_system), rtol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_permutation_of_the_atoms(seed, any_network, predict, system):
    order = np.random.default_rng(seed).permutation(len(system))
    assert_same(predict(any_network, system[order]), predict(any_network, system), atoms=order)


def test_a_permutation_that_is_not_followed_is_refused(network, predict, systems):
    molecule = systems["molecule"]()
    with pytest.raises(AssertionError, match="deviate"):
        assert_same(predict(network, molecule[::-1]), predict(network, molecule))


def test_positions_need_not_be_wrapped(network, predict, systems):
    assert_same(predict(network, systems["unwrapped"]()), predict(network, systems["triclinic"]()))


def test_a_left_handed_cell_is_as_good_as_a_right_handed_one(network, predict, systems):
    assert_same(predict(network, systems["left-handed"]()), predict(network, systems["triclinic"]()))


def test_another_cell_of_the_same_lattice(network, predict, systems):
    atoms = systems["triclinic"]()
    other = atoms.copy()
    other.set_cell(np.array([[1, 2, 0], [0, 1, 0], [-3, 0, 1]]) @ atoms.cell.array)
    assert_same(predict(network, other), predict(network, atoms))


def test_vacuum_does_not_matter(network, predict, systems):
    """A slab without a third vector, in a box, and periodic in three directions with a gap beyond all reach."""
    slab = systems["slab"]()
    boxed, periodic = slab.copy(), slab.copy()
    boxed.center(vacuum=7.0, axis=2)
    periodic.center(vacuum=7.0, axis=2)
    periodic.pbc = True
    for other in (boxed, periodic):
        assert_same(predict(network, other), predict(network, slab))


def test_a_molecule_in_a_large_periodic_box_is_alone(network, predict, systems):
    molecule = systems["molecule"]()
    boxed = molecule.copy()
    boxed.center(vacuum=6.0)
    boxed.pbc = True
    assert_same(predict(network, boxed), predict(network, molecule))


# ------------------------------------------------------------------------------------------------- extensivity


def test_two_distant_copies_have_twice_the_energy(network, predict, bound_system):
    """A copy beyond the radii, in a direction that is not periodic."""
    bound_system.pbc = False
    pair = bound_system + bound_system
    pair.positions[len(bound_system) :] += [40.0, 0.0, 0.0]
    alone = predict(network, bound_system)
    assert_same(predict(network, pair), alone, atoms=np.tile(np.arange(len(bound_system)), 2))


@pytest.mark.parametrize("repeat", [(2, 1, 1), (1, 2, 3), (2, 2, 2)])
def test_a_supercell_has_proportional_energy(repeat, network, predict, periodic_system):
    """The single cells are smaller than the cutoff: neighbours are images of few atoms."""
    cell = predict(network, periodic_system)
    copies = int(np.prod(repeat))
    supercell = predict(network, periodic_system.repeat(repeat))
    assert_same(supercell, cell, atoms=np.tile(np.arange(len(periodic_system)), copies))
    torch.testing.assert_close(supercell.energy, copies * cell.energy, rtol=1e-12, atol=0)


def test_a_supercell_of_a_slab_and_a_wire(network, predict, systems):
    for name, repeat in (("slab", (2, 3, 1)), ("slab in a box", (2, 1, 2)), ("wire", (1, 1, 3))):
        atoms = systems[name]()
        order = np.tile(np.arange(len(atoms)), int(np.prod(repeat)))
        assert_same(predict(network, atoms.repeat(repeat)), predict(network, atoms), atoms=order)


def test_forces_of_a_perfect_crystal_vanish(network, predict):
    primitive, cubic = (ase.build.bulk("Cu", "fcc", a=3.6, cubic=cubic) for cubic in (False, True))
    one, four = predict(network, primitive), predict(network, cubic)
    torch.testing.assert_close(four.energies, one.energies.expand(4), rtol=1e-12, atol=0)
    assert four.forces.abs().max() < 1e-10 * one.virials.abs().max()


# -------------------------------------------------------------------------------------------------- smoothness


def assert_smooth(function, steps: tuple[float, float] = (2e-3, 1e-4)) -> None:
    """No jump of the value or the slope of a (vector) function at 0: what is left of them falls with the step."""
    coarse, fine = (
        [
            np.abs(one - other).max()
            for one, other in zip(_one_sided(function, h), _one_sided(function, -h), strict=True)
        ]
        for h in steps
    )
    floor = [1e-9 * np.abs(size).max() for size in _one_sided(function, steps[0])]
    for name, before, after, small in zip(("value", "slope"), coarse, fine, floor, strict=True):
        assert after <= 0.1 * before + small, f"the {name} jumps: by {before:.1e}, at a smaller step by {after:.1e}"


def _one_sided(function, h: float) -> np.ndarray:
    """Value and slope at 0 of the parabola through the points h, 2h, 3h: exact to O(h^3) and O(h^2)."""
    one, two, three = (np.asarray(function(multiple * h)) for multiple in (1, 2, 3))
    return np.stack([3.0 * one - 3.0 * two + three, (-2.5 * one + 4.0 * two - 1.5 * three) / h])


@pytest.mark.parametrize(("power", "smooth"), [(1, False), (2, False), (3, True), (4, True)])
def test_the_check_of_smoothness_tells_c1_from_c2(power, smooth):
    """The force of (1 - (r/R)^2)^p jumps for p = 1, its slope for p = 2."""

    def force(x):
        r = (4.0 + x) / 4.0
        return np.sin(x) + power * r / 2.0 * max(0.0, 1.0 - r * r) ** (power - 1) * (r < 1.0)

    if smooth:
        assert_smooth(force)
    else:
        with pytest.raises(AssertionError, match="jumps"):
            assert_smooth(force)


CLOSE = ["H begins to be held and repelled", "H is held"]


@pytest.fixture(params=["H at level 1", "C at level 1", "C at level 2", "O at level 3", *CLOSE])
def crossing(request, three_levels, hierarchy_of, predict):
    """Energy and forces of methanol and an atom on its way through a cutoff, by the distance beyond it."""
    symbol, partner, radius, number = {
        "H at level 1": ("H", 0, 3.4, 0),
        "C at level 1": ("C", 0, 3.4, 0),
        "C at level 2": ("C", 0, 2.9, 1),
        "O at level 3": ("O", 1, 3.9, 2),
        "H begins to be held and repelled": ("H", 0, FOLLOWS * 1.15, None),
        "H is held": ("H", 0, RESTS * 1.15, None),
    }[request.param]
    atoms = ase.build.molecule("CH3OH") + ase.Atoms(symbol)
    way = np.array([0.3, -0.4, 0.9]) / np.linalg.norm([0.3, -0.4, 0.9])

    def moved(x):
        atoms.positions[-1] = atoms.positions[partner] + (radius + x) * way
        return atoms

    if number is not None:  # it is this level that loses an edge, or one in each direction
        inside, outside = (int(hierarchy_of(three_levels, moved(x)).levels[number].mask.sum()) for x in (-1e-9, 1e-9))
        assert inside - outside == 2

    def along(x):
        prediction = predict(three_levels, moved(x))
        return np.append(prediction.energy, prediction.forces)

    return along


def test_energy_and_forces_are_smooth_at_every_cutoff(crossing):
    """Value and slope of energy and forces, hence value, slope and curvature of the energy, have no jump."""
    assert_smooth(crossing)


def test_a_cutoff_that_is_not_smooth_would_be_noticed(crossing, monkeypatch):
    """With (1 - (r/R)^2) alone, whose slope jumps, and distances that are held by a broken line."""

    def kinked(distance, radius):
        return (1.0 - (distance / radius).square()).clamp(min=0.0)

    def broken_line(distance, closest):
        line = 0.5 * (distance + FOLLOWS * closest)
        return distance.maximum(line.maximum(0.5 * (FOLLOWS + RESTS) * closest).minimum(FOLLOWS * closest))

    for module in ("radial", "repulsion"):
        monkeypatch.setattr(f"ase_nbody.nn.{module}.cutoff_function", kinked)
    monkeypatch.setattr("ase_nbody.network.level.held_distance", broken_line)
    with pytest.raises(AssertionError, match="jumps"):
        assert_smooth(crossing)


# --------------------------------------------------------------------------------------- determinism, side effects


def test_two_evaluations_are_bitwise_equal(network, predict, system):
    one, other = predict(network, system), predict(network, system)
    for name in ("energy", "energies", "forces", "virials"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_evaluation_leaves_the_process_as_it_was(network, predict, systems):
    def state():
        return (
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.random.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
        )

    before = state()
    predict(network, systems["triclinic"]())
    NBodyCalculator(network).get_potential_energy(systems["triclinic"]())
    assert state() == before


# ------------------------------------------------------------------------------------------------ the checks, NVE


class Wrong(Calculator):
    """Lennard-Jones with its forces and stress off by a small factor."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        right = LennardJones(rc=5.0, smooth=True)
        right.calculate(atoms, ["energy", "forces", "stress"], all_changes)
        wrong = {name: right.results[name] * (1.0 + 1e-5) for name in ("forces", "stress")}
        self.results = {"energy": right.results["energy"], **wrong}


@pytest.fixture
def copper(systems) -> ase.Atoms:
    atoms = ase.build.bulk("Cu", "fcc", a=3.5, cubic=True)
    atoms.positions += np.random.default_rng(0).normal(scale=0.05, size=(4, 3))
    atoms.set_constraint(ase.constraints.FixAtoms([0]))
    return atoms


@pytest.mark.parametrize("check", [assert_conservative, assert_stress_consistent])
def test_calculators_of_ase_pass_the_checks(check, copper):
    before = copper.copy()
    check(EMT(), copper)
    check(LennardJones(rc=5.0, smooth=True), copper)
    assert copper == before
    assert copper.calc is None


@pytest.mark.parametrize("check", [assert_conservative, assert_stress_consistent])
def test_the_checks_refuse_wrong_derivatives(check, copper):
    with pytest.raises(AssertionError, match="differences of the energy give"):
        check(Wrong(), copper)


def test_the_calculator_passes_the_checks(make_network, periodic_system):
    calculator = NBodyCalculator(make_network(repulsion=True), skin=0.3)
    assert_conservative(calculator, periodic_system)
    assert_stress_consistent(calculator, periodic_system)


def test_energy_is_conserved_in_nve(make_network, systems):
    """The error of velocity Verlet falls with the square of the time step, while atoms cross the cutoffs."""
    calculator = NBodyCalculator(make_network(repulsion=True), skin=0.3)

    def drift(step, steps):
        atoms = systems["triclinic"]()
        atoms.calc = calculator
        atoms.set_velocities(np.random.default_rng(0).normal(scale=0.03, size=(3, 3)))
        dynamics, energies = VelocityVerlet(atoms, timestep=step * fs), []
        dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
        dynamics.run(steps)
        return np.ptp(energies)

    assert drift(0.1, 100) < 0.3 * drift(0.2, 50)
