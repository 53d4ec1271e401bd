"""The table, the JSON and the HTML; bad arguments; and calculators that raise errors."""

import io
import json
import re

import ase
import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed
from rich.console import Console

from ase_nbody.checks import CHECKS, COMPILED, Curve, Finding, Plot, print_table, run_checks, summary, write_html
from ase_nbody.checks.case import Evaluation, deviation

PLOT = Plot("x / Angstrom", "y / eV", (Curve("<H-H>", (0.0, 1.0), (2.0, 3.0)),))
FINDINGS = [
    Finding("one", "measured <this>", 1.0, "eV", upper=2.0, plot=PLOT, system="H2O"),
    Finding("two", "that", 3.0, upper=2.0, note="[at] 1 < 2"),
    Finding("three", "power", 2.1, lower=1.8, upper=2.2),
    Finding("four", "wall", float("nan"), "eV", lower=10.0),
    Finding("five", "stress", None, note="a molecule has none"),
]


def test_outcomes_follow_from_values_and_bounds():
    assert [finding.outcome for finding in FINDINGS] == ["passed", "failed", "passed", "failed", "not applicable"]
    assert [finding.bound for finding in FINDINGS] == ["<= 2", "<= 2", "1.8 ... 2.2", ">= 10", ""]
    assert summary(FINDINGS) == "2 passed, 2 failed, 1 not applicable"


def test_the_table_shows_everything():
    file = io.StringIO()
    print_table(FINDINGS, "title", Console(file=file, width=160))
    for word in ("title", "measured <this>", "<= 2 eV", "failed", "[at] 1 < 2", "H2O", "a molecule has none", "nan"):
        assert word in file.getvalue()


def test_json_holds_no_infinities():
    rows = [json.loads(json.dumps(finding.to_json(), allow_nan=False)) for finding in FINDINGS]
    assert rows[0]["upper"] == 2.0
    assert rows[0]["lower"] is None
    assert rows[3]["value"] is None
    assert rows[3]["outcome"] == "failed"


def test_the_report_is_one_offline_file(tmp_path):
    page = write_html(FINDINGS, tmp_path / "report.html", "a & b").read_text()
    assert (
        "nbody check l\\udce9.nbody"
        in write_html(FINDINGS, tmp_path / "b.html", "nbody check l\udce9.nbody").read_text()
    )
    assert "measured &lt;this&gt;" in page
    assert "a &amp; b" in page
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_without_matplotlib_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("ase_nbody.files.page.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        write_html(FINDINGS, tmp_path / "report.html", "title")


def test_checks_that_would_show_nothing_are_refused(pair_potential):
    with pytest.raises(ValueError, match="no check is called 'rotations'"):
        next(run_checks(pair_potential(), [ase.Atoms("Cu")], only=["rotations"]))
    with pytest.raises(ValueError, match="no check is left: all of them should run, and rotation, "):
        next(run_checks(pair_potential(), [ase.Atoms("Cu")], without=CHECKS))
    for wanted in ({"only": ["compiled"]}, {"only": ["rotation", "compiled"]}, {"large": True}):  # the rest would pass
        with pytest.raises(ValueError, match=r"compiled.* should both run and be left out"):
            next(run_checks(pair_potential(), [ase.Atoms("Cu")], **wanted, without=COMPILED))
    with pytest.raises(ValueError, match="no structure"):
        next(run_checks(pair_potential(), []))
    with pytest.raises(ValueError, match="without atoms"):
        next(run_checks(pair_potential(), [ase.Atoms()]))
    for kelvin in (float("nan"), float("inf"), -5.0, 1e300):  # a sound potential failed at them
        with pytest.raises(ValueError, match="a temperature must be between 0 and 1e\\+06 K"):
            next(run_checks(pair_potential(), [ase.Atoms("Cu")], temperature=kelvin))
    with pytest.raises(ValueError, match="must be above 0 K"):
        next(run_checks(pair_potential(), [ase.Atoms("Cu")], temperature=0.0))


def test_a_calculator_that_raises_during_a_check_fails_it(pair_potential, structures):
    def refuse_many(atoms, results):
        if len(atoms) > 5:
            raise CalculationFailed("too many atoms for me")

    findings = list(
        run_checks(pair_potential(spoil=refuse_many), [structures["cluster"]()], only=["far copies", "parts"])
    )
    assert [finding.outcome for finding in findings] == ["failed", "passed", "not applicable"]
    assert findings[0].note == "CalculationFailed: too many atoms for me"


def test_a_calculator_that_raises_at_once_is_not_checked(pair_potential, structures):
    def refuse(atoms, results):
        raise CalculationFailed("not today")

    with pytest.raises(CalculationFailed, match="not today"):
        list(run_checks(pair_potential(spoil=refuse), [structures["cluster"]()]))


def test_slow_checks_run_once_and_progress_is_reported(pair_potential, structures):
    seen = []
    two = [structures["atom"](), structures["cluster"]()]
    keywords = {"only": ["parts", "dimers"], "progress": lambda *step: seen.append(step)}
    findings = list(run_checks(pair_potential(), two, **keywords))
    assert seen == [("parts", 0, 3), ("parts", 1, 3), ("dimers", 2, 3)]
    assert {finding.system for finding in findings} == {"Cu", "Cu5"}


def test_a_deviation_names_its_quantity():
    """Where nothing differs, there is none to name."""
    one, other = (Evaluation(energy, np.ones((2, 3)), None, None, None, None, None) for energy in (1.0, 1.5))
    assert deviation(one, other) == (0.5, "largest in energy")
    assert deviation(one, one) == (0.0, "")
