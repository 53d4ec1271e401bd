"""The linter names what is wrong with data, and does not complain about good data."""

import dataclasses
import json
import sys

import ase
import ase.build
import ase.io
import numpy as np
import pytest
from ase import units
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody.cli import main
from ase_nbody.data import LabelledStructure, read_labelled
from ase_nbody.data.lint import fingerprint as lint_fingerprint
from ase_nbody.data.lint import lint
from ase_nbody.data.lint.fingerprint import equal_structures, fingerprint
from ase_nbody.structure import Structure


def labelled(atoms: ase.Atoms) -> LabelledStructure:
    atoms.calc = EMT()
    stress = atoms.get_stress(voigt=False) if atoms.pbc.all() else np.full((3, 3), np.nan)
    return LabelledStructure(Structure.from_atoms(atoms), atoms.get_potential_energy(), atoms.get_forces(), stress)


def thermal(atoms: ase.Atoms, seed: int, strain: float = 0.0) -> ase.Atoms:
    random = np.random.default_rng(seed)
    atoms.positions += random.normal(scale=0.06, size=atoms.positions.shape)
    atoms.set_cell(atoms.cell @ (np.eye(3) * (1.0 + strain * random.normal())), scale_atoms=True)
    return atoms


@pytest.fixture(scope="module")
def molecules() -> list[LabelledStructure]:
    return [labelled(thermal(ase.build.molecule("CH3OH"), seed)) for seed in range(40)]


@pytest.fixture(scope="module")
def crystals() -> list[LabelledStructure]:
    cells = [ase.build.bulk("Cu", cubic=True) * (2, 1, 1) for _ in range(40)]
    return [labelled(thermal(atoms, seed, strain=0.02)) for seed, atoms in enumerate(cells)]


def remarks(frames, severity, test=()):
    return {remark.subject: remark for remark in lint(frames, test) if remark.severity == severity}


def changed(frame: LabelledStructure, **changes) -> LabelledStructure:
    return dataclasses.replace(frame, **changes)


def moved(frame: LabelledStructure, positions) -> LabelledStructure:
    return changed(frame, structure=dataclasses.replace(frame.structure, positions=np.array(positions)))


def test_labels_of_all_kinds_are_counted(molecules):
    first, *others = molecules
    text = remarks([changed(first, dipole=np.zeros(3)), *others], "note")["labels"].text
    assert text.endswith("40 with energy, 40 with forces, 0 with stress, 1 with dipole.")


@pytest.mark.parametrize("data", ["molecules", "crystals"])
def test_there_is_no_complaint_about_good_data(data, request):
    frames = request.getfixturevalue(data)
    assert not remarks(frames, "error")
    assert set(remarks(frames, "warning")) <= {"isolated atoms"}
    notes = remarks(frames, "note")
    assert "40 frames" in notes["labels"].text
    assert "slope" in notes["units"].text


@pytest.mark.parametrize("data", ["molecules", "crystals"])
@pytest.mark.parametrize(
    ("energy", "force", "words"),
    [
        (1.0, -1.0, "energies in eV and gradients (the negative of forces) in eV/Angstrom"),
        (1.0, units.Bohr / units.Hartree, "energies in eV and forces in Hartree/Bohr"),
        (1.0, units.mol / units.kcal, "energies in eV and forces in kcal/mol/Angstrom"),
        (units.mol / units.kcal, 1.0, "energies in kcal/mol and forces in eV/Angstrom"),
        (1.0 / units.Hartree, 1.0, "energies in Hartree and forces in eV/Angstrom"),
    ],
)
def test_wrong_units_and_signs_of_energies_and_forces_are_named(data, energy, force, words, request):
    frames = [
        changed(frame, energy=energy * frame.energy, forces=force * frame.forces)
        for frame in request.getfixturevalue(data)
    ]
    assert words in remarks(frames, "error")["units"].text


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (-1.0, "eV/Angstrom^3 with the opposite sign"),
        (1.0 / units.GPa, "GPa with ASE's sign"),
        (-10.0 / units.GPa, "kbar with the opposite sign"),
    ],
)
def test_wrong_units_and_signs_of_stresses_are_named(factor, words, crystals):
    frames = [changed(frame, stress=factor * frame.stress) for frame in crystals]
    assert words in remarks(frames, "error")["stress"].text


