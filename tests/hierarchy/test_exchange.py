import pytest
import torch

from ase_nbody.hierarchy.exchange import gather_children, look_up_parents, sum_over_parents


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def random(generator, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)


def test_gather_copies_the_child_of_each_edge(padded_level, generator):
    level = padded_level
    state = random(generator, 4, level.parents.shape[1], 3)
    edges = gather_children(state, level)
    assert edges.shape == (4, *level.child.shape, 3)
    for part, slot in level.mask.nonzero().tolist():
        assert torch.equal(edges[:, part, slot], state[:, level.child[part, slot]])


def test_sum_collects_the_edges_that_end_at_each_child(padded_level, generator):
    level = padded_level
    edges = random(generator, 4, *level.child.shape, 3)
    expected = torch.zeros(4, level.parents.shape[1], 3, dtype=torch.float64)
    for part, slot in level.mask.nonzero().tolist():
        expected[:, level.child[part, slot]] += edges[:, part, slot].detach()
    torch.testing.assert_close(sum_over_parents(edges, level), expected)


@pytest.mark.parametrize("channels", [3, 64])
def test_looking_up_the_parents_is_that_sum(channels, padded_level, generator):
    """Long edges are added one by one, short ones are looked up."""
    edges = random(generator, 4, *padded_level.child.shape, channels).detach()
    found = look_up_parents(edges, padded_level.parents, padded_level.parents_mask)
    torch.testing.assert_close(found, sum_over_parents(edges, padded_level))


def test_gather_and_sum_are_adjoint_to_each_other(padded_level, generator):
    level = padded_level
    state = random(generator, 4, level.parents.shape[1], 3)
    edges = random(generator, 4, *level.child.shape, 3) * level.mask.unsqueeze(-1)
    torch.testing.assert_close(
        (gather_children(state, level) * edges).sum(), (state * sum_over_parents(edges, level)).sum()
    )


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
@pytest.mark.parametrize("there_and_back", [False, True])
def test_derivatives(check, there_and_back, padded_level, generator):
    """Nonlinear before, between and after the exchange, so that the second derivatives do not vanish."""
    level, weight = padded_level, padded_level.mask.double().unsqueeze(-1)

    def gathered(state):
        edges = weight * gather_children(state.sin(), level) ** 2
        return sum_over_parents(edges.cos() * weight, level) ** 2 if there_and_back else edges

    assert check(gathered, random(generator, 1, level.parents.shape[1], 1))


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_derivatives_of_the_sum(check, padded_level, generator):
    level, weight = padded_level, padded_level.mask.double().unsqueeze(-1)
    edges = random(generator, 1, *level.child.shape, 1)
    assert check(lambda edges: sum_over_parents(weight * edges.sin(), level) ** 2, edges)


@pytest.mark.parametrize("name", ["empty", "lone hydrogen", "lone carbon", "no anchors"])
@pytest.mark.parametrize("number", [0, 1])
def test_levels_without_edges(name, number, network, hierarchy_of, systems, generator):
    level = hierarchy_of(network, systems[name]()).levels[number]
    state = random(generator, 4, level.parents.shape[1], 3)
    edges = gather_children(state, level)
    assert edges.shape == (4, *level.child.shape, 3)
    summed = sum_over_parents(edges, level)
    assert summed.shape == state.shape
    (gradient,) = torch.autograd.grad(summed.sum() + edges.sum(), state)
    assert gradient.shape == state.shape
