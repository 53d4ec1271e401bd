"""The list of commands, the version and the list of models: they come at once and tell the truth."""

import inspect
import json
import os
import subprocess
import sys
from importlib import import_module, metadata

import pytest

import ase_nbody
from ase_nbody.cli import COMMANDS, main
from ase_nbody.files.archive import load_members, shipped_models


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ase_nbody.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_each_command_what_the_command_says_itself(name: str) -> None:
    function = getattr(import_module(f"ase_nbody.cli.{name}"), name)
    assert COMMANDS[name] == inspect.getdoc(function).split("\n")[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("pack", "ethanol", "silicon", "--output"),
        ("lammps", "export", "ethanol", "--output"),
        ("check", "ethanol", "--html"),
        ("md", "ethanol", "--output"),
    ],
)
def test_the_home_folder_in_a_path_that_is_written(arguments, nbody, tmp_path, monkeypatch) -> None:
    """No shell replaces the ``~`` in ``--output=~/model``."""
    code, _, errors = nbody(*arguments, "~nobody-has-this-name/x")
    assert (code, "there is no home folder '~nobody-has-this-name'" in " ".join(errors.split())) == (1, True)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").touch()  # in the way
    code, _, errors = nbody(*arguments, "~/x")
    assert (code, f"{tmp_path}/x" in " ".join(errors.split())) == (1, True)


def test_help_needs_neither_torch_nor_ase() -> None:
    source = "import sys; from ase_nbody.cli import app; app(['--help'], standalone_mode=False); " + (
        "print('loaded', [name for name in ('torch', 'ase', 'numpy', 'e3nn') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert "loaded []" in result.stdout  # so numpy reads the environment as the command line leaves it
    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize(("given", "taken"), [(None, 1), ("2", 2)])
def test_numpy_takes_one_thread_unless_the_environment_says_otherwise(given, taken) -> None:
    """Its threads wait for each other in the small matrices of ASE's optimisers."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment |= {} if given is None else {"OPENBLAS_NUM_THREADS": given}
    source = "import ase_nbody.cli, os; print(os.environ['OPENBLAS_NUM_THREADS'])"
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, env=environment)
    assert int(result.stdout) == taken


def test_version(capsys) -> None:
    result = run("--version")
    assert result.returncode == 0
    assert result.stdout == f"ase-nbody {ase_nbody.__version__}\n"
    assert ase_nbody.__version__ == metadata.version("ase-nbody")


def test_an_unknown_command_is_refused() -> None:
    result = run("modls")
    assert result.returncode == 2
    assert "No such command 'modls'" in result.stderr


def test_models(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["nbody", "models", "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    rows = json.loads(capsys.readouterr().out)
    assert list(rows) == list(shipped_models())
    for name, row in rows.items():
        members = load_members(name)
        assert row["elements"] == list(members[0].config.species)
        assert row["weights"] == sum(weight.numel() for weight in members[0].parameters())
        assert row["networks"] == len(members)
        assert row["valid_for"]
    assert "the dialdehyde OHC-CH2-CHO (not the enol)" in rows["malonaldehyde"]["system"]
    monkeypatch.setattr(sys, "argv", ["nbody", "models"])
    with pytest.raises(SystemExit, match="0"):
        main()
    printed = " ".join(capsys.readouterr().out.split())
    assert all(name in printed for name in shipped_models())


@pytest.mark.parametrize("threads", [10**6, 10**30])
def test_more_threads_than_cpus_are_refused(threads, nbody, tmp_path) -> None:
    (tmp_path / "data.extxyz").write_text("")
    code, _, err = nbody("train", tmp_path / "data.extxyz", "--threads", threads)
    assert (code, f"--threads {threads} is more than the" in " ".join(err.split())) == (1, True), err


def test_a_check_that_would_never_end_is_refused(nbody) -> None:
    code, _, err = nbody("check", "ethanol", "--steps", 10**30)
    assert (code, "less than or equal to 10000000" in " ".join(err.split())) == (2, True), err
