"""Gates that keep fragments for each path, held against the product's definition."""

import itertools

import pytest
import torch

from ase_nbody.nn.gates import FirstOrderGate, ZerothOrderGate
from ase_nbody.nn.mixing import MixingByIrrep, mixing
from ase_nbody.nn.path_gates import ChildrenSum, FirstOrderPathGate, ZerothOrderPathGate
from ase_nbody.nn.radial import RadialBasis
from ase_nbody.nn.species import SpeciesGainByIrrep, species_gain
from ase_nbody.so3 import Irrep, SphericalHarmonics, Type, coupled, gaunt_coefficient
from ase_nbody.so3.powers import power_couplings, product_irreps
from ase_nbody.testing import assert_covariant

N_BASIS, N_RADIAL, RADIUS = 3, 2, 4.0
NATURAL, FALLING = Type.uniform(2, 2), Type((3, 2, 1))
BOTH = Type((3, 2, 1), (0, 2, 1))
TYPES = pytest.mark.parametrize("tau", [NATURAL, FALLING, BOTH, Type((2, 2), (1, 2))], ids=str)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_state(tau: Type, parts: int, seed: int = 0) -> torch.Tensor:
    """A dense state with zeros where the type has no fragments."""
    blocks = [random(irrep.components, parts, count, seed=seed) for irrep, count in tau.irreps.items()]
    return tau.dense(tuple(blocks))


def by_irrep(tau: Type, state) -> dict[Irrep, torch.Tensor]:
    return dict(zip(tau.irreps, tau.blocks(state), strict=True))


def dense(layer, *others):
    """The layer as a function of a dense state that gives a dense state."""
    return lambda state, *more: layer.tau_out.dense(layer(state, *others, *more))


@pytest.fixture
def vectors(padded_level) -> torch.Tensor:
    """Pair vectors of all lengths up to the radius; padded ones are longer."""
    mask = padded_level.mask.unsqueeze(-1)
    return torch.where(mask, 0.8 * random(*padded_level.mask.shape, 3), 2.0 * RADIUS)


def aggregation(gate, level):
    """A gate over the children as a function of dense states and pair vectors."""
    basis = RadialBasis(RADIUS, N_BASIS)

    def aggregate(state, vectors):
        distance = vectors.norm(dim=-1)
        unit = vectors.movedim(-1, 0) / distance
        arguments = (basis(distance), level) if isinstance(gate, ChildrenSum) else (basis(distance), unit, level)
        return gate.tau_out.dense(gate(state, *arguments))

    return aggregate


# ------------------------------------------------------------------------------------------------- first-order gate


@TYPES
@pytest.mark.parametrize("l_max", [1, 3])
def test_covariance_of_the_first_order_gate(tau, l_max, padded_level, vectors):
    gate = FirstOrderPathGate(tau, l_max, N_BASIS, N_RADIAL, pseudo=bool(tau.pseudo))
    state = random_state(tau, padded_level.parents.shape[1])
    assert_covariant(aggregation(gate, padded_level), state, tau, gate.tau_out, vectors=vectors)


@TYPES
@pytest.mark.parametrize("l_max", [1, 3])
def test_first_order_gate_is_the_sum_of_products_over_the_edges(tau, l_max, padded_level, vectors):
    """Edge by edge and path by path; the fragments stand in the order of paths, radial functions and channels."""
    level, pseudo = padded_level, bool(tau.pseudo)
    gate = FirstOrderPathGate(tau, l_max, N_BASIS, N_RADIAL, pseudo)
    state = random_state(tau, level.parents.shape[1])
    expected = {irrep: [] for irrep in gate.tau_out.irreps}
    edges = level.mask.nonzero().tolist()
    basis = torch.stack([RadialBasis(RADIUS, N_BASIS)(vectors[part, slot].norm()) for part, slot in edges])
    units = torch.stack([vectors[part, slot] / vectors[part, slot].norm() for part, slot in edges], dim=1)
    harmonics = SphericalHarmonics(l_max)(units)
    children = [level.child[part, slot] for part, slot in edges]
    centres = torch.tensor([part for part, _ in edges])
    for degree in range(l_max + 1):
        radial = basis @ gate.radial[degree].detach()  # (edges, n)
        edge = harmonics[degree**2 : (degree + 1) ** 2].unsqueeze(-1) * radial  # (2 l + 1, edges, n)
        for irrep, block in by_irrep(tau, state).items():
            for result in product_irreps(Irrep(degree), irrep, l_max, pseudo=pseudo):
                pairs = coupled(edge.unsqueeze(-1), block[:, children].unsqueeze(2), result.degree).flatten(2)
                total = torch.zeros(result.components, len(level.centre), pairs.shape[-1], dtype=torch.float64)
                expected[result].append(total.index_add(1, centres, pairs))
    wanted = gate.tau_out.dense(tuple(torch.cat(blocks, dim=-1) for blocks in expected.values()))
    torch.testing.assert_close(aggregation(gate, level)(state, vectors), wanted, rtol=0, atol=1e-12)


