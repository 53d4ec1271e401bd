"""Names of labels are decided once per file, sets of names are never mixed, and what was found is said."""

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody.data import DataError, Found, read_labelled
from ase_nbody.data.names import choose_names
from ase_nbody.data.structures import read_structures
from ase_nbody.files.archive import load_members

MODEL, REFERENCE = -1.0, -2.0
PLAIN = load_members("ethanol")[0].config
PREDICTS_CHARGES = PLAIN.model_copy(update={"outputs": ("charges", "dipole")})


@pytest.fixture
def said(tmp_path):
    """Writes frames, reads them with given keys, and returns them with what was found."""

    def read(frames, name="data.extxyz", **keys) -> tuple[list, Found]:
        found: list[Found] = []
        ase.io.write(tmp_path / name, frames)
        labelled = read_labelled(tmp_path / name, keys=keys, tell=found.append)
        assert len(found) == 1
        return labelled, found[0]

    return read


def ethanol(
    number: int = 0, model: bool = True, prefix: str = "REF_", names: tuple[str, ...] = ("energy", "forces")
) -> Atoms:
    """A molecule with labels of a model under ASE's names, and of a reference with a prefix."""
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=number)
    reference = {"energy": REFERENCE - number, "forces": np.full((9, 3), REFERENCE)}
    for name in names:
        (atoms.arrays if name == "forces" else atoms.info)[prefix + name] = reference[name]
    if model:
        atoms.calc = SinglePointCalculator(atoms, energy=MODEL - number, forces=np.full((9, 3), MODEL))
    return atoms


@pytest.mark.parametrize("name", ["data.extxyz", "data.xyz.gz"])
@pytest.mark.parametrize("prefix", ["REF_", "dft_"])
def test_the_reference_comes_before_what_a_model_wrote(name, prefix, said):
    frames, found = said([ethanol(number, prefix=prefix) for number in range(4)], name)
    assert [frame.energy for frame in frames] == [REFERENCE - number for number in range(4)]
    assert all((frame.forces == REFERENCE).all() for frame in frames)
    assert found.labels == {"energy": 4, "forces": 4}
    assert f"4 frames: 4 with energy (named {prefix}energy), 4 with forces (named {prefix}forces)" in str(found)
    assert "never mixed: energy, forces." in str(found)
    assert "name both" not in str(found)


@pytest.mark.parametrize(("there", "missing"), [("energy", "forces"), ("forces", "energy")])
def test_a_missing_label_of_a_set_is_not_taken_from_another(there, missing, said):
    frames, found = said([ethanol(number, names=(there,)) for number in range(3)])
    assert np.isnan([getattr(frame, missing) for frame in frames]).all()
    assert found.labels == {there: 3}
    assert "If one calculation wrote energies and forces, name both: --key energy=NAME" in str(found)


def test_the_names_are_those_of_the_whole_file(said, tmp_path):
    """The frames that have the reference are far down the file, and even outside the slice that is read."""
    frames, found = said([ethanol(0, names=()), ethanol(1, names=()), ethanol(2)])
    assert np.isnan([frame.energy for frame in frames[:2]]).all()
    assert frames[2].energy == REFERENCE - 2
    assert found.labels == {"energy": 1, "forces": 1}
    assert np.isnan(read_labelled(tmp_path / "data.extxyz", ":2")[0].energy)


def test_a_key_that_is_given_decides_and_brings_its_set(said):
    frames, found = said([ethanol(number) for number in range(3)], energy="energy")
    assert [frame.energy for frame in frames] == [MODEL, MODEL - 1, MODEL - 2]
    assert (frames[0].forces == MODEL).all()
    assert found.names.unused == ("REF_energy", "REF_forces")


@pytest.mark.parametrize(
    ("present", "keys", "used"),
    [
        ("energy free_energy forces", {}, {"energy": "energy", "forces": "forces"}),
        ("free_energy forces", {}, {"energy": "free_energy", "forces": "forces"}),
        ("TotEnergy force virials", {}, {"energy": "TotEnergy", "forces": "force", "virial": "virials"}),
        ("energy forces REF_stress", {}, {"energy": "energy", "forces": "forces"}),
        ("REF_energy dft_energy dft_forces stress", {}, {"energy": "REF_energy"}),
        ("charges dipole", {}, {"charges": "charges", "dipole": "dipole"}),
        ("E forces", {"energy": "E"}, {"energy": "E", "forces": "forces"}),
        ("E F stress", {"energy": "E", "forces": "F"}, {"energy": "E", "forces": "F", "stress": "stress"}),
        ("E F energy forces stress", {"energy": "E", "forces": "F"}, {"energy": "E", "forces": "F"}),
        ("energy forces stress V", {"virial": "V"}, {"energy": "energy", "forces": "forces", "virial": "V"}),
        ("REF_energy energy stress", {"energy": "energy"}, {"energy": "energy", "stress": "stress"}),
        ("DFT_energy DFT_forces energy forces", {}, {"energy": "DFT_energy", "forces": "DFT_forces"}),
        ("ref_energy ref_forces energy", {}, {"energy": "ref_energy", "forces": "ref_forces"}),
        ("", {}, {}),
    ],
)
def test_sets_of_names(present, keys, used):
    assert choose_names(set(present.split()), keys).used == used


