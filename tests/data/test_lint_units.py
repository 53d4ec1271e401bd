"""Wrong units and signs of energies and forces are found in published data, and right ones are never called wrong.

Each error is planted in data that are right. For crystals, and where there are few frames, "cannot tell" is an answer
too; "right" never is.
"""

import dataclasses
import itertools

import ase
import ase.build
import numpy as np
import pytest
from ase import units

from ase_nbody.data import LabelledStructure, read_labelled
from ase_nbody.data.lint.agreement import remarks
from ase_nbody.data.lint.similar import similar_pairs
from ase_nbody.data.lint.slopes import ENERGY_BOUNDS, slope_of, slopes
from ase_nbody.data.lint.stiffness import bond_forces, bond_stiffness
from ase_nbody.data.lint.units import explain_energy
from ase_nbody.structure import Structure

KCAL, KJ = units.kcal / units.mol, units.kJ / units.mol
# What energies and forces are multiplied by, and what the remark must name among its explanations.
PLANTED = {
    "Hartree and Hartree/Bohr": (1 / units.Hartree, units.Bohr / units.Hartree, "forces in Hartree/Bohr"),
    "Rydberg and Rydberg/Bohr": (1 / units.Rydberg, units.Bohr / units.Rydberg, "forces in Rydberg/Bohr"),
    "Hartree and Hartree/Angstrom": (1 / units.Hartree, 1 / units.Hartree, "forces in Hartree/Angstrom"),
    "kcal/mol": (1 / KCAL, 1 / KCAL, "energies in kcal/mol and forces in kcal/mol/Angstrom"),
    "kJ/mol": (1 / KJ, 1 / KJ, "energies in kJ/mol and forces in kJ/mol/Angstrom"),
    "kJ/mol and kJ/mol/nm": (1 / KJ, 10 / KJ, "energies in kJ/mol and forces in kJ/mol/nm"),
    "energies in kcal/mol": (1 / KCAL, 1.0, "energies in kcal/mol and forces in eV/Angstrom"),
    "forces in kcal/mol": (1.0, 1 / KCAL, "energies in eV and forces in kcal/mol/Angstrom"),
    "forces per Bohr": (1.0, units.Bohr, "energies in eV and forces in eV/Bohr"),
    "reversed forces": (1.0, -1.0, "energies in eV and gradients"),
}
# In these the energies still match the forces, so that only bonds of known stiffness can tell.
CONSISTENT = ("Hartree and Hartree/Angstrom", "kcal/mol", "kJ/mol")
# In these the forces look right, or nearly so, and only the energies can tell.
ONLY_BY_ENERGIES = ("energies in kcal/mol", "forces per Bohr")
MOLECULES = [
    *itertools.product(("rmd17_ethanol", "rmd17_malonaldehyde", "rmd17_aspirin"), ("train", "test")),
    *itertools.product(("acac", "3bpa"), ("train_300K", "test_300K")),
]
CRYSTALS = [*itertools.product(("mlearn_Si", "mlearn_Li", "mlearn_Mo"), ("train", "test"))]


def verdict(frames) -> tuple[str, str]:
    """wrong, right or cannot tell; and the text."""
    (remark,) = (remark for remark in remarks(frames) if remark.subject == "units")
    if remark.severity == "error":
        return "wrong", remark.text
    return "cannot tell" if "Cannot tell" in remark.text else "right", remark.text


def planted(frames, energy: float, forces: float):
    return [dataclasses.replace(frame, energy=energy * frame.energy, forces=forces * frame.forces) for frame in frames]


def some(frames, count: int, seed: int = 0):
    return [frames[index] for index in np.random.default_rng(seed).permutation(len(frames))[:count]]


