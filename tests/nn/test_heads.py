import pytest
import torch
from torch.nn.functional import one_hot

from ase_nbody.nn.heads import ReadOut


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
