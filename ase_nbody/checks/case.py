"""The case that a check looks at, and what its calculator says about a structure."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import ase
import numpy as np
from ase.calculators.calculator import BaseCalculator
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from ase_nbody.engines.calculator import NBodyCalculator
from ase_nbody.network.coverage import Coverage

Array = NDArray[np.float64]
RATTLE_ANGSTROM = 0.03  # standard deviation of random displacements, which let no force vanish by symmetry


@dataclass(frozen=True)
class Case:
    """A calculator, a structure, and what the checks need to know about both.

    Attributes:
        calculator: the calculator to check; any ASE calculator with energy and forces in float64.
        atoms: the structure, without calculator and constraints.
        float32: the same potential in single precision, or None.
        species: chemical symbols; the dimers of all their pairs are scanned.
        radii: cutoff radii in Angstrom; empty if they are unknown.
        closest: closest distance in Angstrom of pairs like ``"H-C"`` in the training data; empty if it is unknown.
        coverage: the surroundings in the training data; None if they are unknown.
        temperature: of the training data in K; the hot run is at twice this temperature.
        steps: length of the runs of molecular dynamics in usual time steps.
    """

    calculator: BaseCalculator
    atoms: ase.Atoms
    float32: BaseCalculator | None = None
    species: tuple[str, ...] = ()
    radii: tuple[float, ...] = ()
    closest: Mapping[str, float] = field(default_factory=dict)
    coverage: Coverage | None = None
    temperature: float = 300.0
    steps: int = 500

    @property
    def label(self) -> str:
        """The formula of the structure."""
        return self.atoms.get_chemical_formula()

    @property
    def outer(self) -> float:
        """The distance in Angstrom at which scans end, beyond all cutoffs."""
        return max(self.radii, default=11.0) + 1.0

    def rattled(self, size: float = RATTLE_ANGSTROM, seed: int = 0) -> ase.Atoms:
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
    """Make the case of a calculator and a structure. N-body networks add species, radii and closest distances."""
    atoms = atoms.copy()
    atoms.set_constraint()
    case = Case(calculator, atoms, float32, tuple(sorted(set(atoms.symbols))), temperature=temperature, steps=steps)
    if not isinstance(calculator, NBodyCalculator):
        return case
    calculator = _of_any_state(calculator)
    configs = [network.config for network in calculator.networks]
    return replace(
        case,
        calculator=calculator,
        float32=float32 or _in_float32(calculator),
        species=calculator.species,
        radii=tuple(sorted({level.radius for config in configs for level in config.levels})),
        closest=_closest([config.closest_distances for config in configs]),
        coverage=configs[0].coverage,
    )


def _in_float32(calculator: NBodyCalculator) -> NBodyCalculator:
    """The same potential in single precision, evaluated in the same way."""
    settings = asdict(calculator.evaluator.settings) | {"dtype": "float32", "compile": False}
    return NBodyCalculator(calculator.networks, **settings)


def _closest(members: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The closest distance of each pair that all members of a committee have seen: the longest of theirs."""
    shared = [pair for pair in members[0] if all(pair in member for member in members)]
    return {pair: max(member[pair] for member in members) for pair in shared}


def _of_any_state(calculator: NBodyCalculator) -> NBodyCalculator:
    """The calculator, or one with the same networks that refuses no charge and no spin.

    Checks look at the potential itself: at two atoms, which are a radical for half of all pairs, and at two copies.
    """
    if not calculator.evaluator.knows_states:
        return calculator
    networks = [copy.copy(network) for network in calculator.networks]
    for network in networks:
        network.config = network.config.model_copy(update={"total_charges": None, "multiplicities": None})
    return NBodyCalculator(networks, **asdict(calculator.evaluator.settings))


