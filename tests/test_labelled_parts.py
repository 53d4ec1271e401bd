"""Levels of labelled parts in the whole potential: symmetries, derivatives, smoothness, batches, training."""

import ase
import ase.build
import numpy as np
import pytest
import torch

from ase_nbody.engines import NBodyCalculator
from ase_nbody.hierarchy.labelled import Membership
from ase_nbody.network import LevelConfig
from ase_nbody.nn.radial import LabelledRadialBasis
from ase_nbody.potential import evaluate
from ase_nbody.runtime.runner import Runner
from ase_nbody.structure import Structure
from ase_nbody.testing import assert_conservative, assert_stress_consistent, random_rotation


def assert_same(actual, expected, atoms=slice(None), turn=None, rtol=1e-10):
    """Equal energies, and forces and virials equal to the turned ones, for the atoms in another order."""
    turn = torch.eye(3, dtype=torch.float64) if turn is None else torch.tensor(turn)
    for value, reference in (
        (actual.energies, expected.energies[atoms]),
        (actual.forces, expected.forces[atoms] @ turn.T),
        (actual.virials, turn @ expected.virials[atoms] @ turn.T),
    ):
        assert float((value - reference).abs().max()) <= rtol * float(reference.abs().max())


def test_the_labelled_levels_count(labelled_network, predict, liquid):
    parts = predict(labelled_network, liquid).parts
    assert [len(part) for part in parts] == [16, 8, 5, 5]
    assert not any(part.any() for part in parts[:2])
    assert all(0.05 < float(part.abs().max()) < 1e3 for part in parts[2:])


# --- symmetries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("improper", [False, True])
def test_energy_is_invariant_and_forces_turn_along(labelled_network, predict, liquid, improper):
    rotation, turned = random_rotation(0, improper=improper).numpy(), liquid.copy()
    turned.set_cell(liquid.cell.array @ rotation.T)
    turned.positions = liquid.positions @ rotation.T
    expected = predict(labelled_network, liquid)
    assert_same(predict(labelled_network, turned), expected, turn=rotation)
    with pytest.raises(AssertionError):
        assert_same(predict(labelled_network, turned), expected, turn=rotation.T)


def test_translation_and_permutation(labelled_network, predict, liquid):
    expected, moved = predict(labelled_network, liquid), liquid.copy()
    moved.positions += [0.3, -17.1, 2.9]
    assert_same(predict(labelled_network, moved), expected)
    order = np.random.default_rng(0).permutation(len(liquid))
    assert_same(predict(labelled_network, liquid[order]), expected, atoms=order)


def test_other_names_of_the_labels(labelled_network, predict, liquid):
    expected = predict(labelled_network, liquid)
    liquid.arrays["parts"] = np.array([40, 3, 17, 5, 0])[liquid.arrays["parts"]]
    assert_same(predict(labelled_network, liquid), expected)


def test_other_labels_give_another_energy(labelled_network, predict, liquid):
    expected = float(predict(labelled_network, liquid).energy)
    liquid.arrays["parts"][0] = -1
    assert abs(float(predict(labelled_network, liquid).energy) - expected) > 1e-3


def test_molecules_and_atoms_may_lie_in_any_image(labelled_network, predict, liquid):
    expected, moved = predict(labelled_network, liquid), liquid.copy()
    whole = liquid.arrays["parts"] == 2
    moved.positions[whole] += np.array([1, -2, 3]) @ liquid.cell.array
    assert_same(predict(labelled_network, moved), expected)
    moved.positions += np.random.default_rng(0).integers(-3, 4, (len(moved), 3)) @ liquid.cell.array
    assert_same(predict(labelled_network, moved), expected)
    moved.wrap()
    assert_same(predict(labelled_network, moved), expected)


def test_another_cell_of_the_same_lattice(labelled_network, predict, liquid):
    other = liquid.copy()
    other.set_cell(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]) @ liquid.cell.array)  # left-handed
    assert_same(predict(labelled_network, other), predict(labelled_network, liquid))


