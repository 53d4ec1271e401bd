import ase
import numpy as np
import pytest
import torch

from ase_nbody.hierarchy.build import LevelLayout, VerletHierarchy, build_hierarchy, select
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.hierarchy.tables import Hierarchy, Level, concatenate
from ase_nbody.structure import Structure

LAYOUT = (LevelLayout("all", "all", 4.0), LevelLayout("heavy", "all", 5.0), LevelLayout((6, 29), "heavy", 4.5))


def build(atoms, layout=LAYOUT) -> Hierarchy:
    structure = Structure.from_atoms(atoms)
    return build_hierarchy(structure, layout)


def edges_of(level: Level) -> list[tuple[int, ...]]:
    """The real edges as (centre, atom of the child, shift)."""
    rows = level.mask.nonzero()
    centre = level.centre[rows[:, 0]]
    columns = [centre, level.atom[tuple(rows.T)], *level.shift[:, *rows.T]]
    return sorted(map(tuple, torch.stack(columns, dim=1).tolist()))


@pytest.mark.parametrize(
    ("parts", "expected"), [("all", [1, 1, 1, 1]), ("heavy", [0, 1, 1, 0]), ((8, 1), [1, 0, 1, 1]), ((), [0, 0, 0, 0])]
)
def test_a_selection_chooses_atoms_by_their_atomic_numbers(parts, expected):
    np.testing.assert_array_equal(select(np.array([1, 6, 8, 1]), parts), np.array(expected, dtype=bool))


def test_an_unknown_selection_is_quoted():
    with pytest.raises(ValueError, match="'all', 'heavy' or a tuple of atomic numbers, got 'metals'"):
        select(np.array([1]), "metals")


def test_which_parts_exist_depends_on_the_composition_alone(system):
    moved = system.copy()
    moved.positions *= 1.7
    for before, after in zip(build(system).levels, build(moved).levels, strict=True):
        assert torch.equal(before.centre, after.centre)
        assert torch.equal(before.own, after.own)


def test_edges_of_every_level(system):
    """The edges are the pairs within the radius that lead from a part to one of the children below, and no others."""
    structure, hierarchy = Structure.from_atoms(system), build(system)
    below = np.ones(len(system), dtype=bool)
    for level, layout in zip(hierarchy.levels, LAYOUT, strict=True):
        above, children = select(system.numbers, layout.parts), below & select(system.numbers, layout.children)
        pairs = find_pairs(structure, layout.radius)
        rows = np.column_stack([pairs.first, pairs.second, pairs.shift])
        rows = rows[above[pairs.first] & children[pairs.second]]
        assert edges_of(level) == sorted(map(tuple, rows.tolist()))
        below = above


def test_children_are_parts_of_the_level_below(system):
    centre_below = torch.arange(len(system))
    for level in build(system).levels:
        assert torch.equal(centre_below[level.own], level.centre)
        assert torch.equal(centre_below[level.children][level.child][level.mask], level.atom[level.mask])
        centre_below = level.centre


def test_parents_list_each_edge_once_at_its_child(system):
    for level in build(system).levels:
        listed = level.parents[level.parents_mask]
        assert torch.equal(listed.sort().values, level.mask.flatten().nonzero().flatten())
        child = torch.arange(level.parents.shape[1]).expand_as(level.parents)[level.parents_mask]
        assert torch.equal(level.child.flatten()[listed], child)


def test_padding_is_zero(system):
    for level in build(system).levels:
        for table, mask in ((level.child, level.mask), (level.atom, level.mask), (level.parents, level.parents_mask)):
            assert not table[~mask].any()
        assert not level.shift[:, ~level.mask].any()


@pytest.mark.parametrize("multiple", [1, 8])
def test_a_batch_holds_the_structures_side_by_side(multiple, systems):
    hierarchies = [build(make()) for make in systems.values()]
    batch = concatenate(hierarchies, multiple)
    assert batch.n_structures == len(systems)
    starts = np.cumsum([0] + [len(hierarchy.numbers) for hierarchy in hierarchies])
    for index, hierarchy in enumerate(hierarchies):
        assert torch.equal(batch.numbers[batch.structure == index], hierarchy.numbers)
    for number, level in enumerate(batch.levels):
        assert level.mask.shape[1] % multiple == level.parents.shape[0] % multiple == 0
        expected = [
            (centre + start, atom + start, *shift)
            for start, hierarchy in zip(starts, hierarchies, strict=False)
            for centre, atom, *shift in edges_of(hierarchy.levels[number])
        ]
        assert edges_of(level) == expected


