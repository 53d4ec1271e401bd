"""Two zeros of energy in one set of frames are found, and refused where no matter explains them."""

import dataclasses

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import NBodyCalculator
from ase_nbody.data import DataError, LabelledStructure
from ase_nbody.files.archive import save_model
from ase_nbody.structure import Structure
from ase_nbody.training.isolated_atoms import refuse_impossible_cohesion, undetermined
from ase_nbody.training.said import said_of_fitted_energies, said_of_shared_frames
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