def test_duplicates_are_found_after_rotation_translation_and_permutation(molecules):
    structure = molecules[3].structure
    order = np.random.default_rng(0).permutation(len(structure))
    turned = ase.Atoms(numbers=structure.numbers[order], positions=structure.positions[order])
    turned.rotate(37.0, (1, 2, 3))
    turned.translate([5.0, -3.0, 100.0])
    frames = [*molecules, labelled(turned)]
    found = remarks(frames, "warning")["duplicates"]
    assert found.frames == (40,)
    assert "contradictions" not in remarks(frames, "error")


def test_pairs_of_copies_are_not_as_many_as_their_square():
    """Four thousand copies took hours and gigabytes. Each copy still has a pair of its own charge."""
    structure = Structure.from_atoms(ase.build.molecule("H2O"))
    ion = dataclasses.replace(structure, charge=1.0)
    pairs = equal_structures([structure] * 30 + [ion] * 30)
    assert len(pairs) < 60 * 20
    assert {j for i, j in pairs if (i < 30) == (j < 30)} == {*range(60)} - {0, 30}
    assert {j for _, j in equal_structures([structure] * 30, [structure] * 40)} == {*range(40)}


def test_many_copies_take_one_search_for_neighbours_each(monkeypatch):
    """Their pairs are so many that a search for each of them took minutes for 300 copies."""
    searched = []
    search = lint_fingerprint.find_pairs
    monkeypatch.setattr(lint_fingerprint, "find_pairs", lambda *given: searched.append(1) or search(*given))
    copies = [ase.build.molecule("CH3OH") for _ in range(10)]
    for number, atoms in enumerate(copies[5:]):
        atoms.rotate(30.0 * number + 10.0, (1.0, 2.0, 3.0))
    assert len(equal_structures([Structure.from_atoms(atoms) for atoms in copies])) == 45
    assert len(searched) <= 20  # a fingerprint, and the surroundings of the atoms


def test_rotated_copies_are_compared_with_ten_others_each(monkeypatch):
    """Their fingerprints differ in the last digits, so that three thousand of them took hours and gigabytes."""
    compared = []
    same = lint_fingerprint._Surroundings.same
    monkeypatch.setattr(lint_fingerprint._Surroundings, "same", lambda *given: compared.append(1) or same(*given))
    copies, n_copies = [], 300
    for number in range(n_copies):
        atoms = ase.build.molecule("CH3OH")
        atoms.rotate(1.0 + number, (1.0, 2.0, 3.0))
        copies.append(Structure.from_atoms(atoms))
    ions = [dataclasses.replace(structure, charge=1.0) for structure in copies[:20]]
    pairs = equal_structures([*copies, *ions])
    assert {j for i, j in pairs if (i < n_copies) == (j < n_copies)} == {*range(n_copies + 20)} - {0, n_copies}
    assert {j for i, j in pairs if i < n_copies <= j} == {*range(n_copies, n_copies + 20)}
    assert len(compared) <= 20 * (n_copies + 20)
    assert {j for _, j in equal_structures(copies, copies[:30])} == {*range(30)}


def test_crystals_that_differ_little_are_compared_with_ten_others_each(monkeypatch):
    """Their fingerprints are equal within the tolerance, though they are no copies."""
    searched = []
    assign = lint_fingerprint.cdist
    monkeypatch.setattr(lint_fingerprint, "cdist", lambda *given, **more: searched.append(1) or assign(*given, **more))
    cells = [ase.build.bulk("Cu", cubic=True) * (3, 3, 3) for _ in range(40)]
    for seed, atoms in enumerate(cells):
        atoms.rattle(0.01, seed=seed)
    structures = [Structure.from_atoms(atoms) for atoms in cells]
    assert equal_structures([*structures, structures[7]]) == [(7, 40)]
    assert len(searched) <= 20 * 41


def test_a_supercell_is_a_duplicate(crystals):
    structure = crystals[5].structure
    atoms = ase.Atoms(numbers=structure.numbers, positions=structure.positions, cell=structure.cell, pbc=True)
    assert equal_structures([frame.structure for frame in crystals], [Structure.from_atoms(atoms * (1, 2, 1))]) == [
        (5, 0)
    ]


def test_molecules_that_differ_beyond_the_cutoff_are_different():
    pairs = [ase.Atoms("CuCu", positions=[[0, 0, 0], [0, 0, distance]]) for distance in (7.0, 9.0)]
    assert not equal_structures([Structure.from_atoms(atoms) for atoms in pairs])


