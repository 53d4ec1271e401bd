import pytest
import torch
from torch.nn.functional import one_hot

from ase_nbody.nn.heads import ReadOut, VectorHead
from ase_nbody.testing import assert_covariant


@pytest.fixture
def scalars() -> torch.Tensor:
    return torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def species(kinds: list[int]) -> torch.Tensor:
    return one_hot(torch.tensor(kinds), 3).double()


def test_no_scalars_no_energy(scalars):
    assert not ReadOut(3, 5, 7)(0.0 * scalars, species([0, 1, 2, 2])).any()


def test_linear_part_and_hidden_layer(scalars):
    """a(z) . s + b(z) . silu(s W), as the class says."""
    read_out, kinds = ReadOut(3, 5, 7), [0, 2, 1, 2]
    hidden = scalars @ read_out.hidden
    silu = hidden / (1.0 + torch.exp(-hidden))
    expected = [
        read_out.linear[kind] @ one + read_out.output[kind] @ layer
        for kind, one, layer in zip(kinds, scalars, silu, strict=True)
    ]
    torch.testing.assert_close(read_out(scalars, species(kinds)), torch.stack(expected))


def test_each_part_by_itself(scalars):
    read_out, kinds = ReadOut(3, 5, 7), species([0, 2, 1, 2])
    energies = [read_out(scalars[[part]], kinds[[part]]) for part in range(4)]
    torch.testing.assert_close(read_out(scalars, kinds), torch.cat(energies))


@pytest.fixture
def state() -> torch.Tensor:
    """Of degrees 0 and 1."""
    return torch.randn(4, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def vector(head, kinds):
    """A head's vectors (3, parts) as a state of degrees 0 and 1 without degree 0."""

    def function(state: torch.Tensor) -> torch.Tensor:
        vectors = head(state[1:4], species(kinds))
        return torch.cat([torch.zeros_like(vectors[:1]), vectors])

    return function


def test_vectors_turn_with_the_system(state):
    assert_covariant(vector(VectorHead(3, 5), [0, 2, 1, 2]), state, 1, 1)


def test_vectors_of_a_broken_rotation_are_refused(state, broken_representation):
    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(vector(VectorHead(3, 5), [0, 2, 1, 2]), state, 1, 1, representation=broken_representation)


def test_a_vector_is_the_weighted_sum_of_the_fragments(state):
    """The sum over c of w_c(z) psi^1_c, as the class says; no fragments, no vector."""
    head, kinds = VectorHead(3, 5), [0, 2, 1, 2]
    expected = [state[1:4, part] @ head.weight[kind] for part, kind in enumerate(kinds)]
    torch.testing.assert_close(head(state[1:4], species(kinds)), torch.stack(expected, dim=1))
    assert not head(0.0 * state[1:4], species(kinds)).any()
