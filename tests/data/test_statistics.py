"""Statistics of the data: isolated-atom energies given, found and fitted; scales."""

import dataclasses

import numpy as np
import pytest

from ase_nbody import LevelConfig
from ase_nbody.data import DataError, LabelledStructure, energies_of_isolated_atoms, fit_isolated_energies, measure
from ase_nbody.data.labels import Weights
from ase_nbody.data.statistics import energies_per_atom, evenly_spaced
from ase_nbody.structure import Structure

SUMS = {1: -13.5, 6: -1029.0, 8: -2041.0}


def frame(numbers, energy=None, forces=0.5, spread=1.0):
    """Atoms on a line, one Angstrom apart, with the energies of ``SUMS``."""
    count = len(numbers)
    positions = np.zeros((count, 3))
    positions[:, 0] = spread * np.arange(count)
    structure = Structure(np.array(numbers), positions, np.zeros((3, 3)), np.zeros(3, dtype=bool))
    energy = sum(SUMS[number] for number in numbers) if energy is None else energy
    return LabelledStructure(structure, energy, np.full((count, 3), forces), np.full((3, 3), np.nan))


def test_energies_are_fitted_to_compositions():
    fitted = fit_isolated_energies([frame([1, 1, 8]), frame([6, 8]), frame([6, 1, 1, 1, 1]), frame([8, 8])])
    assert fitted == pytest.approx({"H": -13.5, "C": -1029.0, "O": -2041.0})


def test_single_atoms_are_taken_as_they_are():
    fitted = fit_isolated_energies([frame([1], energy=-13.0), frame([1, 1, 8]), frame([1, 8])])
    assert fitted["H"] == -13.0


def test_one_composition_is_fitted_in_sum():
    fitted = fit_isolated_energies([frame([1, 1, 8])] * 3)
    assert 2 * fitted["H"] + fitted["O"] == pytest.approx(-2068.0)


def test_frames_without_energy_do_not_disturb_the_fit():
    fitted = fit_isolated_energies([frame([1, 1]), frame([8, 8]), frame([1, 8], energy=np.nan)])
    assert fitted == pytest.approx({"H": -13.5, "O": -2041.0})


def test_energies_of_weight_0_do_not_disturb_the_fit():
    """Such as zeros that stand for no energy: they moved the energy of each atom."""
    right = [frame([1, 1]), frame([8, 8]), frame([1, 8])]
    wrong = [dataclasses.replace(one, energy=0.0, weights=one.weights._replace(energy=0.0)) for one in right * 2]
    assert fit_isolated_energies([*right, *wrong]) == pytest.approx({"H": -13.5, "O": -2041.0})
    alone = [dataclasses.replace(one, weights=one.weights._replace(energy=0.0)) for one in right]
    assert fit_isolated_energies(alone) == pytest.approx({"H": -13.5, "O": -2041.0})


def test_even_spacing_leaves_no_label_out():
    frames = [frame([1, 8]), frame([1, 8], energy=np.nan)] * 6
    chosen = evenly_spaced(frames, 2)
    assert len(chosen) == 6
    assert sum(np.isfinite(frames[index].energy) for index in chosen) == 3
    assert evenly_spaced(frames[::2], 4) == [0, 4]


def test_scales_are_those_of_the_data():
    levels = (LevelConfig(radius=1.5), LevelConfig(parts="heavy", radius=1.5), LevelConfig(parts="heavy", radius=2.5))
    found = measure([frame([8, 1, 6, 6])], levels)
    assert found.species == ("H", "C", "O")
    assert found.force_scale == pytest.approx(0.5)
    assert found.mean_children == pytest.approx((6 / 4, 4 / 3, 4 / 3))  # of the chain O-H-C-C


def test_closest_distances_of_all_frames():
    levels = (LevelConfig(radius=1.5), LevelConfig(parts="heavy", radius=2.5))
    frames = [frame([1, 8, 6], spread=1.1), frame([1, 8], spread=0.9), frame([6, 6], spread=2.6)]
    assert measure(frames, levels).closest_distances == pytest.approx({"H-C": 2.2, "H-O": 0.9, "C-O": 1.1})


def test_all_species_or_none_are_given():
    with pytest.raises(DataError, match="lacks O"):
        measure([frame([1, 8])], (LevelConfig(),), {"H": -13.5})


def test_forces_are_needed():
    with pytest.raises(DataError, match="no frame has forces"):
        measure([frame([1, 8], forces=np.nan)], (LevelConfig(),))


def in_box(number, energy, edge=20.0, cell=None, pbc=True, charge=0.0):
    """One atom in a periodic box."""
    cell = np.eye(3) * edge if cell is None else np.array(cell, float)
    structure = Structure(np.array([number]), np.zeros((1, 3)), cell, np.full(3, pbc), charge)
    return LabelledStructure(structure, energy, np.zeros((1, 3)), np.zeros((3, 3)))


