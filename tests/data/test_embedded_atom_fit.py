"""The fit finds the potential that labelled the data, the energies of lone atoms included."""

import dataclasses

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.tersoff import Tersoff, TersoffParameters

from ase_nbody.data import embedded_atom
from ase_nbody.data.embedded_atom import LARGEST_REST, MAX_COHESION_EV, fit_embedded_atom
from ase_nbody.data.labels import LabelledStructure, Weights
from ase_nbody.data.statistics import highest_densities
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.network.config import LevelConfig
from ase_nbody.network.surroundings import densities
from ase_nbody.nn.embedded_atom import EmbeddedAtom
from ase_nbody.structure import Structure

RADIUS, LENGTHS = 5.0, {"Cu-Au": 2.3, "Cu-Cu": 2.2, "Au-Au": 2.5}
TRUTH = ({"Cu-Au": 0.7, "Cu-Cu": 0.5, "Au-Au": 0.8}, {"Cu": 1.6, "Au": 2.1}, (6.0, 1.5))
LONE = {"Cu": -3.0, "Au": -7.0}
NO_STRESS = np.full((3, 3), np.nan)


def labelled(seed: int) -> LabelledStructure:
    """A hot cell of an alloy, strained or with a vacancy, with the energy and forces of the potential."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", a=3.8 + 0.1 * (seed % 3), cubic=True)
    atoms.symbols[rng.choice(4, size=rng.integers(1, 4), replace=False)] = "Au"
    if seed % 2:
        del atoms[0]
    atoms.rattle(0.15, seed=seed)
    structure = Structure.from_atoms(atoms)
    pairs = find_pairs(structure, RADIUS)
    potential = EmbeddedAtom(LENGTHS, *TRUTH, RADIUS)
    positions = torch.tensor(atoms.positions, requires_grad=True)
    ends, shift = (
        [torch.tensor(each) for each in (pairs.first, pairs.second)],
        torch.tensor(pairs.shift @ atoms.cell.array),
    )
    distance = (positions[ends[1]] + shift - positions[ends[0]]).norm(dim=1)
    numbers = torch.tensor(atoms.numbers)
    rows = [ends[0] == atom for atom in range(len(atoms))]
    energy = sum(
        potential(numbers[atom : atom + 1], numbers[ends[1][row]].unsqueeze(0), distance[row].unsqueeze(0)).sum()
        for atom, row in enumerate(rows)
    )
    forces = -torch.autograd.grad(energy, positions)[0].numpy()
    energy = float(energy.detach()) + sum(LONE[symbol] for symbol in atoms.symbols)
    return LabelledStructure(structure, energy, forces, NO_STRESS)


@pytest.fixture(scope="module")
def data() -> list[LabelledStructure]:
    return [labelled(seed) for seed in range(12)]


def test_a_species_that_even_spacing_misses_has_an_energy_too(data, monkeypatch):
    """As in a long file whose compositions alternate. The energy of such an atom was 0 eV."""
    atoms = bulk("Cu", a=3.8, cubic=True)
    pure = LabelledStructure(Structure.from_atoms(atoms), 4 * LONE["Cu"] - 10.0, np.zeros((4, 3)), NO_STRESS)
    frames = [frame for mixed in data for frame in (pure, mixed)]
    for limit in ("MAX_ATOMS", "MAX_ATOMS_OF_DECAY"):
        monkeypatch.setattr(embedded_atom, limit, sum(len(frame.structure) for frame in frames) // 2)
    found = fit_embedded_atom(frames, LENGTHS, RADIUS, {})
    assert found.isolated_atom_energies.keys() == found.config.binding.keys() == {"Cu", "Au"}
    assert found.isolated_atom_energies["Au"] == pytest.approx(LONE["Au"], abs=MAX_COHESION_EV)


def test_energies_that_even_spacing_misses_are_fitted_too(data, monkeypatch):
    """As where frames with and without an energy alternate: the zero of energy was anything."""
    frames = [frame for one in data for frame in (dataclasses.replace(one, energy=np.nan), one)]
    for limit in ("MAX_ATOMS", "MAX_ATOMS_OF_DECAY"):
        monkeypatch.setattr(embedded_atom, limit, sum(len(frame.structure) for frame in frames) // 2)
    found = fit_embedded_atom(frames, LENGTHS, RADIUS, {})
    assert found.isolated_atom_energies == pytest.approx(LONE, abs=0.2)


def test_labels_of_weight_0_do_not_disturb_the_potential(data):
    wrong = [
        dataclasses.replace(one, energy=one.energy + 50.0, forces=-one.forces, weights=Weights(0.0, 0.0))
        for one in data[:6]
    ]
    found = fit_embedded_atom([*data, *wrong], LENGTHS, RADIUS, {})
    assert found.config.binding == pytest.approx(TRUTH[1], rel=0.05)
    assert found.isolated_atom_energies == pytest.approx(LONE, abs=0.2)
    assert found.force_scale < 0.02


def test_the_potential_is_found_again(data):
    found = fit_embedded_atom(data, LENGTHS, RADIUS, {})
    assert found.config.decay == pytest.approx(TRUTH[2], abs=0.05)
    assert found.config.repulsion == pytest.approx(TRUTH[0], rel=0.05)
    assert found.config.binding == pytest.approx(TRUTH[1], rel=0.05)
    assert found.isolated_atom_energies == pytest.approx(LONE, abs=0.2)
    assert found.force_scale < 0.02
    assert found.energy_error < 0.002


def test_known_lone_atoms_stay_and_others_keep_to_what_matter_can_bind(data):
    found = fit_embedded_atom(data, LENGTHS, RADIUS, {"Au": -7.5})
    assert found.isolated_atom_energies["Au"] == -7.5
    deep = [LabelledStructure(each.structure, 40.0 * each.energy, 40.0 * each.forces, NO_STRESS) for each in data]
    lone = fit_embedded_atom(deep, LENGTHS, RADIUS, {}).isolated_atom_energies
    atoms = np.array([[(each.structure.numbers == number).sum() for number in (29, 79)] for each in deep])
    cohesion = (atoms @ [lone["Cu"], lone["Au"]] - [each.energy for each in deep]) / atoms.sum(1)
    assert 0.5 * MAX_COHESION_EV < np.mean(cohesion) < 1.1 * MAX_COHESION_EV


def test_pairs_that_met_only_near_the_cutoff_are_left_out(data):
    found = fit_embedded_atom(data, {**LENGTHS, "Au-Au": 4.9}, RADIUS, {})
    assert set(found.config.lengths) == set(found.config.repulsion) == {"Cu-Au", "Cu-Cu"}


def test_highest_densities_are_those_of_the_densest_atom(data):
    structures = [each.structure for each in data]
    levels = (LevelConfig(radius=RADIUS), LevelConfig(parts=("Cu",), children=("Cu",), radius=4.0))
    first, second = highest_densities(structures, levels)
    highest = max(
        densities(len(each), find_pairs(each, RADIUS), RADIUS)[each.numbers == 79].max(initial=0.0)
        for each in structures
    )
    assert first["Au"] == pytest.approx(highest, abs=1e-3)
    assert first["Au"] >= highest
    assert set(second) == {"Cu"}
    assert second["Cu"] < first["Cu"]


def test_a_covalent_crystal_follows_the_forces_first(monkeypatch):
    """No such potential knows angles: where the energies rule, it explains none of the forces. Tersoff's silicon."""
    parameters = TersoffParameters(
        m=3, gamma=1, lambda3=0, c=1.0039e5, d=16.217, h=-0.59825, n=0.78734, beta=1.1e-6, lambda2=1.73222, B=471.18,
        R=2.85, D=0.15, lambda1=2.4799, A=1830.8,
    )  # fmt: skip
    silicon, data = Tersoff({("Si", "Si", "Si"): parameters}), []
    for seed in range(10):
        atoms = bulk("Si", a=5.432 * (0.95 + 0.01 * seed), cubic=True)
        if seed % 3 == 0:
            atoms.center(vacuum=6.0, axis=2)  # a surface
        atoms.rattle(0.05, seed=seed)
        atoms.calc = silicon
        structure = Structure.from_atoms(atoms)
        data.append(LabelledStructure(structure, atoms.get_potential_energy(), atoms.get_forces(), NO_STRESS))
    size = np.sqrt(np.mean(np.concatenate([frame.forces.ravel() for frame in data]) ** 2))
    found = fit_embedded_atom(data, {"Si-Si": 2.0}, RADIUS, {})
    assert found.force_scale < LARGEST_REST * size
    monkeypatch.setattr(embedded_atom, "ENERGY_WEIGHTS", (10.0,))
    assert fit_embedded_atom(data, {"Si-Si": 2.0}, RADIUS, {}).force_scale > LARGEST_REST * size


def test_frames_of_little_weight_do_not_rule_the_scale_of_what_is_lacking(data):
    rng = np.random.default_rng(0)
    noisy = [dataclasses.replace(one, forces=one.forces + rng.normal(scale=0.1, size=one.forces.shape)) for one in data]
    pressed = [dataclasses.replace(one, forces=1e3 * one.forces, weights=Weights(1.0, 1e-3)) for one in data[:3]]
    scale = fit_embedded_atom(noisy, LENGTHS, RADIUS, LONE).force_scale
    assert fit_embedded_atom(noisy + pressed, LENGTHS, RADIUS, LONE).force_scale < 10 * scale
