"""Two zeros of energy in one set of frames are found, and refused where no matter explains them."""

import dataclasses
import io

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from rich.console import Console

from ase_nbody import NBodyCalculator
from ase_nbody.data import DataError, LabelledStructure
from ase_nbody.data.labels import Source
from ase_nbody.data.lint.units import FORCE_UNITS
from ase_nbody.files.archive import save_model
from ase_nbody.structure import Structure
from ase_nbody.training.config import TrainingConfig
from ase_nbody.training.isolated_atoms import refuse_impossible_cohesion, undetermined
from ase_nbody.training.run import train
from ase_nbody.training.said import said_of_bonds, said_of_fitted_energies, said_of_shared_frames
from ase_nbody.training.two_zeros import find_two_zeros, refuse_impossible_gap, refuse_two_zeros


def frame(energy: float, atoms: Atoms | None = None) -> LabelledStructure:
    structure = Structure.from_atoms(molecule("H2O") if atoms is None else atoms)
    forces = np.zeros((len(structure), 3))
    return LabelledStructure(structure, energy, forces, np.full((3, 3), np.nan))


def predicted(frames) -> list[LabelledStructure]:
    return [dataclasses.replace(one, energy=-10.0) for one in frames]


@pytest.mark.parametrize(
    ("energies", "part"),
    [
        ([-10.0, 20.0, -10.1, 20.1, -9.9, 20.0, -10.05], (1, 3, 5)),
        ([-10.0, 20.0, -10.1, -9.9, 20.0, -10.05, -10.0], None),  # two frames are outliers
        ([-10.0, -9.6, -10.1, -9.7, -9.9, -9.6, -10.05], None),  # 0.1 eV/atom may be an error of the model
        ([-10.0, 0.0, 10.0, 20.0, 30.0, 40.0, 50.0], None),  # a scan
    ],
)
def test_two_zeros_are_found(energies, part):
    frames = [frame(energy) for energy in energies]
    found = find_two_zeros(frames, predicted(frames))
    assert (found and found.frames) == part
    if part:
        assert found.gap == pytest.approx(29.9 / 3)
        assert "3 frames of H2O differ from the predictions by 9.967 eV/atom more" in str(found)
        with pytest.raises(DataError, match="before ethanol learns from them"):
            refuse_two_zeros(frames, predicted(frames), "ethanol")


def test_other_compositions_may_be_predicted_worse():
    frames = [frame(-10.0) for _ in range(4)] + [frame(30.0, molecule("H2O2")) for _ in range(4)]
    assert find_two_zeros(frames, predicted(frames)) is None


def test_energies_that_no_bond_explains_are_refused_before_a_training():
    scan = [frame(-10.0 + 25.0 * step) for step in range(12)]  # of two nuclei that approach each other
    refuse_impossible_gap(scan)
    with pytest.raises(DataError, match="H2O lie in two parts, more than 15 eV per atom apart, which no bond explains"):
        refuse_impossible_gap([frame(-2000.0 + (1990.0 if number % 2 else 0.0)) for number in range(8)])


def test_matter_pressed_together_is_not_taken_for_another_theory():
    relaxed = [frame(-10.0) for _ in range(5)]
    shifted = [frame(140.0) for _ in range(3)]
    pressed = [dataclasses.replace(one, forces=np.full((3, 3), 90.0)) for one in shifted]
    refuse_impossible_gap(relaxed + pressed)
    with pytest.raises(DataError, match="no bond explains"):
        refuse_impossible_gap(relaxed + shifted)
    in_kilocalories = [dataclasses.replace(one, energy=23.06 * -1e4, forces=np.full((3, 3), 23.0)) for one in relaxed]
    with pytest.raises(DataError, match="no bond explains"):
        refuse_impossible_gap([dataclasses.replace(one, energy=-1e4) for one in relaxed] + in_kilocalories)


def test_a_fit_that_fails_is_not_blamed_on_isolated_atoms():
    frames = [frame(energy) for energy in (-2000.0, -2000.0, -10.0)]
    with pytest.raises(DataError, match="no energies of isolated atoms fit the energies of the data"):
        refuse_impossible_cohesion({"H": -200.0, "O": -200.0}, frames, given=False, fitted=True)


@pytest.mark.parametrize(
    ("name", "fitted", "count"), [("H2O2", "HO", 2), ("H2O", "HO", 0), ("H2O2", "O", 0), ("H2O2", "", 0)]
)
def test_compositions_that_fitted_energies_do_not_determine_are_said(name, fitted, count):
    training, others = [frame(-10.0)], [frame(-15.0, molecule(name)) for _ in range(2)]
    assert undetermined(training, others, list(fitted)) == count
    frames = {"training": training, "validation": others, "test": []}
    said = " ".join(said_of_fitted_energies(list(fitted), ["H", "O"], frames))
    assert ("2 validation frames have compositions whose energy the training frames do not determine" in said) == (
        count == 2
    )


