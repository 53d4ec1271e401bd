"""docs/paper.md names code that exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"\[`([\w.]+)`\]\(\.\./(ase_nbody/[\w/]+\.py)\)", PAGE)))


def test_the_page_names_code():
    assert len(NAMED) > 25
    assert PAGE.count("](../ase_nbody/") >= len(NAMED)
    assert PAGE.count("](../ase_nbody/") == len(re.findall(r"\[`[\w.]+`\]\(\.\./ase_nbody/", PAGE))


@pytest.mark.parametrize(("name", "file"), NAMED)
def test_every_name_is_defined_in_the_file(name, file):
    assert (ROOT / file).is_file()
    found = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part)
    assert getattr(found, "__module__", "").replace(".", "/") == file.removesuffix(".py")