@pytest.mark.parametrize("crystal", [False, True])
def test_a_supercell_has_the_energies_of_its_copies(labelled_network, predict, liquid, crystal):
    """A molecule and its own image are two molecules; in the crystal each is within the radius of the other."""
    atoms = _labelled("H2O") if crystal else liquid
    if crystal:
        atoms.set_cell([[4.0, 0.0, 0.0], [0.0, 4.2, 0.0], [0.3, 0.2, 4.4]])
        atoms.pbc = True
        atoms.wrap()
    double = atoms.copy()
    double.positions += Membership.of(Structure.from_atoms(atoms)).shift @ atoms.cell.array
    double = double.repeat((1, 2, 1))
    double.arrays["parts"][len(atoms) :] += 5
    twice = np.tile(np.arange(len(atoms)), 2)
    assert_same(predict(labelled_network, double), predict(labelled_network, atoms), atoms=twice)


def test_far_copies_add_up(labelled_network, predict, liquid):
    liquid.pbc = False
    whole = predict(labelled_network, liquid)
    other = liquid.copy()
    other.positions += [60.0, 0.0, 0.0]
    other.arrays["parts"] += 5
    both = predict(labelled_network, liquid + other)
    assert_same(both, whole, atoms=np.tile(np.arange(len(liquid)), 2))


def test_members_count_at_any_distance_and_others_up_to_the_radius(labelled_network, predict):
    atoms = ase.build.molecule("H2O") + ase.build.molecule("H2O")
    atoms.positions[3:] += [40.0, 0.0, 0.0]
    atoms.set_array("parts", np.repeat([0, 1], 3))
    apart = float(predict(labelled_network, atoms).energy)
    atoms.arrays["parts"][:] = 0
    together = [float(predict(labelled_network, atoms).energy)]
    atoms.positions[3:] += [20.0, 0.0, 0.0]
    together.append(float(predict(labelled_network, atoms).energy))
    alone = float(predict(labelled_network, _labelled("H2O")).energy)
    assert apart == pytest.approx(2 * alone, rel=1e-12)
    assert abs(together[0] - apart) > 1e-6
    assert abs(together[1] - together[0]) > 1e-9


# --- derivatives -----------------------------------------------------------------------------------------------------


def _labelled(name: str) -> ase.Atoms:
    atoms = ase.build.molecule(name)
    atoms.set_array("parts", np.zeros(len(atoms), dtype=int))
    return atoms


def _ion_and_water() -> ase.Atoms:
    atoms = ase.Atoms("Na", [[0.0, 0.3, 2.6]]) + ase.build.molecule("H2O")
    atoms.set_array("parts", np.array([0, 1, 1, 1]))
    return atoms


MAY_BREAK = pytest.mark.filterwarnings("ignore:.*atoms of several molecules")  # where the carbon is too far away


def _through_the_centroid() -> ase.Atoms:
    """Methanol whose carbon lies where all other members have their centre, so at the position of the part."""
    atoms = _labelled("CH3OH")
    others = atoms.positions[1:]
    atoms.positions[0] = np.average(others, axis=0, weights=Structure.from_atoms(atoms).masses[1:])
    return atoms


@MAY_BREAK
@pytest.mark.parametrize(
    "make",
    [lambda: _labelled("CO2"), lambda: _labelled("H2O"), _ion_and_water, _through_the_centroid],
    ids=["CO2", "water", "ion", "member at the centroid"],
)
def test_forces_of_molecules(labelled_network, make):
    atoms = make()
    assert np.abs(NBodyCalculator(labelled_network).get_forces(atoms)).max() > 1e-3
    assert_conservative(NBodyCalculator(labelled_network), atoms, step=3e-4)


def test_forces_and_stress_of_a_liquid(labelled_network, liquid):
    calculator = NBodyCalculator(labelled_network)
    assert_conservative(calculator, liquid, step=3e-4)
    assert_stress_consistent(calculator, liquid, step=3e-5)