def test_copies_that_a_split_puts_on_both_sides_are_said():
    training, validation = [frame(-10.0)], [frame(-10.0), frame(-15.0, molecule("H2O2"))]
    (said,) = said_of_shared_frames({"training": training, "validation": validation}, one_file=False)
    assert said.startswith("Warning: 1 validation frame of 2 is among the training frames")
    assert not list(said_of_shared_frames({"training": training, "validation": validation[1:]}, one_file=False))


def test_an_ion_is_no_copy_of_the_neutral_molecule():
    ion, periodic = molecule("H2O"), molecule("H2O", cell=(8.0, 8.0, 8.0))
    ion.info["charge"] = 1
    box = periodic.copy()
    box.pbc = True
    for others in ([frame(-10.0), frame(-1.0, ion)], [frame(-10.0, periodic), frame(-10.0, box)]):
        for one, other in (others, others[::-1]):
            assert not list(said_of_shared_frames({"training": [one], "validation": [other]}, one_file=False))
            (said,) = said_of_shared_frames({"training": [one, other], "validation": [other]}, one_file=False)
            assert "1 validation frame of 1" in said


def stretched(name: str, factor: float, path: str) -> list[LabelledStructure]:
    """Molecules whose bonds to H are as stiff as Badger's rule says (k = 45 eV/Angstrom^2 for O-H), times a factor."""
    random, frames = np.random.default_rng(0), []
    for number in range(30):
        atoms = molecule(name)
        forces = np.zeros((len(atoms), 3))
        for hydrogen in np.flatnonzero(atoms.numbers == 1):
            oxygen = min(np.flatnonzero(atoms.numbers == 8), key=lambda atom: atoms.get_distance(hydrogen, atom))
            bond = atoms.get_distance(oxygen, hydrogen, vector=True)
            stretch = random.normal(scale=0.03)
            atoms.positions[hydrogen] += stretch * bond / np.linalg.norm(bond)
            forces[hydrogen] = -45.0 * factor * stretch * bond / np.linalg.norm(bond)
            forces[oxygen] -= forces[hydrogen]
        source = Source(path, number)
        frames.append(dataclasses.replace(frame(-10.0, atoms), forces=forces, source=source))
    return frames


@pytest.mark.parametrize("unit", ["eV/Angstrom", "Hartree/Bohr", "kcal/mol/Angstrom"])
def test_the_file_with_forces_in_another_unit_is_said(unit):
    right = stretched("H2O", 1.0, "water.extxyz")
    other = stretched("H2O2", 1.0 / FORCE_UNITS[unit], "peroxide.extxyz")
    for frames in (
        {"training": right + other, "validation": [], "test": []},
        {"training": right, "validation": other, "test": []},
    ):
        said = list(said_of_bonds(frames))
        if unit == "eV/Angstrom":
            assert not said
        else:
            (sentence,) = said
            assert sentence.startswith("Warning: in peroxide.extxyz, bonds are ")
            assert f"This would fit forces in {unit}" in sentence


def test_a_training_says_it(configuration, tmp_path):
    path = configuration(epochs=1)
    for factor, expected in ((1.0, False), (1.0 / FORCE_UNITS["Hartree/Bohr"], True)):
        images = []
        for labelled in stretched("H2O2", factor, ""):
            atoms = labelled.structure.to_atoms()
            atoms.calc = SinglePointCalculator(atoms, energy=labelled.energy + len(images), forces=labelled.forces)
            images.append(atoms)
        ase.io.write(tmp_path / "data.extxyz", images)
        text = io.StringIO()
        config = TrainingConfig.from_yaml(path).model_copy(update={"output": str(tmp_path / f"run_{expected}")})
        train(config, console=Console(file=text, width=1000))
        assert ("This would fit forces in Hartree/Bohr" in text.getvalue()) == expected


def test_evaluate_names_two_zeros(nbody, network, tmp_path):
    frames = [bulk("NaCl", "rocksalt", a=5.6, cubic=True) for _ in range(8)]
    for number, atoms in enumerate(frames):
        atoms.rattle(0.03, seed=number)
        atoms.calc = NBodyCalculator(network)
        energy, forces = atoms.get_potential_energy() + 100.0 * (number > 4), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    ase.io.write(tmp_path / "data.extxyz", frames)
    model = save_model(network, tmp_path / "salt.nbody")
    code, out, _ = nbody("evaluate", model, tmp_path / "data.extxyz")
    assert code == 0
    assert "The energies of 3 frames of Cl4Na4 differ from the predictions by 12.5 eV/atom more" in out