def test_tables_of_a_batch_agree_with_each_other(systems):
    batch = concatenate([build(make()) for make in systems.values()])
    centre_below = torch.arange(len(batch.numbers))
    for level in batch.levels:
        assert torch.equal(centre_below[level.own], level.centre)
        assert torch.equal(centre_below[level.children][level.child][level.mask], level.atom[level.mask])
        listed = level.parents[level.parents_mask]
        child = torch.arange(level.parents.shape[1]).expand_as(level.parents)[level.parents_mask]
        assert torch.equal(listed.sort().values, level.mask.flatten().nonzero().flatten())
        assert torch.equal(level.child.flatten()[listed], child)
        centre_below = level.centre


@pytest.fixture
def verlet() -> VerletHierarchy:
    return VerletHierarchy(LAYOUT, skin=0.5)


def test_a_small_move_keeps_the_hierarchy(verlet, systems):
    atoms = systems["triclinic"]()
    first = verlet.update(Structure.from_atoms(atoms))
    atoms.positions[0] += 0.1
    assert verlet.update(Structure.from_atoms(atoms)) is first is verlet.hierarchy
    assert verlet.builds == 1


def test_small_moves_add_up_to_a_rebuild(verlet, systems):
    atoms = systems["triclinic"]()
    for _ in range(10):
        verlet.update(Structure.from_atoms(atoms))
        atoms.positions[0] += [0.1, 0.0, 0.0]
    assert verlet.builds == 4  # the third move exceeds half of the skin


@pytest.mark.parametrize(
    "change",
    [
        lambda atoms: atoms.set_pbc((True, False, True)),
        lambda atoms: atoms.set_atomic_numbers([1, 8, 8]),
        lambda atoms: atoms.append("H"),
        lambda atoms: atoms.set_cell(0.9 * atoms.cell.array),
    ],
    ids=["pbc", "species", "more atoms", "cell"],
)
def test_another_system_gets_another_hierarchy(change, verlet, systems):
    atoms = systems["triclinic"]()
    first = verlet.update(Structure.from_atoms(atoms))
    change(atoms)
    assert verlet.update(Structure.from_atoms(atoms)) is not first
    assert verlet.builds == 2


def test_atoms_that_meet_while_the_cell_grows_are_children_at_every_level():
    """The level with the smallest radius has the least to spare: the skin alone, and nothing of the strain."""
    layout = (LevelLayout("all", "all", 3.0), LevelLayout("all", "all", 6.0))
    verlet, atoms = VerletHierarchy(layout, skin=0.5), ase.Atoms("H2", cell=[30.0] * 3, pbc=True)
    atoms.positions[:, 0] = -1.8, 1.8
    verlet.update(Structure.from_atoms(atoms))
    atoms.positions *= 1.48 / 1.8
    atoms.set_cell(1.2 * atoms.cell.array)
    assert edges_of(verlet.update(Structure.from_atoms(atoms)).levels[0]) == edges_of(build(atoms, layout).levels[0])


def test_the_hierarchy_is_keyed_on_a_copy_of_the_geometry(verlet, systems):
    atoms = systems["triclinic"]()
    first = verlet.update(Structure.from_atoms(atoms))
    atoms.positions += np.random.default_rng(0).normal(size=(3, 3))  # in place, like an integrator
    assert verlet.update(Structure.from_atoms(atoms)) is not first


def test_without_a_skin_every_step_rebuilds(systems):
    verlet, structure = VerletHierarchy(LAYOUT, skin=0.0), Structure.from_atoms(systems["molecule"]())
    verlet.update(structure)
    verlet.update(structure)
    assert verlet.builds == 2


def test_no_hierarchy_before_the_first_update(verlet):
    with pytest.raises(RuntimeError, match=r"call update\(structure\) first"):
        _ = verlet.hierarchy
