"""Fixtures for the three ways in: calculator, reader and command line."""

from collections.abc import Callable
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from ase_nbody import save_model


@pytest.fixture
def refused(nbody) -> Callable[..., str]:
    """Run ``nbody``, which must fail with exit code 1 and one line, and return that line."""

    def run(*arguments: object) -> str:
        code, out, err = nbody(*arguments)
        assert code == 1
        assert "Traceback" not in out + err
        assert len(err.strip().splitlines()) == 1
        assert err.startswith("error: ")
        return err

    return run


@pytest.fixture(scope="session")
def model(network, tmp_path_factory) -> Path:
    return save_model(network, tmp_path_factory.mktemp("model") / "model.nbody")


@pytest.fixture
def labelled(tmp_path) -> Callable[..., Path]:
    """Write structures with arbitrary labels to a file."""

    def write(*frames: ase.Atoms) -> Path:
        for atoms in frames:
            atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.full((len(atoms), 3), 0.1))
        ase.io.write(tmp_path / "data.traj", frames)
        return tmp_path / "data.traj"

    return write
