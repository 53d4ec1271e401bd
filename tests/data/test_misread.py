"""Files of other programs whose elements, units, axes or energies ASE's readers take for others."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.test import testsuite
from scipy.spatial.transform import Rotation

from ase_nbody.data import DataError, read_labelled
from ase_nbody.data.misread import judge_of_frames
from ase_nbody.data.structures import read_structures
from ase_nbody.network.config import LevelConfig, NBodyConfig

ASE_DATA = Path(testsuite.__file__).parent / "testdata"
BOX = "ITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"


def dump(columns: str, first: str, second: str, head: str = "") -> str:
    atoms = f"1 {first} 0 0 0 1.5 0 0\n2 {second} 1.2 0 0 -1.5 0 0\n"
    return f"{head}ITEM: TIMESTEP\n0\n{BOX}ITEM: ATOMS id {columns} x y z fx fy fz\n{atoms}"


@pytest.mark.parametrize("read", [read_labelled, read_structures])
def test_types_are_no_elements(tmp_path, read):
    (tmp_path / "run.lammpstrj").write_text(dump("type", "1", "2"))
    with pytest.raises(DataError, match=r"run.lammpstrj has types of atoms and no elements: type 1 .*as H.*specorder"):
        read(tmp_path / "run.lammpstrj")


@pytest.mark.parametrize("atoms", [("type element", "1 C", "2 O"), ("mass", "12.011", "15.999")])
def test_elements_or_masses_are(tmp_path, atoms):
    (tmp_path / "run.lammpstrj").write_text(dump(*atoms))
    (frame,) = read_labelled(tmp_path / "run.lammpstrj")
    assert frame.structure.numbers.tolist() == [6, 8]
    assert frame.forces[0, 0] == pytest.approx(1.5)


def test_carbon_is_what_lammps_writes_by_default(tmp_path):
    (tmp_path / "run.lammpstrj").write_text(dump("type element", "1 C", "2 C"))
    with pytest.raises(DataError, match=r"2 types of atoms and only the element C.*dump_modify.*leave out the column"):
        read_labelled(tmp_path / "run.lammpstrj")
    for columns, atom in (("type element", "1 C"), ("element", "C")):
        (tmp_path / "run.lammpstrj").write_text(dump(columns, atom, atom))
        assert read_labelled(tmp_path / "run.lammpstrj")[0].structure.numbers.tolist() == [6, 6]


def test_units_that_a_dump_names(tmp_path):
    for name, force in (("metal", 1.5), ("real", 1.5 * units.kcal / units.mol)):
        (tmp_path / "run.lammpstrj").write_text(dump("element", "C", "O", f"ITEM: UNITS\n{name}\n"))
        (frame,) = read_labelled(tmp_path / "run.lammpstrj")
        assert frame.forces[0, 0] == pytest.approx(force, rel=1e-4)
    (tmp_path / "run.lammpstrj").write_text(dump("element", "C", "O", "ITEM: UNITS\nlj\n"))
    with pytest.raises(DataError, match="the units 'lj' of LAMMPS"):
        read_labelled(tmp_path / "run.lammpstrj")


@pytest.mark.parametrize("name", ["melt.data", "data.melt", "melt.lmp", "melt"])
def test_a_data_file_of_lammps_has_any_name(tmp_path, name):
    atoms = bulk("Si", cubic=True)
    ase.io.write(tmp_path / name, atoms, format="lammps-data", masses=True)
    (found,) = read_structures(tmp_path / name)
    assert found.get_chemical_formula() == "Si8"
    assert np.allclose(found.positions, atoms.positions)


def test_a_data_file_needs_masses(tmp_path):
    text = "title\n\n2 atoms\n2 atom types\n0 9 xlo xhi\n0 9 ylo yhi\n0 9 zlo zhi\n\n{}Atoms # atomic\n\n"
    text += "1 1 0 0 0\n2 2 1.2 0 0\n"
    path = tmp_path / "start.lammps-data"
    path.write_text(text.format("Masses\n\n1 12.011\n2 15.999\n\n"))
    assert read_structures(path)[0].get_chemical_formula() == "CO"
    path.write_text(text.format(""))
    with pytest.raises(DataError, match=r"no section Masses.*Z_of_type"):
        read_structures(path)


def test_units_that_a_data_file_names(tmp_path):
    """Velocities in units real are in Angstrom/fs, not Angstrom/ps: those of 1000 K were taken for 0.001 K."""
    text = (
        "LAMMPS data file via write_data, version 29 Aug 2024, timestep = 0{}\n\n1 atoms\n1 atom types\n\n0 9 xlo xhi\n"
    )
    text += "0 9 ylo yhi\n0 9 zlo zhi\n\nMasses\n\n1 12.011\n\nAtoms # atomic\n\n1 1 0 0 2\n\nVelocities\n\n1 0.5 0 0\n"
    for name, velocity, length in (
        ("", units.Angstrom / (1000 * units.fs), 1.0),
        (", units = metal", units.Angstrom / (1000 * units.fs), 1.0),
        (", units = real", units.Angstrom / units.fs, 1.0),
        (", units = electron", units.Bohr / (1.03275e-15 * units.second), units.Bohr),
    ):
        (tmp_path / "melt.lmp").write_text(text.format(name))
        (atoms,) = read_structures(tmp_path / "melt.lmp")
        assert atoms.get_velocities()[0, 0] == pytest.approx(0.5 * velocity, rel=1e-3)
        assert atoms.positions[0, 2] == pytest.approx(2.0 * length)
    (tmp_path / "melt.lmp").write_text(text.format(", units = lj"))
    with pytest.raises(DataError, match="the units 'lj' of LAMMPS"):
        read_structures(tmp_path / "melt.lmp")


POSITIONS = np.array([[0.1, 0.2, 0.1], [0.9, 0.3, -0.2], [-0.3, 1.1, 0.0]])
FORCES = 0.01 * (POSITIONS - POSITIONS.mean(axis=0))  # the molecule expands: no torque


def gaussian(orientations: dict[str, np.ndarray]) -> str:
    def rows(values):
        return "".join(f" {n + 1} {z} 0 {' '.join(f'{x:.6f}' for x in row)}\n" for n, (z, row) in enumerate(values))

    line, numbers = " -----\n", (8, 1, 1)
    text = " Entering Gaussian System, Link 0=g16\n"
    for name, positions in orientations.items():
        shown = rows(zip(numbers, positions, strict=True))
        text += f"{name:>30} orientation:\n{line} Center\n Number\n{line}{shown}{line}"
    forces = "".join(
        f" {n + 1} {z} {' '.join(f'{x:.9f}' for x in row)}\n"
        for n, z, row in zip(range(3), numbers, FORCES, strict=True)
    )
    text += " SCF Done:  E(RB3LYP) =  -76.4    A.U. after 9 cycles\n"
    return text + f" Center  Atomic  Forces (Hartrees/Bohr)\n Number Number X Y Z\n{line}{forces}{line}"


def test_forces_of_gaussian_are_along_the_axes_of_the_input(tmp_path):
    turned = POSITIONS @ Rotation.from_euler("xyz", [70, 40, 20], degrees=True).as_matrix()
    path = tmp_path / "water.log"
    path.write_text(gaussian({"Standard": turned}))
    with pytest.raises(DataError, match=r"water.log: the positions are in Gaussian's standard orientation.*NoSymm"):
        read_labelled(path)
    for orientations in ({"Input": POSITIONS, "Standard": turned}, {"Standard": POSITIONS}):
        path.write_text(gaussian(orientations))
        (frame,) = read_labelled(path)
        assert np.allclose(frame.structure.positions, POSITIONS, atol=1e-5)
        assert np.allclose(frame.forces, FORCES * units.Hartree / units.Bohr, atol=1e-4)


@pytest.mark.parametrize(("orientations", "kept"), [(("Input", "Standard"), False), (("Input",), True)])
def test_dipole_moments_of_gaussian_are_along_the_standard_axes(tmp_path, orientations, kept):
    turned = POSITIONS @ Rotation.from_euler("xyz", [70, 40, 20], degrees=True).as_matrix()
    text = gaussian({name: POSITIONS if name == "Input" else turned for name in orientations})
    moment = " Dipole moment (field-independent basis, Debye):\n X= 1.0 Y= 2.0 Z= 3.0 Tot= 3.7\n"
    (tmp_path / "water.log").write_text(text.replace(" Center  Atomic  Forces", f"{moment} Center  Atomic  Forces"))
    (frame,) = read_labelled(tmp_path / "water.log")
    assert np.isfinite(frame.dipole).all() == kept
    assert np.isfinite(frame.forces).all()


def test_units_of_qbox_are_not_converted_by_ase():
    with pytest.raises(DataError, match=r"qbox_test.xml is of Qbox, in Bohr, Hartree and GPa"):
        read_labelled(ASE_DATA / "qbox_test.xml")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of ASE
def test_energies_of_castep_have_the_dispersion_correction_of_its_forces(tmp_path):
    text = (ASE_DATA / "castep" / "md.castep").read_text()
    path, wrong = tmp_path / "md.castep", "NB est. 0K energy"
    path.write_text(text)
    before = read_labelled(path, keys={"energy": "free_energy"})
    lines, count = [], 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        if wrong in line:
            lines.append(f" NB dispersion corrected est. 0K energy* = {-1399 - count}.0 eV\n")
            lines.append(f" Dispersion corrected final free energy* (E-TS) = {-1401 - count}.0 eV\n")
            count += 1
    path.write_text("".join(lines))
    assert before[0].energy == pytest.approx(-1351.3, abs=0.1)
    free, at_0_kelvin = read_labelled(path, keys={"energy": "free_energy"}), read_labelled(path)
    assert [frame.energy for frame in free] == [frame.energy - 2.0 for frame in at_0_kelvin]
    assert -1399.0 - count < at_0_kelvin[0].energy <= -1399.0


def test_outputs_of_gaussian_and_orca_have_a_charge(tmp_path):
    text = gaussian({"Input": POSITIONS}).replace(" SCF Done", " Charge =  1 Multiplicity = 2\n SCF Done")
    (tmp_path / "water.log").write_text(text)
    orca = "  * O   R   C   A *\n Total Charge           Charge          ....   -1\n"
    orca += " Multiplicity           Mult            ....    1\nNumber of atoms         ...      2\n"
    orca += "CARTESIAN COORDINATES (ANGSTROEM)\n----\n O 5 0 0\n H 5 0 1\n\nFINAL SINGLE POINT ENERGY   -75.0\n"
    orca += "Sum of atomic charges : -1.0\nThe origin for moment calculation is the CENTER OF MASS  = ( 9.4 0.0 0.1)\n"
    (tmp_path / "ion.out").write_text(f"{orca}Total Dipole Moment    : 0.0 0.0 0.5\nORCA TERMINATED NORMALLY\n")
    (cation,), (anion,) = read_labelled(tmp_path / "water.log"), read_labelled(tmp_path / "ion.out")
    assert (cation.structure.charge, cation.structure.multiplicity) == (1.0, 2)
    assert (anion.structure.charge, anion.structure.multiplicity) == (-1.0, 1)
    assert np.allclose(anion.dipole, [0.0, 0.0, 0.5 * units.Bohr], atol=0.05)


@pytest.mark.parametrize("about_origin", [True, False])
def test_dipole_moments_of_ions_about_the_origin_are_said(tmp_path, about_origin):
    atoms = Atoms("OH", positions=[[5, 0, 0], [5, 0, 1]], info={"charge": -1})
    moment = np.array([0.0, 0.0, 0.3]) - about_origin * atoms.get_center_of_mass()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=[[0, 0, -1], [0, 0, 1]], dipole=moment)
    ase.io.write(tmp_path / "ion.extxyz", atoms)
    found = []
    read_labelled(tmp_path / "ion.extxyz", tell=found.append)
    network = NBodyConfig(species=("H", "O"), levels=(LevelConfig(radius=4.0),), outputs=("charges",))
    assert ("those about the origin" in found[0].ignored(network)) == about_origin
    assert "those about the origin" not in found[0].ignored(None)


def test_ions_and_halogens_of_gromacs_are_no_carbon_and_nitrogen(tmp_path):
    names = [("SOL", "OW"), ("SOL", "HW1"), ("SOL", "HW2"), ("NA", "NA"), ("CL", "CL"), ("CA", "CA"), ("MOL", "CL1")]
    names += [
        ("ALA", "CA"),
        ("ALA", "N"),
        ("MET", "SD"),
        ("ALA", "HA"),
        ("K", "K"),
        ("HIS", "NE2"),
        ("HIS", "HE1"),
        ("HOH", "HO1"),
    ]
    rows = [
        f"{n + 1:5d}{res:<5s}{name:>5s}{n + 1:5d}{0.3 * n:8.3f}   0.000   0.000" for n, (res, name) in enumerate(names)
    ]
    (tmp_path / "a.gro").write_text("\n".join(["title", f"{len(rows)}", *rows, "9.0 9.0 9.0"]) + "\n")
    (atoms,) = read_structures(tmp_path / "a.gro")
    assert list(atoms.symbols) == ["O", "H", "H", "Na", "Cl", "Ca", "Cl", "C", "N", "S", "H", "K", "N", "H", "H"]


@pytest.mark.parametrize("has_column", [True, False])
def test_carbon_of_amino_acids_is_no_calcium(tmp_path, has_column):
    """PDB files of some programs lack the column of elements, and ASE takes the first two letters of the names."""
    names = [
        (" N  ", "ALA", "N"),
        (" CA ", "ALA", "C"),
        ("HG11", "VAL", "H"),
        ("HE21", "GLN", "H"),
        ("CA  ", " CA", "CA"),
    ]
    names += [("CL  ", " CL", "CL"), (" CD ", "GLU", "C"), (" NE2", "GLN", "N"), (" OXT", "A", "O")]
    rows = [
        f"ATOM  {n + 1:5d} {name} {residue:>3s} A{n + 1:4d}    {3.0 * n:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00"
        + (f"          {element:>2s}" if has_column else "")
        for n, (name, residue, element) in enumerate(names)
    ]
    (tmp_path / "a.pdb").write_text("\n".join([*rows, "END", ""]))
    (atoms,) = read_structures(tmp_path / "a.pdb")
    assert str(atoms.symbols) == "NCH2CaClCNO"


def test_a_column_of_elements_is_believed(tmp_path):
    row = "HETATM    1 CL    A A   1       0.000   0.000   0.000  1.00  0.00          CL"
    (tmp_path / "a.pdb").write_text(row + "\nEND\n")
    assert str(read_structures(tmp_path / "a.pdb")[0].symbols) == "Cl"


@pytest.mark.parametrize("kind", ["lammps-dump-text", "lammps-dump-binary"])
def test_no_dump_has_an_energy(tmp_path, kind):
    """ASE's readers of both kinds give 0 eV."""
    atoms = Atoms("H")
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((1, 3)))
    judge_of_frames(str(tmp_path / "dump"), kind)(atoms)
    assert set(atoms.calc.results) == {"forces"}


