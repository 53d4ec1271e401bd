"""Engines that are missing or too old are refused by name, before anything of them is imported."""

import importlib
import subprocess
import sys
from importlib import metadata, util

import pytest

ENGINES = {  # our module: package, module, a version that is too old
    "torchsim": ("torch-sim-atomistic", "torch_sim", "0.5.2"),
    "openmm": ("openmm", "openmm", "8.5.1"),
    "ipi_driver": ("ipi", "ipi", "3.2.0"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("installed", [True, False])
def test_they_are_refused(engine: str, installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    package, module, version = ENGINES[engine]

    def found(name: str) -> str:
        if name != package or not installed:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", found)
    name = f"ase_nbody.engines.{engine}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    said = f"{package} {version} is installed" if installed else f"needs {package}, which is not installed"
    with pytest.raises(ImportError, match=rf"{said}.*pip install \"{package}>=") as error:
        importlib.import_module(name)
    assert error.value.name == module


@pytest.mark.skipif(util.find_spec("openmmml") is None, reason='needs OpenMM-ML: pip install ".[openmm]"')
def test_openmm_ml_finds_the_potential_without_loading_torch() -> None:
    source = (
        "import sys, openmmml; assert 'nbody' in openmmml.MLPotential._implFactories; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
