"""The README tells the truth: its commands are those of CI, its links lead somewhere, its example runs."""

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


def test_the_example_runs(capsys):
    if "ethanol" not in shipped_models():
        pytest.skip("the model 'ethanol' is not shipped")
    (example,) = blocks("python")
    exec(compile(example.replace("run(1000)", "run(2)"), "README.md", "exec"), {})
    assert "PartEnergies" in capsys.readouterr().out