LAST_ITERATION = "aborting loop because EDIFF is reached"


@pytest.mark.parametrize("version", [5, 6])
def test_steps_of_vasp_that_did_not_converge_are_said(tmp_path, version):
    text = (ASE_DATA / "vasp" / "OUTCAR_example_1").read_text()
    start = text.index("- Iteration    1(   1)")
    start = text.rindex("\n", 0, start) + 1
    head, step = text[:start], text[start:]
    failed = step.replace(LAST_ITERATION, "" if version == 5 else "aborting loop EDIFF was not reached (unconverged)")
    for most, steps, sentence in (
        (120, [step, failed], ""),  # fewer iterations than that: it was ended otherwise
        (63, [step, step], ""),
        (63, [step, failed, step, failed], "of 2 calculations in this file did not converge (the first one: frame 1)"),
    ):
        (tmp_path / "OUTCAR").write_text(head.replace("NELM   =    120", f"NELM   =    {most}") + "".join(steps))
        found = []
        assert len(read_labelled(tmp_path / "OUTCAR", tell=found.append)) == len(steps)
        assert sentence in str(found[0])
        assert ("did not converge" in str(found[0])) == bool(sentence)


@pytest.mark.parametrize("most", [60, 9])
def test_a_step_of_vasprun_that_took_all_iterations_is_said(tmp_path, most):
    text = (ASE_DATA / "vasp" / "vasprun_pstress.xml").read_text()
    (tmp_path / "vasprun.xml").write_text(text.replace('name="NELM">    60<', f'name="NELM">    {most}<'))
    found = []
    read_labelled(tmp_path / "vasprun.xml", tell=found.append)
    assert ("of 1 calculation in this file did not converge (the first one: frame 0)" in str(found[0])) == (most == 9)


