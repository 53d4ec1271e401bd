"""Frames whose labels cannot come from one potential are found, wherever they stand in a file, and right ones pass."""

import dataclasses

import ase.build
import numpy as np
import pytest
from ase import units
from ase.calculators.emt import EMT

from ase_nbody.data import LabelledStructure, read_labelled
from ase_nbody.data.lint import lint
from ase_nbody.data.lint.agreement import remarks
from ase_nbody.structure import Structure

HARTREE, HARTREE_PER_BOHR = 1.0 / units.Hartree, units.Bohr / units.Hartree
# What the energies and forces of a part of the frames are multiplied by, and added to the energies per atom, in eV.
PLANTED = {
    "Hartree and Hartree/Bohr": (HARTREE, HARTREE_PER_BOHR, 0.0),
    "Hartree and Hartree/Angstrom": (HARTREE, HARTREE, 0.0),
    "another zero": (1.0, 1.0, 3.0),
    "forces in Hartree/Bohr": (1.0, HARTREE_PER_BOHR, 0.0),
    "reversed forces": (1.0, -1.0, 0.0),
}
MOLECULES = [("rmd17_ethanol", "train"), ("rmd17_aspirin", "test"), ("acac", "train_300K"), ("3bpa", "test_300K")]


def contradictions(frames):
    return [remark for remark in remarks(frames) if remark.subject == "contradictions"]


def mixed(frames, part, energy: float, forces: float, zero: float):
    """The frames, of which a part (indices) has labels of another program."""
    out = list(frames)
    for index in part:
        frame = frames[index]
        shifted = energy * frame.energy + zero * len(frame.structure)
        out[index] = dataclasses.replace(frame, energy=shifted, forces=forces * frame.forces)
    return out


def parts(n_frames: int):
    """A second file at the end, a file of other frames in turn, and a fifth at random."""
    yield range(n_frames // 2, n_frames)
    yield range(0, n_frames, 2)
    yield np.random.default_rng(0).permutation(n_frames)[: n_frames // 5]


@pytest.mark.data
@pytest.mark.parametrize(("name", "file"), MOLECULES)
def test_molecules_of_two_files_with_other_labels_are_found(name, file, reference_data):
    frames = read_labelled(reference_data / name / f"{file}.extxyz", ":200")
    assert not contradictions(frames)
    for part in parts(len(frames)):
        for kind, (energy, forces, zero) in PLANTED.items():
            found = contradictions(mixed(frames, part, energy, forces, zero))
            assert found, (kind, part)
            assert all(remark.severity == "error" for remark in found)


@pytest.mark.data
def test_the_frames_of_the_smaller_part_are_named(reference_data):
    frames = read_labelled(reference_data / "rmd17_ethanol" / "train.extxyz", ":200")
    part = set(range(150, 200))
    for kind in ("another zero", "forces in Hartree/Bohr", "reversed forces"):
        found = contradictions(mixed(frames, part, *PLANTED[kind]))
        named = set(found[-1].frames)
        assert named <= part
        assert len(named) > 40, kind
    assert "would fit gradients (the negative of forces) in eV/Angstrom" in found[-1].text


@pytest.mark.data
def test_forces_of_other_frames_or_atoms_are_found(reference_data):
    frames = read_labelled(reference_data / "rmd17_ethanol" / "train.extxyz", ":200")
    random = np.random.default_rng(0)
    shuffles = (
        lambda index: frames[index - 1].forces,
        lambda index: random.permutation(frames[index].forces),
        lambda index: frames[index].forces[:, [1, 0, 2]],
    )
    for shuffle in shuffles:
        planted = [dataclasses.replace(frame, forces=shuffle(index)) for index, frame in enumerate(frames)]
        (found,) = contradictions(planted)
        assert "the energy does not follow from the forces" in found.text


@pytest.mark.data
@pytest.mark.parametrize("name", ["mlearn_Si", "mlearn_Li", "mlearn_Mo"])
def test_crystals_of_two_files_with_other_energies_are_found(name, reference_data):
    frames = read_labelled(reference_data / name / "train.extxyz")
    assert not contradictions(frames)
    for part in list(parts(len(frames)))[:2]:
        for kind in ("Hartree and Hartree/Bohr", "Hartree and Hartree/Angstrom", "another zero"):
            assert contradictions(mixed(frames, part, *PLANTED[kind])), (kind, part)


@pytest.mark.data
@pytest.mark.parametrize(
    "path", ["NbMoTaW/test", "water_pbe0/test", "dimer_CC/all", "mlearn_Si/test", "mlearn_Mo/test"]
)
def test_right_data_of_other_kinds_pass(path, reference_data):
    assert not contradictions(read_labelled(reference_data / f"{path}.extxyz", ":300"))


def copper(seed: int) -> LabelledStructure:
    atoms = ase.build.bulk("Cu", cubic=True)
    random = np.random.default_rng(seed)
    atoms.positions += random.normal(scale=0.06, size=atoms.positions.shape)
    atoms.set_cell(atoms.cell * (1.0 + 0.01 * random.normal()), scale_atoms=True)
    atoms.calc = EMT()
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
    return LabelledStructure(Structure.from_atoms(atoms), energy, forces, stress)


@pytest.mark.parametrize("stress", [True, False])
def test_strained_crystals_with_two_zeros_are_found_with_and_without_stresses(stress):
    """Without stresses nobody knows the work of the strain, but it is small."""
    frames = [copper(seed) for seed in range(30)]
    if not stress:
        frames = [dataclasses.replace(frame, stress=np.full((3, 3), np.nan)) for frame in frames]
    assert not contradictions(frames)
    found = {remark.subject: remark for remark in lint(mixed(frames, range(0, 30, 3), 1.0, 1.0, 3.0))}
    assert "Were files of two programs" in found["contradictions"].text
    assert set(found["contradictions"].frames) == set(range(0, 30, 3))
    assert found["units"].text == "Cannot tell units and signs: the labels contradict each other."
    assert "match" not in found.get("stress", found["units"]).text


def test_the_answer_says_why_it_cannot_tell():
    frames = [copper(seed) for seed in range(3)]
    nothing = [dataclasses.replace(frame, energy=np.nan) for frame in frames]
    for chosen, reason in ((frames, "too few frames of the same atoms are alike"), (nothing, "there are no energies")):
        (units_remark,) = (remark for remark in remarks(chosen) if remark.subject == "units")
        assert reason in units_remark.text
