"""Names, virials, charges and weights of labels: what a file says is what is learnt from."""

from dataclasses import fields

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody.data import DataError, LabelledStructure, Weights, read_labelled
from ase_nbody.data.labels import BY_NAME, USUAL_KEYS
from ase_nbody.training.config import OptimisationConfig
from ase_nbody.training.config.data import KeysConfig, SourceConfig


def test_named_keys_are_taken_and_no_others(tmp_path, copper, write):
    atoms = copper()
    atoms.info |= {"my_e": -3.5, "REF_energy": 7.0, "my_s": np.arange(6.0)}
    atoms.arrays |= {"my_f": np.full((4, 3), 0.25), "REF_forces": np.zeros((4, 3))}
    path = write(tmp_path / "a.extxyz", atoms)
    (frame,) = read_labelled(path, keys={"energy": "my_e", "forces": "my_f", "stress": "my_s"})
    assert frame.energy == -3.5
    assert (frame.forces == 0.25).all()
    np.testing.assert_array_equal(frame.stress, [[0, 5, 4], [5, 1, 3], [4, 3, 2]])


def test_a_named_key_that_is_nowhere_is_refused(tmp_path, copper, write):
    atoms = copper()
    atoms.info["REF_energy"] = 7.0
    path = write(tmp_path / "a.extxyz", [copper(), atoms])
    with pytest.raises(DataError, match=r"no frame has 'my_e', which is named as the key of energy; .* REF_energy"):
        read_labelled(path, keys={"energy": "my_e"})
    assert np.isnan(read_labelled(path, keys={"energy": "REF_energy"})[0].energy)


@pytest.mark.parametrize("key", ["virial", "virials", "REF_virial", "REF_virials", "dft_virial", "mine"])
def test_virials_become_stresses_of_ases_sign(tmp_path, key, copper, write):
    atoms = copper()
    atoms.calc = EMT()
    stress, volume = atoms.get_stress(voigt=key == "virials"), atoms.get_volume()
    expected = atoms.get_stress(voigt=False)
    atoms.calc = None
    atoms.info[key] = -stress * volume
    path = write(tmp_path / "a.extxyz", atoms)
    (frame,) = read_labelled(path, keys={"virial": "mine"} if key == "mine" else None)
    np.testing.assert_allclose(frame.stress, expected, atol=1e-8)


@pytest.mark.parametrize("name", ["stress", "REF_stress", "mine", "virial"])
@pytest.mark.parametrize("triangle", [np.triu, np.tril])
def test_one_triangle_of_a_stress_is_refused(tmp_path, name, triangle, copper, write):
    atoms = copper()
    atoms.rattle(0.1, seed=0)
    atoms.calc = EMT()
    full = atoms.get_stress(voigt=False) * (atoms.get_volume() if name == "virial" else 1.0)
    keys = {"stress": "mine"} if name == "mine" else None
    for matrix in (triangle(full), full + 0.1 * (triangle(full) - full)):
        text = " ".join(map(str, matrix.ravel()))
        (tmp_path / "a.xyz").unlink(missing_ok=True)
        path = write(tmp_path / "a.xyz", atoms.copy())
        lines = path.read_text().splitlines(keepends=True)
        lines[1] = f'{name}="{text}" {lines[1]}'
        path.write_text("".join(lines))
        if matrix.all():  # a little asymmetric, as noise makes it
            assert np.isfinite(read_labelled(path, keys=keys)[0].stress).all()
        else:
            with pytest.raises(DataError, match=r"the stress is not symmetric: .. is .* and .. is .* Write all nine"):
                read_labelled(path, keys=keys)


def test_a_virial_of_what_has_no_volume_is_left_out(tmp_path, copper, write):
    atoms = copper()
    atoms.pbc = (True, True, False)
    atoms.info["virial"] = np.eye(3)
    assert np.isnan(read_labelled(write(tmp_path / "a.extxyz", atoms))[0].stress).all()


def test_weights_of_frames_and_labels_multiply(tmp_path, copper, write):
    weighted = copper()
    weighted.info |= {"config_weight": 2.0, "config_energy_weight": 0.5, "config_stress_weight": 0.0}
    other = copper()
    other.info["config_dipole_weight"] = 3.0
    frames = read_labelled(write(tmp_path / "a.extxyz", [other, weighted]), weight=10.0)
    expected = [Weights(10.0, 10.0, 10.0, 10.0, 30.0), Weights(10.0, 20.0, 0.0, 20.0, 20.0)]
    assert [frame.weights for frame in frames] == expected


