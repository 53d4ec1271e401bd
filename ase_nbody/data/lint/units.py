"""The units in which labels are usually written, and which of them fit what was measured."""

import itertools
from collections.abc import Mapping

import numpy as np
from ase import units

KCAL, KJ = units.kcal / units.mol, units.kJ / units.mol
# Values of the units in eV and eV/Angstrom. The most common units come first.
ENERGY_UNITS = {"eV": 1.0, "Hartree": units.Hartree, "kcal/mol": KCAL, "kJ/mol": KJ, "Rydberg": units.Rydberg}
FORCE_UNITS = {"eV/Angstrom": 1.0, "Hartree/Bohr": units.Hartree / units.Bohr, "kcal/mol/Angstrom": KCAL}
FORCE_UNITS |= {"kJ/mol/Angstrom": KJ, "kJ/mol/nm": 0.1 * KJ, "Rydberg/Bohr": units.Rydberg / units.Bohr}
FORCE_UNITS |= {"Hartree/Angstrom": units.Hartree, "eV/Bohr": 1.0 / units.Bohr}
# The value of a stress of 1 eV/Angstrom^3 in other units.
STRESS_UNITS = {"eV/Angstrom^3": 1.0, "GPa": 1.0 / units.GPa, "kbar": 10.0 / units.GPa}
STRESS_UNITS |= {"Hartree/Bohr^3": units.Bohr**3 / units.Hartree, "Rydberg/Bohr^3": units.Bohr**3 / units.Rydberg}
# By this factor (its logarithm), the right explanation may miss what was measured.
_SLOPE_TOLERANCE, _STIFFNESS_TOLERANCE, _STRESS_TOLERANCE = 0.33, 1.1, 0.7


def explain_energy(alpha: float | None, stiffness: float | None = None, n_atoms: float = 1.0) -> str:
    """The units and signs that would give this slope of the energies and this stiffness of the bonds, in words.

    Args:
        alpha: slope of the energies against the work of the forces; None if unknown.
        stiffness: how much stiffer the bonds are than they should be; negative if the forces push atoms out of their
            bonds; None if unknown.
        n_atoms: number of atoms of a frame, for energies per atom; 1 if this is no explanation.
    """
    kinds = {"forces": 1.0, "gradients (the negative of forces)": -1.0}
    candidates = {}
    for energy, force, kind in itertools.product(ENERGY_UNITS, FORCE_UNITS, kinds):
        slope, stiff = kinds[kind] * FORCE_UNITS[force] / ENERGY_UNITS[energy], kinds[kind] / FORCE_UNITS[force]
        misfits = [
            _misfit(measured, expected, tolerance)
            for measured, expected, tolerance in (
                (alpha, slope, _SLOPE_TOLERANCE),
                (stiffness, stiff, _STIFFNESS_TOLERANCE),
            )
        ]
        energies = f"energies in {energy} and " if alpha is not None else ""
        if (name := f"{energies}{kind} in {force}") not in candidates:
            candidates[name] = max(misfits)
    if alpha is not None and n_atoms > 1.0:
        misfit = max(_misfit(alpha, 1.0 / n_atoms, _SLOPE_TOLERANCE), _misfit(stiffness, 1.0, _STIFFNESS_TOLERANCE))
        candidates["energies per atom in eV (multiply them by the number of atoms) and forces in eV/Angstrom"] = misfit
    return _fitting(candidates)


def explain_stress(beta: float) -> str:
    """The units and signs that would give this slope of the energies against the work of the stresses, in words."""
    signs = {"ASE's sign": 1.0, "the opposite sign (positive under pressure)": -1.0}
    return _fitting(
        {
            f"stresses in {name} with {sign}": _misfit(beta, signs[sign] / unit, _STRESS_TOLERANCE)
            for name, unit in STRESS_UNITS.items()
            for sign in signs
        }
    )


def _misfit(measured: float | None, expected: float, tolerance: float) -> float:
    """How far a value is from the expected one, in units of the tolerance; 0 if it is unknown."""
    if measured is None:
        return 0.0
    return float(abs(np.log(measured / expected)) / tolerance) if measured * expected > 0.0 else np.inf


def _fitting(misfits: Mapping[str, float]) -> str:
    """The candidates that fit within the tolerance, the best first, at most three of them."""
    fitting = sorted((name for name in misfits if misfits[name] < 1.0), key=misfits.__getitem__)
    return ", or ".join(fitting[:3]) or "units that are not among the usual ones"