@pytest.mark.parametrize(("energy", "forces"), [("E_dft", "F_dft"), ("Energy", "Forces"), ("Etot", "gradient")])
def test_names_that_are_not_usual_are_said_and_can_be_given(energy, forces, said):
    atoms = ethanol(model=False, names=())
    atoms.info[energy], atoms.arrays[forces] = -3.0, np.full((9, 3), 0.5)
    _, found = said([atoms])
    assert f"Is one of these the energy: {energy}? Then name it, with data.keys or --key energy={energy}" in str(found)
    assert f"--key forces={forces}" in str(found)
    assert ("Forces are the negative of gradients" in str(found)) == (forces == "gradient")
    (frame,), found = said([atoms], energy=energy, forces=forces)
    assert frame.energy == -3.0
    assert f"1 frame: 1 with energy (named {energy}), 1 with forces (named {forces})" in str(found)


@pytest.mark.parametrize(("energy", "forces"), [("energy_dft", "forces_dft"), ("E_dft", "F_dft"), ("Energy", "Forces")])
def test_names_that_lose_to_those_of_a_model_are_said(energy, forces, said):
    atoms = ethanol(names=())
    atoms.info[energy], atoms.arrays[forces] = REFERENCE, np.full((9, 3), REFERENCE)
    (frame,), found = said([atoms])
    assert frame.energy == MODEL
    assert f"Not read: {energy}. If this is the energy of the reference, name it" in str(found)
    assert f"--key forces={forces}." in str(found)


@pytest.mark.parametrize("prefix", ["DFT_", "Dft_", "ref_", "Ref_"])
def test_prefixes_in_any_case_name_the_reference(prefix, said):
    ((frame,), _) = said([ethanol(prefix=prefix)])
    assert (frame.energy, frame.forces[0, 0]) == (REFERENCE, REFERENCE)


def test_a_free_energy_is_said_only_if_it_is_another(said):
    atoms = molecule("CH3CH2OH")
    results = {"energy": MODEL, "forces": np.ones((9, 3))}
    atoms.calc = SinglePointCalculator(atoms, **results, free_energy=MODEL)
    assert "free energy" not in str(said([atoms])[1])
    assert "never mixed" not in str(said([atoms])[1])
    atoms.calc = SinglePointCalculator(atoms, **results, free_energy=MODEL - 0.1)
    (frame,), found = said([atoms])
    assert frame.energy == MODEL
    assert "The free energy is not the energy in 1 frame. Forces belong to the free energy" in str(found)
    assert "never mixed" not in str(found)


@pytest.mark.parametrize(("charge", "right"), [(9, True), (-9, True), (12, False), (-10, False)])
def test_a_charge_of_more_than_one_e_for_each_atom_is_refused(charge, right, said):
    atoms = ethanol()
    atoms.info["charge"] = charge
    if right:
        assert said([atoms])[0][0].structure.charge == charge
    else:
        with pytest.raises(DataError, match=f"the total charge is {charge} e, but a structure of 9 atoms"):
            said([atoms])


def test_an_ion_may_have_lost_all_electrons(said):
    ion = Atoms("Al", info={"charge": 3, "energy": 1.0})
    assert said([ion, ethanol()])[0][0].structure.charge == 3.0


def system(pbc, cell=None):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.pbc, atoms.cell = pbc, atoms.cell if cell is None else cell
    return atoms


