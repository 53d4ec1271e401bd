"""The fragments of powers: independent, complete, and as many as the theory of characters says."""

import itertools
import math

import numpy as np
import pytest
import torch
from e3nn import o3

from ase_nbody.so3 import Irrep, Type, coupled
from ase_nbody.so3.powers import is_kept, number_of_fragments, power_couplings, power_type, product_irreps

POINTS = 100
STATES = {
    "natural": Type.uniform(1, 2),
    "higher": Type.uniform(1, 3),
    "with pseudo-tensors": Type((1, 1, 1), (0, 1, 1)),
    "with pseudo-scalars": Type((1, 1), (1, 1)),
}


def random_state(tau: Type, seed: int = 0) -> dict[Irrep, torch.Tensor]:
    """Values of a state with one channel at many points: (components, points)."""
    values = np.random.default_rng(seed)
    return {irrep: torch.from_numpy(values.normal(size=(irrep.components, POINTS))) for irrep in tau.irreps}


def by_couplings(tau: Type, l_out: int, order: int, pseudo: bool) -> dict[int, dict[Irrep, list[torch.Tensor]]]:
    """The fragments of each power by the definition of the product, along the couplings."""
    state = random_state(tau)
    below = {irrep: [value] for irrep, value in state.items()}
    found = {1: below}
    for power, couplings in enumerate(power_couplings(tau, l_out, order, pseudo=pseudo), start=2):
        above: dict[Irrep, list[torch.Tensor]] = {}
        for each in couplings:
            for irrep in each.results:
                parents = below[each.parent][each.start : each.start + each.count]
                above.setdefault(irrep, []).extend(coupled(one, state[each.factor], irrep.degree) for one in parents)
        found[power] = below = above
    return found


def rank(fragments: list[torch.Tensor]) -> int:
    return int(torch.linalg.matrix_rank(torch.stack([each.flatten() for each in fragments]), rtol=1e-9))


def every_way(tau: Type, l_max: int, order: int, pseudo: bool) -> dict[Irrep, list[torch.Tensor]]:
    """The fragments of A ⊗ ... ⊗ A with the factors in every order and all couplings from the left."""
    state = random_state(tau)
    found: dict[Irrep, list[torch.Tensor]] = {}
    for factors in itertools.product(state.items(), repeat=order):
        partial = [factors[0]]
        for irrep, value in factors[1:]:
            partial = [
                (result, coupled(left, value, result.degree))
                for kind, left in partial
                for result in product_irreps(kind, irrep, 99, pseudo=pseudo)
            ]
        for irrep, value in partial:
            if irrep.degree <= l_max:
                found.setdefault(irrep, []).append(value)
    return found


@pytest.mark.parametrize("name", ["natural", "with pseudo-tensors", "with pseudo-scalars"])
@pytest.mark.parametrize("order", [2, 3])
def test_fragments_are_independent_and_complete(name, order):
    tau, l_out = STATES[name], 2
    pseudo = bool(tau.pseudo)
    fragments = by_couplings(tau, l_out, order, pseudo)[order]
    expected = every_way(tau, l_out, order, pseudo)
    for irrep, values in expected.items():
        assert rank(fragments[irrep]) == len(fragments[irrep]) == rank(values) == rank(values + fragments[irrep]), irrep
    assert {irrep for irrep in fragments if is_kept(irrep, l_out, pseudo=pseudo)} == {
        irrep for irrep, values in expected.items() if rank(values) and is_kept(irrep, l_out, pseudo=pseudo)
    }


def character(irrep: Irrep, angle: np.ndarray, improper: bool) -> np.ndarray:
    value = np.sin((irrep.degree + 0.5) * angle) / np.sin(0.5 * angle)
    return value * ((-1) ** (irrep.degree + irrep.pseudo) if improper else 1)


