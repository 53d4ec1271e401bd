"""Make an environment for each peer, with the versions of torch and ASE that our own environment has."""

import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

PACKAGES = {
    "mace": ["mace-torch==0.3.16"],
    "nequip": ["nequip==0.19.1"],
    "torchmd-net": ["torchmd-net==3.1.0"],
    "nep": ["neppo==1.0", "calorine==4.1"],
    "ace": ["ace-jax==0.4.1", "jax==0.10.2", "matscipy-neighbours==1.0.0"],
}
WITHOUT_TORCH = {"ace"}


def build(folder: Path, names: Iterable[str]) -> dict[str, Path | str]:
    """The interpreter of each environment, or the reason why there is none. Missing ones are made in the folder."""
    return {name: folder / name / "bin" / "python" if ready(name, folder) else install(name, folder) for name in names}


def ready(name: str, folder: Path) -> bool:
    """Whether the environment has its packages, which are installed last."""
    wanted = dict(package.split("==") for package in PACKAGES[name])
    question = f"from importlib.metadata import version; assert all(version(a) == b for a, b in {wanted}.items())"
    python = folder / name / "bin" / "python"
    return python.is_file() and subprocess.run([python, "-c", question], capture_output=True).returncode == 0


def install(name: str, folder: Path) -> Path | str:
    """Make the environment, and return its interpreter, or the reason why it cannot be made."""
    print(f"Installing {', '.join(PACKAGES[name])} in {folder / name}", flush=True)
    python = folder / name / "bin" / "python"
    torch = [] if name in WITHOUT_TORCH else [f"torch=={version('torch').partition('+')[0]}"]
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", str(folder / name)],
        *([*pip, package] for package in torch),  # first, because other packages are built with it
        [*pip, *PACKAGES[name], *torch, f"ase=={version('ase')}"],
    ):
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            return "cannot be installed: " + (done.stderr.strip() or "no reason given").splitlines()[-1]
    return python
