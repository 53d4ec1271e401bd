"""The same potential evaluated again, in single precision, and compiled."""

import warnings
from collections.abc import Iterator

import torch

from ase_nbody.checks.case import Case, deviation, evaluate
from ase_nbody.checks.finding import Finding, not_applicable
from ase_nbody.checks.symmetry import ROUND_OFF
from ase_nbody.engines.calculator import NBodyCalculator
from ase_nbody.hierarchy.build import build_hierarchy
from ase_nbody.potential import evaluate as evaluate_network
from ase_nbody.structure import Structure
from ase_nbody.training.compiled_step import CompiledPotential

SINGLE = 1e-4  # of the largest force


def determinism(case: Case) -> Iterator[Finding]:
    """The same history gives the same bits; another history, as of neighbour lists, the same up to round-off."""
    atoms, far, near = case.rattled(seed=0), case.rattled(1.0, seed=1), case.rattled(seed=2)
    results = []
    for before in (far, far, near):
        evaluate(case.calculator, before)
        results.append(evaluate(case.calculator, atoms))
    value, _ = deviation(results[1], results[0])
    yield Finding("determinism", "evaluated twice with the same history", value, upper=0.0)
    value, where = deviation(results[2], results[0])
    yield Finding("determinism", "evaluated after another structure", value, upper=ROUND_OFF, note=where)


def single_precision(case: Case) -> Iterator[Finding]:
    """float32 against float64."""
    name, measured = "float32", "energy per atom and forces in float32 and float64"
    if case.float32 is None:
        yield not_applicable(name, measured, "no calculator in float32 was given")
        return
    atoms = case.rattled()
    value, where = deviation(evaluate(case.float32, atoms), evaluate(case.calculator, atoms))
    yield Finding(name, measured, value, upper=SINGLE, note=where)


def compiled(case: Case) -> Iterator[Finding]:
    """The compiled evaluation, as the training uses it, against the eager one. Compiling takes half a minute."""
    name, measured = "compiled", "energy and forces, compiled and eager"
    if not isinstance(case.calculator, NBodyCalculator):
        yield not_applicable(name, measured, "not an N-body network")
        return
    network = case.calculator.networks[0]
    structure = Structure.from_atoms(case.rattled())
    hierarchy = build_hierarchy(structure, network.config.layout)
    device = next(network.parameters()).device
    positions = torch.tensor(structure.positions, device=device)
    cells = torch.tensor(structure.cell, device=device).unsqueeze(0)
    arguments = (hierarchy.to(device), positions, cells)
    eager = evaluate_network(network, *arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fast = CompiledPotential(network, virials=True, patience=1)(*arguments)
    failures = [str(warning.message) for warning in caught if "compiling failed" in str(warning.message)]
    if failures:
        yield not_applicable(name, measured, failures[0])
        return
    scale = max(1.0, float(eager.forces.abs().max()))
    energy, forces = ((getattr(fast, of) - getattr(eager, of)).detach().abs().max() for of in ("energy", "forces"))
    value = max(float(energy) / len(structure), float(forces)) / scale
    yield Finding(name, measured, value, upper=ROUND_OFF if network.dtype == torch.float64 else SINGLE)
