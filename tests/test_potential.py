import dataclasses

import ase
import numpy as np
import pytest
import torch

from ase_nbody.hierarchy.build import VerletHierarchy
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import evaluate
from ase_nbody.prediction import Prediction
from ase_nbody.structure import Structure

# f'(0) = (8 [f(h) - f(-h)] - [f(2h) - f(-2h)]) / 12 h
STENCIL = ((1, 8 / 12), (-1, -8 / 12), (2, -1 / 12), (-2, 1 / 12))
STEP = 1e-3


def derivative(function, step: float = STEP) -> float:
    return sum(weight * function(multiple * step) for multiple, weight in STENCIL) / step


def assert_equal_within(actual, expected, rtol: float = 1e-6) -> None:
    """Close relative to the largest component, which must not be zero."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = np.abs(expected).max()
    assert scale > 0.0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * scale)


def strained(atoms: ase.Atoms, strain: np.ndarray) -> ase.Atoms:
    atoms, deformation = atoms.copy(), np.eye(3) + strain
    atoms.set_cell(atoms.cell.array @ deformation)
    atoms.positions = atoms.positions @ deformation
    return atoms


@pytest.fixture(scope="module")
def with_repulsion(make_network) -> NBodyNetwork:
    """The network, and ZBL between the nuclei."""
    return make_network(seed=1, repulsion=True)


def test_forces_are_minus_the_gradient_of_the_energy(with_repulsion, predict, bound_system):
    def energy(atom, axis, step):
        moved = bound_system.copy()
        moved.positions[atom, axis] += step
        return float(predict(with_repulsion, moved).energy)

    forces = predict(with_repulsion, bound_system).forces
    numeric = [
        -derivative(lambda step, atom=atom, axis=axis: energy(atom, axis, step))
        for atom, axis in np.ndindex(forces.shape)
    ]
    assert_equal_within(forces, np.reshape(numeric, forces.shape))


def test_virial_is_the_derivative_by_the_strain(with_repulsion, predict, bound_system):
    def energy(row, column, step):
        strain = np.zeros((3, 3))
        strain[row, column] = strain[column, row] = step / 2
        strain[row, column] += step / 2 if row == column else 0.0
        return float(predict(with_repulsion, strained(bound_system, strain)).energy)

    numeric = [[derivative(lambda step, a=a, b=b: energy(a, b, step), 3e-4) for b in range(3)] for a in range(3)]
    assert_equal_within(predict(with_repulsion, bound_system).virials.sum(0), numeric)


def test_virials_of_the_atoms_are_derivatives_by_their_own_strains(with_repulsion, hierarchy_of, predict, bound_system):
    """The energy under r_ij -> (1 + (e_i + e_j) / 2) r_ij, one strain for each atom, through the network itself."""
    network, hierarchy = with_repulsion, hierarchy_of(with_repulsion, bound_system)
    positions, cell = torch.from_numpy(bound_system.positions), torch.from_numpy(bound_system.cell.array)

    def energy(strains):
        vectors = []
        for level, config in zip(hierarchy.levels, network.config.levels, strict=True):
            pairs = (
                positions[level.atom]
                + level.shift.movedim(0, -1).double() @ cell
                - positions[level.centre].unsqueeze(1)
            )
            mean = 0.5 * (strains[level.centre].unsqueeze(1) + strains[level.atom])
            pairs = pairs + (mean @ pairs.unsqueeze(-1)).squeeze(-1)
            vectors.append(torch.where(level.mask, pairs.movedim(-1, 0), 2.0 * config.radius))
        return float(sum(part["energy"].sum() for part in network(hierarchy, vectors)))

    def of_component(atom, row, column, step):
        strains = torch.zeros(len(positions), 3, 3, dtype=torch.float64)
        strains[atom, row, column] += step / 2
        strains[atom, column, row] += step / 2
        return energy(strains)

    virials = predict(network, bound_system).virials
    components = [(atom, row, column) for atom in (0, len(positions) - 1) for row in range(3) for column in range(3)]
    numeric = [
        derivative(lambda step, component=component: of_component(*component, step), 3e-4) for component in components
    ]
    assert_equal_within(numeric, virials[[0, -1]].flatten())


def test_virials_are_symmetric_and_energies_sum_up(network, predict, system):
    prediction = predict(network, system)
    assert torch.equal(prediction.virials, prediction.virials.mT)
    torch.testing.assert_close(prediction.energies.sum(), prediction.energy.squeeze(), rtol=1e-14, atol=1e-14)


def test_forces_sum_to_zero(network, predict, bound_system):
    forces = predict(network, bound_system).forces
    assert forces.sum(0).abs().max() < 1e-11 * forces.abs().max() * len(forces)


def test_everything_is_float64_and_detached(network, predict, system):
    prediction = predict(network, system)
    for name in ("energy", "energies", "forces", "virials"):
        value = getattr(prediction, name)
        assert value.dtype == torch.float64
        assert not value.requires_grad


@pytest.mark.parametrize("name", ["lone hydrogen", "lone carbon", "no neighbours"])
def test_an_atom_without_neighbours_has_its_isolated_energy(name, network, predict, systems):
    atoms = systems[name]()
    prediction = predict(network, atoms)
    expected = [network.config.isolated_atom_energies[symbol] for symbol in atoms.symbols]
    assert prediction.energies.tolist() == expected
    assert not prediction.forces.any()
    assert not prediction.virials.any()


def test_the_empty_system_has_no_energy(network, predict):
    prediction = predict(network, ase.Atoms())
    assert prediction.energy.tolist() == [0.0]
    assert prediction.forces.shape == (0, 3)
    assert prediction.virials.shape == (0, 3, 3)


def test_without_anchors_the_first_level_alone_is_there(network, predict, systems):
    prediction = predict(network, systems["no anchors"]())
    assert prediction.parts[0].all()
    assert prediction.parts[1].shape == (0,)
    assert prediction.forces.any()


@pytest.mark.parametrize("order", [1, -1])
def test_a_batch_is_its_structures_one_by_one(order, any_network, predict, systems):
    batch = [make() for make in systems.values()][::order]
    together, alone = predict(any_network, *batch), [predict(any_network, atoms) for atoms in batch]
    for name in ("energy", "energies", "forces", "virials"):
        expected = torch.cat([getattr(prediction, name) for prediction in alone])
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(getattr(together, name), expected, rtol=0, atol=1e-12 * scale)
    for number, part in enumerate(together.parts):
        torch.testing.assert_close(part, torch.cat([prediction.parts[number] for prediction in alone]))


def test_listing_too_many_children_is_harmless(network, predict, system):
    tight, wide = predict(network, system), predict(network, system, skin=1.5)
    for field in dataclasses.fields(Prediction):
        torch.testing.assert_close(getattr(wide, field.name), getattr(tight, field.name), rtol=1e-10, atol=1e-10)


def test_a_reused_hierarchy_gives_the_result_of_a_new_one(network, predict, bound_system):
    verlet = VerletHierarchy(network.config.layout, skin=0.6)
    verlet.update(Structure.from_atoms(bound_system))
    generator = np.random.default_rng(0)
    for _ in range(3):
        bound_system.positions += generator.uniform(-0.04, 0.04, size=bound_system.positions.shape)
        bound_system.set_cell(0.995 * bound_system.cell.array, scale_atoms=True)
        hierarchy = verlet.update(Structure.from_atoms(bound_system))
        cells = torch.from_numpy(bound_system.cell.array.copy()).unsqueeze(0)
        reused = evaluate(network, hierarchy, torch.from_numpy(bound_system.positions.copy()), cells)
        fresh = predict(network, bound_system)
        assert_equal_within(reused.forces, fresh.forces, 1e-10)
        assert_equal_within(reused.virials, fresh.virials, 1e-10)
    assert verlet.builds == 1


def test_virials_may_be_left_out(network, predict, systems):
    atoms = systems["triclinic"]()
    with_virials, without = predict(network, atoms), predict(network, atoms, virials=False)
    assert_equal_within(without.forces, with_virials.forces, 1e-12)
    assert not without.virials.any()
    assert without.virials.shape == (3, 3, 3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_forces_come_in_every_grad_mode(mode, network, hierarchy_of, systems):
    atoms = systems["triclinic"]()
    hierarchy = hierarchy_of(network, atoms)
    geometry = torch.from_numpy(atoms.positions), torch.from_numpy(atoms.cell.array).unsqueeze(0)
    expected = evaluate(network, hierarchy, *geometry)
    with mode():
        prediction = evaluate(network, hierarchy, *geometry)
    assert torch.equal(prediction.forces, expected.forces)


def test_single_precision_is_close(make_network, predict, bound_system):
    network = make_network()
    double = predict(network, bound_system)
    single = predict(network.float(), bound_system)
    assert single.forces.dtype == torch.float64
    assert_equal_within(single.forces, double.forces, 1e-4)
    assert_equal_within(single.virials, double.virials, 1e-4)


@pytest.mark.parametrize("name", ["molecule", "triclinic"])
def test_a_loss_of_forces_and_virials_is_differentiable_by_the_weights(name, make_network, predict, systems):
    network, atoms = make_network(seed=2).requires_grad_(True), systems[name]()
    generator = torch.Generator().manual_seed(0)
    weight, shape = network.levels[0].aggregate.weight, (len(atoms), 3)
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=generator)
    force_weights = torch.randn(shape, dtype=torch.float64, generator=generator)

    def loss(create_graph=False):
        prediction = predict(network, atoms, create_graph=create_graph)
        return (prediction.forces * force_weights).square().sum() + prediction.virials.sum(0).square().sum()

    (gradient,) = torch.autograd.grad(loss(create_graph=True), weight)
    original = weight.data.clone()

    def shifted(step):
        weight.data = original + step * direction
        return float(loss())

    assert float((gradient * direction).sum()) == pytest.approx(derivative(shifted), rel=1e-6)
