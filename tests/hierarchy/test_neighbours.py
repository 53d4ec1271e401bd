import subprocess
import sys
from dataclasses import replace

import ase
import ase.build
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ase_nbody.hierarchy import neighbours
from ase_nbody.hierarchy.neighbours import Edges, Pairs, find_edges, find_pairs, still_valid
from ase_nbody.structure import Structure, StructureError

PBC = [tuple(bool(bits >> axis & 1) for axis in range(3)) for bits in range(8)]
CELLS = {
    "cubic": 5.0 * np.eye(3),
    "triclinic": np.array([[4.0, 0.3, 0.0], [1.5, 3.7, 0.2], [-1.0, 0.8, 4.2]]),
    "left-handed": np.array([[1.5, 3.7, 0.2], [4.0, 0.3, 0.0], [-1.0, 0.8, 4.2]]),
    "tiny": np.array([[1.3, 0.0, 0.1], [0.2, 1.5, 0.0], [0.0, -0.3, 1.4]]),
    "skewed": np.array([[3.0, 0.0, 0.0], [8.9, 3.0, 0.0], [0.0, -9.1, 3.0]]),
}


def structure_of(positions: np.ndarray, cell: np.ndarray, pbc: tuple[bool, ...]) -> Structure:
    return Structure.from_atoms(ase.Atoms("H" * len(positions), positions=positions, cell=cell, pbc=pbc))


def brute_force(structure: Structure, cutoff: float) -> set[tuple[int, ...]]:
    """All (i, j, shift), found by trying every image that can be near. Lattice planes limit how many there are."""
    cell = structure.cell[structure.pbc]
    reach = np.zeros(3, dtype=int)
    if len(cell) and len(structure):
        planes = np.linalg.norm(np.linalg.pinv(cell), axis=0)  # 1 / distance between the lattice planes
        extent = np.linalg.norm(structure.positions[:, None] - structure.positions, axis=-1).max()
        reach[structure.pbc] = np.ceil((cutoff + extent) * planes)
    grids = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    shifts = np.stack(grids, axis=-1).reshape(-1, 3)
    positions = structure.positions
    vectors = positions[None, :, None] - positions[:, None, None] + (shifts @ structure.cell)[None, None]
    near = (vectors**2).sum(-1) <= cutoff**2
    first, second, image = np.nonzero(near)
    found = {(int(i), int(j), *map(int, shifts[s])) for i, j, s in zip(first, second, image, strict=True)}
    return found - {(atom, atom, 0, 0, 0) for atom in range(len(positions))}


def as_set(pairs: Pairs | Edges) -> set[tuple[int, ...]]:
    rows = np.column_stack([pairs.first, pairs.second, pairs.shift]).tolist()
    assert len(set(map(tuple, rows))) == len(rows), "a pair is listed twice"
    return set(map(tuple, rows))


@pytest.mark.parametrize("pbc", PBC, ids=lambda pbc: "".join("FT"[axis] for axis in pbc))
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())
def test_pairs_agree_with_brute_force(cell, pbc):
    positions = np.random.default_rng(0).uniform(-2.0, 7.0, size=(6, 3))  # many are outside the cell
    structure = structure_of(positions, cell, pbc)
    assert as_set(find_pairs(structure, 3.7)) == brute_force(structure, 3.7)


@pytest.mark.parametrize("few", [0, 200])
@pytest.mark.parametrize("n_atoms", [2, 9, 101])
def test_free_molecules_have_the_same_pairs_from_all_distances_and_from_a_grid(n_atoms, few, monkeypatch):
    positions = np.random.default_rng(n_atoms).uniform(0.0, 2.0 * np.cbrt(n_atoms), size=(n_atoms, 3))
    structure = structure_of(positions, np.zeros((3, 3)), (False,) * 3)
    monkeypatch.setattr(neighbours, "_FEW_ATOMS", few)
    pairs = find_pairs(structure, 3.7)
    assert as_set(pairs) == brute_force(structure, 3.7)
    assert list(zip(pairs.first, pairs.second, strict=True)) == sorted(zip(pairs.first, pairs.second, strict=True))
    expected = np.linalg.norm(positions[pairs.second] - positions[pairs.first], axis=1)
    np.testing.assert_allclose(pairs.distance, expected, rtol=1e-14)
    assert neighbours.coincident_atoms(structure, 1e-3) is None
    close = positions[1] + [0.0, 0.0, 5e-4]
    together = structure_of(np.vstack([positions, close]), np.zeros((3, 3)), (False,) * 3)
    assert neighbours.coincident_atoms(together, 1e-3) == (1, n_atoms)


