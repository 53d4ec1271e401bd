"""The same potential evaluated again, in single precision, and compiled."""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ase_nbody.checks.case import Case, deviation, evaluate
from ase_nbody.checks.finding import Finding, not_applicable
from ase_nbody.checks.symmetry import ROUND_OFF
from ase_nbody.engines.calculator import NBodyCalculator
from ase_nbody.hierarchy.build import build_hierarchy
from ase_nbody.hierarchy.tables import Hierarchy
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.potential import evaluate as evaluate_network
from ase_nbody.prediction import Prediction
from ase_nbody.runtime.compiled import CompiledWhole
from ase_nbody.runtime.runner import Runner
from ase_nbody.structure import Structure
from ase_nbody.training.compiled_step import CompiledPotential

SINGLE = 1e-4  # of the largest force


def determinism(case: Case) -> Iterator[Finding]:
    """The same history gives the same bits; another one, with other neighbour lists, agrees to round-off."""
    # Molecules that are labelled as parts must stay whole.
    farther = 0.3 if getattr(case.calculator, "is_labelled", False) else 1.0
    atoms, far, near = case.rattled(seed=0), case.rattled(farther, seed=1), case.rattled(seed=2)
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
    """The native code of ``NBodyCalculator(model, compile=True)`` against eager evaluation, in the calculator's dtype.

    Compiling takes one to three minutes, unless the code is kept from an earlier run.
    """
    yield _compiled(case, "compiled", "energies, forces and virials by native code and eagerly", blocks=False)


def compiled_blocks(case: Case) -> Iterator[Finding]:
    """The native code that the calculator uses for large systems, block by block, against eager evaluation."""
    yield _compiled(
        case, "compiled blocks", "energies, forces and virials by native code of blocks and eagerly", blocks=True
    )


def compiled_training(case: Case) -> Iterator[Finding]:
    """A training's compiled step against the eager one, for the first network. Compiling takes half a minute."""
    name, measured = "compiled training", "energies, forces and virials by a training's compiled step and eagerly"
    if not isinstance(case.calculator, NBodyCalculator):
        yield not_applicable(name, measured, _NO_NETWORK)
        return
    network = case.calculator.networks[0]
    given = _arguments(case, network)
    potential = CompiledPotential(network, virials=True, patience=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the row says so, too
        found = potential(*given)
    if potential.failure:
        yield not_applicable(name, measured, f"compiling failed: {potential.failure}")
        return
    yield _compared(name, measured, network, [(found, evaluate_network(network, *given))])


_NO_NETWORK = "not an N-body network"


def _compiled(case: Case, name: str, measured: str, *, blocks: bool) -> Finding:
    if not isinstance(case.calculator, NBodyCalculator):
        return not_applicable(name, measured, _NO_NETWORK)
    pairs = []
    for network in case.calculator.networks:
        given, runner = _arguments(case, network), Runner(network, compile=True)
        if not CompiledWhole(network).fits(given[0]):
            return not_applicable(
                name,
                measured,
                "where charges or labels are predicted or read, native code needs at least two of everything",
            )
        if blocks and given[0].is_labelled:
            return not_applicable(name, measured, "levels of labelled parts are evaluated whole")
        try:
            found = runner.compiled(*given, blocks=blocks)
        except Exception as error:  # the compiler may be missing or have a bug
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            return not_applicable(name, measured, f"compiling failed: {reason}")
        pairs.append((found, evaluate_network(network, *given)))
    return _compared(name, measured, case.calculator.networks[0], pairs)


def _arguments(case: Case, network: NBodyNetwork) -> tuple[Hierarchy, Tensor, Tensor, Tensor]:
    """What ``potential.evaluate`` takes beside the network."""
    structure, device = Structure.from_atoms(case.rattled()), network.one_hot.device
    hierarchy = build_hierarchy(structure, network.config.layout, device=device)
    positions = torch.tensor(structure.positions, device=device)
    cells = torch.tensor(structure.cell, device=device).unsqueeze(0)
    return hierarchy, positions, cells, torch.tensor([structure.charge], dtype=torch.float64, device=device)


def _compared(
    name: str, measured: str, network: NBodyNetwork, pairs: Sequence[tuple[Prediction, Prediction]]
) -> Finding:
    """The largest difference of per-atom energies and virials (eV), forces (eV/Angstrom), charges (e) and dipoles.

    Those of energies and forces are divided by the largest force, or by 1 eV/Angstrom if that is larger, and those of
    virials by the largest radius too. Dipoles are in e Angstrom.
    """
    worst = 0.0
    for found, expected in pairs:
        scale = max(1.0, float(expected.forces.detach().abs().max()))
        sizes = {"energies": scale, "forces": scale, "virials": scale * network.config.cutoff}
        for quantity, size in {**sizes, **dict.fromkeys(expected.outputs, 1.0)}.items():
            differs = float((found[quantity] - expected[quantity]).detach().abs().max()) / size
            worst = float(np.max([worst, differs]))  # unlike max, it keeps NaN
    return Finding(name, measured, worst, upper=ROUND_OFF if network.dtype == torch.float64 else SINGLE)