@pytest.mark.data
@pytest.mark.parametrize(("name", "part"), MOLECULES)
def test_planted_errors_are_found_in_data_of_molecules(name, part, reference_data):
    frames = read_labelled(reference_data / name / f"{part}.extxyz", ":300")
    assert verdict(frames)[0] == "right"
    for error, (energy, forces, words) in PLANTED.items():
        found, text = verdict(planted(frames, energy, forces))
        assert found == "wrong", error
        assert words in text
    few = some(frames, 50)
    assert verdict(few)[0] != "wrong"
    for error, (energy, forces, _) in PLANTED.items():
        found, _ = verdict(planted(few, energy, forces))
        assert found == "wrong" or (found == "cannot tell" and error in ONLY_BY_ENERGIES), error


@pytest.mark.data
@pytest.mark.parametrize(("name", "part"), CRYSTALS)
def test_planted_errors_are_never_called_right_in_data_of_crystals(name, part, reference_data):
    frames = read_labelled(reference_data / name / f"{part}.extxyz")
    for chosen in (frames, some(frames, 50)):
        assert verdict(chosen)[0] == "cannot tell"
        for energy, forces, _ in PLANTED.values():
            assert verdict(planted(chosen, energy, forces))[0] != "right"
    if name.startswith("mlearn") and part == "train":
        for error in PLANTED.keys() - set(CONSISTENT):
            energy, forces, _ = PLANTED[error]
            assert verdict(planted(frames, energy, forces))[0] == "wrong", error


@pytest.mark.data
def test_vacancies_of_silicon_are_not_called_wrong(reference_data):
    frames = read_labelled(reference_data / "mlearn_Si" / "train.extxyz")
    vacancies = [frame for frame in frames if len(frame.structure) == 63]
    assert len(vacancies) > 50
    assert "Energies match the forces (the slope is 1.0" in verdict(vacancies)[1]


@pytest.mark.data
def test_forces_of_a_liquid_are_judged_by_its_bonds(reference_data):
    frames = read_labelled(reference_data / "water_pbe0" / "test.extxyz", ":30")
    assert "forces are in eV/Angstrom. Cannot tell the unit of the energies" in verdict(frames)[1]
    assert verdict(planted(frames, 1 / KCAL, 1 / KCAL))[0] == "wrong"
    assert verdict(planted(frames, 1 / KCAL, 1.0))[0] == "cannot tell"


@pytest.mark.data
@pytest.mark.parametrize("count", [10, 25, 40])
def test_few_frames_never_make_a_planted_error_right(count, reference_data):
    for name, part in MOLECULES[::2]:
        frames = some(read_labelled(reference_data / name / f"{part}.extxyz", ":100"), count, seed=count)
        assert verdict(frames)[0] != "wrong"
        assert all(verdict(planted(frames, *factors[:2]))[0] != "right" for factors in PLANTED.values())


def organic(path, every: int) -> list[LabelledStructure]:
    data = np.load(path)
    ends = np.cumsum(data["n_atoms"])
    numbers, positions, forces = (np.split(data[key], ends[:-1]) for key in ("numbers", "positions", "forces"))
    nowhere, open_space = np.zeros((3, 3)), np.zeros(3, bool)
    return [
        LabelledStructure(
            Structure(numbers[i].astype(int), positions[i].astype(float), nowhere, open_space, data["total_charge"][i]),
            float(data["energy"][i]),
            forces[i].astype(float),
            np.full((3, 3), np.nan),
        )
        for i in range(0, len(ends), every)
    ]


@pytest.mark.data
def test_planted_errors_are_found_in_data_of_many_molecules(reference_data):
    frames = organic(reference_data / "organic" / "validation.npz", every=5)
    assert verdict(frames)[0] == "right"
    for error, (energy, forces, words) in PLANTED.items():
        found, text = verdict(planted(frames, energy, forces))
        assert found == "wrong", error
        assert words in text


