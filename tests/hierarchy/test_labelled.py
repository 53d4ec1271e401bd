"""Parts that labels name: which atoms they hold, where they are, and which children they have."""

import ase
import ase.build
import numpy as np
import pytest

from ase_nbody.engines import label_molecules
from ase_nbody.hierarchy.build import LevelLayout, VerletHierarchy, build_hierarchy
from ase_nbody.hierarchy.labelled import Membership
from ase_nbody.structure import Structure, StructureError

LAYOUT = (
    LevelLayout("all", "all", 3.0),
    LevelLayout("heavy", "all", 3.0),
    LevelLayout("labels", "all", 4.0, "mass"),
    LevelLayout("labels", "all", 5.0, "equal"),
)


def members_of(atoms: ase.Atoms) -> Membership:
    return Membership.of(Structure.from_atoms(atoms))


def expected_edges(atoms: ase.Atoms, children: list[int], weights: str, radius: float) -> set[tuple[int, ...]]:
    """Edges (part, child atom, shift, is_member) of a labelled level above atoms, by a search over all images."""
    labels, structure, membership = atoms.arrays["parts"], Structure.from_atoms(atoms), members_of(atoms)
    found = set()
    names = sorted(set(labels[labels >= 0]))
    reach = range(-4, 5)
    for part, name in enumerate(names):
        own = labels == name
        whole = atoms.positions[own] + membership.shift[own] @ atoms.cell.array
        centre = np.average(whole, axis=0, weights=structure.masses[own] if weights == "mass" else None)
        for child in children:
            for shift in np.ndindex(9, 9, 9):
                moved = tuple(reach[axis] if atoms.pbc[k] else 0 for k, axis in enumerate(shift))
                distance = np.linalg.norm(atoms.positions[child] + np.array(moved) @ atoms.cell.array - centre)
                member = labels[child] == name and moved == tuple(membership.shift[child])
                if member or distance <= radius:
                    found.add((part, child, *moved, member))
    return found


def edges_of(level) -> set[tuple[int, ...]]:
    rows = level.mask.nonzero().tolist()
    table = level.shift.movedim(0, -1)
    return {(p, int(level.atom[p, k]), *table[p, k].tolist(), bool(level.labelled.is_member[p, k])) for p, k in rows}


def test_children_are_the_members_and_whatever_is_near(liquid):
    hierarchy = build_hierarchy(Structure.from_atoms(liquid), LAYOUT)
    heavy = np.flatnonzero(liquid.numbers != 1).tolist()
    level = hierarchy.levels[2]
    assert edges_of(level) == expected_edges(liquid, heavy, "mass", 4.0)
    assert int(level.labelled.is_member.sum()) == len(heavy)
    assert not (level.labelled.is_member & ~level.mask).any()


def test_a_level_of_labels_stands_on_another(liquid):
    above = build_hierarchy(Structure.from_atoms(liquid), LAYOUT).levels[3]
    n_parts = len(set(liquid.arrays["parts"]))
    assert above.labelled.is_member.sum(1).tolist() == [1] * n_parts  # itself, and no image of it
    assert above.children.tolist() == above.own.tolist() == list(range(n_parts))
    assert above.labelled.below is not None


def test_weights_are_masses_or_equal(liquid):
    for number, sizes in ((2, Structure.from_atoms(liquid).masses), (3, np.ones(len(liquid)))):
        groups = build_hierarchy(Structure.from_atoms(liquid), LAYOUT).levels[number].labelled.groups
        for row, name in enumerate(sorted(set(liquid.arrays["parts"]))):
            own = np.flatnonzero(liquid.arrays["parts"] == name)
            assert groups.atom[row][groups.mask[row]].tolist() == own.tolist()
            assert groups.weight[row][groups.mask[row]].numpy() == pytest.approx(sizes[own] / sizes[own].sum())
    assert groups.weight[~groups.mask].abs().sum() == 0.0