def multiplicity(tau: Type, irrep: Irrep, order: int) -> int:
    """How often an irrep of O(3) occurs in the symmetric power of the direct sum of the irreps of a type."""
    angle = (np.arange(400) + 0.5) * math.pi / 400
    total = 0.0
    for improper in (False, True):
        chi = {
            power: sum(character(each, power * angle, improper and power % 2 == 1) for each in tau.irreps)
            for power in (1, 2, 3)
        }
        power = {2: (chi[1] ** 2 + chi[2]) / 2, 3: (chi[1] ** 3 + 3 * chi[1] * chi[2] + 2 * chi[3]) / 6}[order]
        total += 0.5 * np.mean(power * character(irrep, angle, improper) * (1.0 - np.cos(angle)))
    assert abs(total - round(total)) < 1e-8
    return round(total)


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("order", [2, 3])
def test_as_many_fragments_as_the_symmetric_power_has(name, order):
    tau, l_out = STATES[name], 2
    count = power_type(tau, l_out, order, pseudo=True).irreps
    lower = power_type(tau, l_out, order - 1, pseudo=True).irreps
    for irrep in itertools.starmap(Irrep, itertools.product(range(l_out + 1), (False, True))):
        assert count.get(irrep, 0) - lower.get(irrep, 0) == multiplicity(tau, irrep, order), irrep


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("pseudo", [True, False])
def test_fragments_are_counted_before_they_are_made(name, order, pseudo):
    irreps = itertools.starmap(Irrep, itertools.product(range(4), (False, True) if pseudo else (False,)))
    expected = sum(multiplicity(STATES[name], irrep, order) for irrep in irreps)
    assert number_of_fragments(STATES[name].irreps, order, 3, pseudo=pseudo) == expected


def test_natural_parity_alone_needs_no_unnatural_intermediate_for_pairs():
    """A ⊗ A without pseudo-tensors is A ⊗ A with them, without those."""
    natural, both = (power_type(STATES["higher"], 2, 2, pseudo=pseudo) for pseudo in (False, True))
    assert natural == both.without_pseudo()


def test_numbers_of_fragments():
    """Those that the documentation gives, of A, A ⊗ A and A ⊗ A ⊗ A together."""
    assert str(power_type(Type.uniform(1, 2), 2, 3)) == "9x0 + 8x1 + 10x2"
    assert str(power_type(Type.uniform(1, 3), 2, 3)) == "13x0 + 16x1 + 19x2"
    assert str(power_type(Type.uniform(1, 3), 2, 3, pseudo=True)) == "13x0 + 16x1 + 20x2 + 4x1p + 9x2p"


def test_channels_are_those_that_all_factors_have():
    assert str(power_type(Type((4, 2)), 1, 2)) == "10x0 + 4x1"  # A: 4x0 + 2x1; 0 0 and 1 1 -> 0: 4 + 2; 0 1 -> 1: 2


@pytest.mark.parametrize("channels", [2, 3])
def test_all_pairs_are_those_of_independent_fragments(channels):
    """For even l, n (n + 1) / 2 pairs of the fragments of one degree are independent, for odd l n (n - 1) / 2."""
    tau = Type.uniform(channels, 1)
    pairs = channels * (channels + 1) // 2
    found = power_type(tau, 2, 2, pseudo=True, all_pairs=True).irreps
    assert found[Irrep(0)] == channels + 2 * pairs  # 0 0 -> 0 and 1 1 -> 0
    assert found[Irrep(1)] == channels + channels**2  # 0 1 -> 1
    assert found[Irrep(2)] == pairs  # 1 1 -> 2
    assert found[Irrep(1, True)] == pairs - channels  # the cross product


def test_too_many_fragments_are_refused():
    with pytest.raises(ValueError, match="more than 1000 fragments: lower l_max, body_order"):
        power_couplings(Type.uniform(1, 8), 8, 7, pseudo=True)
    with pytest.raises(ValueError, match="if all channels are paired, the channels"):
        power_couplings(Type.uniform(64, 3), 3, 2, all_pairs=True)


@pytest.mark.parametrize(("first", "second"), [("1o", "1o"), ("2e", "1o"), ("1e", "2e"), ("3o", "2o")])
def test_every_path_is_that_of_e3nn(first, second):
    """Odd paths too; e3nn writes parities as e and o."""
    product = o3.FullTensorProduct(first, second).double()
    x, y = (torch.from_numpy(np.random.default_rng(seed).normal(size=o3.Irrep(kind).dim))
            for seed, kind in enumerate((first, second)))  # fmt: skip
    found = product(x, y).split([irrep.dim for _, irrep in product.irreps_out])
    given = [Irrep(kind.l, kind.p != (-1) ** kind.l) for kind in map(o3.Irrep, (first, second))]
    ours = product_irreps(*given, 99, pseudo=True)
    theirs = [Irrep(irrep.l, irrep.p != (-1) ** irrep.l) for _, irrep in product.irreps_out]
    assert sorted(ours) == sorted(theirs)
    for irrep, expected in zip(theirs, found, strict=True):
        torch.testing.assert_close(coupled(x, y, irrep.degree), expected, rtol=1e-6, atol=1e-6)