@pytest.mark.parametrize(
    ("weight", "culprit"),
    [(-1.0, "config_weight = -1.0 is no weight"), ("much", "the config_weight should be numbers")],
)
def test_unusable_weights_are_refused(tmp_path, weight, culprit, copper, write):
    atoms = copper()
    atoms.info["config_weight"] = weight
    with pytest.raises(DataError, match=f"frame 0: {culprit}"):
        read_labelled(write(tmp_path / "a.extxyz", atoms))


CHARGES = np.array([-0.7, 0.35, 0.35])
DIPOLE = np.array([0.0, 0.1, -0.4])


def water(**info):
    atoms = molecule("H2O")
    atoms.info |= info
    return atoms


@pytest.mark.parametrize(
    ("charges", "dipole"),
    [("charges", "dipole"), ("REF_charges", "REF_dipole"), ("dft_charges", "dft_dipole"), ("mine", "my_mu")],
)
def test_charges_dipole_and_total_charge_are_read(tmp_path, charges, dipole, write):
    atoms = water(charge=-1)
    atoms.info[dipole], atoms.arrays[charges] = DIPOLE, CHARGES
    keys = {"charges": charges, "dipole": dipole} if charges == "mine" else None
    (frame,) = read_labelled(write(tmp_path / "a.extxyz", atoms), keys=keys)
    np.testing.assert_array_equal(frame.charges, CHARGES)
    np.testing.assert_array_equal(frame.dipole, DIPOLE)
    assert frame.structure.charge == -1.0


def test_charges_and_dipole_of_a_calculator_are_read(tmp_path):
    atoms = water()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, charges=CHARGES, dipole=DIPOLE)
    for name in ("a.traj", "a.extxyz"):
        ase.io.write(tmp_path / name, atoms)
        (frame,) = read_labelled(tmp_path / name)
        np.testing.assert_array_equal(frame.charges, CHARGES)
        np.testing.assert_array_equal(frame.dipole, DIPOLE)


def test_initial_charges_are_no_labels(tmp_path, write):
    atoms = water()
    atoms.set_initial_charges([-1.0, 0.5, 0.5])
    (frame,) = read_labelled(write(tmp_path / "a.extxyz", atoms))
    assert frame.charges.shape == (3,)
    assert frame.dipole.shape == (3,)
    assert np.isnan([frame.charges, frame.dipole]).all()
    assert frame.structure.charge == 0.0


@pytest.mark.parametrize("pbc", [True, (True, True, False), (False, False, True)])
def test_charges_and_dipole_of_what_is_periodic_are_left_out(tmp_path, pbc, write):
    atoms = water(dipole=DIPOLE)
    atoms.arrays["charges"] = CHARGES
    atoms.cell, atoms.pbc = np.eye(3) * 9.0, pbc
    (frame,) = read_labelled(write(tmp_path / "a.extxyz", atoms))
    assert np.isnan([frame.charges, frame.dipole]).all()


@pytest.mark.parametrize(
    ("info", "charges", "culprit"),
    [
        (
            {"charge": "high"},
            CHARGES,
            r"atoms.info\['charge'\] is 'high', but the total charge must be",
        ),
        ({"dipole": 1.85}, CHARGES, r"labels of shape \(3,\) expected as dipole, found \(\)"),
        ({"dipole": [0.0, np.nan, 0.0]}, CHARGES, "the dipole is not finite"),
        ({}, [0.0, np.inf, 0.0], "the charge on atom 1 is not finite"),
    ],
)
def test_unusable_charges_and_dipoles_are_named(tmp_path, info, charges, culprit, write):
    atoms = water(**info)
    atoms.arrays["charges"] = np.array(charges)
    with pytest.raises(DataError, match=f"frame 0: {culprit}"):
        read_labelled(write(tmp_path / "a.extxyz", atoms))


def test_every_label_has_its_attribute_its_weights_and_its_keys():
    """A new row of the table needs these too."""
    others = set(BY_NAME) - {"forces"}
    assert {field.name for field in fields(LabelledStructure)} - {"structure", "weights", "source"} == set(BY_NAME)
    assert Weights._fields == tuple(BY_NAME)
    assert set(KeysConfig.model_fields) == set(USUAL_KEYS)
    assert {f"{name}_key" for name in USUAL_KEYS} < set(SourceConfig.model_fields)
    assert {f"{name}_weight" for name in others} < set(OptimisationConfig.model_fields)
