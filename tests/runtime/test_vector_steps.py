"""The steps that take pair vectors give, put together by hand, what ``potential.evaluate`` gives."""

import pytest
import torch

from ase_nbody.hierarchy.build import build_hierarchy
from ase_nbody.potential import evaluate, pair_vectors
from ase_nbody.runtime.vector_steps import arguments, trace_vector_step, vector_programs
from ase_nbody.structure import Structure


def given_by(network, hierarchy, number, below, positions, cells):
    """The arguments of a level's steps, with a padded part and a padded row of zeros."""
    level, radius = hierarchy.levels[number], network.config.levels[number].radius
    species_of = network.one_hot[hierarchy.numbers].argmax(1)
    vectors = pair_vectors(level, radius, positions, cells, hierarchy.structure)
    padding = vectors.new_full((3, 1, vectors.shape[2]), 2.0 * radius)
    n_parts = len(level.centre)
    child = torch.nn.functional.pad(level.children[level.child] * level.mask, (0, 0, 0, 1))
    places = [[] for _ in range(below.shape[1] + 1)]
    for part, slot in level.mask.nonzero().tolist():
        places[int(child[part, slot])].append(part * child.shape[1] + slot)
    most = max(2, *map(len, places))
    return {
        "vectors": torch.cat([vectors, padding], 1),
        "centre": torch.cat([species_of[level.centre], species_of[:1]]),
        "species": torch.nn.functional.pad(species_of[level.atom] * level.mask, (0, 0, 0, 1)),
        "own": torch.cat([level.own, torch.tensor([below.shape[1]])]),
        "child": child,
        "parents": torch.tensor([one + [0] * (most - len(one)) for one in places]).T.contiguous(),
        "parents_mask": torch.tensor([[n < len(one) for n in range(most)] for one in places]).T.contiguous(),
        "rows": torch.nn.functional.pad(below, (0, 0, 0, 1)),
    }, n_parts


def step(network, name, given):
    traceable = trace_vector_step(network, name)
    return traceable.function(list(network.parameters()), [given[one] for one in arguments(network, name)])


@pytest.mark.parametrize("name", ["molecule", "triclinic", "slab in a box", "no anchors"])
def test_steps_from_vectors_make_up_the_potential(name, any_network, systems):
    network, structure = any_network, Structure.from_atoms(systems[name]())
    hierarchy = build_hierarchy(structure, network.config.layout)
    positions, cells = torch.tensor(structure.positions), torch.tensor(structure.cell)[None]
    expected = evaluate(network, hierarchy, positions, cells)
    numbers = range(len(hierarchy.levels))

    below, inputs = [network.embedding(network.one_hot[hierarchy.numbers])], []
    for number in numbers:
        inputs.append(given_by(network, hierarchy, number, below[-1], positions, cells))
        if number < numbers[-1]:
            (state,) = step(network, f"vectors-up-{number}", inputs[-1][0])
            below.append(state[:, :-1])

    slope, forces = None, torch.zeros_like(positions)
    for number in reversed(numbers):
        level, (given, n_parts) = hierarchy.levels[number], inputs[number]
        if slope is not None:
            given["slope"] = torch.nn.functional.pad(slope, (0, 0, 0, 1))
        energies, by_vectors, *by_rows = step(network, f"vectors-down-{number}", given)
        torch.testing.assert_close(energies[:n_parts], expected.parts[number], rtol=1e-10, atol=1e-10)
        by_vectors = (by_vectors[:, :n_parts] * level.mask).permute(1, 2, 0)
        forces.index_add_(0, level.centre, by_vectors.sum(1))
        forces.index_add_(0, level.atom.flatten(), -by_vectors.flatten(0, 1))
        slope = by_rows[0][:, :-1] if by_rows else None
    torch.testing.assert_close(forces, expected.forces, rtol=1e-10, atol=1e-10)


def test_every_level_has_its_programs(three_levels):
    assert list(vector_programs(three_levels)) == [
        "vectors-up-0",
        "vectors-up-1",
        "vectors-down-0",
        "vectors-down-1",
        "vectors-down-2",
    ]