def test_pairs_of_all_systems(system):
    structure = Structure.from_atoms(system)
    pairs = find_pairs(structure, 4.0)
    assert as_set(pairs) == brute_force(structure, 4.0)
    vectors = structure.positions[pairs.second] + pairs.shift @ structure.cell - structure.positions[pairs.first]
    np.testing.assert_allclose(pairs.distance, np.linalg.norm(vectors, axis=1))
    assert (np.diff(pairs.first) >= 0).all()


def test_every_pair_has_its_reverse(system):
    found = as_set(find_pairs(Structure.from_atoms(system), 4.0))
    assert found == {(j, i, -a, -b, -c) for i, j, a, b, c in found}


def test_a_cell_smaller_than_the_cutoff_gives_several_images_of_one_neighbour(systems):
    pairs = find_pairs(Structure.from_atoms(systems["crystal"]()), 4.0)
    own = (pairs.first == 0) & (pairs.second == 0)
    assert own.sum() == 12  # the fcc neighbours of Na at 3.75 Angstrom are all images of itself


@pytest.mark.parametrize("skew", [3, 10, 200])
@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False)])
def test_a_skewed_cell_of_a_crystal_has_the_same_neighbours(skew, pbc):
    """The volume counts, not the product of the heights, which is 1e-7 of it in the last case."""
    plain = structure_of(np.array([[0.1, 0.2, 0.3], [1.4, 1.2, 1.6]]), CELLS["triclinic"], pbc)
    combinations = np.array([[1, 0, 0], [skew, 1, 0], [skew, skew, 1]]) if all(pbc) else np.eye(3, dtype=int)
    combinations[1, 0] = skew
    skewed = structure_of(plain.positions, combinations @ plain.cell, pbc)
    expected, found = find_pairs(plain, 5.0), find_pairs(skewed, 5.0)
    np.testing.assert_allclose(np.sort(found.distance), np.sort(expected.distance), atol=1e-9)
    vectors = skewed.positions[found.second] + found.shift @ skewed.cell - skewed.positions[found.first]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), found.distance, atol=1e-9)
    keys = np.column_stack([found.first, found.second, found.shift])
    assert (np.lexsort(keys.T[::-1]) == np.arange(len(keys))).all()


def test_far_from_the_origin_and_far_apart():
    cluster = np.random.default_rng(0).uniform(0.0, 4.0, size=(5, 3))
    positions = np.concatenate([cluster, cluster + 1e6, cluster - 1e6])
    structure = structure_of(positions, np.zeros((3, 3)), (False, False, False))
    assert as_set(find_pairs(structure, 3.0)) == brute_force(structure, 3.0)


LONG_AND_THIN = """
import numpy as np
from scipy.spatial import cKDTree
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.structure import Structure

def count(pbc, cell, positions):
    positions = np.array(positions)
    return len(find_pairs(Structure(np.ones(len(positions), dtype=int), positions, np.diag(cell), np.array(pbc)), 4.0))

def pairs(pbc, cell, third):
    return count([letter == "T" for letter in pbc], cell, [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], third])

print(pairs("FFF", [0.0, 0.0, 0.0], (1e6, 0.0, 0.0)))
print(pairs("FFF", [0.0, 0.0, 0.0], (-1e8, 3e6, 0.0)))
print(pairs("TTF", [9.0, 9.0, 0.0], (2.0, 2.0, 1e6)))
print(pairs("FTF", [0.0, 9.0, 0.0], (1e6, 0.0, -1e5)))
print(pairs("TTT", [2000.0, 2000.0, 5.5], (40.0, 0.0, 0.0)))
print(pairs("TTT", [1e6, 9.0, 9.0], (1e5, 0.0, 0.0)))
print(pairs("TTF", [2000.0, 2000.0, 0.0], (40.0, 0.0, 0.0)))
print(pairs("TFF", [1e6, 0.0, 0.0], (40.0, 0.0, 0.0)))
flat = np.random.default_rng(0).uniform(0.0, 2000.0, size=(2000, 3)) * [1.0, 1.0, 0.0]
print(count([False] * 3, [0.0] * 3, flat) // len(cKDTree(flat).query_pairs(4.0)))
"""


