"""README and pages tell the truth: commands are those of CI, links lead somewhere, installations work, examples run."""

import configparser
import re
from pathlib import Path

import pytest

from ase_nbody.files.archive import shipped_models

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = [block.strip() for block in blocks("bash") if "pytest" in block]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("page", ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_no_page_installs_the_package_by_its_name():
    """It is not on PyPI, so ``pip install ase-nbody`` finds nothing: pages name the clone or a wheel."""
    pages = [page for where in ("*.md", "docs/*.md", "examples/*/*.md") for page in ROOT.glob(where)]
    commands = [command for page in pages for command in re.findall(r"pip install ([^\n`#&]*)", page.read_text())]
    assert len(commands) > 10
    by_name = re.compile(r"(^|[\s\"'])ase-nbody(\[[^]]*\])?(?! @ )(?=[\s\"']|$)")
    assert [command for command in commands if by_name.search(command)] == []


def test_every_extra_is_on_the_page_of_the_installation():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    page = (ROOT / "docs" / "installation.md").read_text()
    assert [name for name in setup["options.extras_require"] if f"| `{name}` |" not in page] == []


def test_the_example_runs(capsys):
    if "ethanol" not in shipped_models():
        pytest.skip("the model 'ethanol' is not shipped")
    (example,) = blocks("python")
    exec(compile(example.replace("run(1000)", "run(2)"), "README.md", "exec"), {})
    assert "PartEnergies" in capsys.readouterr().out
