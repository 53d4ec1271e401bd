"""Derivatives: forces, stress and per-atom stresses against differences of the energy."""

from collections.abc import Iterator

import ase
import numpy as np

from ase_nbody.checks.case import Array, Case, evaluate
from ase_nbody.checks.finding import Finding, not_applicable
from ase_nbody.checks.symmetry import ROUND_OFF
from ase_nbody.testing import derivative, energy_along, energy_strained

DIFFERENCES = 1e-6  # what differences of fourth order reach
STEP, STRAIN = 1e-3, 1e-4  # Angstrom and 1
MOST = 30  # components of the forces that are tested one by one
VACUUM = 10.0  # Angstrom on each side of a cluster in a box


def forces(case: Case) -> Iterator[Finding]:
    """F = -dE/dx, for up to 30 components drawn at random, and along a displacement of all atoms at once."""
    atoms = _ready(case)
    given = evaluate(case.calculator, atoms).forces
    rng = np.random.default_rng(0)
    chosen = rng.choice(given.size, size=min(MOST, given.size), replace=False)
    ways = [np.eye(1, given.size, component).reshape(given.shape) for component in chosen]
    ways.append(rng.choice([-1.0, 1.0], size=given.shape) / np.sqrt(given.size))
    errors = [abs((given * way).sum() + derivative(energy_along(atoms, way), STEP)) for way in ways]
    value = max(errors) / max(1.0, np.abs(given).max())
    yield Finding("forces", "differences of the energy", value, upper=DIFFERENCES, note=f"{len(ways)} directions")


def stress(case: Case) -> Iterator[Finding]:
    """Stress = dE/d(strain) / V, for six strains; measured as virials per atom in eV, by the largest or 1 eV."""
    measured = "differences of the energy, all six strains"
    virial = evaluate(case.calculator, case.atoms).virial
    if virial is None:
        yield not_applicable("stress", measured, _no_stress(case, "stress"))
        return
    atoms = _ready(case)
    given = evaluate(case.calculator, atoms).virial
    assert given is not None  # as above
    errors = []
    for row, column in zip(*np.triu_indices(3), strict=True):
        strain = np.zeros((3, 3))
        strain[row, column] = 1.0
        errors.append(abs(derivative(energy_strained(atoms, strain), STRAIN) / len(atoms) - given[row, column]))
    yield Finding("stress", measured, max(errors) / max(1.0, np.abs(given).max()), upper=DIFFERENCES)


def stresses(case: Case) -> Iterator[Finding]:
    """Per-atom stresses: their sum is the stress, and each is the response to the strain at its atom.

    A cluster in a box with vacuum all round is bent, not strained evenly: its atoms move by u_a = C_abc x_b x_c / 2
    with C symmetric, which makes the strain e_ab = C_abc x_c. A pair vector r_ij then becomes
    (1 + (e_i + e_j) / 2) r_ij exactly, so that dE = sum_i W_i : e_i if each W_i has half the virial of its pairs.
    """
    whole = "their sum and the stress, as virial per atom"
    bent = "differences of the energy of a bent cluster"
    given = evaluate(case.calculator, case.atoms)
    cluster = case.rattled()
    cluster.pbc = False
    cluster.center(vacuum=VACUUM)
    cluster.positions -= cluster.cell.array.sum(axis=0) / 2
    cluster.pbc, cluster.calc = True, case.calculator
    virials = evaluate(case.calculator, cluster).virials
    if virials is None:
        reason = _no_stress(case, "stresses")
        yield not_applicable("stresses", whole, reason)
        yield not_applicable("stresses", bent, reason)
        return
    if given.virial is None or given.virials is None:
        given = evaluate(case.calculator, cluster)
    assert given.virial is not None  # a cell periodic in three directions has a stress
    assert given.virials is not None
    scale = max(1.0, np.abs(given.virials).max())
    value = np.abs(given.virials.sum(axis=0) / len(given.virials) - given.virial).max() / scale
    yield Finding("stresses", whole, value, upper=ROUND_OFF)
    value, scale = max(_bent(cluster, virials, seed) for seed in range(3)), max(1.0, np.abs(virials).max())
    yield Finding("stresses", bent, value / scale, upper=DIFFERENCES)


def _bent(cluster: ase.Atoms, virials: Array, seed: int) -> float:
    """Deviation in eV of the energy's response to a bend of at most 1 (times the step)."""
    tensor = np.random.default_rng(seed).normal(size=(3, 3, 3))
    tensor = tensor + np.transpose(tensor, (1, 2, 0)) + np.transpose(tensor, (2, 0, 1))
    tensor = tensor + np.transpose(tensor, (1, 0, 2))  # now symmetric under all six permutations
    centred = cluster.positions
    strains = np.einsum("abc,ic->iab", tensor, centred)
    size = max(np.abs(strains).max(), 1e-12)
    way = 0.5 * np.einsum("abc,ib,ic->ia", tensor, centred, centred) / size
    expected = np.einsum("iab,iab->", virials, strains) / size
    return abs(derivative(energy_along(cluster, way), STEP) - expected)


def _ready(case: Case) -> ase.Atoms:
    atoms = case.rattled()
    atoms.calc = case.calculator
    return atoms


def _no_stress(case: Case, name: str) -> str:
    if name not in case.calculator.implemented_properties:
        return f"the calculator gives no {name}"
    return "not periodic in all three directions"
