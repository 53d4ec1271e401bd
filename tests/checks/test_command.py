"""``nbody check``: structures from files or from the model file, exit codes, JSON and HTML."""

import errno
import json
import os
from functools import partial

import ase.io
import pytest
from ase.build import molecule

from ase_nbody import save_model
from ase_nbody.checks.run import CHECKS, Check

QUICK = ("--no-compile", "--only", "rotation", "--only", "parts")


@pytest.fixture
def check(nbody):
    """Run ``nbody check`` and return its exit code, output and errors."""
    return partial(nbody, "check")


@pytest.fixture
def model(tmp_path, network):
    return save_model(network, tmp_path / "model.nbody")


@pytest.fixture
def structure(tmp_path):
    path = tmp_path / "structure.xyz"
    ase.io.write(path, [molecule("CH3OH"), molecule("H2O")])
    return path


def test_for_people(check, model, structure):
    code, out, _ = check(model, structure, *QUICK)
    assert code == 0
    for word in ("random rotation 1", "CH4O", "<= 1e-10", "4 passed, 0 failed"):
        assert word in out


def test_for_programs_with_all_frames(check, model, structure):
    code, out, _ = check(model, structure, *QUICK, "--json", "--index", ":")
    assert code == 0
    found = json.loads(out)
    assert found["passed"]
    assert {row["system"] for row in found["findings"]} == {"CH4O", "H2O"}


def test_names_with_an_at_and_an_index(check, model, structure, tmp_path):
    (tmp_path / "a@b.xyz").write_bytes(structure.read_bytes())
    code, out, _ = check(model, tmp_path / "a@b.xyz", f"{structure}@-1", *QUICK, "--json")
    assert code == 0
    assert {row["system"] for row in json.loads(out)["findings"]} == {"CH4O", "H2O"}


def test_a_report_overwrites_nothing_but_a_report(check, model, structure, tmp_path, monkeypatch):
    before = model.read_bytes()
    code, _, err = check(model, structure, *QUICK, "--html", model)
    assert (code, "exists and is not a report" in " ".join(err.split())) == (1, True)
    assert model.read_bytes() == before
    code, _, err = check(model, structure, *QUICK, "--html", tmp_path / "missing" / "report.html")
    assert (code, "there is no folder" in " ".join(err.split())) == (1, True)
    for _ in range(2):
        assert check(model, structure, *QUICK, "--html", tmp_path / "report.html")[0] == 0
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    code, _, err = check(model, structure, "--html", tmp_path / "report.html")
    assert (code, "this user may not write to" in " ".join(err.split())) == (1, True)


def test_a_report_that_cannot_be_written_costs_no_findings(check, model, structure, tmp_path, monkeypatch):
    """They were printed after the report, and so not at all where the disk was full."""

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "report.html"))

    monkeypatch.setattr("ase_nbody.checks.report.write_whole", full)
    code, out, err = check(model, structure, *QUICK, "--html", tmp_path / "report.html")
    assert (code, "there is no room to write" in " ".join(err.split())) == (1, True)
    assert "passed, 0 failed" in out


def test_an_interrupted_check_shows_what_it_found(check, model, structure, monkeypatch):
    def stopped(case):
        raise KeyboardInterrupt

    monkeypatch.setitem(CHECKS, "inversion", Check(stopped))
    code, out, err = check(model, structure, "--only", "rotation", "--only", "inversion")
    assert code == 130
    assert "rotation" in out
    assert "inversion" not in out
    assert "interrupted" in err
    code, out, _ = check(model, structure, "--only", "rotation", "--only", "inversion", "--json")
    assert (code, out) == (130, "")


def test_a_failed_check_is_exit_code_one(check, model, structure, tmp_path, monkeypatch):
    monkeypatch.setattr("ase_nbody.checks.symmetry.ROUND_OFF", 1e-30)
    code, out, _ = check(model, structure, *QUICK, "--json", "--html", tmp_path / "report.html")
    assert code == 1
    assert not json.loads(out)["passed"]
    assert "failed" in (tmp_path / "report.html").read_text()


def test_the_example_and_temperature_of_the_model_file(check, tmp_path, network):
    atoms = molecule("CH3OH")
    example = {"numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}
    example |= {"cell": atoms.cell.array.tolist(), "pbc": atoms.pbc.tolist()}
    model = save_model(network, tmp_path / "model.nbody", {"example": example, "temperature": "120"})
    code, out, _ = check(model, "--only", "hot NVT", "--steps", "50", "--json")
    rows = json.loads(out)["findings"]
    assert code in (0, 1)  # a network with random weights may pass or fail
    assert rows[0]["system"] == "CH4O"
    assert any("240 K" in row["note"] for row in rows) or "Error" in rows[0]["note"]


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ((), "holds no example structure"),
        (("--index", ":"), "--index : chooses frames of structure files: name a file"),
        (("s", "--only", "rotations"), "no check is called 'rotations'"),
    ],
)
def test_errors_are_one_line(arguments, culprit, check, model, structure):
    code, out, err = check(model, *(structure if word == "s" else word for word in arguments))
    assert code == 1
    assert culprit in err
    assert "Traceback" not in out + err
