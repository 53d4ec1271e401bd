"""``ase_nbody.training`` offers its public names, and only those that train need lightning."""

import subprocess
import sys

import pytest

import ase_nbody.training

# ``sys.modules[name] = None`` makes every import of that module fail as if it were not installed.
HIDE_LIGHTNING = "import sys; sys.modules['lightning'] = None\n"
WITHOUT_LIGHTNING = ("ConfigError", "TrainingConfig", "errors_table", "evaluate_model", "predict", "unit_of")
WITH_LIGHTNING = ("CheckpointError", "TrainingDiverged", "train", "train_committee", "train_in_stages")


def python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ase_nbody.training.__all__)
def test_every_public_name_can_be_imported_and_is_listed(name):
    assert getattr(ase_nbody.training, name).__name__ == name
    assert name in dir(ase_nbody.training)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'ase_nbody\.training' has no attribute 'trian'"):
        _ = ase_nbody.training.trian


def test_importing_the_folder_loads_none_of_its_modules():
    script = "import sys, ase_nbody.training as t; print([m for m in sys.modules if m.startswith(t.__name__ + '.')])"
    result = python(script)
    assert result.stdout.strip() == "[]", result.stderr


def test_evaluation_needs_no_lightning():
    names = ", ".join(WITHOUT_LIGHTNING)
    result = python(HIDE_LIGHTNING + f"from ase_nbody.training import {names}")
    assert result.returncode == 0, result.stderr


def test_the_command_evaluate_needs_no_lightning(configuration, network, tmp_path):
    from ase_nbody import save_model

    configuration()  # writes data.extxyz
    model = save_model(network, tmp_path / "model.nbody")
    script = HIDE_LIGHTNING + "from ase_nbody.cli import main; main()"
    result = python(script, "evaluate", model, tmp_path / "data.extxyz", "--index", ":2", "--json")
    assert result.returncode == 0, result.stderr
    assert '"forces"' in result.stdout


def test_a_missing_lightning_is_reported_with_the_command_that_installs_it():
    script = """
import ase_nbody.training
for name in sys.argv[1:]:
    try:
        getattr(ase_nbody.training, name)
    except ModuleNotFoundError as error:
        print(error)
"""
    result = python(HIDE_LIGHTNING + script, *WITH_LIGHTNING)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "training needs lightning, which is not installed: pip install lightning tensorboard matplotlib"
    ] * len(WITH_LIGHTNING)


def test_the_command_train_names_the_missing_package_in_one_line(configuration):
    result = python(HIDE_LIGHTNING + "from ase_nbody.cli import main; main()", "train", configuration())
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "error: training needs lightning, which is not installed: pip install" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
