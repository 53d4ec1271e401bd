"""What an evaluation says, under the names and with the errors of ASE."""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
)
from ase.stress import full_3x3_to_voigt_6_stress

from ase_nbody.electrons import MULTIPLICITIES, OTHER_CHARGES, SPINS, UNPAIRED, other_charge
from ase_nbody.network.outputs import OUTPUTS, Output
from ase_nbody.runtime.evaluation import Evaluation, EvaluationError
from ase_nbody.runtime.evaluator import Evaluator
from ase_nbody.structure import Structure, StructureError, labels_of

_ELECTRONS = ("charge", *OTHER_CHARGES, *SPINS, *MULTIPLICITIES, *UNPAIRED)
SPREADS = ("energy_spread", "forces_spread")  # standard deviations over a committee, in eV and eV/Angstrom


def results_of(evaluation: Evaluation, outputs: Sequence[Output] = ()) -> dict[str, Any]:
    """The results of an evaluated structure under ASE's names, with further ``outputs``; for a committee the mean.

    As in ASE's own potentials, whether there is a stress depends on the cell and not on pbc:

        stress = dE/d(strain) / volume ,

    where the strain deforms cell and atoms together. A slab with vacuum has the volume of its cell, vacuum included.
    """
    structure = evaluation.structure
    energy, energies, forces = (evaluation.mean(name) for name in ("energy", "energies", "forces"))
    results = {"energy": float(energy), "free_energy": float(energy), "energies": energies, "forces": forces}
    if structure.has_volume:
        stresses = evaluation.mean("virials") / structure.volume
        results["stresses"] = full_3x3_to_voigt_6_stress(stresses)
        results["stress"] = full_3x3_to_voigt_6_stress(stresses.sum(axis=0))
    for output in outputs:
        if not (output.molecular and structure.pbc.any()):
            results[output.name] = evaluation.mean(output.name)
    return results


def spreads_of(evaluation: Evaluation) -> dict[str, Any]:
    """The spreads of a committee, by name; empty for a single network."""
    if len(evaluation.predictions) == 1:
        return {}
    energy, forces = evaluation.spread("energy"), evaluation.spread("forces")
    return dict(zip(SPREADS, (float(energy), forces), strict=True))


def attach_spreads(atoms: ase.Atoms, spreads: dict[str, Any]) -> None:
    """Put spreads where trajectories and extended XYZ files take them from: ``atoms.info`` and ``atoms.arrays``."""
    if spreads:
        atoms.info["energy_spread"] = spreads["energy_spread"]
        atoms.arrays["forces_spread"] = spreads["forces_spread"].copy()


def with_own_electrons(atoms: ase.Atoms) -> ase.Atoms:
    """The atoms, once their entries of total charge and spin are copies: ASE's copies of atoms share arrays in them.

    An array that is changed in place would otherwise look unchanged to ``changed_charge``.
    """
    arrays = {name: atoms.info[name] for name in _ELECTRONS if isinstance(atoms.info.get(name), np.ndarray | list)}
    atoms.info.update(copy.deepcopy(arrays))
    return atoms


def changed_charge(
    calculator: Calculator, atoms: ase.Atoms, evaluator: Evaluator, *, watched: bool = False
) -> list[str]:
    """``["charge"]`` if the total charge has changed and is ``watched``, or the model gives charges.

    For a model that learnt certain charges or spins alone, the entries of ``atoms.info`` for either count.
    """
    before = calculator.atoms
    if before is None or not (evaluator.knows_states or watched or "charges" in calculator.implemented_properties):
        return []
    names = _ELECTRONS if evaluator.knows_states else ("charge",)
    # Whatever stands there. A missing entry is no 0: no unpaired electron makes a singlet of a radical.
    same = (np.array_equal(before.info.get(name), atoms.info.get(name)) for name in names)
    return [] if all(same) else ["charge"]


def changed_labels(calculator: Calculator, atoms: ase.Atoms) -> list[str]:
    """``["parts"]`` if the labels of the atoms have changed and the calculator's model has levels of labelled parts."""
    before = calculator.atoms
    if before is None or not getattr(calculator, "is_labelled", False):
        return []
    old, new = labels_of(before), labels_of(atoms)
    same = old is new is None or (old is not None and new is not None and np.array_equal(old, new))
    return [] if same else ["parts"]


@contextlib.contextmanager
def explained_lack(name: str, calculator: Calculator, atoms: ase.Atoms | None) -> Iterator[None]:
    """Let ASE's error for a property that there is not say why, and what would have it.

    Args:
        name: of the property, as ASE spells it.
        calculator: which was asked for it.
        atoms: the structure, or None for that of the last calculation.
    """
    try:
        yield
    except PropertyNotImplementedError as error:
        reason = _reason_of_lack(name, calculator.implemented_properties, atoms or calculator.atoms)
        raise PropertyNotImplementedError(f"{name}: {reason}") from error


def _reason_of_lack(name: str, given: Sequence[str], atoms: ase.Atoms | None) -> str:
    for entry, outputs in OUTPUTS.items():
        if name in (output.name for output in outputs) and name not in given:
            return (
                f"this model does not predict it. Only models that were trained with network.outputs: [{entry}] do; "
                "a committee does if all its members do."
            )
    if name not in given:
        return f"this calculator does not have it. It has {', '.join(given)}."
    if name in ("stress", "stresses"):
        return (
            "only a cell with a volume has it, and these atoms lack three independent lattice vectors: see atoms.cell."
        )
    if atoms is not None and atoms.pbc.any():
        return f"only structures without periodic directions have it, and atoms.pbc is {atoms.pbc.tolist()}."
    return "it is not among the results of the calculation."


@contextlib.contextmanager
def as_ase_errors() -> Iterator[None]:
    """Turn errors of the structure and of the evaluation into ASE's errors."""
    try:
        yield
    except StructureError as error:
        raise CalculatorSetupError(str(error)) from error
    except EvaluationError as error:
        raise CalculationFailed(str(error)) from error


def structure_of(atoms: ase.Atoms, evaluator: Evaluator) -> Structure:
    """The structure of the atoms.

    Raises:
        StructureError: it cannot be evaluated; or its total charge stands where only other calculators look for it, and
            the evaluator's model learnt certain charges or spins alone.
    """
    charges = atoms.get_initial_charges() if atoms.has("initial_charges") else None
    if evaluator.knows_states and (found := other_charge(atoms.info, charges)) is not None:
        raise StructureError(
            f"{found[0]} say that the total charge is {found[1]:+g} e, but this calculator reads it from "
            "atoms.info['charge'] alone. Set that to the total charge, 0 for a neutral structure."
        )
    return Structure.from_atoms(atoms)


def structures_of(several: Iterable[ase.Atoms], evaluator: Evaluator) -> list[Structure]:
    """The structures of the atoms. If one cannot be evaluated, the error gives its number.

    Raises:
        StructureError: one of them is not, or cannot be evaluated; or there is no list, but one structure.
    """
    if isinstance(several, ase.Atoms) or not isinstance(several, Iterable):
        raise StructureError(
            f"many structures are a list of ase.Atoms, got {type(several).__name__}. For one structure give [atoms]."
        )
    structures = []
    for number, one in enumerate(several):
        if not isinstance(one, ase.Atoms):
            raise StructureError(f"structure {number} is of type {type(one).__name__}, but must be ase.Atoms")
        try:
            structures.append(structure_of(one, evaluator))
        except StructureError as error:
            raise StructureError(f"structure {number}: {error}") from error
    return structures