def test_equal_structures_of_different_charge_are_no_copies(molecules):
    """Only networks that learn charges can tell them apart. Isolated ions may lie beside isolated atoms."""
    ion = changed(molecules[0], energy=molecules[0].energy + 9.0)
    ion = changed(ion, structure=dataclasses.replace(ion.structure, charge=1.0))
    found = remarks([*molecules, ion], "warning", test=[ion])
    assert found["contradictions"].frames == (0, 40)
    assert "frames 0 and 40 have +0 and +1 e" in found["contradictions"].text
    assert "duplicates" not in found
    assert "leakage" not in remarks(molecules, "error", test=[ion])
    atoms = [
        LabelledStructure(Structure.from_atoms(atom), energy, np.zeros((1, 3)), np.full((3, 3), np.nan))
        for atom, energy in ((ase.Atoms("H"), -13.6), (ase.Atoms("H", info={"charge": 1}), 0.0))
    ]
    assert "contradictions" not in remarks([*molecules, *atoms], "error") | remarks([*molecules, *atoms], "warning")


def test_equal_structures_of_different_spin_are_named_as_such(molecules):
    """Isolated atoms may have several spins: the lowest energy counts."""

    def triplet(frame):
        return changed(frame, energy=frame.energy + 3.0, structure=dataclasses.replace(frame.structure, multiplicity=3))

    found = remarks([*molecules, triplet(molecules[0])], "error")["contradictions"]
    assert found.frames == (0, 40)
    assert "frames 0 and 40 have the multiplicities 1 and 3. No network sees the spin" in found.text
    oxygen = changed(labelled(ase.Atoms("O")), energy=-2041.0)
    assert "contradictions" not in remarks([*molecules, triplet(oxygen), oxygen], "error")


def test_contradicting_labels_are_an_error(molecules):
    frames = [*molecules, changed(molecules[7], energy=molecules[7].energy + 0.1)]
    found = remarks(frames, "error")["contradictions"]
    assert found.frames == (7, 40)
    blank = [changed(molecules[7], energy=np.nan, forces=factor * molecules[7].forces) for factor in (1.0, 1.5)]
    assert "frames 0 and 1 have largest forces of" in remarks(blank, "error")["contradictions"].text


def test_leaked_test_frames_are_an_error(molecules):
    found = remarks(molecules[:30], "error", test=molecules[28:])["leakage"]
    assert found.frames == (0, 1)
    assert not remarks(molecules[:30], "error", test=molecules[30:])


def test_net_forces_and_torques_are_found(molecules):
    pushed = changed(molecules[0], forces=molecules[0].forces + 0.1)
    assert remarks([pushed, *molecules[1:]], "warning")["net force"].frames == (0,)
    arms = molecules[1].structure.positions - molecules[1].structure.positions.mean(axis=0)
    twisted = changed(molecules[1], forces=molecules[1].forces + np.cross([0.0, 0.0, 1.0], arms))
    assert remarks([molecules[0], twisted, *molecules[2:]], "warning")["torque"].frames == (1,)


def test_positions_in_other_units_are_found(molecules):
    small = [moved(frame, 0.1 * frame.structure.positions) for frame in molecules]  # nm
    assert len(remarks(small, "warning")["distances"].frames) == 40
    large = [moved(frame, 4.0 * frame.structure.positions) for frame in molecules]
    assert "no two atoms" in remarks(large, "warning")["distances"].text


def test_energies_per_atom_are_named(molecules):
    frames = [changed(frame, energy=frame.energy / 6) for frame in molecules]
    assert "energies per atom in eV" in remarks(frames, "error")["units"].text


def test_positions_in_bohr_are_found(molecules):
    bohr = [moved(frame, frame.structure.positions / units.Bohr) for frame in molecules]
    assert "Are positions in Bohr?" in remarks(bohr, "warning")["distances"].text
    argon = [labelled_by(ase.build.bulk("Ar", cubic=True)) for _ in range(4)]
    assert "distances" not in remarks(argon, "warning")


def labelled_by(atoms: ase.Atoms) -> LabelledStructure:
    return LabelledStructure(Structure.from_atoms(atoms), 0.0, np.zeros((len(atoms), 3)), np.zeros((3, 3)))