def test_per_atom_quantities_sum(labelled_network, liquid):
    liquid.calc = NBodyCalculator(labelled_network)
    assert liquid.get_stresses().sum(axis=0) == pytest.approx(liquid.get_stress(), rel=1e-10, abs=1e-14)
    assert liquid.get_potential_energies().sum() == pytest.approx(liquid.get_potential_energy(), rel=1e-12)
    assert np.abs(liquid.get_forces().sum(axis=0)).max() < 1e-10 * np.abs(liquid.get_forces()).max()


def test_a_part_shares_its_energy_equally(labelled_network, predict, liquid):
    prediction = predict(labelled_network, liquid)
    parts = prediction.parts[2] + prediction.parts[3]
    count = np.bincount(liquid.arrays["parts"])
    expected = (parts.numpy() / count)[liquid.arrays["parts"]]
    assert prediction.energies.numpy() == pytest.approx(expected, rel=1e-12)


def test_a_lone_ion_has_the_energy_of_an_isolated_atom(make_labelled_network, predict):
    network = make_labelled_network(isolated_atom_energies={"Na": -4421.0})
    atoms = ase.Atoms("Na")
    atoms.set_array("parts", np.array([7]))
    prediction = predict(network, atoms)
    assert float(prediction.energy) == -4421.0
    assert not prediction.forces.any()


# --- smoothness ------------------------------------------------------------------------------------------------------


def _fourth_differences(network, predict, step: float) -> float:
    """The largest along a path on which a member passes through the position of its part."""
    start, energies = _through_the_centroid(), []
    for distance in np.arange(-0.03, 0.03 + step / 2, step):
        atoms = start.copy()
        atoms.positions[0] += distance * np.array([0.6, 0.0, 0.8])
        energies.append(float(predict(network, atoms).energy))
    return float(np.abs(np.diff(energies, 4)).max())


def test_nothing_happens_when_a_member_passes_through_the_centroid(labelled_network, predict, monkeypatch):
    """Fourth differences fall as the fourth power of the step; directions r / |r| make them jump there."""

    def ratio() -> float:
        wide, narrow = (_fourth_differences(labelled_network, predict, step) for step in (0.004, 0.002))
        return wide / narrow

    assert 14.0 < ratio() < 18.5

    def with_directions(basis, vectors, is_member):
        functions, _ = of_vectors(basis, vectors, is_member)
        return functions, vectors / (vectors.square().sum(0) + 1e-30).sqrt()

    of_vectors = LabelledRadialBasis.of_vectors
    monkeypatch.setattr(LabelledRadialBasis, "of_vectors", with_directions)
    assert ratio() < 4.0


def test_another_molecule_fades_in_smoothly(labelled_network, predict):
    """At the radius of the lower labelled level, of 3 Angstrom, value, slope and curvature are zero."""
    network, energies = labelled_network, []
    distances = np.linspace(8.5, 11.5, 61)
    for distance in distances:
        atoms = _labelled("CO2") + _labelled("CO2")
        atoms.positions[3:] += [distance, 0.0, 0.0]
        atoms.arrays["parts"][3:] = 1
        energies.append(float(predict(network, atoms).energy))
    assert energies[-1] == pytest.approx(2 * float(predict(network, _labelled("CO2")).energy), rel=1e-12)
    third = np.abs(np.diff(energies, 3))
    assert third.max() < 0.01 * max(1.0, np.ptp(energies))


# --- the ways to run it ----------------------------------------------------------------------------------------------


def test_batches_of_structures(labelled_network, predict, liquid):
    systems = [liquid, _labelled("CO2"), _ion_and_water(), ase.Atoms(), liquid[liquid.arrays["parts"] == 2]]
    systems[3].set_array("parts", np.zeros(0, dtype=int))
    together = predict(labelled_network, *systems)
    start = 0
    for number, atoms in enumerate(systems):
        one, here = predict(labelled_network, atoms), slice(start, start + len(atoms))
        start += len(atoms)
        assert float(together.energy[number]) == pytest.approx(float(one.energy), rel=1e-11, abs=1e-12)
        for name in ("forces", "energies", "virials"):
            assert together[name][here].numpy() == pytest.approx(one[name].numpy(), rel=1e-9, abs=1e-10)


