"""Every way in refuses unusable structures with one sentence; odd but sound structures give right results."""

import re
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.calculator import CalculatorSetupError, PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import Evaluator, NBodyCalculator
from ase_nbody.data import DataError, read_labelled
from ase_nbody.hierarchy.neighbours import coincident_atoms, find_pairs
from ase_nbody.structure import Structure, StructureError

CELL = np.diag([6.0, 7.0, 8.0])


def sound() -> ase.Atoms:
    return ase.Atoms("COH", positions=[[0, 0, 0], [1.2, 0.3, 0], [-0.6, 0.9, 0.2]], cell=CELL, pbc=True)


def put(name: str, index: object, value: object) -> Callable[[ase.Atoms], None]:
    """A function that spoils atoms: it overwrites an entry of their positions or cell."""

    def spoil(atoms: ase.Atoms) -> None:
        (atoms.positions if name == "positions" else atoms.cell.array)[index] = value

    return spoil


def crowd(atoms: ase.Atoms) -> None:
    atoms.set_cell(CELL / 300.0)


EVERYWHERE = {
    "nan position": (put("positions", (1, 2), np.nan), "position of atom 1 is not finite: z = nan"),
    "infinite position": (put("positions", (2, 0), -np.inf), "position of atom 2 is not finite: x = -inf"),
    "far position": (
        put("positions", (1, 0), 1e15),
        r"atom 1 .* x = 1e\+15 .*allowed: 1e\+09.*resolves only 0.1 Angstrom",
    ),
    "nan cell": (put("cell", (0, 0), np.nan), "cell is not finite: .*nan.*set_cell"),
    "infinite cell": (put("cell", (2, 2), np.inf), "cell is not finite: .*inf.*set_cell"),
    "no cell": (put("cell", slice(None), 0.0), "lattice vector 0, but that vector is zero"),
    "half a cell": (put("cell", 1, 0.0), "lattice vector 1, but that vector is zero"),
    "flat cell": (put("cell", 2, [6.0, 7.0, 0.0]), "linearly dependent"),
    "huge cell": (put("cell", 2, [0.0, 0.0, 1e12]), r"lattice vector 2 is 1e\+12 .*allowed: 0.001 to 1e\+09"),
    "overflowing cell": (put("cell", 2, [0.0, 0.0, 1e200]), r"lattice vector 2 is 1e\+200"),
    "vanishing cell": (put("cell", 0, [1e-300, 0.0, 0.0]), "lattice vector 0 is 1e-300 .*switch pbc off"),
}


def numbered(number: int) -> Callable[[ase.Atoms], None]:
    def spoil(atoms: ase.Atoms) -> None:
        atoms.numbers[2] = number

    return spoil


EVERYWHERE |= {
    "dummy": (numbered(0), r"atom 2 is a dummy: the structure contains X \(allowed: 1 to 118\)"),
    "beyond the table": (numbered(400), r"atom 2 has atomic number 400 \(allowed: 1 to 118\)"),
    "negative number": (numbered(-3), "atom 2 has atomic number -3 "),
}
CHARGES = {
    "nan charge": (lambda atoms: atoms.info.update(charge=np.nan), r"info\['charge'\] is nan, .*one finite number"),
    "text as charge": (lambda atoms: atoms.info.update(charge="one"), r"\['charge'\] is 'one', .*one finite number"),
}
EVALUATED = {
    "unknown element": (lambda atoms: atoms.symbols.__setitem__(0, "U"), "knows H, C, O, Na, Cl, Cu.* contains? U"),
    "crowded cell": (crowd, r"about \de\+\d+ neighbours within .*allowed: 15000.*1 nm = 10 Angstrom"),
}
parametrize = pytest.mark.parametrize
rows = {**EVERYWHERE, **EVALUATED}
read = {**EVERYWHERE, **CHARGES}


@parametrize("row", rows)
def test_the_calculator_refuses(row: str, network) -> None:
    (spoil, sentence), atoms = rows[row], sound()
    atoms.calc = NBodyCalculator(network)
    forces = atoms.get_forces()
    spoil(atoms)
    with pytest.raises(CalculatorSetupError, match=sentence):
        atoms.get_forces()
    assert not atoms.calc.results
    np.testing.assert_array_equal(atoms.calc.get_property("forces", sound()), forces)


