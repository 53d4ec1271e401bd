"""What the tests of reading share."""

import ase.io
import pytest
from ase.build import bulk


@pytest.fixture
def copper():
    """Makes a rattled crystal of four atoms."""

    def make():
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=0)
        return atoms

    return make


@pytest.fixture
def write():
    """Writes structures as extxyz and returns the path."""

    def written(path, atoms):
        ase.io.write(path, atoms, format="extxyz")
        return path

    return written