@pytest.mark.parametrize("pbc", [False, (False, False, True), (True, True, False)])
@pytest.mark.parametrize("name", ["REF_stress", "stress", "REF_virial", "virials", "mine"])
@pytest.mark.parametrize("value", [0.0, 0.1, np.nan])
def test_only_what_is_periodic_in_three_directions_has_a_stress(pbc, name, value, said):
    frames = [system(pbc), system(True)]
    for atoms in frames:
        atoms.info["REF_energy" if name.startswith("REF") else "energy"] = -1.0
        atoms.info[name] = np.full(9 if name != "stress" else (3, 3), 0.1)
    frames[0].info[name] = np.full_like(frames[0].info[name], value)
    (without, within), found = said(frames, **({"stress": name} if name == "mine" else {}))
    assert np.isnan(without.stress).all()
    assert np.isfinite(within.stress).all()
    assert found.dropped == {"stress": 1}
    assert "Left out: the stress of 1 frame, because structures that are not periodic in three" in str(found)


@pytest.mark.parametrize(
    ("length", "isolated", "said_so"), [(10.0, True, False), (9.0, False, True), (3.0, False, False)]
)
def test_an_atom_in_a_small_box_is_said_to_be_a_crystal(length, isolated, said_so, said):
    atoms = Atoms("Cu", cell=[length, 20.0, 20.0], pbc=True, info={"energy": -1.0})
    (frame,), found = said([atoms])
    assert frame.structure.is_isolated_atom() == isolated
    assert (
        f"1 frame of one atom in a box (nearest image: {length:g} Angstrom): a crystal for every" in str(found)
    ) == (said_so)


def test_crystals_of_one_atom_are_not_said_to_be_atoms_in_boxes(said):
    crystals = [bulk(name) for name in ("Cu", "Na", "Cs", "Al", "W", "Ar", "Xe", "Po")]
    for number, atoms in enumerate(crystals):
        atoms.info["energy"] = -1.0 - number
    assert "in a box" not in str(said(crystals)[1])


def test_charges_and_dipoles_that_are_left_out_are_said(said):
    atoms = system(True)
    atoms.info["dipole"] = np.ones(3)
    _, found = said([atoms])
    assert "Left out: the dipole of 1 frame, because periodic structures have none." in str(found)


@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        ({"charge": -1}, "1 frame with a total charge (charge): the model ignores it."),
        ({"total_charge": 2.0}, "1 frame with total_charge: it is ignored. Name it charge if it is the total charge."),
        ({"Charge": 1}, "1 frame with Charge: it is ignored. Name it charge if it is the total charge."),
        ({"molecular_charge": 1}, "1 frame with molecular_charge: it is ignored. Name it charge if it is"),
        ({"spin": 1}, "1 frame with spin: it is ignored."),
        ({"REF_dipole": np.ones(3)}, "dipole in 1 frame: the model ignores them. A network learns them with"),
        ({"multiplicity": 3}, "1 frame with multiplicity: it is ignored."),
        ({"charge": 0, "multiplicity": 1, "spin": 0, "total_spin": 0.0, "charge_first": 1}, ""),
    ],
)
def test_a_charge_or_spin_that_is_ignored_is_said(info, sentence, said):
    atoms = ethanol()
    atoms.info |= info
    _, found = said([atoms])
    assert sentence in found.ignored(None)
    assert bool(found.ignored(None)) == bool(sentence)
    assert "charge)" not in found.ignored(PREDICTS_CHARGES)


@pytest.mark.parametrize("name", ["spin", "total_spin", "multiplicity", "uhf", "magmom", "initial_magmoms"])
def test_a_spin_is_not_said_to_be_ignored_by_a_model_that_refuses_others(name, said):
    atoms = ethanol()
    if name == "initial_magmoms":
        atoms.set_initial_magnetic_moments([1.0] + [0.0] * 8)
    else:
        atoms.info[name] = 2
    _, found = said([atoms])
    assert f"with {name}: it is ignored" in found.ignored(None)
    assert not found.ignored(PLAIN.model_copy(update={"multiplicities": (3,)}))
    assert found.ignored(PLAIN.model_copy(update={"total_charges": (0,)})) == found.ignored(None)


@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        ({"energy_unit": "kcal/mol"}, "energy_unit = kcal/mol is not looked at: labels are read in eV and Angstrom."),
        ({"units": "Hartree"}, "units = Hartree is not looked at"),
        ({"units": "eV"}, ""),
        ({"forces_unit": "eV/Ang"}, ""),
        ({"converged": False}, "2 frames with converged = False: if this is the self-consistency, leave them out."),
        ({"scf_converged": 0}, "2 frames with scf_converged = False"),
        ({"converged": True}, ""),
    ],
)
def test_a_unit_that_is_named_and_what_did_not_converge_are_said(info, sentence, said):
    frames = [molecule("H2O") for _ in range(2)]
    for number, atoms in enumerate(frames):
        atoms.info |= info
        atoms.calc = SinglePointCalculator(atoms, energy=-float(number), forces=np.full((3, 3), 0.1))
    _, found = said(frames)
    assert sentence in str(found)
    assert ("looked at" in str(found) or "= False" in str(found)) == bool(sentence)


