"""A selection of ASE's own tests, with the network in EMT's place. ``run.py`` beside this file runs all of them."""

import pytest
from run import EXCUSES, SITE, Outcome, files_that_use_emt, leave_out, read_excuses, run

SUBSET = {
    "calculator": ["calculator/test_fd.py", "calculator/test_traj.py", "emt/test_emt_stress.py"],
    "subprocess": ["calculator/test_subprocess_calculator.py"],
    "command line": ["cli/test_diff.py"],
    "socket": ["calculator/socketio/test_python_interface.py"],
    "molecular dynamics": ["md/test_md.py", "md/test_langevin_com.py", "md/test_rng.py"],
    "nudged elastic band": ["neb/test_neb.py", "emt/test_emt_h3o2m.py"],
    "optimiser": ["optimize/test_optimizers.py::test_optimize", "optimize/test_replay.py"],
    "filter": ["filter/test_filter.py", "filter/test_strain_emt.py"],
    "constraint": ["constraints/test_fixcom.py", "constraints/test_mirror.py"],
    "phonon": ["test_phonons.py"],
    "vibration": ["vibrations/test_vibrations_example.py", "vibrations/test_pickle2json.py"],
    "file": ["fio/test_pickle_bundle_trajectory.py"],
}
PINNED = "ase/test/test_eos.py::test_eos"


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """How all tests of the subset end in one process with the network in EMT's place."""
    tests = [f"ase/test/{test}" for group in SUBSET.values() for test in group]
    return run(tests, ["-q", "--tb=short", *leave_out()])[0]


@pytest.mark.parametrize("kind", SUBSET)
def test_ase_accepts_the_calculator(kind: str, outcomes: dict[str, Outcome]) -> None:
    files = tuple(f"ase/test/{test}" for test in SUBSET[kind])
    ends = {test: end["outcome"] for test, end in outcomes.items() if test.startswith(files)}
    assert "passed" in ends.values()
    assert not {test for test, end in ends.items() if end == "failed"}


def test_the_calculator_was_in_emts_place(outcomes: dict[str, Outcome]) -> None:
    """Most tests make our calculators in pytest's own process; the others make them in processes that they start."""
    assert sum(end.get("calculators", 0) > 0 for end in outcomes.values()) > 0.5 * len(outcomes)


def test_a_test_that_only_emt_can_pass_fails() -> None:
    """A test that expects a number of EMT's fails, so the network is in its place and failures are noticed."""
    outcomes, _ = run([PINNED], ["-q"])
    assert {end["outcome"] for end in outcomes.values()} == {"failed"}
    outcomes, _ = run([PINNED], ["-q", *leave_out()])
    assert {end["outcome"] for end in outcomes.values()} == {"deselected"}


def test_every_excuse_names_a_test_that_exists() -> None:
    excuses = read_excuses()
    files = files_that_use_emt()
    for test, reason in excuses.items():
        file, _, name = test.partition("::")
        assert file in files, f"{EXCUSES.name}: this ASE has no {file} that uses EMT"
        assert f"def {name.partition('[')[0]}(" in (SITE / file).read_text(encoding="utf-8"), f"no {name} in {file}"
        assert reason, f"{EXCUSES.name}: why is {test} left out?"
