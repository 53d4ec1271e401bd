"""A case: a calculator, a structure, and what the checks have to know of both. And its evaluation, in full."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import ase
import numpy as np
from ase.calculators.calculator import BaseCalculator
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from ase_nbody.engines.calculator import NBodyCalculator

Array = NDArray[np.float64]
RATTLE = 0.03  # Angstrom: by this the atoms are moved at random, so that no force vanishes by symmetry


@dataclass(frozen=True)
class Case:
    """A calculator on a structure.

    Attributes:
        calculator: what is checked; any ASE calculator with energy and forces, in float64.
        atoms: the structure, without calculator and constraints.
        float32: the same potential in single precision, if there is one.
        species: chemical symbols whose pairs are scanned as dimers.
        radii: cutoff radii in Angstrom, where they are known.
        closest: closest distance in Angstrom of pairs like ``"H-C"`` in the training data, where it is known.
        temperature: of the training data in K; the hot run has twice as much.
        steps: length of the runs of molecular dynamics, in usual time steps.
    """

    calculator: BaseCalculator
    atoms: ase.Atoms
    float32: BaseCalculator | None = None
    species: tuple[str, ...] = ()
    radii: tuple[float, ...] = ()
    closest: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 300.0
    steps: int = 500

    @property
    def label(self) -> str:
        """Formula of the structure."""
        return self.atoms.get_chemical_formula()

    @property
    def outer(self) -> float:
        """Distance in Angstrom to which scans go: beyond all cutoffs."""
        return max(self.radii, default=11.0) + 1.0

    def rattled(self, size: float = RATTLE, seed: int = 0) -> ase.Atoms:
        """The structure with its atoms moved at random by ``size`` Angstrom (standard deviation)."""
        atoms = self.atoms.copy()
        atoms.positions += np.random.default_rng(seed).normal(scale=size, size=atoms.positions.shape)
        return atoms


def make_case(
    calculator: BaseCalculator,
    atoms: ase.Atoms,
    *,
    float32: BaseCalculator | None = None,
    temperature: float = 300.0,
    steps: int = 500,
) -> Case:
    """The case of a calculator and a structure; of an N-body network all that the checks can use is looked up."""
    atoms = atoms.copy()
    atoms.set_constraint()
    case = Case(calculator, atoms, float32, tuple(sorted(set(atoms.symbols))), temperature=temperature, steps=steps)
    if not isinstance(calculator, NBodyCalculator):
        return case
    configs = [network.config for network in calculator.networks]
    return replace(
        case,
        float32=float32
        or NBodyCalculator(calculator.networks, device=calculator.parameters["device"], dtype="float32"),
        species=calculator.species,
        radii=tuple(sorted({level.radius for config in configs for level in config.levels})),
        closest=configs[0].closest_distances,
    )


@dataclass(frozen=True)
class Evaluation:
    """All that a calculator says of a structure; None for what it does not give. Units: eV, Angstrom.

    Attributes:
        energy: per atom, the one that the forces are the gradient of.
        forces: (N, 3).
        energies: per-atom energies (N,).
        virial: stress times volume per atom (3, 3).
        virials: per-atom stresses times volume (N, 3, 3).
    """

    energy: float
    forces: Array
    energies: Array | None
    virial: Array | None
    virials: Array | None

    def turned(self, matrix: Array) -> "Evaluation":
        """What is expected of the structure turned by an orthogonal matrix (3, 3)."""
        virial, virials = (None if of is None else matrix @ of @ matrix.T for of in (self.virial, self.virials))
        return Evaluation(self.energy, self.forces @ matrix.T, self.energies, virial, virials)

    def of_atoms(self, order: NDArray[np.int64]) -> "Evaluation":
        """What is expected of the atoms in another order, or of several copies of them."""
        energies, virials = (None if of is None else of[order] for of in (self.energies, self.virials))
        return Evaluation(self.energy, self.forces[order], energies, self.virial, virials)


def evaluate(calculator: BaseCalculator, atoms: ase.Atoms) -> Evaluation:
    """Ask for everything that the calculator has; stresses of systems that are periodic in three directions."""
    atoms = atoms.copy()
    has = set(calculator.implemented_properties)
    found = {name: calculator.get_property(name, atoms) for name in ("forces", "energies") if name in has}
    energy = calculator.get_property("free_energy" if "free_energy" in has else "energy", atoms)
    for name in ("stress", "stresses"):
        if name in has and atoms.pbc.all():
            found[name] = voigt_6_to_full_3x3_stress(calculator.get_property(name, atoms)) * atoms.get_volume()
    virial = found["stress"] / len(atoms) if "stress" in found else None
    return Evaluation(energy / len(atoms), found["forces"], found.get("energies"), virial, found.get("stresses"))


def energy_and_forces(calculator: BaseCalculator, structures: Sequence[ase.Atoms]) -> Array:
    """Energies in eV and all force components in eV/Angstrom of structures of one size (n, 1 + components).

    An ``NBodyCalculator`` evaluates several side by side, any other one by one.
    """
    if isinstance(calculator, NBodyCalculator) and len(structures) > 1:
        return np.array([np.append(found["energy"], found["forces"]) for found in calculator.evaluate(structures)])
    one_by_one = [evaluate(calculator, atoms) for atoms in structures]
    return np.array([np.append(found.energy * len(found.forces), found.forces) for found in one_by_one])


def deviation(actual: Evaluation, expected: Evaluation) -> tuple[float, str]:
    """The largest deviation of any component, and in what.

    Energies (per atom, eV), forces (eV/Angstrom) and virials (eV) alike are measured by the largest force, or by
    1 eV/Angstrom where that is larger: by what matters to the motion, not by the energies' arbitrary zero.
    """
    scale = max(1.0, float(np.abs(expected.forces).max(initial=0.0)))
    worst, where = 0.0, "none"
    for name in Evaluation.__dataclass_fields__:
        one, other = getattr(actual, name), getattr(expected, name)
        if one is None or other is None:
            continue
        size = float(np.abs(np.asarray(one) - other).max(initial=0.0)) / scale
        if not size <= worst:  # NaN too
            worst, where = size, name
    return worst, f"largest in {where}"
