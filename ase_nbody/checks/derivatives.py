"""Derivatives: compare forces, stress and per-atom stresses with finite differences of the energy."""

from collections.abc import Iterator

import ase
import numpy as np

from ase_nbody.checks.case import Array, Case, evaluate
from ase_nbody.checks.finding import Finding, not_applicable
from ase_nbody.checks.symmetry import ROUND_OFF
from ase_nbody.testing import derivative, energy_along, energy_strained

DIFFERENCES = 1e-6  # relative error that differences of fourth order reach
STEP_ANGSTROM, STRAIN_STEP = 1e-3, 1e-4
MAX_COMPONENTS = 30  # components of the forces that are tested one by one
VACUUM_ANGSTROM = 10.0  # on each side of a cluster in a box


def forces(case: Case) -> Iterator[Finding]:
    """F = -dE/dx, tested for up to 30 random components, and along a displacement of all atoms at once."""
    atoms = _rattled(case)
    given = evaluate(case.calculator, atoms).forces
    rng = np.random.default_rng(0)
    chosen = rng.choice(given.size, size=min(MAX_COMPONENTS, given.size), replace=False)
    directions = [np.eye(1, given.size, component).reshape(given.shape) for component in chosen]
    directions.append(rng.choice([-1.0, 1.0], size=given.shape) / np.sqrt(given.size))
    errors = [
        abs((given * direction).sum() + derivative(energy_along(atoms, direction), STEP_ANGSTROM))
        for direction in directions
    ]
    value = np.max(errors) / max(1.0, np.abs(given).max())  # unlike max, it keeps NaN
    note = f"{len(directions)} directions"
    yield Finding("forces", "differences of the energy", value, upper=DIFFERENCES, note=note)


def stress(case: Case) -> Iterator[Finding]:
    """Stress = dE/d(strain) / V, tested for six strains.

    Errors are those of the virial per atom in eV, divided by its largest component or by 1 eV if that is larger.
    """
    measured = "differences of the energy, all six strains"
    virial = evaluate(case.calculator, case.atoms).virial
    if virial is None:
        yield not_applicable("stress", measured, _no_stress(case, "stress"))
        return
    atoms = _rattled(case)
    given = evaluate(case.calculator, atoms).virial
    assert given is not None  # the structure had a virial before it was rattled
    errors = []
    for row, column in zip(*np.triu_indices(3), strict=True):
        strain = np.zeros((3, 3))
        strain[row, column] = 1.0
        slope = derivative(energy_strained(atoms, strain), STRAIN_STEP) / len(atoms)
        errors.append(abs(slope - given[row, column]))
    yield Finding("stress", measured, np.max(errors) / max(1.0, np.abs(given).max()), upper=DIFFERENCES)


def stresses(case: Case) -> Iterator[Finding]:
    """Per-atom stresses sum to the stress, and each of them is the response to the strain at its atom.

    To test the second, a cluster in a box with vacuum on all sides is bent instead of strained evenly. Its atoms move
    by u_a = C_abc x_b x_c / 2 with C symmetric, so the strain at x is e_ab = C_abc x_c. A pair vector r_ij then becomes
    (1 + (e_i + e_j) / 2) r_ij exactly. Hence dE = sum_i W_i : e_i if each W_i holds half of the virial of its pairs.
    """
    whole = "their sum and the stress, as virial per atom"
    bent = "differences of the energy of a bent cluster"
    given = evaluate(case.calculator, case.atoms)
    cluster = case.rattled()
    cluster.pbc = False
    cluster.center(vacuum=VACUUM_ANGSTROM)
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
    value = np.max([_bent(cluster, virials, seed) for seed in range(3)])
    scale = max(1.0, np.abs(virials).max())
    yield Finding("stresses", bent, value / scale, upper=DIFFERENCES)


def _bent(cluster: ase.Atoms, virials: Array, seed: int) -> float:
    """Error in eV of the energy's response to a random bend, whose largest strain is 1 per unit of the step."""
    tensor = np.random.default_rng(seed).normal(size=(3, 3, 3))
    tensor = tensor + np.transpose(tensor, (1, 2, 0)) + np.transpose(tensor, (2, 0, 1))
    tensor = tensor + np.transpose(tensor, (1, 0, 2))  # now symmetric under all six permutations
    centred = cluster.positions
    strains = np.einsum("abc,ic->iab", tensor, centred)
    size = max(np.abs(strains).max(), 1e-12)
    displacement = 0.5 * np.einsum("abc,ib,ic->ia", tensor, centred, centred) / size
    expected = np.einsum("iab,iab->", virials, strains) / size
    return abs(derivative(energy_along(cluster, displacement), STEP_ANGSTROM) - expected)


def _rattled(case: Case) -> ase.Atoms:
    atoms = case.rattled()
    atoms.calc = case.calculator
    return atoms


def _no_stress(case: Case, name: str) -> str:
    if name not in case.calculator.implemented_properties:
        return f"the calculator gives no {name}"
    return "not periodic in all three directions"
