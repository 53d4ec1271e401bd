"""Names, virials and weights of labels: what a file says is what is learnt from."""

import numpy as np
import pytest
from ase.calculators.emt import EMT

from ase_nbody.data import DataError, Weights, read_labelled


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


def test_a_virial_of_what_has_no_volume_is_left_out(tmp_path, copper, write):
    atoms = copper()
    atoms.pbc = (True, True, False)
    atoms.info["virial"] = np.eye(3)
    assert np.isnan(read_labelled(write(tmp_path / "a.extxyz", atoms))[0].stress).all()


def test_weights_of_frames_and_labels_multiply(tmp_path, copper, write):
    weighted = copper()
    weighted.info |= {"config_weight": 2.0, "config_energy_weight": 0.5, "config_stress_weight": 0.0}
    frames = read_labelled(write(tmp_path / "a.extxyz", [copper(), weighted]), weight=10.0)
    assert [frame.weights for frame in frames] == [Weights(10.0, 10.0, 10.0), Weights(10.0, 20.0, 0.0)]


@pytest.mark.parametrize(
    ("weight", "culprit"),
    [(-1.0, "config_weight = -1.0 is no weight"), ("much", "the config_weight should be numbers")],
)
def test_unusable_weights_are_refused(tmp_path, weight, culprit, copper, write):
    atoms = copper()
    atoms.info["config_weight"] = weight
    with pytest.raises(DataError, match=f"frame 0: {culprit}"):
        read_labelled(write(tmp_path / "a.extxyz", atoms))