def test_members_are_taken_at_the_image_nearest_to_the_one_before(liquid):
    shifts = members_of(liquid).shift
    rng = np.random.default_rng(0)
    moves = rng.integers(-2, 3, (len(liquid), 3))
    moved = liquid.copy()
    moved.positions += moves @ liquid.cell.array
    whole = liquid.positions + shifts @ liquid.cell.array
    again = moved.positions + members_of(moved).shift @ liquid.cell.array
    for name in set(liquid.arrays["parts"]):  # the same up to one lattice vector for each part
        own = liquid.arrays["parts"] == name
        difference = (again - whole)[own]
        assert np.ptp(difference, axis=0) == pytest.approx(0.0, abs=1e-10)


def test_atoms_without_a_label_belong_to_no_part(liquid):
    liquid.arrays["parts"][:3] = -1
    level = build_hierarchy(Structure.from_atoms(liquid), LAYOUT).levels[2]
    assert edges_of(level) == expected_edges(liquid, np.flatnonzero(liquid.numbers != 1).tolist(), "mass", 4.0)


@pytest.mark.parametrize("labels", [[-1, -1, -1], [7, 7, 7], [0, 5, 5]])
def test_any_labels_of_a_molecule(labels):
    atoms = ase.build.molecule("H2O")
    atoms.set_array("parts", np.array(labels))
    levels = build_hierarchy(Structure.from_atoms(atoms), LAYOUT).levels
    assert [len(level.centre) for level in levels[2:]] == [len(set(labels) - {-1})] * 2


def test_labels_are_looked_for_in_three_arrays(liquid):
    structure = Structure.from_atoms(liquid)
    for name in ("residuenumbers", "mol-id"):
        other = liquid.copy()
        other.set_array(name, other.arrays.pop("parts").astype(np.int32))
        assert np.array_equal(Structure.from_atoms(other).labels, structure.labels)
    liquid.set_array("residuenumbers", np.zeros(len(liquid), dtype=int))
    assert np.array_equal(Structure.from_atoms(liquid).labels, structure.labels)  # "parts" comes first


