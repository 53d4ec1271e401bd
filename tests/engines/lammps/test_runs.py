"""Runs of LAMMPS: dynamics, restarts, minimisation, other styles beside it, committees, heat flux."""

import os
import shutil
import subprocess

import ase
import ase.build
import numpy as np
import pytest

from ase_nbody.engines.calculator import NBodyCalculator
from ase_nbody.files.archive import load_members

pytestmark = pytest.mark.filterwarnings("ignore::ase_nbody.runtime.extrapolation.ExtrapolationWarning")

SPECIES = ("Cu",)


@pytest.fixture
def copper() -> ase.Atoms:
    atoms = ase.build.bulk("Cu", cubic=True) * (3, 3, 3)
    atoms.rattle(0.05, seed=1)
    return atoms


def test_dynamics_conserve_energy(copper, exported, script, execute, tmp_path):
    text = script(copper, exported("two levels"), SPECIES)
    text += "velocity all create 300 1\nfix 1 all nve\ntimestep 0.001\nthermo 5\nrun 100\n"
    done = execute(text, tmp_path, 2)
    assert done.returncode == 0, done.stdout
    energies = totals(done.stdout)
    kinetic = 1.5 * len(copper) * 8.617e-5 * 300
    assert len(energies) == 21
    assert np.ptp(energies) < 1e-3 * kinetic


def columns(output, n):
    """The thermodynamic output of a run: a row of ``n`` numbers for each step."""
    rows, on = [], False
    for line in output.splitlines():
        words = line.split()
        on = words[:1] == ["Step"] or (on and words[:1] != ["Loop"])
        if on and words[:1] != ["Step"] and len(words) == n:
            rows.append([float(word) for word in words])
    return np.array(rows)


def totals(output):
    """Total energies of a run."""
    return columns(output, 4)[:, 2]


def test_a_run_continues_on_another_number_of_ranks(copper, exported, script, execute, tmp_path):
    model = exported("two levels")
    begin = script(copper, model, SPECIES) + "velocity all create 300 1\nfix 1 all nve\n"
    write = "dump 1 all custom 1 {name} id fx fy fz\ndump_modify 1 sort id format float %24.16e first yes\n"
    whole = execute(begin + "run 20\n" + write.format(name="whole") + "run 0\n", tmp_path, 1)
    assert whole.returncode == 0, whole.stdout
    first = execute(begin + "run 10\nwrite_restart half\n", tmp_path, 4)
    assert first.returncode == 0, first.stdout
    load = next(line for line in begin.splitlines() if line.startswith("plugin load"))
    pair = f'pair_style nbody\npair_coeff * * "{model}" Cu\n'
    rest = f"read_restart half\n{load}\n{pair}fix 1 all nve\nrun 10\n" + write.format(name="rest") + "run 0\n"
    second = execute(rest, tmp_path, 2)
    assert second.returncode == 0, second.stdout
    tables = [np.loadtxt(tmp_path / name, skiprows=9) for name in ("whole", "rest")]
    assert abs(tables[0] - tables[1]).max() < 1e-8


def test_a_minimisation_ends_where_no_force_acts(copper, exported, script, execute, tmp_path):
    text = script(copper, exported("two levels"), SPECIES) + "minimize 0 1e-4 200 400\nvariable f equal fmax\n"
    done = execute(text + 'print "largest force $f"\n', tmp_path, 2)
    assert done.returncode == 0, done.stdout
    assert float(done.stdout.split("largest force")[1].split()[0]) < 0.02


@pytest.mark.parametrize(
    ("style", "coefficients", "accuracy"),
    [
        ("zbl 2.0 2.8", "29 29", 1e-10),
        ("coul/dsf 0.2 5.0", "", 1e-10),
        ("dispersion/d3 bj pbe 12.0 8.0", "Cu", 1e-8),
    ],
)
def test_another_style_is_overlaid(style, coefficients, accuracy, copper, exported, run_once):
    model = exported("two levels")
    copper.set_initial_charges(np.resize([0.3, -0.3], len(copper)))
    name = style.split()[0]
    alone = run_once(copper, model, SPECIES, 1, style="charge")
    pair = f"pair_style {style}\npair_coeff * * {coefficients}"
    other = run_once(copper, model, SPECIES, 1, pair=pair, style="charge")
    pair = (
        f"pair_style hybrid/overlay nbody {style}\npair_coeff * * nbody {{model}} {{species}}\n"
        f"pair_coeff * * {name} {coefficients}"
    )
    both = run_once(copper, model, SPECIES, 2, pair=pair, style="charge")
    assert abs(other.forces).max() > 1e-3
    assert abs(both.forces - alone.forces - other.forces).max() < accuracy
    assert abs(both.virials - alone.virials - other.virials).max() < 10.0 * accuracy
    energies = [found.thermo[0]["PotEng"] for found in (both, alone, other)]
    assert abs(energies[0] - energies[1] - energies[2]) < accuracy * len(copper)


def test_constant_pressure_conserves_what_it_should(copper, exported, script, execute, tmp_path):
    text = script(copper, exported("two levels"), SPECIES)
    text += (
        "velocity all create 300 1\nfix 1 all npt temp 300 300 0.1 iso 0 0 1\ntimestep 0.001\n"
        "thermo_style custom step vol econserve\nthermo_modify norm no format float %22.15e\nthermo 5\nrun 100\n"
    )
    done = execute(text, tmp_path, 2)
    assert done.returncode == 0, done.stdout
    volumes, kept = columns(done.stdout, 3)[:, 1:].T
    assert np.ptp(volumes) > 0.01 * volumes[0]  # the cell answers
    assert np.ptp(kept) < 2e-3 * 1.5 * len(copper) * 8.617e-5 * 300