@parametrize(
    ("name", "change", "sentence"),
    [
        ("numbers", lambda numbers: numbers + 0.4, "atomic numbers must be whole numbers, got float64"),
        ("positions", lambda positions: positions + 1j, "the positions are complex"),
    ],
)
def test_numbers_that_would_be_rounded(name: str, change, sentence: str, network) -> None:
    atoms = sound()
    atoms.arrays[name] = change(atoms.arrays[name])
    atoms.calc = NBodyCalculator(network)
    with pytest.raises(CalculatorSetupError, match=sentence):
        atoms.get_forces()
    atoms.arrays[name] = sound().arrays[name].astype(float)
    assert np.isfinite(atoms.get_forces()).all()


@parametrize("row", CHARGES)
def test_the_calculator_refuses_a_total_charge_that_is_no_number(row: str, network) -> None:
    (spoil, sentence), atoms = CHARGES[row], sound()
    spoil(atoms)
    atoms.calc = NBodyCalculator(network)
    with pytest.raises(CalculatorSetupError, match=sentence):
        atoms.get_forces()


@parametrize("row", read)
def test_the_reader_refuses(row: str, labelled) -> None:
    (spoil, sentence), atoms = read[row], sound()
    spoil(atoms)
    with pytest.raises(DataError, match=f"frame 1: .*{sentence}"):
        read_labelled(labelled(sound(), atoms))


@parametrize("row", {**rows, **CHARGES})
def test_the_command_line_refuses(row: str, labelled, model, refused) -> None:
    (spoil, sentence), atoms = {**rows, **CHARGES}[row], sound()
    spoil(atoms)
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(refused("evaluate", model, labelled(sound(), atoms)))


# --- odd but sound ---------------------------------------------------------------------------------------------------


@parametrize("cell", [3e4 * np.eye(3), np.diag([6.0, 7.0, 1e8]), np.diag([1e8, 1e8, 6.0]), 9e8 * np.eye(3)])
@parametrize("shift", [0.0, -1.0, 3.3])
def test_a_huge_cell_is_vacuum(cell: np.ndarray, shift: float, network) -> None:
    atoms, box = sound(), np.minimum(cell, 30.0 * np.eye(3))
    atoms.positions += shift
    small = atoms.copy()
    atoms.set_cell(cell)
    small.set_cell(box)
    forces = [NBodyCalculator(network).get_property("forces", one) for one in (atoms, small)]
    np.testing.assert_allclose(*forces, atol=1e-12 * cell.max() + 1e-12)


@parametrize("pbc", [True, (True, False, True), False])
def test_a_million_angstrom_from_the_origin(pbc: object, network) -> None:
    here, there = sound(), sound()
    here.pbc = there.pbc = pbc
    there.positions += [1e6, -1e6, 3e5]
    forces = [NBodyCalculator(network).get_property("forces", one) for one in (here, there)]
    np.testing.assert_allclose(*forces, atol=1e-7)  # float64 resolves 1e-10 Angstrom there


def test_a_tiny_cell_with_thousands_of_images_equals_its_supercell(network) -> None:
    tiny = ase.Atoms("C", cell=[[0.8, 0, 0], [0.1, 0.9, 0], [0, -0.2, 0.85]], pbc=True)
    calc = NBodyCalculator(network)
    energy, stress = calc.get_property("energy", tiny), calc.get_property("stress", tiny)
    hierarchy = calc.evaluator.followed[0].hierarchy
    assert hierarchy.levels[0].mask.sum() > 600
    large = tiny * (3, 4, 3)
    assert calc.get_property("energy", large) == pytest.approx(len(large) * energy, rel=1e-9)
    np.testing.assert_allclose(calc.get_property("stress", large), stress, rtol=1e-9, atol=1e-9 * abs(stress).max())
    lone = tiny * (1, 1, 1)
    lone.set_cell(tiny.cell / 2.5)
    assert calc.get_property("energy", lone) == pytest.approx(
        calc.get_property("energy", lone * (2, 2, 2)) / 8, rel=1e-9
    )


def test_a_left_handed_cell_equals_its_right_handed_twin(systems, network) -> None:
    left = sound()
    left.set_cell(CELL[[1, 0, 2]])
    calc = NBodyCalculator(network)
    for name in ("energy", "forces", "stress"):
        np.testing.assert_allclose(calc.get_property(name, left), calc.get_property(name, sound()), atol=1e-12)


