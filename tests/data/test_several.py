"""Outputs of several calculations in one file: ASE's readers lose some of them, or mix one with another."""

from pathlib import Path

import numpy as np
import pytest
from ase.test import testsuite

from ase_nbody.data import DataError, read_labelled
from ase_nbody.data.structures import read_structures

ASE_DATA = Path(testsuite.__file__).parent / "testdata"
RULE = " -----\n"
GAMESS = """ GAMESS VERSION
 ATOM      ATOMIC                      COORDINATES (BOHR)
           CHARGE         X                   Y                   Z
 H           1.0     0.0   0.0   0.0
 H           1.0     0.0   0.0   1.4

"""
GAMESS_GRADIENT = """ FINAL RHF ENERGY IS      -1.1 AFTER  10 ITERATIONS
 GRADIENT OF THE ENERGY
 ----

 UNITS ARE HARTREE/BOHR    E'X               E'Y               E'Z
    1 H                0.0       0.0       0.01
    2 H                0.0       0.0      -0.01

"""
MOLECULE = "\n\n\n  2  1  0  0  0  0  0  0  0  0999 V2000\n 0 0 0 C\n 1.2 0 0 O\n  1  2  2\nM  END\n$$$$\n"


def test_the_elements_of_the_first_outcar_are_not_those_of_all(tmp_path):
    text = (ASE_DATA / "vasp" / "OUTCAR_example_1").read_text()
    path = tmp_path / "OUTCAR"
    path.write_text(text)
    assert len(read_labelled(path)) == 1
    path.write_text(text + text.replace("PAW_PBE Ni", "PAW_PBE Cu"))
    with pytest.raises(DataError, match=r"OUTCAR holds 2 outputs, of which ASE's reader takes the elements of the fir"):
        read_labelled(path)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of ASE
@pytest.mark.parametrize(
    ("example", "name", "what"),
    [
        ("vasp/vasprun_pstress.xml", "vasprun.xml", "2 outputs.* the first alone"),
        ("castep/md.castep", "md.castep", "2 runs.* the last alone"),
        ("aims/issue_3345_spin_md_light.out", "aims.out", "2 outputs.* one alone"),
    ],
)
def test_outputs_that_were_joined_are_not_lost(tmp_path, example, name, what):
    text, path = (ASE_DATA / example).read_text(), tmp_path / name
    path.write_text(text)
    assert len(read_labelled(path)) == (3 if "castep" in name else 1)
    path.write_text(text + text)
    with pytest.raises(DataError, match=what):
        read_labelled(path)


def test_positions_of_gamess_belong_to_its_forces(tmp_path):
    path = tmp_path / "h2.log"
    path.write_text(GAMESS + GAMESS_GRADIENT)
    assert read_labelled(path)[0].forces[0, 2] == pytest.approx(-0.514, abs=1e-3)
    path.write_text(GAMESS + GAMESS_GRADIENT + GAMESS_GRADIENT)
    with pytest.raises(DataError, match=r"2 gradients.* the positions of the first and the forces of the last"):
        read_labelled(path)


def test_several_molecules_in_an_sdf_file(tmp_path):
    path = tmp_path / "a.sdf"
    path.write_text(MOLECULE)
    assert read_structures(path)[0].get_chemical_formula() == "CO"
    path.write_text(MOLECULE * 2)
    with pytest.raises(DataError, match=r"2 structures.* the first alone"):
        read_structures(path)


def orca(distance: float, energy: float, gradient: float | None) -> str:
    text = f"CARTESIAN COORDINATES (ANGSTROEM)\n----\n  H 0 0 0\n  H 0 0 {distance}\n\n"
    text += f"Number of atoms         ...      2\nFINAL SINGLE POINT ENERGY   {energy}\n"
    if gradient is not None:
        text += f"CARTESIAN GRADIENT\n----\n\n 1 H : 0 0 {gradient}\n 2 H : 0 0 {-gradient}\n\n"
    return text


HEAD, END, STEP = "   * O   R   C   A *\n", "ORCA TERMINATED NORMALLY\n", "ORCA GEOMETRY RELAXATION STEP\n"


@pytest.mark.parametrize(
    ("parts", "taken"),
    [
        ((orca(0.7, -1.1, 0.1), orca(0.8, -1.2, 0.2)), "the positions of the last"),
        ((orca(0.7, -1.1, 0.1), orca(0.7, -1.2, None)), "the energy of the last"),
        ((orca(0.7, -1.1, None), orca(0.8, -1.2, 0.2)), None),  # the gradient is that of the last
        ((orca(0.7, -1.1, 0.1), STEP, orca(0.8, -1.2, 0.2)), None),
        ((orca(0.7, -1.1, 0.1), END, orca(0.8, -1.2, 0.2)), None),
    ],
)
def test_forces_of_orca_belong_to_its_last_structure(tmp_path, parts, taken):
    path = tmp_path / "h2.out"
    path.write_text("".join([HEAD, *parts, END]))
    if taken is None:
        last = read_labelled(path)[-1]
        assert last.structure.positions[1, 2] == 0.8
        assert last.forces[0, 2] == pytest.approx(-0.2 * 51.422, rel=1e-4)
    else:
        with pytest.raises(DataError, match=taken):
            read_labelled(path)


def gaussian(distance: float, energy: float) -> str:
    rows = f" 1 1 0 0.0 0.0 0.0\n 2 1 0 0.0 0.0 {distance}\n"
    text = f" Entering Gaussian System, Link 0=g16\n Input orientation:\n{RULE} Center\n Number\n{RULE}{rows}{RULE}"
    text += f" SCF Done:  E(RHF) =  {energy}    A.U. after 9 cycles\n Center  Atomic  Forces (Hartrees/Bohr)\n"
    return text + f" Number Number X Y Z\n{RULE} 1 1 0.0 0.0 0.1\n 2 1 0.0 0.0 -0.1\n{RULE} 1\\1\\GINC-NODE\\Force\\\n"


def test_jobs_of_gaussian_are_not_lost(tmp_path):
    path = tmp_path / "h2.log"
    path.write_text(gaussian(0.7, -1.1) + gaussian(0.7004, -1.1))  # frequencies after an optimisation
    assert len(read_labelled(path)) == 1
    path.write_text(gaussian(0.7, -1.1) + gaussian(0.75, -1.1))
    with pytest.raises(DataError, match=r"h2.log holds several jobs.* the first alone"):
        read_labelled(path)


def test_energy_of_an_excited_state_of_gaussian(tmp_path):
    path, text = tmp_path / "h2.log", gaussian(0.7, -1.1)
    path.write_text(text)
    assert np.isfinite(read_labelled(path)[0].energy)
    path.write_text(text.replace(" Center  Atomic  F", " Total Energy, E(TD-HF/TD-DFT) =  -0.7\n Center  Atomic  F"))
    with pytest.raises(DataError, match="forces of an excited state"):
        read_labelled(path)