def test_numbers_of_residues_that_come_back_are_no_labels(liquid):
    """Two chains of a PDB file, each with residues 1 and 2: the first of both would be one part."""
    del liquid.arrays["parts"]
    both = liquid + liquid
    for numbers, count in (([1, 2, 3, 4], 4), ([1, 2, 1, 2], None), ([7, 7, 2, 2], 2)):
        both.arrays["residuenumbers"] = np.repeat(numbers, len(both) // 4)
        labels = Structure.from_atoms(both).labels
        assert (None if labels is None else len(set(labels))) == count
    both.arrays["residuenumbers"] = np.repeat([1, 2, 1, 2], len(both) // 4)
    with pytest.raises(StructureError, match=r"numbers of residues that come back.*label_molecules"):
        build_hierarchy(Structure.from_atoms(both), LAYOUT)


@pytest.mark.parametrize("given", [None, "names", np.linspace(0.0, 1.0, 16), np.zeros((16, 2), dtype=int)])
def test_a_structure_without_labels_is_refused_by_name(liquid, given):
    del liquid.arrays["parts"]
    if given is not None:
        liquid.set_array("parts", np.array(["HOH"] * len(liquid)) if isinstance(given, str) else given)
    with pytest.raises(StructureError, match=r"no integer array 'parts'.*label_molecules"):
        build_hierarchy(Structure.from_atoms(liquid), LAYOUT)


def test_a_label_below_minus_one_is_refused(liquid):
    liquid.arrays["parts"][4] = -7
    with pytest.raises(StructureError, match="atom 4 has the label -7"):
        build_hierarchy(Structure.from_atoms(liquid), LAYOUT)


def test_members_too_far_apart_are_refused():
    cell = np.array([[6.0, 0, 0], [2.0, 5.0, 0], [0, 0, 7.0]])
    height = 6.0 * 5.0 / np.hypot(2.0, 5.0)  # the smallest one: the volume over the largest face
    height = min(height, 5.0, 7.0)
    for distance in (0.44 * height, 0.46 * height):
        atoms = ase.Atoms("OO", [[0, 0, 0], [0, distance, 0]], cell=cell, pbc=True)
        atoms.set_array("parts", np.array([3, 3]))
        if distance < 0.45 * height:
            members_of(atoms)
            continue
        with pytest.raises(StructureError, match=r"atoms 0 and 1, which follow.*label 3.*2\.3 Angstrom apart"):
            members_of(atoms)
    atoms.pbc = False
    members_of(atoms)  # a molecule may be of any size


def test_a_repeated_cell_needs_new_labels(liquid):
    with pytest.raises(StructureError, match=r"after atoms\.repeat, label anew"):
        members_of(liquid.repeat((2, 1, 1)))


def test_the_list_is_kept_while_labels_and_images_stay(liquid):
    verlet = VerletHierarchy(LAYOUT, skin=1.0)
    first = verlet.update(Structure.from_atoms(liquid))
    liquid.positions += 0.01
    assert verlet.update(Structure.from_atoms(liquid)) is first
    liquid.arrays["parts"] += 3  # other names for the same parts
    assert verlet.update(Structure.from_atoms(liquid)) is first
    liquid.arrays["parts"][2] = -1
    second = verlet.update(Structure.from_atoms(liquid))
    assert int(second.levels[2].labelled.groups.mask.sum()) == len(liquid) - 1
    verlet.forget()
    assert verlet.update(Structure.from_atoms(liquid)) is not second


def test_a_moving_structure_is_refused_as_soon_as_a_new_one_would_be():
    """Although its list of neighbours would still be valid."""
    atoms = ase.Atoms("OO", [[0, 0, 0], [2.6, 0, 0]], cell=[6, 6, 6], pbc=True)
    atoms.set_array("parts", np.array([0, 0]))
    verlet = VerletHierarchy(LAYOUT, skin=2.0)
    verlet.update(Structure.from_atoms(atoms))
    atoms.positions[1, 0] = 2.8
    with pytest.raises(StructureError, match=r"2\.8 Angstrom apart"):
        verlet.update(Structure.from_atoms(atoms))


# --- label_molecules -------------------------------------------------------------------------------------------------


def test_molecules_are_found_by_their_bonds(liquid):
    expected = liquid.arrays["parts"].copy()
    assert label_molecules(liquid).tolist() == expected.tolist()
    liquid.wrap()
    assert label_molecules(liquid).tolist() == expected.tolist()
    order = np.random.default_rng(0).permutation(len(liquid))
    labels = label_molecules(liquid[order])
    assert len({(old, new) for old, new in zip(expected[order], labels, strict=True)}) == len(set(expected))
    assert np.unique(labels, return_index=True)[1].tolist() == sorted(np.unique(labels, return_index=True)[1])


def test_ions_and_lone_atoms_are_molecules_of_their_own():
    hydrate = ase.build.molecule("H2O") + ase.Atoms("Na", [[0.0, 0.0, 2.3]])  # as close as a bond
    assert label_molecules(hydrate).tolist() == [0, 0, 0, 1]
    assert label_molecules(hydrate, ions=()).tolist() == [0, 0, 0, 0]
    assert label_molecules(ase.Atoms("He")).tolist() == [0]
    assert label_molecules(ase.Atoms()).tolist() == []
    with pytest.raises(ValueError, match="'Sodium' in ions"):
        label_molecules(hydrate, ions=("Sodium",))
    assert label_molecules(hydrate, ions=iter(["Na"])).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("bond", [float("nan"), float("inf"), 0.0, -1.3])
def test_bonds_of_no_length_are_refused(bond):  # the search for pairs within NaN Angstrom never ended
    with pytest.raises(ValueError, match="bond must be a finite factor above 0"):
        label_molecules(ase.build.molecule("H2O"), bond=bond)