def test_an_output_that_says_that_it_did_not_converge(tmp_path):
    for mark in ("", " >>>>>>>>>> Convergence criterion not met.\n"):
        text = gaussian({"Input": POSITIONS}).replace(" SCF Done", f"{mark} SCF Done")
        (tmp_path / "water.log").write_text(text)
        found = []
        read_labelled(tmp_path / "water.log", tell=found.append)
        assert ("of 1 calculation in this file did not converge:" in str(found[0])) == bool(mark)


CIF = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Nb1 Nb 0.5 0.5 0.5 1.0
"""


@pytest.mark.parametrize(("sites", "taken"), [("Nb 0.5|Ta 0.5", "Nb 0.5, Ta 0.5"), ("Ta 0.7", "Ta 0.7"), ("Ta 1", "")])
def test_a_disordered_crystal_has_no_whole_atoms(tmp_path, sites, taken):
    rows = "".join(f"X{n} {s.split()[0]} 0 0 0 {s.split()[1]}\n" for n, s in enumerate(sites.split("|")))
    (tmp_path / "alloy.cif").write_text(CIF + rows)
    if taken:
        with pytest.raises(DataError, match=f"alloy.cif is of a disordered crystal: a site is taken by {taken}"):
            read_structures(tmp_path / "alloy.cif")
    else:
        assert sorted(read_structures(tmp_path / "alloy.cif")[0].symbols) == ["Nb", "Ta"]


def test_alternate_places_of_an_atom_are_not_two_atoms(tmp_path):
    row = "ATOM      1  CA {}SER A   1      {}.000   0.000   0.000  0.50  0.00           C\n"
    (tmp_path / "a.pdb").write_text(row.format("A", 10) + row.format("B", 11) + "END\n")
    with pytest.raises(DataError, match=r"a.pdb has alternate places of one atom .*'CA', 'SER', 'A', '1'.*Keep one"):
        read_structures(tmp_path / "a.pdb")
    one = row.format("A", 10)
    for text in (one, row.format(" ", 10) + row.format(" ", 11), f"MODEL 1\n{one}ENDMDL\nMODEL 2\n{one}ENDMDL\n"):
        (tmp_path / "a.pdb").write_text(text + "END\n")
        assert read_structures(tmp_path / "a.pdb")


def test_velocities_along_lattice_vectors_are_not_cartesian_ones(tmp_path):
    head = "C O\n1.0\n8 0 0\n0 8 0\n0 0 8\nC O\n1 1\n{}Direct\n0 0 0 T T T\n0 0 0.15 T T T\n{}{}\n"
    rows, lattice = "0.01 0 0\n-0.01 0 0\n", "Lattice velocities and vectors\n1\n" + 6 * "0 0 0\n"
    for selective in ("", "Selective dynamics\n"):
        for block in ("", lattice):
            for word in ("", "Cartesian", "Direct"):
                (tmp_path / "CONTCAR").write_text(head.format(selective, block, word) + rows)
                if word == "Direct":
                    with pytest.raises(DataError, match="CONTCAR has velocities along its lattice vectors"):
                        read_structures(tmp_path / "CONTCAR")
                else:
                    (atoms,) = read_structures(tmp_path / "CONTCAR")
                    assert atoms.get_velocities()[0, 0] == pytest.approx(0.01 * units.Angstrom / units.fs)
    (tmp_path / "CONTCAR").write_text(head.format("", "", "Direct"))
    assert len(read_structures(tmp_path / "CONTCAR")) == 1, "positions alone"