def test_single_precision(labelled_network, liquid):
    double, single = (NBodyCalculator(labelled_network, dtype=dtype) for dtype in ("float64", "float32"))
    forces = double.get_forces(liquid)
    assert single.get_forces(liquid) == pytest.approx(forces, abs=2e-5 * np.abs(forces).max())


def test_runners_evaluate_labelled_levels_whole(labelled_network, hierarchy_of, liquid, monkeypatch):
    """Whatever the size of the system."""
    monkeypatch.setattr("ase_nbody.runtime.runner.WHOLE_ATOMS", {"cpu": 3, "cuda": 3})
    hierarchy = hierarchy_of(labelled_network, liquid)
    geometry = torch.tensor(liquid.positions), torch.tensor(liquid.cell.array).unsqueeze(0)
    found = Runner(labelled_network)(hierarchy, *geometry)
    assert_same(found, evaluate(labelled_network, hierarchy, *geometry))
    with pytest.raises(ValueError, match="not in blocks"):
        Runner(labelled_network).eagerly(hierarchy, *geometry, blocks=True)


def test_a_hierarchy_on_another_device_keeps_its_labels(labelled_network, hierarchy_of, liquid):
    moved = hierarchy_of(labelled_network, liquid).to(torch.device("meta"))
    assert all(tensor.is_meta for level in moved.levels[2:] for tensor in level.labelled.tensors())


def test_a_committee_with_and_without_labels(labelled_network, make_labelled_network, network, liquid):
    members = [labelled_network, make_labelled_network(seed=1), network]
    expected = np.mean([NBodyCalculator(member).get_forces(liquid) for member in members], axis=0)
    assert NBodyCalculator(members).get_forces(liquid) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_forces_have_a_gradient_with_respect_to_the_weights(make_labelled_network, predict, liquid):
    network = make_labelled_network().requires_grad_(True)
    size = predict(network, liquid, create_graph=True).forces.square().sum()
    weights = list(network.parameters())
    gradient = torch.autograd.grad(size, weights, materialize_grads=True)
    direction = [slope / size.detach() for slope in gradient]
    values = []
    for sign in (1e-6, -1e-6):
        for weight, along in zip(weights, direction, strict=True):
            weight.data += sign * along
        values.append(float(predict(network, liquid).forces.square().sum()))
        for weight, along in zip(weights, direction, strict=True):
            weight.data -= sign * along
    expected = sum(float((slope * along).sum()) for slope, along in zip(gradient, direction, strict=True))
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(expected, rel=1e-5)


FORMS = {
    "clebsch_gordan": {"product": "clebsch_gordan"},
    "both parities": {"product": "clebsch_gordan", "parity": "both"},
    "children's gate": {"children_gate": True},
    "type": {"tau": (4, 3, 2)},
    "no gains": {"species_gains": False},
}


@MAY_BREAK
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_other_forms_of_labelled_levels(make_labelled_network, labelled_network, predict, liquid, form):
    levels = []
    for level in labelled_network.config.levels:
        content = {**level.model_dump(), **(form if level.is_labelled else {})}
        for implied in ("channels", "l_max") if "tau" in form and level.is_labelled else ():
            del content[implied]
        levels.append(LevelConfig.model_validate(content))
    network = make_labelled_network(levels=tuple(levels))
    expected = predict(network, liquid)
    assert float(expected.parts[2].abs().max()) > 1e-3
    rotation, turned = random_rotation(0, improper=True).numpy(), liquid.copy()
    turned.set_cell(liquid.cell.array @ rotation.T)
    turned.positions = liquid.positions @ rotation.T
    assert_same(predict(network, turned), expected, turn=rotation)
    assert_conservative(NBodyCalculator(network), _ion_and_water(), step=3e-4)
    assert_conservative(NBodyCalculator(network), _through_the_centroid(), step=3e-4)
