"""Build the documentation as a site of HTML pages.

    python docs/build.py [--output site]

The pages are the Markdown files of the repository itself, in the places that they have there. So every link between
them works on the site as it does in the repository. Tutorials are the scripts in ``examples/tutorials``, whose comments
become text. Reference pages are made from docstrings. A warning of MkDocs, such as a link that leads nowhere, is an
error.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("*.md", "docs/**/*.md", "docs/**/*.png", "docs/**/*.csv", "docs/**/*.css", "models/*.md", "examples/**/*.md")
LINKED = (
    "LICENSE",
    "ase_nbody/**/*.py",
    *(f"{room}/**/*{kind}" for room in ("examples", "benchmarks") for kind in (".md", ".py", ".yaml", ".xml")),
)


def collect(pages: Path) -> None:
    """Copy everything that is shown or linked to the folder ``pages``, and turn tutorials into pages."""
    for pattern in (*SHOWN, *LINKED):
        for source in ROOT.glob(pattern):
            target = pages / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for script in sorted((ROOT / "examples" / "tutorials").glob("[0-9]*.py")):
        (pages / script.relative_to(ROOT)).with_suffix(".md").write_text(page_of(script.read_text()))


def page_of(script: str) -> str:
    """A script as Markdown: its docstring and the comments that follow a line ``# %%`` are text, all else is code.

    A line ``# %%`` ends the text or the code before it.
    """
    docstring = re.match(r'"""(.*?)"""\n', script, flags=re.DOTALL)
    if docstring is None:
        raise ValueError("a tutorial begins with a docstring, which is the beginning of its page")
    blocks = [docstring.group(1).strip()]
    for cell in script[docstring.end() :].split("\n# %%\n"):
        lines = cell.strip("\n").splitlines()
        n_text = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:n_text])
        code = "\n".join(lines[n_text:]).strip("\n")
        blocks += [part for part in (text, f"```python\n{code}\n```" if code else "") if part]
    return "\n\n".join(blocks) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "site", help="folder of the site (default: site)")
    output = parser.parse_args().output.resolve()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        collect(here / "pages")
        settings = (ROOT / "docs" / "mkdocs.yml").read_text()
        (here / "mkdocs.yml").write_text(settings.replace("[ROOT]", f"[{json.dumps(str(ROOT))}]"))
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(output)]
        raise SystemExit(subprocess.run(command, cwd=here, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode)


if __name__ == "__main__":
    main()