def test_long_and_thin_systems_neither_kill_nor_stop_the_process():
    """With a lost atom or a flat box, the grid of the search must neither vanish (SIGFPE) nor grow without bound."""
    command = [sys.executable, "-c", LONG_AND_THIN]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert result.returncode == 0, f"the process ended with {result.returncode} after printing {result.stdout.split()}"
    assert result.stdout.split() == ["2"] * 9


@pytest.mark.parametrize("cells", [2e5, 4e9])
def test_unwrapped_by_many_cells(cells):
    """All pairs are found or the structure is refused, but no pair is lost (vesin counts cells in 32 bits)."""
    positions, cell = np.random.default_rng(0).uniform(0.0, 5.0, size=(4, 3)), CELLS["cubic"]
    near = find_pairs(structure_of(positions, cell, (True, True, True)), 4.0)
    positions[1] += np.array([cells, -0.5 * cells, 0.0]) @ cell
    try:
        far = find_pairs(structure_of(positions, cell, (True, True, True)), 4.0)
    except StructureError:
        assert cells > 1e6
    else:
        np.testing.assert_array_equal(near.first, far.first)
        np.testing.assert_allclose(np.sort(near.distance), np.sort(far.distance), atol=1e-15 * cells * 5.0)


@pytest.mark.parametrize("positions", [np.zeros((0, 3)), np.ones((1, 3))], ids=["empty", "lone atom"])
def test_structures_without_pairs(positions):
    pairs = find_pairs(structure_of(positions, np.zeros((3, 3)), (False, False, False)), 5.0)
    assert len(pairs) == 0
    assert pairs.shift.shape == (0, 3)


def test_within_keeps_the_closer_pairs(systems):
    structure = Structure.from_atoms(systems["triclinic"]())
    assert as_set(find_edges(structure, 6.0).within(3.0)) == brute_force(structure, 3.0)


coordinates = st.floats(-6.0, 6.0)
steps = st.floats(-0.3, 0.3)
thorough = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@st.composite
def two_geometries(draw) -> tuple[Structure, Structure]:
    """A small system before and after moves of its atoms and its cell."""
    number = draw(st.integers(2, 4))
    positions = np.array(draw(st.lists(coordinates, min_size=3 * number, max_size=3 * number))).reshape(-1, 3)
    cell, pbc = CELLS[draw(st.sampled_from(["cubic", "triclinic", "left-handed"]))], draw(st.sampled_from(PBC))
    moves = np.array(draw(st.lists(steps, min_size=3 * number, max_size=3 * number))).reshape(-1, 3)
    strain = np.zeros((3, 3))
    if draw(st.booleans()):
        strain = 0.3 * np.array(draw(st.lists(steps, min_size=9, max_size=9))).reshape(3, 3)
    follow = np.eye(3) + strain if draw(st.booleans()) else np.eye(3)
    before, after = (positions, cell), (positions @ follow + moves, cell @ (np.eye(3) + strain))
    return structure_of(*before, pbc), structure_of(*after, pbc)


@thorough
@given(two_geometries(), st.floats(0.05, 1.5))
def test_a_list_that_is_still_valid_holds_all_pairs(geometries, skin):
    before, after = geometries
    assume(still_valid(before, after, 3.0, skin))
    assert brute_force(after, 3.0) <= as_set(find_pairs(before, 3.0 + skin))


@st.composite
def an_approach(draw) -> tuple[Structure, Structure, float]:
    """Two atoms just beyond 3 Angstrom and a skin, before and after they move towards each other; and the skin."""
    skin, step = draw(st.floats(0.05, 1.0)), draw(st.floats(0.0, 0.3))
    direction = np.array([draw(st.floats(0.1, 1.0)), draw(st.floats(-1.0, 1.0)), draw(st.floats(-1.0, 1.0))])
    direction /= np.linalg.norm(direction)
    along, across = draw(st.floats(-0.2, 0.1)), draw(st.floats(-0.1, 0.2))
    strain = np.eye(3) * (1.0 + across) + np.outer(direction, direction) * (along - across)
    positions = np.outer([0.0, 3.0 + skin + 1e-6], direction)
    moved = positions @ strain + np.outer([step, -step], direction)
    cell = draw(st.sampled_from([9.0 * np.eye(3), 3.0 * CELLS["triclinic"], 3.0 * CELLS["left-handed"]]))
    return structure_of(positions, cell, (True,) * 3), structure_of(moved, cell @ strain, (True,) * 3), skin


