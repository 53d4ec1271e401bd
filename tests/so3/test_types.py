"""Types with a multiplicity for each degree, and states in blocks and dense."""

import pytest
import torch

from ase_nbody.so3 import Irrep, Type, added, parse_type, representation_matrix
from ase_nbody.testing import random_rotation

FALLING = Type((4, 2, 1), (0, 3))


def random_blocks(tau: Type, parts: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(irrep.components, parts, count, dtype=torch.float64, generator=generator)
        for irrep, count in tau.irreps.items()
    )


def test_irreps_are_ordered_by_degree_and_pseudo_tensors_come_last():
    assert FALLING.irreps == {Irrep(0): 4, Irrep(1): 2, Irrep(2): 1, Irrep(1, True): 3}
    assert str(FALLING) == "4x0 + 2x1 + 1x2 + 3x1p"
    assert (FALLING.channels, FALLING.l_max, FALLING.components, FALLING.fragments) == (4, 2, 13, 10)
    assert Type.counting(FALLING.irreps) == FALLING
    assert not FALLING.is_uniform
    assert Type.uniform(3, 2).is_uniform


def test_parts_of_a_type():
    assert FALLING.truncate(1) == Type((4, 2), (0, 3))
    assert FALLING.without_pseudo() == Type((4, 2, 1))
    assert FALLING.within(Type.uniform(7, 1)) == Type((4, 2))


@pytest.mark.parametrize("tau", [FALLING, Type((2, 5, 1)), Type.uniform(3, 2), Type((3,))])
def test_blocks_and_dense_states_are_the_same(tau):
    blocks = random_blocks(tau)
    dense = tau.dense(blocks)
    assert dense.shape == (tau.components, 3, tau.channels)
    assert sum(block.numel() for block in blocks) == int((dense != 0).sum())
    for block, given in zip(tau.blocks(dense), blocks, strict=True):
        assert torch.equal(block, given)
    assert torch.equal(tau.dense(tau.state(blocks)), dense)
    assert isinstance(tau.state(blocks), torch.Tensor) == tau.is_uniform


@pytest.mark.parametrize("other", [FALLING, Type((4, 2)), Type((4,), (0, 3)), Type((4,))])
def test_sums_of_states_of_different_types(other):
    total = added(FALLING, random_blocks(FALLING), other, other.state(random_blocks(other)))
    expected = dict(zip(FALLING.irreps, random_blocks(FALLING), strict=True))
    for irrep, block in zip(other.irreps, random_blocks(other), strict=True):
        expected[irrep] = expected[irrep] + block
    assert all(torch.equal(one, two) for one, two in zip(total, expected.values(), strict=True))


def test_a_uniform_state_plus_one_of_lower_degree():
    tau, other = Type.uniform(2, 2), Type.uniform(2, 1)
    state, more = tau.state(random_blocks(tau)), other.state(random_blocks(other))
    total = added(tau, state, other, more)
    assert torch.equal(total[:4], state[:4] + more)
    assert torch.equal(total[4:], state[4:])
    assert torch.equal(added(tau, state, tau, state), 2.0 * state)


def test_a_pseudo_tensor_changes_sign_where_a_tensor_does_not():
    inversion = -torch.eye(3, dtype=torch.float64)
    signs = representation_matrix(FALLING, inversion).diagonal()
    torch.testing.assert_close(signs, torch.tensor([1.0, *[-1] * 3, *[1] * 5, -1, *[1] * 3], dtype=torch.float64))
    rotation = representation_matrix(Type((1, 1), (1, 1)), random_rotation(0))
    torch.testing.assert_close(rotation[:4, :4], rotation[4:, 4:])


@pytest.mark.parametrize(
    ("text", "tau"), [("64x0 + 32x1 + 16x2", (64, 32, 16)), ("8x0", (8,)), ("2 x 1+4x0", (4, 2)), ("1x0+3x1", (1, 3))]
)
def test_types_are_written_as_sums(text, tau):
    assert parse_type(text) == tau
    assert parse_type(str(Type(tau))) == tau


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("64", "is not a type: write 'multiplicity x degree'"),
        ("", "is not a type"),
        ("64x0 + ", "is not a type"),
        ("64x0 - 32x1", "is not a type"),
        ("64x0e + 32x1o", "is not a type"),
        ("6.5x0", "is not a type"),
        ("64x0 + 32x0", "names a degree twice"),
        ("64x0 + 32x2", "must give every degree from 0"),
        ("32x1", "must give every degree from 0"),
        ("64x0 + 0x1", "must give every degree from 0"),
        ("٣x0 + x1", "is not a type"),
    ],
)
def test_what_is_no_type_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_type(text)


@pytest.mark.parametrize(("tau", "pseudo"), [((), ()), ((0, 1), ()), ((1, -1), ()), ((1,), (-1,))])
def test_impossible_multiplicities_are_refused(tau, pseudo):
    with pytest.raises(ValueError, match="a type needs tau_0 >= 1"):
        Type(tau, pseudo)
