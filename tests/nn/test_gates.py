import pytest
import torch

from ase_nbody.hierarchy.tables import Level
from ase_nbody.nn.gates import FirstOrderGate, ZerothOrderGate
from ase_nbody.nn.radial import RadialBasis
from ase_nbody.so3 import SphericalHarmonics, Type, clebsch_gordan_product, degrees
from ase_nbody.testing import assert_covariant

N_BASIS, N_RADIAL, RADIUS = 3, 2, 4.0


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def vectors(padded_level) -> torch.Tensor:
    """Pair vectors of all lengths up to the radius; padded ones are longer."""
    mask = padded_level.mask.unsqueeze(-1)
    return torch.where(mask, 0.8 * random(*padded_level.mask.shape, 3), 2.0 * RADIUS)


def aggregation(gate: FirstOrderGate, level: Level):
    """The gate as a function of the states and the pair vectors."""
    basis = RadialBasis(RADIUS, N_BASIS)

    def aggregate(state, vectors):
        distance = vectors.norm(dim=-1)
        return gate(state, basis(distance), vectors.movedim(-1, 0) / distance, level)

    return aggregate


FIRST_ORDER = pytest.mark.parametrize(
    ("l_child", "l_max", "n_radial"), [(0, 3, None), (0, 2, N_RADIAL), (1, 2, N_RADIAL), (2, 1, N_RADIAL), (2, 3, 1)]
)


@FIRST_ORDER
def test_covariance_of_the_first_order_gate(l_child, l_max, n_radial, padded_level, vectors):
    tau = Type.uniform(2, l_child)
    gate = FirstOrderGate(tau, l_max, N_BASIS, n_radial)
    state = random(tau.components, padded_level.parents.shape[1], 2)
    assert_covariant(aggregation(gate, padded_level), state, l_child, l_max, vectors=vectors)


@FIRST_ORDER
def test_broken_first_order_covariance_is_refused(
    l_child, l_max, n_radial, padded_level, vectors, broken_representation
):
    tau = Type.uniform(2, l_child)
    aggregate = aggregation(FirstOrderGate(tau, l_max, N_BASIS, n_radial), padded_level)
    state = random(tau.components, padded_level.parents.shape[1], 2)
    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(aggregate, state, l_child, l_max, vectors=vectors, representation=broken_representation)


@FIRST_ORDER
def test_first_order_gate_is_the_sum_of_products_over_the_edges(l_child, l_max, n_radial, padded_level, vectors):
    """sum_j [R_n(r_ij) Y(r_ij)] ⊗ psi_j by the general Clebsch-Gordan product, edge by edge."""
    level, tau = padded_level, Type.uniform(2, l_child)
    gate = FirstOrderGate(tau, l_max, N_BASIS, n_radial)
    state = random(tau.components, level.parents.shape[1], 2)
    expected = torch.zeros(gate.tau_out.components, len(level.centre), gate.tau_out.channels, dtype=torch.float64)
    weight = torch.eye(N_BASIS, dtype=torch.float64).expand(l_max + 1, -1, -1) if n_radial is None else gate.radial
    for part, slot in level.mask.nonzero().tolist():
        vector = vectors[part, slot]
        radial = (RadialBasis(RADIUS, N_BASIS)(vector.norm()) @ weight)[degrees(l_max)]  # (components, n)
        edge = radial * SphericalHarmonics(l_max)(vector / vector.norm()).unsqueeze(-1)
        child = state[:, level.child[part, slot]]
        expected[:, part] += clebsch_gordan_product(edge[:, :, None], child[:, None, :], l_max).flatten(1).detach()
    torch.testing.assert_close(aggregation(gate, level)(state, vectors), expected, rtol=0, atol=1e-12)


def test_learned_radial_functions_contain_the_basis(padded_level, vectors):
    tau = Type.uniform(2, 0)
    plain, learned = FirstOrderGate(tau, 3, N_BASIS), FirstOrderGate(tau, 3, N_BASIS, N_BASIS)
    learned.radial.data[:] = torch.eye(N_BASIS)
    state = random(1, padded_level.parents.shape[1], 2)
    results = [aggregation(gate, padded_level)(state, vectors) for gate in (plain, learned)]
    torch.testing.assert_close(*results)


def test_children_with_directions_need_learned_radial_functions():
    with pytest.raises(ValueError, match="children of type 2x0 \\+ 2x1 need learned radial functions"):
        FirstOrderGate(Type.uniform(2, 1), 2, N_BASIS)


