"""A plugin for pytest (``-p emt_stand_in``): ASE's tests get an ``NBodyCalculator`` where they ask for EMT.

ASE's tests reach EMT as ``ase.calculators.emt.EMT``, by its name ``"emt"``, as ``asap3.EMT``, and in subprocesses
(``ase run emt``, sockets, packed calculators). All of these look into one module; ``sitecustomize.py`` beside this file
puts the stand-in into it, in every Python process that finds this folder on its path and the model in ``EMT_STAND_IN``.
This plugin leaves out tests that have an excuse, stops those that take too long, and writes down how each test ended.
"""

import json
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import ase.calculators.emt
import pytest

MADE = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("EMT's stand-in")
    group.addoption("--leave-out", action="append", default=[], help="a test to leave out, by its whole id")
    group.addoption(
        "--cpu-limit", type=float, default=0.0, help="seconds of CPU time after which a test fails; 0: none"
    )
    group.addoption("--outcomes", help="JSON file to write: how each test ended, and what it used")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.outcomes and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(Path(config.option.outcomes)))


def pytest_report_header() -> str:
    """Say which class the tests find as EMT."""
    return (
        f"EMT is {' <- '.join(base.__module__ + '.' + base.__name__ for base in ase.calculators.emt.EMT.__mro__[:3])}"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = set(config.option.leave_out)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


def calculators_made() -> int:
    return getattr(ase.calculators.emt.EMT, "made", 0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[MADE] = calculators_made()


def pytest_runtest_teardown(item: pytest.Item) -> None:
    item.user_properties.append(("calculators", calculators_made() - item.stash[MADE]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test that used up its CPU time, such as one with an optimiser that has no limit of steps."""
    limit = item.config.option.cpu_limit
    before = signal.signal(signal.SIGPROF, lambda *_: pytest.fail(f"did not end within {limit:g} s of CPU time"))
    signal.setitimer(signal.ITIMER_PROF, limit)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


class Outcomes:
    """How each test ended: ``{"ase/test/...": {"outcome": "passed", "seconds": 0.1, "calculators": 2}}``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.tests |= {item.nodeid: {"outcome": "deselected"} for item in items}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        test["seconds"] += report.duration
        test |= dict(report.user_properties)
        if report.outcome != "passed":
            test["outcome"] = "xfailed" if hasattr(report, "wasxfail") else report.outcome

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps(self.tests, indent=1))
