"""The command ``nbody lammps``: it prints the lines that an input needs, and LAMMPS takes them."""

import os
import re

import ase.build
import pytest
from ase.io.lammpsdata import write_lammps_data

from ase_nbody import save_model


@pytest.fixture
def with_cache(cache, plugin, monkeypatch):
    monkeypatch.setenv("NBODY_CACHE", str(cache))


def lines_of(output):
    return [line.strip() for line in output.splitlines() if line.startswith("    ")]


@pytest.mark.usefixtures("with_cache")
def test_the_printed_lines_run(nbody, one_level, exported, execute, tmp_path, monkeypatch):
    exported("one level")  # compiled by whichever test is first
    monkeypatch.chdir(tmp_path)
    save_model(one_level, "mine.nbody")
    code, output, _ = nbody("lammps", "export", "mine.nbody")
    assert code == 0
    assert "machine code" in output
    load, style, coefficients = lines_of(output)
    assert coefficients == "pair_coeff * * mine.lammps H C O Na Cl Cu"
    built = nbody("lammps", "build")
    assert built[0] == 0
    assert load in lines_of(built[1])
    assert os.stat("mine.lammps").st_mode & 0o777 == 0o600
    write_lammps_data("data", ase.build.bulk("Cu", cubic=True), specorder=["Cu"], masses=True)
    coefficients = coefficients.replace("H C O Na Cl Cu", "Cu")
    done = execute(f"units metal\nread_data data\n{load}\n{style}\n{coefficients}\nrun 0\n", tmp_path, 2)
    assert done.returncode == 0, done.stdout
    assert re.search(r"Loop time of .* on 2 procs", done.stdout)


def test_a_folder_without_lammps_is_one_line(nbody, tmp_path):
    code, _, errors = nbody("lammps", "build", "--lammps", tmp_path)
    assert code == 1
    assert "has no LAMMPS headers" in errors


def test_a_compiler_that_fails_says_why(nbody, tmp_path, monkeypatch):
    monkeypatch.setenv("NBODY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pair.h").write_text("")
    code, _, errors = nbody("lammps", "build", "--lammps", tmp_path, "--mpicxx", "false")
    assert code == 1
    assert "could not compile the plugin" in errors


def test_a_compiler_that_speaks_another_encoding_is_quoted(nbody, tmp_path, monkeypatch):
    monkeypatch.setenv("NBODY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pair.h").write_text("")
    (tmp_path / "version.h").write_bytes(b'#define LAMMPS_VERSION "22 Jul 2025" // \xe9')
    compiler = tmp_path / "mpicxx"
    compiler.write_text("#!/bin/sh\nprintf 'no r\\351pertoire' >&2\nexit 1\n")
    compiler.chmod(0o755)
    code, _, errors = nbody("lammps", "build", "--lammps", tmp_path, "--mpicxx", compiler)
    assert code == 1
    assert "could not compile the plugin" in errors
    assert "pertoire" in errors


def test_a_refused_export_announces_no_compiling(nbody, tmp_path):
    code, out, errors = nbody("lammps", "export", "nothere", "--output", tmp_path / "mine.lammps")
    assert code == 1
    assert not out
    assert "no model file 'nothere'" in errors


def test_export_does_not_wait_for_a_pipe(nbody, tmp_path):
    os.mkfifo(tmp_path / "mine.lammps")
    code, _, errors = nbody("lammps", "export", "lithium", "--output", tmp_path / "mine.lammps")
    assert code == 1
    assert "exists and is no exported model" in errors
