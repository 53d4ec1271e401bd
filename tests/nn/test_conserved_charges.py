"""Charges are conserved, and the dipole moment is that of the textbook."""

import ase.build
import numpy as np
import pytest
import torch

from ase_nbody.nn.charges import conserved_charges, molecular_dipole
from ase_nbody.testing import random_rotation

STRUCTURE = torch.tensor([0, 0, 0, 2, 3, 3, 3, 3])  # of four structures; the second has no atoms
TOTAL = torch.tensor([0.0, 0.0, -1.0, 2.0])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dipole(charges, positions, structure=STRUCTURE, moments=None, masses=None) -> torch.Tensor:
    atoms = len(charges)
    moments = torch.zeros(3, atoms, dtype=torch.float64) if moments is None else moments
    masses = torch.arange(1.0, atoms + 1.0) if masses is None else masses
    return molecular_dipole(charges, moments, positions, masses, structure, int(structure.max()) + 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_charges_sum_to_the_total_charge(dtype):
    charges = conserved_charges(random(8).to(dtype), STRUCTURE, TOTAL)
    assert charges.dtype == torch.float64
    sums = torch.zeros(4, dtype=torch.float64).index_add(0, STRUCTURE, charges)
    torch.testing.assert_close(sums, TOTAL.double(), rtol=0, atol=1e-14)


def test_what_is_missing_is_shared_out_equally():
    raw = random(8)
    added = conserved_charges(raw, STRUCTURE, TOTAL) - raw
    torch.testing.assert_close(added[:3], -raw[:3].mean().expand(3))
    torch.testing.assert_close(added[4:], ((2.0 - raw[4:].sum()) / 4).expand(4))
    torch.testing.assert_close(raw[3] + added[3], torch.tensor(-1.0, dtype=torch.float64))


def test_charges_that_are_conserved_stay():
    charges = conserved_charges(random(8), STRUCTURE, TOTAL)
    torch.testing.assert_close(conserved_charges(charges, STRUCTURE, TOTAL), charges, rtol=0, atol=1e-15)


def test_one_structure_alone_is_as_in_a_batch():
    raw, positions, moments = random(8), random(8, 3, seed=1), random(3, 8, seed=2)
    charges = conserved_charges(raw, STRUCTURE, TOTAL)
    masses = torch.arange(1.0, 9.0)
    moment = dipole(charges, positions, moments=moments, masses=masses)
    for number in (0, 2, 3):
        mine = STRUCTURE.eq(number)
        alone = torch.zeros(int(mine.sum()), dtype=torch.int64)
        own = conserved_charges(raw[mine], alone, TOTAL[[number]])
        torch.testing.assert_close(own, charges[mine])
        found = dipole(own, positions[mine], alone, moments[:, mine], masses[mine])
        torch.testing.assert_close(found[0], moment[number])
    assert not moment[1].any()


def test_dipole_of_two_charges():
    """Half an electron over 1 Angstrom; numpy's sum as the oracle for many."""
    pair = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    found = dipole(torch.tensor([-0.5, 0.5]), pair, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 0.5]], dtype=torch.float64))
    water = ase.build.molecule("H2O")
    charges = np.array([-0.8, 0.4, 0.4])
    found = dipole(torch.from_numpy(charges), torch.from_numpy(water.positions), torch.zeros(3, dtype=torch.int64))
    np.testing.assert_allclose(found[0], charges @ water.positions, atol=1e-15)


def test_dipole_of_a_neutral_molecule_does_not_depend_on_the_origin():
    charges = conserved_charges(random(8), STRUCTURE, torch.zeros(4))
    positions, moments = random(8, 3, seed=1), random(3, 8, seed=2)
    moment = dipole(charges, positions, moments=moments)
    torch.testing.assert_close(dipole(charges, positions + 100.0, moments=moments), moment, rtol=0, atol=1e-12)
    other = dipole(charges, positions, moments=moments, masses=random(8, seed=3).abs())
    torch.testing.assert_close(other, moment, rtol=0, atol=1e-13)


def test_dipole_of_an_ion_is_about_its_centre_of_mass():
    """It moves with the ion, and equals the moment about the origin when the centre of mass is there."""
    ion = ase.Atoms("OH", positions=[[3.0, 1.0, -2.0], [3.0, 1.0, -1.0]])
    charges, structure = torch.tensor([-1.2, 0.2], dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    masses = torch.from_numpy(ion.get_masses())
    expected = charges.numpy() @ (ion.positions - ion.get_center_of_mass())
    for shift in (0.0, 50.0):
        moment = dipole(charges, torch.from_numpy(ion.positions + shift), structure, masses=masses)
        np.testing.assert_allclose(moment[0], expected, atol=1e-12)
    assert abs(expected - charges.numpy() @ ion.positions).max() > 1.0


def test_dipole_turns_with_the_molecule():
    charges, positions, moments = conserved_charges(random(8), STRUCTURE, TOTAL), random(8, 3, seed=1), random(3, 8)
    moment = dipole(charges, positions, moments=moments)
    for rotation in (random_rotation(0), random_rotation(1, improper=True)):
        turned = dipole(charges, positions @ rotation.T, moments=rotation @ moments)
        torch.testing.assert_close(turned, moment @ rotation.T, rtol=0, atol=1e-13)
