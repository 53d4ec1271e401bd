"""A network of copper that binds crystals, surfaces and clusters, for optimisers, molecular dynamics and phonons."""

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, fcc100
from ase.calculators.emt import EMT

from ase_nbody import LevelConfig, NBodyCalculator, NBodyConfig, NBodyNetwork
from ase_nbody.hierarchy.build import build_hierarchy
from ase_nbody.hierarchy.tables import concatenate
from ase_nbody.potential import evaluate
from ase_nbody.structure import Structure

TETRAHEDRON = 1.7 * np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]])


@pytest.fixture(scope="session")
def copper_network() -> NBodyNetwork:
    """A random network whose read-outs are fitted to ASE's EMT, in three seconds.

    The energy is linear in the last weights of the read-outs, so least squares solves for them.
    """
    torch.manual_seed(0)
    size = {"channels": 16, "hidden": 16, "l_max": 2, "l_out": 1, "body_order": 3, "n_radial": 4, "message_channels": 4}
    level = LevelConfig(radius=4.5, n_basis=6, product_decay=1.0, radial_decay=1.0, **size)
    config = NBodyConfig(species=("Cu",), levels=(level, level), isolated_atom_energies={"Cu": 3.51}, repulsion=True)
    network = NBodyNetwork(config).requires_grad_(False)
    residual = fit_read_outs(network, copper_structures())
    assert residual < 0.5  # eV/Angstrom, of forces up to 30
    return network


@pytest.fixture
def copper(copper_network: NBodyNetwork) -> NBodyCalculator:
    return NBodyCalculator(copper_network)


@pytest.fixture
def crystal(copper: NBodyCalculator) -> ase.Atoms:
    """Eight atoms of fcc copper, in a cell smaller than the reach of the network."""
    atoms = bulk("Cu", a=3.58) * 2
    atoms.calc = copper
    return atoms


@pytest.fixture
def tetrahedron(copper: NBodyCalculator) -> ase.Atoms:
    """A molecule of four atoms, a little distorted."""
    atoms = ase.Atoms("Cu4", TETRAHEDRON)
    atoms.rattle(0.05, seed=0)
    atoms.calc = copper
    return atoms


def copper_structures() -> list[ase.Atoms]:
    """Crystals at 0.9 to 1.2 times the lattice constant, hot crystals, dimers, clusters, adatoms on hot surfaces."""
    rng = np.random.default_rng(1)
    crystals = [bulk("Cu", a=3.6 * scale) for scale in np.linspace(0.9, 1.2, 13)]
    dimers = [ase.Atoms("Cu2", [[0, 0, 0], [0, 0, distance]]) for distance in np.linspace(1.8, 4.5, 14)]
    hot = [bulk("Cu", a=3.6 * scale) * 2 for scale in np.repeat(np.linspace(0.93, 1.08, 5), 3)]
    for atoms, amplitude in zip(hot, 5 * (0.05, 0.12, 0.25), strict=True):
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(scale=0.03, size=(3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(scale=amplitude, size=atoms.positions.shape)
    clusters = [ase.Atoms("Cu4", scale * TETRAHEDRON) for scale in np.linspace(0.85, 1.4, 12)]
    surfaces = [fcc100("Cu", (2, 2, 2), vacuum=6.0) for _ in range(6)]
    for atoms in surfaces:
        x, y = rng.uniform(0.0, 2.55, 2)
        atoms.append(ase.Atom("Cu", (x, y, atoms.positions[:, 2].max() + rng.uniform(1.7, 2.4))))
    for atoms in clusters + surfaces:
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    return crystals + dimers + hot + clusters + surfaces


def fit_read_outs(network: NBodyNetwork, structures: list[ase.Atoms]) -> float:
    """Fit all read-out weights to EMT's energies and forces by ridge regression; return the RMSE of the forces."""
    emt = EMT()
    energies = [emt.get_potential_energy(atoms) for atoms in structures]
    forces = [emt.get_forces(atoms).ravel() for atoms in structures]
    weight = np.concatenate([[3.0 / len(atoms) for atoms in structures], np.ones(sum(map(len, forces)))])
    batch = [Structure.from_atoms(atoms) for atoms in structures]
    config = network.config
    hierarchy = concatenate([build_hierarchy(s, config.layout) for s in batch])
    positions = torch.tensor(np.concatenate([structure.positions for structure in batch]))
    cells = torch.tensor(np.stack([structure.cell for structure in batch]))

    def predict() -> np.ndarray:
        prediction = evaluate(network, hierarchy, positions, cells)
        return weight * np.concatenate([prediction.energy.numpy(), prediction.forces.numpy().ravel()])

    weights = [table[0] for level in network.levels for table in (level.read_out.linear, level.read_out.output)]
    for vector in weights:
        vector.zero_()
    rest = predict()
    target = weight * np.concatenate([energies, *forces]) - rest
    columns = []
    for vector in weights:
        for index in range(len(vector)):
            vector[index] = 1.0
            columns.append(predict() - rest)
            vector[index] = 0.0
    design = np.stack(columns, axis=1)
    scale = design.std(axis=0)
    ridge = 1e-3 * np.sqrt(len(design)) * np.eye(len(scale))
    solution = np.linalg.lstsq(np.vstack([design / scale, ridge]), np.append(target, np.zeros(len(scale))))[0] / scale
    for vector, fitted in zip(weights, np.split(solution, len(weights)), strict=True):
        vector.copy_(torch.from_numpy(fitted))
    return float(np.sqrt(np.mean((design @ solution - target)[len(batch) :] ** 2)))
