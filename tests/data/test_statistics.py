"""Statistics of the data: isolated-atom energies given, found and fitted; scales."""

import numpy as np
import pytest

from ase_nbody import LevelConfig
from ase_nbody.data import DataError, LabelledStructure, fit_isolated_energies, measure
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