def test_an_atom_in_a_large_periodic_box_is_isolated():
    data = [in_box(1, -13.0), in_box(8, -2000.0), frame([1, 1, 8]), frame([1, 8])]
    levels = (LevelConfig(radius=5.0), LevelConfig(parts="heavy", radius=5.0))
    assert fit_isolated_energies(data) == {"H": -13.0, "O": -2000.0}
    assert measure(data, levels).isolated_atom_energies == {"H": -13.0, "O": -2000.0}


def test_an_atom_is_isolated_if_no_image_is_within_the_sum_of_the_radii():
    levels = (LevelConfig(radius=6.0), LevelConfig(parts="heavy", radius=5.0))
    data = [in_box(1, -13.0, edge=10.5), frame([1, 1, 8]), frame([1, 8])]
    assert fit_isolated_energies(data)["H"] == -13.0  # 10 Angstrom count where no network is known
    assert measure(data, levels).isolated_atom_energies["H"] != -13.0
    assert measure(data, levels[:1]).isolated_atom_energies["H"] == -13.0


@pytest.mark.parametrize(
    ("cell", "pbc", "isolated"),
    [
        (np.eye(3) * 10.5, True, True),
        (np.eye(3) * 9.5, True, False),
        ([[20, 0, 0], [17, 4, 0], [0, 0, 30]], True, False),  # long vectors, but an image is 5 Angstrom away
        ([[20, 0, 0], [0, 20, 0], [0, 0, 5]], (True, True, False), True),
        ([[20, 0, 0], [0, 20, 0], [0, 0, 5]], (False, False, True), False),
        (-np.eye(3)[[1, 0, 2]] * 20, True, True),  # left-handed
        (np.zeros((3, 3)), False, True),
    ],
)
def test_the_closest_image_decides(cell, pbc, isolated):
    assert in_box(1, 0.0, cell=cell, pbc=pbc).structure.is_isolated_atom() is isolated


def test_several_atoms_are_never_isolated():
    assert not frame([1, 1], spread=50.0).structure.is_isolated_atom()
    nothing = dataclasses.replace(frame([1]).structure, numbers=np.zeros(0, int), positions=np.zeros((0, 3)))
    assert not nothing.is_isolated_atom()


def test_the_neutral_ground_state_is_the_energy_of_an_isolated_atom():
    data = [in_box(1, -12.0), in_box(1, -13.0), in_box(1, -99.0, charge=-1.0), in_box(1, np.nan), in_box(8, 0.0, 9.0)]
    assert energies_of_isolated_atoms(data) == {"H": -13.0}


def test_an_isolated_ion_does_not_enter_the_fit():
    """Alone it determined the energy of its element: H+ has 0 eV, and water leaves a choice."""
    water, bare = [frame([1, 1, 8])] * 3, in_box(1, 0.0, charge=1.0)
    assert fit_isolated_energies([*water, bare]) == pytest.approx(fit_isolated_energies(water))
    assert fit_isolated_energies([*water, in_box(11, -4400.0, charge=1.0)])["Na"] == pytest.approx(-4400.0)


def test_frames_pressed_together_do_not_move_the_zero_of_all_others():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, size=(200, 3)).astype(float)
    constants = np.array([-13.6, -1029.0, -2043.0])
    energies = counts @ constants + 0.01 * counts.sum(axis=1) * rng.normal(size=200)
    usual, _ = energies_per_atom(counts, energies)
    energies[::20] += counts[::20].sum(axis=1) * rng.uniform(10.0, 1e5, size=10)
    found, determined = energies_per_atom(counts, energies)
    assert determined
    assert found == pytest.approx(usual, abs=0.02)


def test_the_scale_of_the_forces_heeds_the_weights_of_frames():
    usual, pressed = frame([1, 8], forces=0.5), frame([1, 8], forces=500.0)
    light = dataclasses.replace(pressed, weights=pressed.weights._replace(forces=0.001))
    levels = [LevelConfig(radius=4.0)]
    assert measure([usual, light], levels).force_scale == pytest.approx(0.5)
    heavy = dataclasses.replace(usual, weights=usual.weights._replace(forces=20.0))
    assert measure([usual, usual, usual, heavy], levels).force_scale == pytest.approx(0.5)
    assert measure([usual, pressed], levels).force_scale == pytest.approx((0.5**2 / 2 + 500.0**2 / 2) ** 0.5)


def test_an_isolated_atom_of_weight_0_gives_no_energy():
    wrong = dataclasses.replace(frame([1], energy=99.0), weights=Weights(energy=0.0))
    molecules = [frame([1, 1, 8]), frame([1, 8])]
    assert energies_of_isolated_atoms([wrong, *molecules]) == {}
    assert fit_isolated_energies([wrong, *molecules])["H"] == pytest.approx(-13.5)
    assert energies_of_isolated_atoms([wrong, frame([1], energy=-13.0), *molecules]) == {"H": -13.0}
    assert energies_of_isolated_atoms([wrong]) == {"H": 99.0}  # where all have it, all count
