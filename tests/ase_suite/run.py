"""Run ASE's own tests of everything that uses EMT, with an N-body network in EMT's place (docs/ase_suite.md).

python tests/ase_suite/run.py                   # run all of them and print how many passed
python tests/ase_suite/run.py -n 2 -k neb       # options that run.py does not know go to pytest
python tests/ase_suite/run.py --check-excuses   # check that the tests left out fail with the network and pass with EMT
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "example_models" / "emt.nbody"
EXCUSES = HERE / "excuses.txt"
SITE = Path(ase.__file__).resolve().parents[1]  # ids of tests begin with "ase/test/"
USES_EMT = re.compile("EMT|emt|asap3")
# Some tests put atoms 1 Angstrom apart in crystals of gold. All other warnings are errors, as in ASE's own runs.
IGNORE_EXTRAPOLATION = "ignore::ase_nbody.runtime.extrapolation.ExtrapolationWarning"

MAX_CPU_SECONDS = 900  # CPU time of one test
EXCUSED_CPU_SECONDS = 60  # CPU time of a test that is left out; some of them never end with the network
Outcome = dict[str, Any]


def files_that_use_emt() -> list[str]:
    """All test files of the installed ASE that mention EMT or its twin in asap3."""
    files = sorted((SITE / "ase" / "test").rglob("test_*.py"))
    return [file.relative_to(SITE).as_posix() for file in files if USES_EMT.search(file.read_text(encoding="utf-8"))]


def read_excuses() -> dict[str, str]:
    """The tests that cannot pass with another potential, each with the reason."""
    lines = (line.partition("#") for line in EXCUSES.read_text().splitlines())
    return {test.strip(): reason.strip() for test, _, reason in lines if test.strip()}


def leave_out() -> list[str]:
    """Options of pytest that leave these tests out."""
    return [f"--leave-out={test}" for test in read_excuses()]


def environment(model: Path | None) -> dict[str, str]:
    """Environment variables for all processes of a run.

    With them, the processes find the stand-in and the ``ase`` command of this Python, and use one thread.
    """
    path = os.pathsep.join(filter(None, [str(HERE / "path"), os.environ.get("PYTHONPATH")]))
    command = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    variables = os.environ | {"PYTHONPATH": path, "PATH": command, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    return variables if model is None else variables | {"EMT_STAND_IN": str(Path(model).resolve())}


def run(
    tests: Sequence[str], options: Sequence[str] = (), model: Path | None = MODEL, quiet: bool = True
) -> tuple[dict[str, Outcome], str]:
    """Run tests of ASE in a process of their own.

    Args:
        tests: ids or files, such as ``ase/test/neb/test_neb.py``.
        options: more options for pytest.
        model: the model that stands in for EMT; None leaves EMT where it is.
        quiet: return what pytest prints instead of showing it.

    Returns:
        How each test ended, by its id, and what pytest printed.

    Raises:
        RuntimeError: pytest did not get as far as running tests.
    """
    with tempfile.TemporaryDirectory(prefix="ase-suite-") as folder:
        outcomes = Path(folder, "outcomes.json")
        command = [sys.executable, "-m", "pytest", "-c", str(HERE / "pytest.ini"), f"--rootdir={SITE}"]
        command += ["-p", "emt_stand_in", "-p", "no:cacheprovider", f"--outcomes={outcomes}", *options]
        command += ["-W", IGNORE_EXTRAPOLATION, *[str(SITE / test) for test in tests]]
        process = subprocess.run(
            command,
            cwd=folder,
            env=environment(model),
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if process.returncode not in (0, 1, 5) or not outcomes.is_file():  # 1: some failed, 5: all were left out
            raise RuntimeError(f"pytest ended with code {process.returncode}:\n{process.stdout or ''}")
        return json.loads(outcomes.read_text()), process.stdout or ""


def count(outcomes: dict[str, Outcome]) -> str:
    """How many tests passed, failed and so on, and how many of the passed ones made calculators in pytest's process."""
    ends = Counter(test["outcome"] for test in outcomes.values())
    used = sum(test["outcome"] == "passed" and test.get("calculators", 0) > 0 for test in outcomes.values())
    kinds = ("passed", "failed", "skipped", "xfailed", "deselected")
    return ", ".join(f"{ends[kind]} {kind}" for kind in kinds) + f"; {used} of the passed made calculators themselves"


def check_excuses(model: Path) -> bool:
    """Print how each test that is left out ends with the network and with EMT.

    Returns:
        Whether all of them fail with the network and pass with EMT.
    """
    excuses = read_excuses()
    with_network, with_emt = (
        run(list(excuses), [f"--cpu-limit={EXCUSED_CPU_SECONDS}"], end)[0] for end in (model, None)
    )
    for test, reason in excuses.items():
        ends = [outcomes[test]["outcome"] if test in outcomes else "missing" for outcomes in (with_network, with_emt)]
        verdict = "ok" if ends == ["failed", "passed"] else "NO EXCUSE"
        print(f"{verdict:10}{ends[0]:8} with the network, {ends[1]:8} with EMT  {test}  # {reason}")
    return all(
        with_network.get(test, {}).get("outcome") == "failed" and with_emt.get(test, {}).get("outcome") == "passed"
        for test in excuses
    )


def main() -> int:
    """Entry point; the exit code is 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="another model of EMT's species")
    parser.add_argument("--emt", action="store_true", help="leave EMT where it is, for comparison")
    parser.add_argument("--check-excuses", action="store_true")
    arguments, options = parser.parse_known_args()
    if arguments.check_excuses:
        return 0 if check_excuses(arguments.model) else 1
    model, left_out = (None, []) if arguments.emt else (arguments.model, leave_out())
    options = ["-q", f"--cpu-limit={MAX_CPU_SECONDS}", *left_out, *options]
    outcomes, _ = run(files_that_use_emt(), options, model, quiet=False)
    print(f"ASE {ase.__version__}, {'EMT' if arguments.emt else arguments.model}: {count(outcomes)}")
    return int(any(test["outcome"] == "failed" for test in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