@parametrize("pbc", [(True, False, False), (True, True, False), False])
def test_no_stress_without_a_volume(pbc: object, network) -> None:
    atoms = sound()
    atoms.pbc = pbc
    atoms.cell[2] = 0.0
    atoms.calc = NBodyCalculator(network)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    assert np.isfinite(atoms.get_forces()).all()


@parametrize("number", [1, 118])
def test_the_first_and_the_last_element_are_read(number: int, labelled) -> None:
    atoms = sound()
    atoms.numbers[:] = number
    (frame,) = read_labelled(labelled(atoms))
    assert (frame.structure.numbers == number).all()


@parametrize("shift", [[0, 0, 0], [1e-4, 0, -1e-4], CELL[0] - 2 * CELL[1] + CELL[2], CELL[2] - 1e-5])
@parametrize("pbc", [True, (False, True, False), False])
def test_the_reader_refuses_atoms_at_one_place(shift: object, pbc: object, labelled) -> None:
    """Images included, wherever they were wrapped to. In a molecule a lattice vector is a distance like any other."""
    atoms = sound()
    atoms.positions[2] = atoms.positions[1] + shift
    atoms.pbc = pbc
    same = np.allclose(shift, 0.0, atol=1e-3) or pbc is True
    if same:
        with pytest.raises(DataError, match="frame 1: atoms 1 and 2 are at one place"):
            read_labelled(labelled(sound(), atoms))
    else:
        assert len(read_labelled(labelled(sound(), atoms))) == 2


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to set limits")
@parametrize("spread", [0.0, 1e-5])
@parametrize("cell", [None, np.diag([9.0, 9.0, 9.0]), np.diag([0.0011, 1e3, 1e3])])
def test_thousands_of_atoms_at_one_place_take_no_memory(spread: float, cell: np.ndarray | None) -> None:
    """Their pairs would: 20,000 atoms have 200 million."""
    positions = np.random.default_rng(0).normal(scale=spread, size=(20_000, 3)) + 4.0
    structure = Structure.from_atoms(ase.Atoms("H20000", positions, cell=cell, pbc=cell is not None))
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (size + 5 * 10**8, before[1]))
    try:
        assert coincident_atoms(structure, 1e-3) is not None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@parametrize("seed", range(5))
def test_atoms_at_one_place_are_found_as_all_images_tell(seed: int) -> None:
    """In skewed and thin cells, and at their faces."""
    random = np.random.default_rng(seed)
    cell = random.normal(size=(3, 3)) * [3.0, 3.0, 0.3] + random.integers(-20, 20, (3, 3)) @ np.diag([1.0, 0.1, 0.0])
    pbc = random.random(3) < 0.7
    atoms = ase.Atoms("H40", random.integers(0, 3, (40, 3)) / 3.0 @ cell, cell=cell, pbc=pbc)
    atoms.positions += random.normal(scale=3e-4, size=(40, 3)) + random.integers(-2, 3, (40, 3)) * pbc @ cell
    structure = Structure.from_atoms(atoms)
    for number in range(2, 40):
        part = Structure.from_atoms(atoms[:number])
        pairs = find_pairs(part, 1e-3)
        close = [(i, j) for i, j in zip(pairs.first, pairs.second, strict=True) if i != j]
        found = coincident_atoms(part, 1e-3)
        assert (found is None) == (not close)
        assert found is None or found in close
    assert len(structure) == 40


@parametrize("size", [1e16, -1e200, 1e308])
@parametrize(
    ("name", "sentence"),
    [("forces", "the force on atom 1 is"), ("energy", "the energy is"), ("stress", "the stress is")],
)
def test_the_reader_refuses_absurd_labels(size: float, name: str, sentence: str, tmp_path) -> None:
    atoms = sound()
    results = {"energy": 0.0, "forces": np.zeros((3, 3)), "stress": np.zeros(6)}
    if name == "energy":
        results[name] = size
    else:
        results[name][1] = size
    atoms.calc = SinglePointCalculator(atoms, **results)
    ase.io.write(tmp_path / "data.traj", [atoms])
    shown = re.escape(f"{size:.3g} (allowed: below 1e+15)")
    with pytest.raises(DataError, match=f"frame 0: {sentence} {shown}. Remove the frame or its labels"):
        read_labelled(tmp_path / "data.traj")