def test_a_charge_is_not_said_to_be_ignored_by_a_model_that_refuses_others(said):
    atoms = ethanol()
    atoms.info["charge"] = -1
    _, found = said([atoms])
    assert "the model ignores it" in found.ignored(PLAIN)
    assert not found.ignored(PLAIN.model_copy(update={"total_charges": (-1, 0)}))


def test_magnetic_moments_that_are_ignored_are_said(said):
    atoms = ethanol()
    atoms.set_initial_magnetic_moments([1.0] + [0.0] * 8)
    assert "1 frame with initial_magmoms: it is ignored." in said([atoms])[1].ignored(PREDICTS_CHARGES)


@pytest.mark.parametrize("model", [None, PREDICTS_CHARGES])
def test_partial_charges_that_do_not_sum_to_the_total_charge_are_said(model, said):
    frames = [ethanol() for _ in range(3)]
    for atoms, charges, total in zip(frames, ([0.12] * 9, [-0.11] * 9, [0.01] * 9), (None, -1, None), strict=True):
        atoms.set_array("REF_charges", np.array(charges))
        atoms.info |= {"REF_energy": -1.0} if total is None else {"REF_energy": -1.0, "charge": total}
    sentence = (
        "The REF_charges of 1 frame do not sum to the total charge (charge, 0 if absent): in the first one to +1.08 "
        "instead of +0 e. Set charge to the sum if that is the total charge."
    )
    assert sentence in said(frames)[1].ignored(model)
    assert "do not sum" not in said(frames[1:])[1].ignored(model)


@pytest.mark.parametrize("total", [None, 0, 1])
def test_initial_charges_that_tell_of_an_ion_are_said_unless_its_charge_is_given(total, said):
    atoms = ethanol()
    atoms.set_initial_charges([1.0] + [0.0] * 8)
    atoms.info |= {} if total is None else {"charge": total}
    sentence = (
        "The initial_charges of 1 frame do not sum to the total charge (charge, 0 if absent): in the first one to"
    )
    assert (f"{sentence} +1" in said([atoms])[1].ignored(PREDICTS_CHARGES)) == (total is None)


@pytest.mark.parametrize("name", ["data.db", "data.json"])
def test_a_charge_and_a_spin_in_a_database_are_those_of_the_structure(name, tmp_path):
    """Databases keep what is known of a row one level below; there they were read as neutral singlets in silence."""
    stored = ({}, {"data": {"charge": -1, "spin": 1}}, {"multiplicity": 3}, {"charge": -1})
    with ase.db.connect(tmp_path / name) as rows:
        for number, further in enumerate(stored):
            rows.write(ethanol(number), **further)
    found: list[Found] = []
    frames = read_labelled(tmp_path / name, tell=found.append)
    assert [frame.structure.charge for frame in frames] == [0.0, -1.0, 0.0, 0.0]
    assert [frame.structure.multiplicity for frame in frames] == [None, 2, 3, None]
    assert [atoms.info.get("charge") for atoms in read_structures(tmp_path / name, "1")] == [-1]
    sentence = "1 frame with charge as a key-value pair, in whose place databases of ASE give the sum of the initial"
    assert sentence in found[0].ignored(PREDICTS_CHARGES)  # ASE overwrites this one when it reads the row


@pytest.mark.parametrize("kind", ["extxyz", "traj", "db"])
def test_a_file_that_cannot_be_read_for_a_moment_does_not_lose_its_labels(kind, tmp_path, monkeypatch):
    """It is read for the names of its labels first; an error there was forgotten, and so were the labels."""
    frames = [molecule("H2O") for _ in range(3)]
    for number, atoms in enumerate(frames):  # the last frame alone has forces
        results = {"energy": 1.0 + number, **({"forces": np.full((3, 3), 0.5)} if number == 2 else {})}
        atoms.calc = SinglePointCalculator(atoms, **results)
    path = tmp_path / f"data.{kind}"
    ase.io.write(path, frames)
    for first, missed in ((set(), "energy, forces"), ({"energy"}, "forces")):
        monkeypatch.setattr("ase_nbody.data.reading.names_in_file", lambda *_, first=first: first)
        with pytest.raises(DataError, match=f": {missed} was not found when the file was read for the names"):
            read_labelled(path)
    assert len(read_labelled(path, ":2")) == 2  # what comes after the frames that are chosen does not matter