@thorough
@given(an_approach())
def test_a_list_that_is_still_valid_holds_the_pair_that_comes_in(approach):
    before, after, skin = approach
    assume(still_valid(before, after, 3.0, skin))
    assert brute_force(after, 3.0) <= as_set(find_pairs(before, 3.0 + skin))


@pytest.mark.parametrize(("move", "valid"), [(0.249, True), (0.251, False)])
def test_atoms_that_approach_each_other_spend_half_of_the_skin_each(move, valid):
    before = np.array([[0.0, 0.0, 0.0], [3.499, 0.0, 0.0]])
    toward = np.array([[move, 0.0, 0.0], [-move, 0.0, 0.0]])
    structures = [structure_of(positions, 9.0 * np.eye(3), (True,) * 3) for positions in (before, before + toward)]
    assert still_valid(*structures, 3.0, 0.5) is valid


@pytest.mark.parametrize(("compression", "valid"), [(0.90, True), (0.85, False)])
def test_a_compressed_cell_spends_the_skin_by_its_strain(compression, valid):
    positions, cell = np.array([[0.0, 0.0, 0.0], [2.0, 1.0, 0.5]]), CELLS["triclinic"]
    before, after = (structure_of(scale * positions, scale * cell, (True,) * 3) for scale in (1.0, compression))
    assert still_valid(before, after, 3.0, 0.5) is valid  # 3.5 * compression > 3


@pytest.mark.parametrize(("move", "valid"), [(0.249, True), (0.251, False)])
def test_a_cell_that_grows_adds_nothing_to_the_skin(move, valid):
    """Levels list pairs up to their own radius and the skin: 3.5 Angstrom, say, where the largest radius is 6."""
    positions, cell = np.array([[-1.75, 0.0, 0.0], [1.75, 0.0, 0.0]]), 30.0 * np.eye(3)
    toward = np.array([[move, 0.0, 0.0], [-move, 0.0, 0.0]])
    before, after = structure_of(positions, cell, (True,) * 3), structure_of(1.2 * positions, 1.2 * cell, (True,) * 3)
    assert still_valid(before, replace(after, positions=after.positions + toward), 6.0, 0.5) is valid


def test_an_unchanged_structure_is_valid_but_not_without_a_skin(bound_system):
    structure = Structure.from_atoms(bound_system)
    assert still_valid(structure, structure, 4.0, 0.1)
    assert not still_valid(structure, structure, 4.0, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda atoms: atoms.set_pbc((True, False, True)),
        lambda atoms: atoms.set_atomic_numbers([1, 8, 8]),
        lambda atoms: atoms.pop(),
        lambda atoms: atoms.append("H"),
    ],
    ids=["pbc", "species", "fewer", "more"],
)
def test_another_system_is_never_valid(change, systems):
    atoms = systems["triclinic"]()
    before = Structure.from_atoms(atoms)
    change(atoms)
    assert not still_valid(before, Structure.from_atoms(atoms), 4.0, 100.0)


@pytest.mark.parametrize("pbc", [False, True])
def test_clumps_are_refused_before_memory_is_spent(pbc, monkeypatch):
    """20,000 atoms within 5 Angstrom: nanometres that were taken for Angstrom. A cell may be wide, and others far."""
    monkeypatch.setattr(neighbours, "_search", lambda *_, **__: pytest.fail("searched"))
    positions = np.random.default_rng(0).uniform(-2.5, 2.5, (20_000, 3))
    positions[0] = 900.0
    atoms = ase.Atoms("H20000", positions, cell=[1000.0] * 3 if pbc else None, pbc=pbc)
    with pytest.raises(StructureError, match=r"atoms share a cube of 2 Angstrom around atom \d+ .*1 nm = 10 Angstrom"):
        find_pairs(Structure.from_atoms(atoms), 5.0)


def test_hydrogen_as_dense_as_it_can_be_is_no_clump():
    """Close-packed protons at the distance of those in H2."""
    atoms = ase.build.bulk("H", "fcc", a=0.74 * np.sqrt(2.0), cubic=True) * (6, 6, 6)
    atoms.pbc = False
    assert len(find_pairs(Structure.from_atoms(atoms), 0.8)) > 8 * len(atoms)
