"""A small data set with a known potential: copper crystals and methanol molecules, labelled by ASE's EMT."""

from pathlib import Path

import ase.io
import pytest
import yaml
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

TINY = {"radius": 4.0, "channels": 4, "l_max": 2, "l_out": 1, "n_basis": 5, "n_radial": 3, "message_channels": 3}


@pytest.fixture(scope="session")
def tiny():
    """Entries of a level that is small enough to be trained in a test."""
    return TINY


def label(atoms, stress=False):
    """The same structure with EMT's energy and forces and, if ``stress`` is true, its stress."""
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    if stress:
        results["stress"] = atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture(scope="session")
def frames():
    """Crystals with stresses, and molecules of another size without stresses."""
    crystals = [bulk("Cu", cubic=True) for _ in range(16)]
    molecules = [molecule("CH3OH") for _ in range(8)]
    for seed, atoms in enumerate(crystals + molecules):
        atoms.rattle(0.08, seed=seed)
    return [label(atoms, stress=True) for atoms in crystals] + [label(atoms) for atoms in molecules]


@pytest.fixture
def configuration(tmp_path: Path, frames):
    """A function that writes the data and a configuration, and returns the path of the configuration.

    Its keywords replace entries of ``training``.
    """
    ase.io.write(tmp_path / "data.extxyz", frames)

    def write(name="config.yaml", output="run", **training):
        content = {
            "data": {"train": "data.extxyz", "validation": 4},
            "network": {"levels": [{**TINY}, {**TINY, "parts": "heavy", "l_out": 0}]},
            "training": {"epochs": 3, "batch_size": 4, "warmup": 3, "compile": False, **training},
            "report": False,
            "output": str(tmp_path / output),
        }
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content))
        return path

    return write