@parametrize(
    ("entry", "value", "sentence"),
    [
        ("positions", np.zeros((2, 3)), r"positions must be an array of numpy of shape \(3, 3\), got \(2, 3\)"),
        ("cell", np.eye(2), r"cell must be .* shape \(3, 3\), got \(2, 2\)"),
        ("pbc", [True] * 3, r"pbc must be .* shape \(3,\), got list"),
        ("numbers", np.array([6, 8, 400]), "atom 2 has atomic number 400"),
        ("positions", np.full((3, 3), np.nan), "position of atom 0 is not finite"),
    ],
)
def test_a_structure_that_cannot_be_evaluated_cannot_be_made(entry: str, value: object, sentence: str) -> None:
    """The evaluator takes structures that were made by hand."""
    with pytest.raises(StructureError, match=sentence):
        replace(Structure.from_atoms(sound()), **{entry: value})


@parametrize("given", [sound(), "CO", None])
def test_the_evaluator_refuses_what_is_no_structure(given: object, network) -> None:
    evaluator = Evaluator(network)
    with pytest.raises(StructureError, match=f"a structure is a Structure, got {type(given).__name__}"):
        evaluator.follow(given)
    with pytest.raises(StructureError, match="structure 1: a structure is a Structure"):
        evaluator.evaluate([Structure.from_atoms(sound()), given])
    with pytest.raises(StructureError, match="got a single Structure"):
        evaluator.evaluate(Structure.from_atoms(sound()))


@parametrize(
    "atoms", [ase.Atoms(), ase.Atoms(cell=CELL, pbc=True), ase.Atoms("O"), ase.Atoms("O", cell=[9] * 3, pbc=1)]
)
def test_no_atom_and_a_single_atom(atoms: ase.Atoms, network) -> None:
    atoms.calc = NBodyCalculator(network)
    isolated = sum(network.config.isolated_atom_energies[symbol] for symbol in atoms.symbols)
    assert atoms.get_potential_energy() == isolated
    np.testing.assert_array_equal(atoms.get_forces(), np.zeros((len(atoms), 3)))


@parametrize(
    ("keywords", "sentence"),
    [
        ({"device": "cuda:99"}, "'cuda:99' is not available here .*Use device='cpu', or --device cpu"),
        ({"device": "meta"}, "'meta' is not available here"),
        ({"device": None}, "None is not available here"),
        ({"dtype": ["float64"]}, r"dtype must be one of float64, float32, got \['float64'\]"),
        ({"skin": "0.5"}, "skin must be .*got '0.5'"),
        ({"skin": None}, "skin must be .*got None"),
    ],
)
def test_impossible_keywords_are_refused(keywords: dict, sentence: str, network) -> None:
    with pytest.raises(CalculatorSetupError, match=sentence):
        NBodyCalculator(network, **keywords)


def test_a_large_crowd_is_refused_before_its_pairs_fill_the_memory() -> None:
    """No cube has more atoms than are allowed. Within 6 Angstrom there would be 40 million pairs, of 3 GB."""
    random = np.random.default_rng(0)
    positions = random.uniform(0.0, 2.0, (100, 60, 3)) + 2.0 * np.indices((5, 5, 4)).reshape(3, -1).T[:, None]
    atoms = ase.Atoms(numbers=[1] * 6000, positions=positions.reshape(-1, 3))
    with pytest.raises(StructureError, match=r"6000 atoms would have about 4e\+07 pairs within 6 .*1 nm = 10"):
        find_pairs(Structure.from_atoms(atoms), 6.0)
    assert len(find_pairs(Structure.from_atoms(atoms[:500]), 2.0))


def test_atoms_that_share_a_place_as_images_are_refused_before_their_pairs_fill_the_memory() -> None:
    """Far outside of the cell, each has a place of its own. Wrapped, 9000 atoms would have 81 million pairs."""
    translations = np.random.default_rng(0).integers(-100, 100, (9000, 3)) * 100.0
    atoms = ase.Atoms(numbers=[1] * 9000, positions=translations + 1.0, cell=[100.0] * 3, pbc=True)
    with pytest.raises(StructureError, match="9000 atoms share a cube of 2 Angstrom around atom 0 "):
        find_pairs(Structure.from_atoms(atoms), 6.0)
    assert len(find_pairs(Structure.from_atoms(atoms[:50]), 6.0)) == 50 * 49