def test_crystals_without_pbc_are_found(crystals):
    open_ends = [
        changed(frame, structure=dataclasses.replace(frame.structure, pbc=np.zeros(3, bool))) for frame in crystals
    ]
    found = remarks(open_ends, "warning")["distances"]
    assert "40 frames have a cell that the atoms fill, but no periodic direction. Is pbc set?" in found.text
    boxed = ase.build.molecule("CH3OH", vacuum=3.0)
    assert "distances" not in remarks([labelled_by(boxed)] * 3, "warning")


def test_one_frame_is_said_in_the_singular(molecules):
    texts = [remark.text for remark in lint(molecules[:1])]
    assert any(text.startswith("1 frame of 6 atoms:") for text in texts)
    assert any(text.startswith("1 composition does not determine the energies of 3 elements") for text in texts)
    assert not any(words in text for text in texts for words in ("1 frames", "1 compositions", "1 molecules"))
    assert "40 frames of 6 atoms:" in remarks(molecules, "note")["labels"].text


def test_outliers_are_found(molecules):
    frames = [*molecules[:20], changed(molecules[20], energy=molecules[20].energy + 60.0), *molecules[21:]]
    found = remarks(frames, "warning")["outliers"]
    assert found.frames == (20,)
    assert "frame 20" in found.text
    torn = changed(molecules[2], forces=molecules[2].forces * 1e3)
    assert 2 in remarks([*molecules[:2], torn], "warning")["outliers"].frames


def test_missing_labels_are_found(molecules):
    nothing = np.full_like(molecules[0].forces, np.nan)
    assert remarks([changed(molecules[0], forces=nothing), *molecules[1:]], "warning")["labels"].frames == (0,)
    without = [changed(frame, forces=nothing) for frame in molecules]
    assert "No frame has forces" in remarks(without, "error")["labels"].text
    without = [changed(frame, energy=np.nan) for frame in molecules]
    assert "No frame has an energy" in remarks(without, "error")["labels"].text


def test_lone_atoms_need_no_forces(molecules):
    """By symmetry they are zero, in vacuum, in a box and in a crystal of one atom, so nobody has to write them."""
    boxes = [ase.Atoms("H"), ase.Atoms("C", cell=[20.0] * 3, pbc=True), ase.Atoms("O", cell=[4.0] * 3, pbc=True)]
    alone = [changed(labelled(atoms), forces=np.full((1, 3), np.nan)) for atoms in boxes]
    assert "labels" not in remarks([*alone, *molecules], "warning")
    nothing = np.full_like(molecules[0].forces, np.nan)
    assert remarks([*alone, changed(molecules[0], forces=nothing), *molecules[1:]], "warning")["labels"].frames == (3,)
    assert remarks([changed(alone[0], energy=np.nan), *molecules], "warning")["labels"].frames == (0,)


def test_ions_and_atoms_without_energies_are_no_energies_of_atoms(molecules):
    ions = [ase.Atoms(symbol, info={"charge": 1}) for symbol in "HCO"]
    blank = [changed(labelled(ase.Atoms(symbol)), energy=np.nan) for symbol in "HCO"]
    for alone in (list(map(labelled, ions)), blank):
        assert "isolated atoms" in remarks([*molecules, *alone], "warning")
    assert "isolated atoms" not in {remark.subject for remark in lint(blank)}


def test_rare_elements_and_undetermined_isolated_energies_are_found(molecules):
    water = [labelled(thermal(ase.build.molecule("H2O"), seed)) for seed in range(3)]
    assert "isolated atoms" in remarks(molecules, "warning")
    assert (
        "contain N: the model will learn little about these elements"
        in remarks([*molecules, labelled(ase.build.molecule("NH3"))], "warning")["elements"].text
    )
    alone = [labelled(ase.Atoms(symbol)) for symbol in "HCO"]
    assert (
        "Single-atom frames give the energy of every element"
        in remarks([*molecules, *alone], "note")["isolated atoms"].text
    )
    boxed = [labelled(ase.Atoms(symbol, cell=[20.0] * 3, pbc=True)) for symbol in "HCO"]
    found = remarks([*molecules, *boxed], "note")["isolated atoms"]
    assert "Single-atom frames give the energy of every element" in found.text
    assert not any("no two atoms" in remark.text for remark in lint([*molecules, *boxed]))
    carbon = [labelled(thermal(ase.build.molecule("CH4"), seed)) for seed in range(3)]
    assert "will be fitted" in remarks([*molecules, *water, *carbon], "note")["isolated atoms"].text


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("rmd17_ethanol", ":100"),
        ("rmd17_malonaldehyde", ":100"),
        ("rmd17_aspirin", ":100"),
        ("acac", ":60"),
        ("3bpa", ":60"),
        ("water_pbe0", ":20"),
        ("mlearn_Si", ":"),
        ("mlearn_Li", ":"),
        ("mlearn_Mo", ":"),
    ],
)
def test_there_is_no_complaint_about_published_data(name, index, reference_data):
    found = remarks(read_labelled(next(reference_data.glob(f"{name}/train*.extxyz")), index), "error")
    assert not found


