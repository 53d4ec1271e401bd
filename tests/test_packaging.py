"""A wheel holds everything that the repository does: tests run in the repository and would not miss what it lacks."""

import configparser
from pathlib import Path

import yaml

import ase_nbody

ROOT = Path(__file__).resolve().parents[1]


def setup() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def test_every_folder_with_code_is_a_package_of_the_wheel():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "ase_nbody").rglob("*.py")}
    expected = {".".join(folder.parts) for folder in folders} | {"ase_nbody.models"}
    assert set(setup()["options"]["packages"].split()) == expected


def test_every_other_file_is_data_of_a_package():
    patterns = setup()["options.package_data"]
    packed = {
        path
        for package in patterns
        for pattern in patterns[package].split(",")
        for path in ROOT.joinpath(*package.split(".")).glob(pattern.strip())
    }
    other = {
        path for path in (ROOT / "ase_nbody").rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert other  # presets, for instance
    assert other <= packed


def test_the_citation_has_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == ase_nbody.__version__ == setup()["metadata"]["version"]