def springs(atoms: ase.Atoms, constant: float, seeds: int, shake: float = 0.04) -> list[LabelledStructure]:
    """Frames of atoms in which all pairs of atoms are joined by springs in ln r, with a stiffness in eV/Angstrom^2."""
    rest = atoms.get_all_distances()[np.triu_indices(len(atoms), 1)]
    frames = []
    for seed in range(seeds):
        positions = atoms.positions + np.random.default_rng(seed).normal(scale=shake, size=atoms.positions.shape)
        first, second = np.triu_indices(len(atoms), 1)
        vectors = positions[second] - positions[first]
        r = np.linalg.norm(vectors, axis=1)
        stretch = constant * rest**2 * np.log(r / rest)
        forces = np.zeros_like(positions)
        pull = (stretch / r**2)[:, None] * vectors
        np.add.at(forces, first, pull)
        np.add.at(forces, second, -pull)
        structure = Structure.from_atoms(ase.Atoms(atoms.numbers, positions))
        energy = float(0.5 * np.sum(stretch * np.log(r / rest)))
        frames.append(LabelledStructure(structure, energy, forces, np.full((3, 3), np.nan)))
    return frames


def test_the_work_of_the_forces_is_exact_where_the_energy_is_quadratic():
    """With three atoms the distances are the internal coordinates, so that g has one solution and the rule no error."""
    frames = springs(ase.build.molecule("H2O"), constant=30.0, seeds=12)
    changes = similar_pairs(frames)
    assert len(changes) >= 30
    np.testing.assert_allclose(changes.force_work, changes.energy, rtol=1e-6, atol=1e-7)
    assert slopes(changes)[0].value == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("constant", "right"), [(37.0, True), (37.0 / units.Hartree, False), (37.0 / KCAL, False)])
def test_stiffness_is_measured_in_units_of_badgers_rule(constant, right):
    """At 1.09 Angstrom, Badger's rule gives 27 eV/Angstrom^2; the springs to other atoms add to that of the bond."""
    slope = bond_stiffness(bond_forces(springs(ase.build.molecule("CH4"), constant, seeds=30)))
    assert slope.is_right == right
    assert slope.is_wrong != right


def test_ionic_bonds_are_not_judged():
    """They are a third as stiff as Badger's rule says, and would be taken for another unit."""
    salt = ase.Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.36]])
    assert bond_stiffness(bond_forces(springs(salt, constant=2.0, seeds=30))).count == 0


def test_frames_that_do_not_move_or_have_no_forces_say_nothing():
    frames = springs(ase.build.molecule("CH4"), 30.0, seeds=20, shake=0.0)
    assert verdict(frames)[0] == "cannot tell"
    nothing = [dataclasses.replace(frame, forces=np.full_like(frame.forces, np.nan)) for frame in frames]
    assert verdict(nothing)[0] == "cannot tell"
    assert verdict(frames[:1])[0] == "cannot tell"


def test_labels_without_meaning_are_neither_right_nor_wrong():
    random = np.random.default_rng(0)
    frames = [
        dataclasses.replace(frame, energy=random.normal(), forces=random.normal(size=frame.forces.shape))
        for frame in springs(ase.build.molecule("CH3OH"), 30.0, seeds=100)
    ]
    assert verdict(frames)[0] == "cannot tell"


@pytest.mark.parametrize(
    ("ratios", "clear", "right", "wrong"),
    [
        (np.linspace(0.8, 1.2, 20), True, True, False),
        (np.linspace(1.6, 2.2, 20), True, False, True),
        (np.linspace(-1.2, -0.8, 20), True, False, True),
        (np.linspace(-1.0, 3.0, 20), False, False, False),
        (np.linspace(0.9, 1.7, 20), True, False, False),
        (np.linspace(1.8, 1.9, 5), False, False, False),
        (np.array([]), False, False, False),
    ],
)
def test_a_slope_is_judged_only_if_pairs_agree(ratios, clear, right, wrong):
    slope = slope_of(ratios, ENERGY_BOUNDS)
    assert (slope.is_clear, slope.is_right, slope.is_wrong) == (clear, right, wrong)


def test_explanations_take_the_stiffness_into_account():
    assert explain_energy(1.0, 23.0) == "energies in kcal/mol and forces in kcal/mol/Angstrom"
    assert explain_energy(1.0).startswith("energies in eV and forces in eV/Angstrom")
    assert explain_energy(None, -1.0).startswith("gradients (the negative of forces) in eV/Angstrom")
    assert explain_energy(1e9) == "units that are not among the usual ones"