def test_rattled_crystals_are_not_copies_of_each_other():
    """Their fingerprints are equal, because small random displacements average out, but their forces differ."""
    cells = [ase.build.bulk("Cu", cubic=True) * (3, 3, 3) for _ in range(2)]
    for seed, atoms in enumerate(cells):
        atoms.rattle(0.01, seed=seed)
    frames = [labelled(atoms) for atoms in cells]
    assert np.abs(fingerprint(frames[0].structure) - fingerprint(frames[1].structure)).max() < 1e-3
    assert not equal_structures([frame.structure for frame in frames])
    turned = cells[0][np.random.default_rng(2).permutation(len(cells[0]))]
    turned.rotate(30.0, "z", rotate_cell=True)
    turned.positions += 0.4
    assert equal_structures([frames[0].structure, Structure.from_atoms(turned)]) == [(0, 1)]


@pytest.mark.data
def test_strained_crystals_of_the_mlearn_test_split_are_found_in_its_training_split(reference_data):
    """The official test split of silicon holds crystals sheared along another axis than those of the training."""
    train, test = (read_labelled(reference_data / "mlearn_Si" / f"{part}.extxyz") for part in ("train", "test"))
    assert remarks(train, "error", test)["leakage"].frames == (22, 23, 24)
    assert train[192].energy == pytest.approx(test[22].energy, abs=1e-5)


def write(path, frames, sign=1.0):
    images = []
    for frame in frames:
        atoms = ase.Atoms(numbers=frame.structure.numbers, positions=frame.structure.positions)
        atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=sign * frame.forces)
        images.append(atoms)
    ase.io.write(path, images)
    return str(path)


def test_names_are_no_markup_and_charges_are_said(molecules, tmp_path, nbody):
    path = tmp_path / "o[/run]\x1b[31m.extxyz"
    path.parent.mkdir()
    images = ase.io.read(write(tmp_path / "a.extxyz", molecules[:3]), ":")
    for atoms in images:
        atoms.info |= {"charge": 1, "spin": 2}
    ase.io.write(path, images)
    code, out, err = nbody("lint", path)
    assert code == 0, err
    assert "\x1b" not in out
    assert "o[/run]" in out
    assert "3 frames with a total charge (charge): the model ignores it" in " ".join(out.split())
    assert "3 frames with spin: it is ignored" in " ".join(out.split())


@pytest.mark.parametrize(("sign", "code"), [(1.0, 0), (-1.0, 1)])
def test_the_exit_code_is_one_if_there_is_an_error(sign, code, molecules, tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "train.extxyz", molecules, sign)
    monkeypatch.setattr(sys, "argv", ["nbody", "lint", path, "--json"])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == code
    assert any(remark["severity"] == "error" for remark in json.loads(capsys.readouterr().out)) == bool(code)


def test_a_head_of_the_model_can_be_chosen(nbody, tmp_path):
    ase.io.write(tmp_path / "data.extxyz", ase.Atoms("Si"))
    for options, sentence in (
        (("--model", "silicon", "--head", "nobody"), "silicon has no head 'nobody'"),
        (("--head", "nobody"), "name the model, --model"),
    ):
        code, _, err = nbody("lint", tmp_path / "data.extxyz", *options)
        assert code == 1
        assert sentence in err


def test_the_model_may_be_named_from_the_home_folder(nbody, tmp_path, monkeypatch):
    """No shell expands ``--model=~/a.nbody``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    ase.io.write(tmp_path / "data.extxyz", ase.Atoms("Si"))
    _, _, err = nbody("lint", tmp_path / "data.extxyz", "--model=~/none.nbody")
    assert f"no model file '{tmp_path}/none.nbody'" in err
