"""``NBodyMonitor``: ends a run of molecular dynamics that its potential can no longer describe, and says why."""

from typing import Any, NoReturn

import ase
import numpy as np
from ase.data import covalent_radii
from ase.md.md import MolecularDynamics
from numpy.typing import NDArray

from ase_nbody.dynamics.frames import has_spread
from ase_nbody.dynamics.integrators import target_temperature, temperature
from ase_nbody.hierarchy.connected import connected_groups
from ase_nbody.hierarchy.neighbours import Pairs, find_pairs
from ase_nbody.structure import Structure

_LONGEST_BOND = 1.3  # as a multiple of the sum of the covalent radii
MAX_TEMPERATURE_K = 5000.0  # where no thermostat sets a target
_ADVICE = "Look at the frames before it; use a shorter time step, relax first, or train the model on such frames."
_ADVICE_AT_START = "The run starts with this structure: relax it first, or train the model on such structures."


class DynamicsStopped(RuntimeError):
    """A monitor has ended the run; the message says at which step, what the monitor saw, and what to do."""


class NBodyMonitor:
    """Checks that a run is still sound. It works with every ASE calculator and costs no evaluation.

    >>> dynamics.attach(NBodyMonitor(dynamics), interval=10)  # doctest: +SKIP

    Called at a step, it raises ``DynamicsStopped`` when

    - a position, momentum, force or the energy is NaN or infinite;
    - the temperature or the force on an atom is beyond its bound;
    - the force spread of a committee is beyond its bound: the models disagree, so none of them knows this structure;
    - two atoms are closer than ``min_distance``;
    - a piece that was bound to the rest when the monitor was made (by bonds of up to 1.3 times the sum of the covalent
      radii) is now farther than ``max_gap`` from everything else. Molecules that were apart at the start may drift
      apart.

    Args:
        source: the dynamics or the atoms; messages name the step only if it is the dynamics.
        max_temperature: in K; default: ten times the highest target that the thermostat has had so far, 5000 K
            without a thermostat.
        max_force: length of a force vector in eV/Angstrom; None sets no bound.
        max_spread: standard deviation of a force vector over the committee in eV/Angstrom; None sets no bound.
        min_distance: in Angstrom; None sets no bound.
        max_gap: in Angstrom; None lets pieces fly off.

    Raises:
        ValueError: ``max_spread`` is given, but the calculator is not a committee; or a bound is not above 0. Infinity
            sets no bound; as ``min_distance`` it is refused.
    """

    def __init__(
        self,
        source: MolecularDynamics | ase.Atoms,
        *,
        max_temperature: float | None = None,
        max_force: float | None = 50.0,
        max_spread: float | None = None,
        min_distance: float | None = None,
        max_gap: float | None = 5.0,
    ) -> None:
        self.dynamics = None if isinstance(source, ase.Atoms) else source
        self.atoms: ase.Atoms = source if isinstance(source, ase.Atoms) else source.atoms
        bounds = {"max_temperature": max_temperature, "max_force": max_force, "max_spread": max_spread}
        for name, bound in {**bounds, "min_distance": min_distance, "max_gap": max_gap}.items():
            if bound is not None and not bound > 0:
                raise ValueError(f"{name} must be a number above 0, or None for no bound, got {bound}")
        if min_distance == np.inf:
            raise ValueError("min_distance must be a finite distance, or None for no bound: no atoms are as far apart")
        if max_spread is not None and not has_spread(self.atoms.calc):
            raise ValueError(
                f"max_spread = {max_spread} eV/Angstrom needs a committee, but {type(self.atoms.calc).__name__} is a "
                "single model. Give it several, NBodyCalculator(['a.nbody', 'b.nbody']), or leave max_spread out."
            )
        self.max_temperature, self.max_force, self.max_spread = max_temperature, max_force, max_spread
        self.min_distance, self.max_gap = min_distance, None if max_gap == np.inf else max_gap
        self.fragments = _fragments(self.atoms) if self.max_gap is not None else None
        self._highest_target = self._target()  # the first one of a ramp, also where a run is resumed in the midst of it

    def __call__(self) -> None:
        """Check the present step.

        Raises:
            DynamicsStopped: something is beyond its bound.
        """
        self._check_finite()
        self._check_temperature()
        forces = self.atoms.get_forces(apply_constraint=False)
        remedy = "Such forces come from a time step that is too long or from overlapping atoms. " + self._advice
        self._check_vectors("the force", "max_force", forces, self.max_force, remedy)
        if self.max_spread is not None:
            remedy = "The models of the committee disagree: label this structure and add it to the training data."
            self._check_vectors(
                "the committee's force spread", "max_spread", self.atoms.calc.forces_spread, self.max_spread, remedy
            )
        if self.min_distance is not None:
            self._check_distances(self.min_distance)
        if self.max_gap is not None:
            self._check_fragments(self.max_gap)

    def temperature_bound(self) -> float:
        """The present bound of the temperature in K. By default it follows the target, which a ramp changes."""
        if self.max_temperature is not None:
            return self.max_temperature
        self._highest_target = max(self._highest_target, self._target())
        return 10 * self._highest_target or MAX_TEMPERATURE_K

    def _target(self) -> float:
        """The present target of the thermostat in K; 0 without one."""
        return (None if self.dynamics is None else target_temperature(self.dynamics)) or 0.0

    @property
    def _starting(self) -> bool:
        """Whether the dynamics has made no step, so that no frame is before this one."""
        return self.dynamics is not None and self.dynamics.nsteps == 0

    @property
    def _advice(self) -> str:
        return _ADVICE_AT_START if self._starting else _ADVICE

    def _check_finite(self) -> None:
        quantities = {"position": self.atoms.positions, "momentum": self.atoms.get_momenta()}
        for name in (*quantities, "force"):  # forces last: most calculators fail if a position is NaN
            values = quantities[name] if name in quantities else self.atoms.get_forces(apply_constraint=False)
            broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(broken):
                self._stop(f"the {name} of {self._name(*broken)} is not finite. {self._advice}")
        energy = self.atoms.get_potential_energy()
        if not np.isfinite(energy):
            self._stop(f"the energy is {energy} eV. {self._advice}")

    def _check_temperature(self) -> None:
        kelvin = self.atoms.get_temperature() if self.dynamics is None else temperature(self.dynamics)
        bound = self.temperature_bound()
        if not kelvin <= bound:
            kinetic = np.square(self.atoms.get_momenta()).sum(axis=1) / self.atoms.get_masses()
            advice = "The run starts with these velocities: draw others, or raise the bound."
            self._stop(
                f"the temperature is {kelvin:.4g} K, beyond the bound of {bound:.4g} K "
                f"({self._bound_name('max_temperature')}); the hottest is {self._name(kinetic.argmax())}. "
                f"{advice if self._starting else _ADVICE}"
            )

    def _check_vectors(
        self, what: str, parameter: str, vectors: NDArray[np.float64], bound: float | None, remedy: str
    ) -> None:
        lengths = np.linalg.norm(vectors, axis=1)
        if bound is not None and len(lengths) and not lengths.max() <= bound:
            atom = lengths.argmax()
            self._stop(
                f"{what} on {self._name(atom)} is {lengths[atom]:.4g} eV/Angstrom, beyond the bound of "
                f"{bound:.4g} eV/Angstrom ({self._bound_name(parameter)}). {remedy}"
            )

    def _check_distances(self, bound: float) -> None:
        pairs = self._pairs(bound)
        if len(pairs):
            closest = pairs.distance.argmin()
            names = self._name(pairs.first[closest], pairs.second[closest])
            self._stop(
                f"{names} are {pairs.distance[closest]:.4g} Angstrom apart, closer than {bound:.4g} Angstrom "
                f"({self._bound_name('min_distance')}). {self._advice}"
            )

    def _check_fragments(self, bound: float) -> None:
        """Stop if a fragment of the start has lost a piece: a gap now separates its atoms into two groups."""
        pairs = self._pairs(bound)
        group = connected_groups(len(self.atoms), pairs.first, pairs.second)
        for fragment in self.fragments or ():
            if len(set(group[fragment])) > 1:
                sizes = np.bincount(group[fragment])
                smallest = np.where(sizes > 0, sizes, len(self.atoms) + 1).argmin()
                piece = fragment[group[fragment] == smallest]
                self._stop(
                    f"{self._name(*piece)} flew off: bound at the start, now farther than {bound:.4g} Angstrom from "
                    f"all else ({self._bound_name('max_gap')}; if the chemistry allows that, inf sets no bound). "
                    + _ADVICE
                )

    def _bound_name(self, parameter: str) -> str:
        """How sentences call a bound: by its keyword. A command calls it by its option."""
        return parameter

    def _pairs(self, cutoff: float) -> Pairs:
        return find_pairs(Structure.from_atoms(self.atoms), cutoff)

    def _name(self, *atoms: Any) -> str:
        """The atoms by index and symbol; only the first six of a long list."""
        names = [f"{atom} ({self.atoms.symbols[atom]})" for atom in atoms[:6]]
        return f"atom{'s' * (len(atoms) > 1)} {', '.join(names)}" + ", ..." * (len(atoms) > len(names))

    def _stop(self, reason: str) -> NoReturn:
        step = "" if self.dynamics is None else f"stopped at step {self.dynamics.nsteps}: "
        raise DynamicsStopped(step + reason)


def _fragments(atoms: ase.Atoms) -> list[NDArray[np.int64]]:
    """The atoms of each fragment that has more than one atom; the covalent radii tell which atoms are bonded."""
    radii = _LONGEST_BOND * covalent_radii[atoms.numbers]
    pairs = find_pairs(Structure.from_atoms(atoms), 2 * radii.max(initial=0.0))
    bound = pairs.distance <= radii[pairs.first] + radii[pairs.second]
    group = connected_groups(len(atoms), pairs.first[bound], pairs.second[bound])
    fragments = [np.flatnonzero(group == index) for index in np.unique(group)]
    return [fragment for fragment in fragments if len(fragment) > 1]