@pytest.mark.skipif(not hasattr(os, "RTLD_DEEPBIND"), reason="this system binds names to libraries in any case")
def test_torch_multiplies_matrices_by_itself(copper, exported, script, execute, tmp_path, monkeypatch):
    """LAMMPS brings a slow dgemm of its own, and would give it to torch; here it is one that ends the run."""
    (tmp_path / "dgemm.c").write_text("#include <stdlib.h>\nvoid dgemm_(void) { abort(); }\n")
    other = tmp_path / "dgemm.so"
    subprocess.run([shutil.which("cc"), "-shared", "-fPIC", tmp_path / "dgemm.c", "-o", other], check=True)
    text = script(copper, exported("two levels"), SPECIES) + "run 0\n"
    monkeypatch.setenv("LD_PRELOAD", str(other))
    done = execute(text, tmp_path, 1)
    assert done.returncode == 0, done.stdout + done.stderr


def test_atoms_of_another_style_are_left_alone(exported, run_once):
    """The model knows the copper atoms only; argon has a style of its own."""
    atoms = ase.build.bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.rattle(0.05, seed=2)
    model = exported("two levels")
    mixed = atoms + ase.Atoms("Ar2", positions=[[1.8, 1.8, 1.8], [5.4, 5.4, 1.8]])
    pair = (
        "pair_style hybrid/overlay nbody lj/cut 4.0\npair_coeff * * nbody {model} NULL Cu\n"
        "pair_coeff 1 * lj/cut 0.001 2.0"
    )
    found = run_once(mixed, model, ("Ar", "Cu"), 2, pair=pair)
    argon = "pair_style lj/cut 4.0\npair_coeff * * 0 1\npair_coeff 1 * 0.001 2.0"
    only = run_once(mixed, model, ("Ar", "Cu"), 1, pair=argon)
    atoms.calc = NBodyCalculator(load_members(model.with_name("two levels.nbody")))
    own = np.concatenate([atoms.get_forces(), np.zeros((2, 3))])
    assert abs(found.forces - only.forces - own).max() < 1e-10


def test_the_spread_of_a_committee(copper, exported, script, execute, tmp_path):
    model = exported("committee")
    text = script(copper, model, SPECIES) + "compute spread all nbody/spread\n"
    text += "dump 1 all custom 1 dump id c_spread\ndump_modify 1 sort id format float %24.16e\nrun 0\n"
    done = execute(text, tmp_path, 2)
    assert done.returncode == 0, done.stdout
    copper.calc = NBodyCalculator(load_members(model.with_name("committee.nbody")))
    copper.get_forces()
    expected = np.linalg.norm(copper.arrays["forces_spread"], axis=1)
    assert abs(np.loadtxt(tmp_path / "dump", skiprows=9)[:, 1] - expected).max() < 1e-9


def test_a_run_stops_at_a_large_spread(copper, exported, script, execute, tmp_path):
    text = script(copper, exported("committee"), SPECIES)
    text += (
        "compute spread all nbody/spread\ncompute largest all reduce max c_spread\nvariable largest equal c_largest\n"
        "fix 1 all nve\nfix 2 all halt 1 v_largest > 1e-6 error soft message yes\nrun 50\n"
    )
    done = execute(text, tmp_path, 2)
    assert done.returncode == 0, done.stdout
    assert "Fix halt condition" in done.stdout
    assert "Loop time" in done.stdout
    assert " for 50 steps" not in done.stdout


def test_the_heat_flux_of_one_level_is_the_flow_of_energy(exported, script, execute, tmp_path):
    """J = d/dt sum_i r_i e_i, in a cluster, where nothing crosses a boundary."""
    atoms = ase.build.bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.pbc = False
    atoms.set_cell([20.0, 20.0, 20.0])
    atoms.positions += 5.0
    atoms.rattle(0.1, seed=3)
    text = script(atoms, exported("one level"), SPECIES)
    text += (
        "velocity all create 2000 1\nfix 1 all nve\ntimestep 0.0001\n"
        "compute ke all ke/atom\ncompute pe all pe/atom\ncompute st all centroid/stress/atom NULL virial\n"
        "compute flux all heat/flux ke pe st\nvariable mx atom x*(c_ke+c_pe)\nvariable my atom y*(c_ke+c_pe)\n"
        "variable mz atom z*(c_ke+c_pe)\ncompute moment all reduce sum v_mx v_my v_mz\n"
        "thermo_style custom step c_moment[1] c_moment[2] c_moment[3] c_flux[1] c_flux[2] c_flux[3]\n"
        "thermo_modify format float %24.16e norm no\nthermo 1\nrun 2\n"
    )
    done = execute(text, tmp_path, 2)
    assert done.returncode == 0, done.stdout
    rows = done.stdout.split("c_flux[3]")[1].split("Loop time")[0].split("\n")
    table = np.array([row.split() for row in rows if row.strip()], dtype=float)
    flow = (table[2, 1:4] - table[0, 1:4]) / 0.0002
    assert abs(flow).max() > 1.0
    assert abs(flow - table[1, 4:7]).max() < 1e-4 * abs(flow).max()
