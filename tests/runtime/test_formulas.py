"""Layers written for a processor or a compiler give what the equations of ``nn`` and ``so3`` give, derivatives too."""

import copy

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ase_nbody.nn.gates import FirstOrderGate
from ase_nbody.nn.path_gates import ChildrenSum, FirstOrderPathGate
from ase_nbody.nn.radial import RadialBasis
from ase_nbody.runtime import formulas
from ase_nbody.runtime.compiled import pure_evaluation
from ase_nbody.runtime.formulas import for_eager, for_tracing
from ase_nbody.so3 import SphericalHarmonics, Type

WAYS = pytest.mark.parametrize("way", [for_eager, for_tracing], ids=lambda way: way.__name__)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tensors(prediction):
    return [prediction.energy, prediction.energies, prediction.forces, prediction.virials, *prediction.parts]


def with_derivatives(function, *inputs):
    """Value, first and second derivatives of a nonlinear function of a layer's result by all its inputs and weights."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    value = function(*inputs)
    total = (value.sin() * torch.arange(1.0, value.numel() + 1.0).to(value).view(value.shape)).sum() / value.numel()
    total = total + sum(tensor.pow(3).sum() for tensor in inputs)  # so that no derivative vanishes
    first = torch.autograd.grad(total, inputs, create_graph=True)
    second = torch.autograd.grad(sum(each.square().sum() for each in first), inputs)
    return [tensor.detach() for tensor in (value, *first, *second)]


def assert_equal(function, other, *inputs):
    for found, expected in zip(with_derivatives(other, *inputs), with_derivatives(function, *inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * max(1.0, float(expected.abs().max())))


def other_form(layer, way):
    """The layer in another form, which is one of those of ``runtime.formulas``."""
    other = way(layer)
    assert type(other).__module__ == formulas.__name__
    return other


@pytest.mark.parametrize("l_max", range(7))
def test_harmonics(l_max):
    vectors = random(3, 5, 4)
    layer = SphericalHarmonics(l_max)
    other = other_form(layer, for_tracing)

    def of(harmonics):
        return lambda vectors: harmonics(vectors / vectors.norm(dim=0))

    assert_equal(of(layer), of(other), vectors)


@pytest.mark.parametrize("size", [1, 2, 12])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_radial_basis(size, decay):
    layer = RadialBasis(4.0, size, decay, scale=0.3)
    distance = torch.linspace(0.5, 5.0, 12, dtype=torch.float64).view(3, 4)
    assert_equal(layer, other_form(layer, for_tracing), distance)


@WAYS
@pytest.mark.parametrize(
    ("l_child", "l_max", "n_radial", "channels"), [(0, 3, None, 2), (0, 2, 2, 3), (2, 3, 2, 2), (2, 1, 3, 40)]
)
def test_first_order_gate(way, l_child, l_max, n_radial, channels, padded_level):
    """With 40 channels, derivatives with respect to the children are added one by one eagerly, but not when traced."""
    tau = Type.uniform(channels, l_child)
    layer = FirstOrderGate(tau, l_max, 3, n_radial)
    other = other_form(layer, way)
    state = random(tau.components, padded_level.parents.shape[1], channels)
    basis = random(3, *padded_level.mask.shape, seed=1) * padded_level.mask
    unit = random(3, *padded_level.mask.shape, seed=2)
    weights = [layer.radial.detach()] if n_radial else []

    def of(gate):
        def function(state, basis, unit, *weights):
            given = dict(zip(["radial"], weights, strict=False))
            return torch.func.functional_call(gate, given, (state, basis, unit, padded_level))

        return function

    assert_equal(of(layer), of(other), state, basis, unit, *weights)


def random_blocks(tau, parts, seed=0):
    """The blocks of a state of any type."""
    return [random(irrep.components, parts, count, seed=seed) for irrep, count in tau.irreps.items()]


PATHS = pytest.mark.parametrize("tau", [Type.uniform(2, 2), Type((3, 2, 1), (0, 2, 1))], ids=str)


@PATHS
def test_first_order_gate_with_free_weights(tau, padded_level):
    layer = FirstOrderPathGate(tau, 3, 3, 2, pseudo=bool(tau.pseudo))
    other = other_form(layer, for_tracing)
    blocks = random_blocks(tau, padded_level.parents.shape[1])
    basis = random(3, *padded_level.mask.shape, seed=1) * padded_level.mask
    unit = random(3, *padded_level.mask.shape, seed=2)

    def of(gate):
        def function(radial, basis, unit, *blocks):
            given = (tau.dense(blocks), basis, unit, padded_level)
            return gate.tau_out.dense(torch.func.functional_call(gate, {"radial": radial}, given))

        return function

    assert_equal(of(layer), of(other), layer.radial.detach(), basis, unit, *blocks)


@PATHS
def test_sum_of_the_children(tau, padded_level):
    layer = ChildrenSum(tau, 3)
    other = other_form(layer, for_tracing)
    basis = random(3, *padded_level.mask.shape, seed=1) * padded_level.mask

    def of(gate):
        return lambda basis, *blocks: gate.tau_out.dense(gate(tau.dense(blocks), basis, padded_level))

    assert_equal(of(layer), of(other), basis, *random_blocks(tau, padded_level.parents.shape[1]))


@WAYS
def test_networks_of_every_form(way, form, systems, predict):
    found, expected = predict(way(form), systems["molecule"]()), predict(form, systems["molecule"]())
    for one, other in zip(tensors(found), tensors(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-11)


@WAYS
@pytest.mark.parametrize("name", ["molecule", "triclinic", "no anchors", "lone carbon", "no neighbours", "empty"])
def test_networks(way, name, any_network, systems, predict):
    found, expected = predict(way(any_network), systems[name]()), predict(any_network, systems[name]())
    for one, other in zip(tensors(found), tensors(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-11)


@WAYS
def test_derivatives_by_the_weights(way, make_network, systems, predict):
    network = make_network(repulsion=True).requires_grad_(True)
    gradients = []
    for each in (network, way(network)):
        prediction = predict(each, systems["molecule"](), create_graph=True)
        loss = prediction.forces.square().sum() + prediction.energy.sum()
        gradients.append(torch.autograd.grad(loss, list(network.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11 * float(other.abs().max()))


@WAYS
def test_weights_are_the_same_tensors_under_the_same_names(way, make_network):
    network = make_network()
    other = way(network)
    assert list(other.state_dict()) == list(network.state_dict())
    for (name, one), (same_name, same) in zip(network.named_parameters(), other.named_parameters(), strict=True):
        assert name == same_name
        assert one is same
    network.requires_grad_(True).to(torch.float32)
    assert all(weight.requires_grad for weight in other.parameters())
    assert {tensor.dtype for tensor in (*other.parameters(), *other.buffers()) if tensor.is_floating_point()} == {
        tensor.dtype for tensor in (*network.parameters(), *network.buffers()) if tensor.is_floating_point()
    }
    network.embedding.weight.data[:] = 7.0
    assert (other.embedding.weight == 7.0).all()


@WAYS
def test_the_network_itself_stays_as_it_is(way, make_network):
    network = make_network()
    before = [type(module) for module in network.modules()]
    way(network)
    assert [type(module) for module in network.modules()] == before


@WAYS
def test_twice_is_as_good_as_once(way, make_network):
    network = make_network()
    kinds = [type(module) for module in way(network).modules()]
    assert [type(module) for module in way(way(network)).modules()] == kinds
    assert [type(module) for module in way(for_eager(network)).modules()] == kinds


def test_a_copy_has_weights_of_its_own(make_network):
    network = make_network()
    copied = copy.deepcopy(for_eager(network))
    copied.embedding.weight.data[:] = 7.0
    assert not (network.embedding.weight == 7.0).any()


def test_a_traced_gate_adds_no_edges_one_by_one(padded_level):
    """With 40 channels the gate itself does."""
    gate = FirstOrderGate(Type.uniform(40, 1), 2, 3, 2)
    state = random(4, padded_level.parents.shape[1], 40)
    basis, unit = random(3, *padded_level.mask.shape), random(3, *padded_level.mask.shape)

    def operations(gate):
        def slope(state):
            state = state.detach().requires_grad_()
            return torch.autograd.grad(gate(state, basis, unit, padded_level).sum(), state)[0]

        return [str(node.target) for node in make_fx(slope)(state).graph.nodes]

    assert any("index_add" in name for name in operations(gate))
    assert any("index_add" in name for name in operations(for_eager(gate)))
    traced = operations(for_tracing(gate))
    assert not any("index_add" in name for name in traced)
    assert any("as_strided" in name for name in traced)


def test_traced_is_equal_to_evaluated(any_network, systems, hierarchy_of, predict):
    atoms = systems["molecule"]()
    tables = hierarchy_of(any_network, atoms).tensors()
    positions, cells = torch.from_numpy(atoms.positions), torch.zeros(1, 3, 3, dtype=torch.float64)
    arguments = (list(any_network.parameters()), tables, positions, cells)
    found = make_fx(pure_evaluation(any_network))(*arguments)(*arguments)
    for one, other in zip(found, tensors(predict(any_network, atoms)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("name", [pytest.param("everything", marks=pytest.mark.long), "kondor"])
def test_forms_are_traced_as_they_are_evaluated(name, make_form, systems, hierarchy_of, predict):
    """Between them they have every layer."""
    form = make_form(name)
    atoms = systems["triclinic"]()
    tables = hierarchy_of(form, atoms).tensors()
    positions, cells = torch.from_numpy(atoms.positions), torch.from_numpy(atoms.cell.array).unsqueeze(0)
    arguments = (list(form.parameters()), tables, positions, cells)
    traced = make_fx(pure_evaluation(form))(*arguments)
    for one, other in zip(traced(*arguments), tensors(predict(form, atoms)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-11)