def test_gaunts_gate_weighs_the_paths(padded_level, vectors):
    """With Gaunt's coefficients as weights of the paths, both first-order gates are the same."""
    tau, l_max = NATURAL, 2
    paths, gaunt = FirstOrderPathGate(tau, l_max, N_BASIS, N_RADIAL), FirstOrderGate(tau, l_max, N_BASIS, N_RADIAL)
    gaunt.radial.data[:] = paths.radial
    state = random_state(tau, padded_level.parents.shape[1])
    width = N_RADIAL * tau.channels
    found = by_irrep(paths.tau_out, aggregation(paths, padded_level)(state, vectors))
    sums = []
    for irrep, block in found.items():
        pairs = [(first, second) for (first, second), results in paths.paths.items() if irrep in results]
        weights = [gaunt_coefficient(first.degree, second.degree, irrep.degree) for first, second in pairs]
        fragments = block.split(width, dim=-1)
        sums.append(sum(weight * fragment for weight, fragment in zip(weights, fragments, strict=True)))
    torch.testing.assert_close(torch.cat(sums), aggregation(gaunt, padded_level)(state, vectors))


# ------------------------------------------------------------------------------------------------ zeroth-order gate


@TYPES
@pytest.mark.parametrize(("l_out", "order"), [(2, 2), (1, 3), (2, 3), (0, 3), (3, 1)])
def test_covariance_of_the_zeroth_order_gate(tau, l_out, order):
    gate = ZerothOrderPathGate(tau, l_out, order, pseudo=bool(tau.pseudo))
    assert_covariant(dense(gate), random_state(tau, 4), tau, gate.tau_out)


@pytest.mark.parametrize("tau", [NATURAL, FALLING], ids=str)
def test_pseudo_tensors_come_from_natural_ones(tau):
    """Of one channel, the first in A ⊗ A is (1 2) -> 2; a product of all pairs of channels has (1 1) -> 1."""
    gate = ZerothOrderPathGate(tau, 2, 2, pseudo=True)
    assert gate.tau_out.pseudo == (0, 0, min(tau.tau[1:]))
    assert_covariant(dense(gate), random_state(tau, 4), tau, gate.tau_out)
    gate = ZerothOrderPathGate(tau, 2, 2, pseudo=True, all_pairs=True)
    assert gate.tau_out.pseudo[1] > 0
    assert_covariant(dense(gate), random_state(tau, 4), tau, gate.tau_out)


@TYPES
@pytest.mark.parametrize("all_pairs", [False, True])
@pytest.mark.parametrize(("order", "decay"), [(2, 1.0), (3, 0.4)])
def test_zeroth_order_gate_is_the_definition_along_its_couplings(tau, all_pairs, order, decay):
    l_out, pseudo = 2, bool(tau.pseudo)
    state = random_state(tau, 4)
    gate = ZerothOrderPathGate(tau, l_out, order, decay, pseudo, all_pairs)
    powers = [by_irrep(tau, state)]
    for couplings in power_couplings(tau, l_out, order, pseudo=pseudo, all_pairs=all_pairs):
        above = {}
        for each in couplings:
            factor = powers[0][each.factor][..., each.channel : each.channel + each.used]
            for irrep in each.results:
                for number in range(each.count):
                    start = each.start + number * each.width
                    fragment = powers[-1][each.parent][..., start : start + each.used]
                    above.setdefault(irrep, []).append(decay * coupled(fragment, factor, irrep.degree))
        powers.append({irrep: torch.cat(blocks, dim=-1) for irrep, blocks in above.items()})
    expected = [
        torch.cat([power[irrep] for power in powers if irrep in power], dim=-1) for irrep in gate.tau_out.irreps
    ]
    torch.testing.assert_close(gate.tau_out.dense(gate(state)), gate.tau_out.dense(tuple(expected)))


@TYPES
def test_powers_are_homogeneous(tau):
    """Fragments of n factors scale with the n-th power of the state: they are terms of n + 1 bodies."""
    state, pseudo = random_state(tau, 4), bool(tau.pseudo)
    gates = [ZerothOrderPathGate(tau, 2, order, pseudo=pseudo) for order in (1, 2, 3)]
    widths = [gate.tau_out.irreps for gate in gates]
    found, tripled = (by_irrep(gates[-1].tau_out, gates[-1](scale * state)) for scale in (1.0, 3.0))
    for irrep, block in found.items():
        ends = [0, *(each.get(irrep, 0) for each in widths)]
        for power, (start, end) in enumerate(itertools.pairwise(ends), start=1):
            torch.testing.assert_close(tripled[irrep][..., start:end], 3.0**power * block[..., start:end])


