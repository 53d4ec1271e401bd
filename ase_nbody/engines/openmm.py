"""The potential ``"nbody"`` of OpenMM-ML: an ``Evaluator`` behind a ``PythonForce`` of OpenMM.

>>> potential = MLPotential("nbody", modelPath="ethanol")  # doctest: +SKIP
>>> system = potential.createSystem(topology)  # doctest: +SKIP
>>> mixed = potential.createMixedSystem(topology, mm_system, atoms)  # doctest: +SKIP
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from ase import units
from numpy.typing import NDArray

from ase_nbody.electrons import one_number
from ase_nbody.engines.models import Model, evaluator_for
from ase_nbody.engines.versions import require_version
from ase_nbody.runtime.evaluator import Evaluator
from ase_nbody.structure import Structure
from ase_nbody.text import printable

require_version("openmm", "8.6", module="openmm", extra="openmm")

import openmm  # noqa: E402
from openmm import app  # noqa: E402
from openmm.unit import angstrom  # noqa: E402
from openmmml.mlpotential import MLPotentialImpl  # noqa: E402

EV_IN_KJ_PER_MOL = units.mol / units.kJ  # 96.485
EV_PER_ANGSTROM_IN_KJ_PER_MOL_NM = 10.0 * EV_IN_KJ_PER_MOL
DTYPES = {"single": "float32", "double": "float64"}
# Options of OpenMM-ML's mechanical embedding, which it hands on to the potential.
OF_EMBEDDING = {"linkAtomDistances"}


class NBodyPotentialImpl(MLPotentialImpl):
    """What stands behind ``MLPotential("nbody", modelPath=...)``.

    Args:
        modelPath: name of a shipped model, path of a model file, an ``NBodyNetwork``, or a list of these. A committee
            gives the mean of its members.
        head: which head to take of a model that has several theories; default: the model's own.

    Raises:
        FileNotFoundError, ModelFileError: the model cannot be read (see ``load_members``).
        ValueError: ``modelPath`` is missing or no model, or there is an argument that is not known.
    """

    def __init__(
        self, modelPath: Model | Sequence[Model] | None = None, head: str | None = None, **unknown: Any
    ) -> None:
        if modelPath is None:
            raise ValueError(
                'no model is given: write MLPotential("nbody", modelPath="ethanol"), with a name or a file'
            )
        _refuse_unknown(unknown, "MLPotential", ("modelPath", "head"))
        self.networks = evaluator_for(modelPath, head).networks

    def addForces(
        self,
        topology: app.Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        precision: str = "double",
        device: str = "cpu",
        charge: float = 0.0,
        multiplicity: int | None = None,
        compile: bool = False,
        threads: int | None = None,
        skin: float = 0.5,
        **others: Any,
    ) -> None:
        """Add the force to a system (OpenMM-ML's interface). ``createSystem`` and ``createMixedSystem`` call it.

        The model sees a periodic system in three directions if the topology or the system has a periodic box. If it has
        levels of labelled parts, the residues of the topology are these parts.

        Args:
            topology: has the elements of all atoms.
            system: gets a ``PythonForce``.
            atoms: the atoms that the model describes; None: all.
            forceGroup: the group of the force.
            precision: ``"double"`` or ``"single"``: with which precision the model is evaluated.
            device: see ``Evaluator``, as are ``compile``, ``threads`` and ``skin``.
            charge: total charge in e of the atoms that the model describes.
            multiplicity: their spin multiplicity 2S + 1, for models that learnt certain ones alone; None: the lowest.
            compile: evaluate with native code.
            threads: CPU threads of an evaluation.
            skin: distance in Angstrom by which the neighbour search reaches farther than needed.
            others: options of OpenMM-ML's embedding, which do not matter here.

        Raises:
            ValueError: there are no atoms; an atom has no element, or one that the model does not know; a charge for a
                model that does not look at it; a charge that is no number; a charge or multiplicity that it did not
                learn; or there is an argument that is not known or not allowed.
        """
        known = ("precision", "device", "charge", "multiplicity", "compile", "threads", "skin")
        _refuse_unknown(others.keys() - OF_EMBEDDING, "createSystem", known)
        if precision not in DTYPES:
            raise ValueError(f"precision is {precision!r}, but must be 'single' or 'double'")
        evaluator = Evaluator(
            self.networks, device=device, dtype=DTYPES[precision], compile=compile, threads=threads, skin=skin
        )
        total = one_number(charge)
        if total is None:
            raise ValueError(f"charge is {charge!r}, but must be a number in e; leave it out if the system is neutral")
        if total and evaluator.warns_of_charge:
            raise ValueError(
                f"charge={charge} is given, but this model does not look at the total charge. Leave charge out if all "
                "its training data had this one; otherwise take a model that predicts charges."
            )
        whole = isinstance(multiplicity, Integral) and not isinstance(multiplicity, bool)
        if multiplicity is not None and not (whole and multiplicity >= 1):
            raise ValueError(f"multiplicity is {multiplicity!r}, but must be an integer 2S + 1 of at least 1")
        chosen = None if atoms is None else [int(atom) for atom in atoms]
        included = list(topology.atoms())
        included = included if chosen is None else [included[atom] for atom in chosen]
        if not included:  # to OpenMM, an empty list of particles means all of them
            raise ValueError(
                "there are no atoms for the model: the topology has none, or none of them are chosen. If they are "
                "chosen by the name of a residue, look for that name in topology.residues()."
            )
        numbers = _elements(included, evaluator.species)
        is_labelled = any(network.config.is_labelled for network in evaluator.networks)
        labels = np.array([atom.residue.index for atom in included], dtype=np.int64) if is_labelled else None
        nowhere, free = np.zeros((len(numbers), 3)), np.zeros(3, dtype=np.bool_)
        evaluator.require_known(Structure(numbers, nowhere, np.zeros((3, 3)), free, total, None, multiplicity))
        periodic = topology.getPeriodicBoxVectors() is not None or system.usesPeriodicBoundaryConditions()
        force = openmm.PythonForce(_Computation(evaluator, numbers, periodic, total, labels, multiplicity))
        force.setName("NBodyForce")
        force.setForceGroup(forceGroup)
        force.setUsesPeriodicBoundaryConditions(periodic)
        if chosen is not None:
            force.setParticles(chosen)
        system.addForce(force)

    def getMLLongRange(self) -> bool:
        """False: all interactions end at the radii of the levels (OpenMM-ML's interface)."""
        return False


@dataclass
class _Computation:
    """Energy and forces of the atoms in a ``State`` of OpenMM. It can be pickled, and so the system be serialised."""

    evaluator: Evaluator
    numbers: NDArray[np.int64]
    periodic: bool
    charge: float
    labels: NDArray[np.int64] | None
    multiplicity: int | None = None

    def __call__(self, state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        """The energy in kJ/mol, and the forces (N, 3) in kJ/mol/nm."""
        cell = np.zeros((3, 3))
        if self.periodic:
            cell = np.array(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(angstrom), dtype=np.float64)
        positions = np.array(state.getPositions(asNumpy=True).value_in_unit(angstrom), dtype=np.float64)
        pbc = np.full(3, self.periodic)
        given = (self.charge, self.labels, self.multiplicity)
        found = self.evaluator.follow(Structure(self.numbers, positions, cell, pbc, *given))
        energy, forces = found.mean("energy"), found.mean("forces")
        return float(energy) * EV_IN_KJ_PER_MOL, forces * EV_PER_ANGSTROM_IN_KJ_PER_MOL_NM


def _elements(atoms: Sequence[app.topology.Atom], species: Sequence[str]) -> NDArray[np.int64]:
    """Atomic numbers of atoms of a topology (N,), if the model knows them all."""
    for atom in atoms:
        symbol = None if atom.element is None else atom.element.symbol
        if symbol not in species:
            what = "has no element" if symbol is None else f"is {symbol}"
            raise ValueError(
                f"atom {atom.index} ({printable(f'{atom.name} of residue {atom.residue.name} {atom.residue.id}')}) "
                f"{what}, and the "
                f"model knows {', '.join(species)}. Leave it to the force field with createMixedSystem, or take "
                "another model."
            )
    return np.array([atom.element.atomic_number for atom in atoms], dtype=np.int64)


def _refuse_unknown(given: Iterable[str], function: str, known: Sequence[str]) -> None:
    if names := sorted(given):
        raise ValueError(f"{function} does not know {', '.join(names)} for 'nbody'; it knows {', '.join(known)}")