@dataclass(frozen=True)
class Evaluation:
    """All results of a calculator for a structure; None stands for a quantity that it does not offer.

    Attributes:
        energy: in eV per atom; the free energy where there is one, because the forces are its negative gradient.
        forces: in eV/Angstrom (N, 3).
        energies: per-atom energies in eV (N,).
        virial: stress times volume, divided by the number of atoms, in eV (3, 3).
        virials: per-atom stresses times volume in eV (N, 3, 3).
        charges: partial charges of a molecule in e (N,).
        dipole: dipole moment of a molecule in e Angstrom (3,).
    """

    energy: float
    forces: Array
    energies: Array | None
    virial: Array | None
    virials: Array | None
    charges: Array | None = None
    dipole: Array | None = None

    def turned(self, matrix: Array) -> "Evaluation":
        """The results that the structure should have after it was turned by an orthogonal matrix (3, 3)."""
        virial = None if self.virial is None else matrix @ self.virial @ matrix.T
        virials = None if self.virials is None else matrix @ self.virials @ matrix.T
        dipole = None if self.dipole is None else matrix @ self.dipole
        return Evaluation(self.energy, self.forces @ matrix.T, self.energies, virial, virials, self.charges, dipole)

    def of_atoms(self, order: NDArray[np.int64]) -> "Evaluation":
        """The results that the same atoms should have in another order, or if they are repeated."""
        energies = None if self.energies is None else self.energies[order]
        virials = None if self.virials is None else self.virials[order]
        charges = None if self.charges is None else self.charges[order]
        return Evaluation(self.energy, self.forces[order], energies, self.virial, virials, charges, self.dipole)


def evaluate(calculator: BaseCalculator, atoms: ase.Atoms) -> Evaluation:
    """Ask the calculator for everything it offers.

    Stresses are asked for only if the system is periodic in three directions, charges and the dipole only if in none.
    """
    atoms = atoms.copy()
    has = set(calculator.implemented_properties)
    found = {name: calculator.get_property(name, atoms) for name in ("forces", "energies") if name in has}
    energy = calculator.get_property("free_energy" if "free_energy" in has else "energy", atoms)
    for name in ("stress", "stresses"):
        if name in has and atoms.pbc.all():
            found[name] = voigt_6_to_full_3x3_stress(calculator.get_property(name, atoms)) * atoms.get_volume()
    for name in ("charges", "dipole"):
        if name in has and not atoms.pbc.any():
            found[name] = calculator.get_property(name, atoms)
    virial = found["stress"] / len(atoms) if "stress" in found else None
    others = (found.get(name) for name in ("stresses", "charges", "dipole"))
    return Evaluation(energy / len(atoms), found["forces"], found.get("energies"), virial, *others)


def energy_and_forces(calculator: BaseCalculator, structures: Sequence[ase.Atoms]) -> Array:
    """Energies in eV and all force components in eV/Angstrom of structures of one size (n, 1 + components).

    An ``NBodyCalculator`` evaluates the structures side by side, any other calculator one by one.
    """
    if isinstance(calculator, NBodyCalculator) and len(structures) > 1:
        return np.array([np.append(found["energy"], found["forces"]) for found in calculator.evaluate(structures)])
    one_by_one = [evaluate(calculator, atoms) for atoms in structures]
    return np.array([np.append(found.energy * len(found.forces), found.forces) for found in one_by_one])


def deviation(actual: Evaluation, expected: Evaluation) -> tuple[float, str]:
    """The largest deviation of any component, and a note that names the quantity (empty if all agree). NaN is largest.

    Deviations of energies (per atom, eV), forces (eV/Angstrom) and virials (eV) are all divided by the largest force,
    or by 1 eV/Angstrom if that is larger. Forces matter to the motion; the zero of the energies is arbitrary.
    """
    scale = max(1.0, float(np.abs(expected.forces).max(initial=0.0)))
    worst, note = 0.0, ""
    for name in Evaluation.__dataclass_fields__:
        one, other = getattr(actual, name), getattr(expected, name)
        if one is None or other is None:
            continue
        size = float(np.abs(np.asarray(one) - other).max(initial=0.0)) / scale
        if not size <= worst:
            worst, note = size, f"largest in {name}"
        if np.isnan(size):  # larger than whatever follows, with which it cannot be compared
            break
    return worst, note