@pytest.mark.parametrize(("l_max", "l_out", "order"), [(2, 2, 2), (3, 2, 2), (2, 2, 3), (1, 1, 4)])
def test_gaunts_powers_are_among_the_fragments(l_max, l_out, order):
    """Whatever Gaunt's gate makes is a combination of the fragments, so free weights lose nothing."""
    tau = Type.uniform(1, l_max)
    state = random_state(tau, 200)
    paths, gaunt = (gate(tau, l_out, order) for gate in (ZerothOrderPathGate, ZerothOrderGate))
    wanted = by_irrep(gaunt.tau_out, gaunt(state))
    for irrep, fragments in by_irrep(paths.tau_out, paths(state)).items():
        fragments, powers = fragments.flatten(0, 1), wanted[irrep].flatten(0, 1)
        solution = torch.linalg.lstsq(fragments, powers).solution
        torch.testing.assert_close(fragments @ solution, powers)


@pytest.mark.parametrize("l_out", [0, 2, 4])
def test_gaunts_gate_fills_a_falling_type_with_zeros(l_out):
    state = random_state(FALLING, 4)
    gate = ZerothOrderGate(FALLING, l_out, 2)
    full = Type.uniform(3, 2)
    expected = by_irrep(Type.uniform(6, l_out), ZerothOrderGate(full, l_out, 2)(FALLING.dense(state)))
    for irrep, block in by_irrep(gate.tau_out, gate(FALLING.blocks(state))).items():
        own = FALLING.irreps.get(irrep, 0)
        assert torch.equal(block, torch.cat([expected[irrep][..., :own], expected[irrep][..., 3:]], dim=-1))
        assert block.abs().amax(dim=(0, 1)).min() > 0.0
    assert_covariant(dense(gate), state, FALLING, gate.tau_out)


# ----------------------------------------------------------------------- the children's own states, mixing and gains


@TYPES
def test_sum_of_the_children_has_no_directions(tau, padded_level, vectors):
    gate, level = ChildrenSum(tau, N_BASIS), padded_level
    state = random_state(tau, level.parents.shape[1])
    assert_covariant(aggregation(gate, level), state, tau, gate.tau_out, vectors=vectors)
    basis = RadialBasis(RADIUS, N_BASIS)(vectors.norm(dim=-1))
    edges = state[:, level.child]  # (components, P, K, channels)
    expected = torch.einsum("nij,yijc->yinc", basis, edges)
    found = aggregation(gate, level)(state, vectors).unflatten(2, (-1,))
    for irrep, block in by_irrep(gate.tau_out, found).items():
        count = tau.irreps[irrep]
        start = irrep.degree**2 + (len(tau.tau) ** 2 if irrep.pseudo else 0)
        wanted = expected[start : start + irrep.components, ..., :count].flatten(2)
        torch.testing.assert_close(block, wanted)
    turned = aggregation(gate, level)(state, vectors.flip(-1))
    torch.testing.assert_close(turned, found)


@pytest.mark.parametrize(("tau", "other"), [(BOTH, FALLING), (BOTH, Type((4, 1), (0, 2))), (FALLING, NATURAL)])
def test_mixing_between_any_types(tau, other):
    layer, state = mixing(tau, other).build(), random_state(tau, 4)
    assert isinstance(layer, MixingByIrrep)
    assert_covariant(dense(layer), state, tau, other)
    for irrep, block in by_irrep(other, layer(state)).items():
        torch.testing.assert_close(block, by_irrep(tau, state)[irrep] @ getattr(layer, f"l{irrep}"))
    assert not other.dense(layer(0.0 * state)).any()
    assert {name: tuple(weight.shape) for name, weight in layer.named_parameters()} == {
        name: weight.shape for name, weight in MixingByIrrep.weights(tau, other).items()
    }


def test_mixing_makes_no_pseudo_tensors():
    with pytest.raises(ValueError, match="mixing cannot make fragments of degree 1p: 2x0 \\+ 2x1 -> 1x0 \\+ 1x1p"):
        MixingByIrrep(Type.uniform(2, 1), Type((1,), (0, 1)))


def test_gains_of_any_type():
    layer = species_gain(3, BOTH).build()
    assert isinstance(layer, SpeciesGainByIrrep)
    torch.nn.init.normal_(layer.weight)
    species = torch.eye(3, dtype=torch.float64)[[2, 0, 1, 1]]
    state = random_state(BOTH, 4)
    assert_covariant(lambda state: BOTH.dense(layer(state, species)), state, BOTH, BOTH)
    blocks, gains = layer(state, species), layer.weight[[2, 0, 1, 1]].split(list(BOTH.irreps.values()), dim=1)
    for found, block, gain in zip(blocks, BOTH.blocks(state), gains, strict=True):
        torch.testing.assert_close(found, block * gain)