def test_padded_edges_count_for_nothing(padded_level, vectors):
    gate = FirstOrderGate(Type.uniform(2, 1), 2, N_BASIS, N_RADIAL)
    state = random(4, padded_level.parents.shape[1], 2)
    elsewhere = torch.where(padded_level.mask.unsqueeze(-1), vectors, -1.5 * RADIUS)
    assert torch.equal(
        aggregation(gate, padded_level)(state, vectors), aggregation(gate, padded_level)(state, elsewhere)
    )


def test_energy_of_two_point_dipoles(network, hierarchy_of, systems):
    """r^-3 [p1.p2 - 3 (p1.u)(p2.u)] is a first-order gate whose radial function of l = 2 is r^-3 (Kondor 2018)."""
    atoms = systems["wire"]()[[0, 1]]
    atoms.pbc = False
    level = hierarchy_of(network, atoms).levels[1]
    gate = FirstOrderGate(Type.uniform(1, 1), 2, n_basis=1, n_radial=1)
    gate.radial.data[:] = torch.tensor([0.0, 0.0, 1.0]).reshape(3, 1, 1)
    first, second = random(2, 3)
    state = torch.zeros(4, 2, 1, dtype=torch.float64)
    state[1:, 0, 0], state[1:, 1, 0] = first, second
    pair = torch.from_numpy(atoms.positions[1] - atoms.positions[0])
    distance = pair.norm()
    unit = pair / distance
    vectors = torch.stack([pair, -pair]).unsqueeze(1)
    basis = (distance**-3).expand(1, 2, 1)
    field = gate(state, basis, vectors.movedim(-1, 0) / distance, level)[1:4, :, 0]  # (xyz, parts)
    expected = distance**-3 * (first @ second - 3.0 * (first @ unit) * (second @ unit))
    torch.testing.assert_close(-(first @ field[:, 0]), expected)
    torch.testing.assert_close(-(second @ field[:, 1]), expected)


ZEROTH_ORDER = pytest.mark.parametrize(
    ("l_max", "l_out", "order"), [(3, 2, 3), (2, 4, 2), (1, 3, 4), (2, 0, 3), (3, 3, 1)]
)


@ZEROTH_ORDER
def test_covariance_of_the_zeroth_order_gate(l_max, l_out, order):
    gate = ZerothOrderGate(Type.uniform(2, l_max), l_out, order)
    assert gate.tau_out == Type.uniform(2 * order, l_out)
    assert_covariant(gate, random((l_max + 1) ** 2, 4, 2), l_max, l_out)


@pytest.mark.parametrize(("l_max", "l_out", "order"), [(3, 2, 3), (2, 4, 2)])
def test_broken_zeroth_order_covariance_is_refused(l_max, l_out, order, broken_representation):
    gate, state = ZerothOrderGate(Type.uniform(2, l_max), l_out, order), random((l_max + 1) ** 2, 4, 2)
    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(gate, state, l_max, l_out, representation=broken_representation)


@ZEROTH_ORDER
@pytest.mark.parametrize("decay", [1.0, 0.4])
def test_zeroth_order_gate_is_powers_by_the_clebsch_gordan_product(l_max, l_out, order, decay):
    state = random((l_max + 1) ** 2, 4, 2)
    power, powers = state, [state]
    for number in range(2, order + 1):
        power = decay * clebsch_gordan_product(power, state, number * l_max)
        powers.append(power)
    expected = torch.zeros((l_out + 1) ** 2, 4, 2 * order, dtype=torch.float64)
    for number, power in enumerate(powers):
        kept = power[: len(expected)]
        expected[: len(kept), :, 2 * number : 2 * number + 2] = kept
    gate = ZerothOrderGate(Type.uniform(2, l_max), l_out, order, decay)
    torch.testing.assert_close(gate(state), expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


def test_type_of_the_zeroth_order_gate_ends_at_the_highest_possible_degree():
    assert ZerothOrderGate(Type.uniform(2, 1), l_out=5, order=2).tau_out == Type.uniform(4, 2)


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_derivatives_of_the_first_order_gate(check, network, hierarchy_of, systems):
    level = hierarchy_of(network, systems["molecule"]()).levels[1]
    gate = FirstOrderGate(Type.uniform(1, 1), 1, N_BASIS, 1)
    state, vectors = (
        random(4, level.parents.shape[1], 1).requires_grad_(),
        random(*level.mask.shape, 3).requires_grad_(),
    )
    assert check(aggregation(gate, level), (state, vectors))
