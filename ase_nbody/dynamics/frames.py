"""What a run writes about a step: a frame of the trajectory and a row of the table."""

import io
import re
from collections.abc import Sequence
from typing import Any

import ase.io
import numpy as np
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase.md.md import MolecularDynamics
from numpy.typing import NDArray

from ase_nbody.data.labels import USUAL_KEYS
from ase_nbody.dynamics.integrators import temperature
from ase_nbody.electrons import multiplicity_of, one_number

# Names to which a frame or its format gives a meaning of its own, and labels, which belong to the first structure.
_RESERVED = {"symbols", "species", "pos", "Z", "move_mask", *(key for keys in USUAL_KEYS.values() for key in keys)}
_SPREAD = "forces_spread"
_LABEL_LIKE = re.compile("forc|energ|stress|virial|velocit|^ref_|^dft_", re.IGNORECASE)


def has_stress(atoms: ase.Atoms) -> bool:
    """Whether the atoms are periodic in three directions and their calculator offers the stress."""
    return bool(atoms.pbc.all()) and "stress" in atoms.calc.implemented_properties


def has_spread(calculator: Any) -> bool:
    """Whether a calculator is a committee: it offers ``forces_spread``, and if it lists networks, has more than one."""
    networks = getattr(calculator, "networks", None)
    return hasattr(type(calculator), "forces_spread") and (networks is None or len(networks) > 1)


def foreign_columns(atoms: ase.Atoms) -> tuple[list[str], list[str]]:
    """The arrays that others gave to the atoms: names of those that frames hold, and of those that they leave out.

    A frame holds what comes back equal from extended XYZ, such as names of residues, tags or masses. Strings with
    blanks, names with colons, columns of zero width, tensors and types that the format lacks would move the other
    columns or make the frame unreadable. Labels of the starting structure are left out because they belong to it alone.
    """
    kept: list[str] = []
    left_out: list[str] = []
    for name in atoms.arrays:
        if name in ("numbers", "positions", "momenta") or (name == _SPREAD and has_spread(atoms.calc)):
            continue  # frames have their own
        foreign = name not in _RESERVED and not _LABEL_LIKE.search(name)
        (kept if foreign and _comes_back(atoms, [*kept, name]) else left_out).append(name)
    return kept, left_out


def frame(dynamics: MolecularDynamics, foreign: Sequence[str] = ()) -> str:
    """The step as text in extended XYZ.

    It has positions, momenta, forces and energy as the calculator gives them, without the constraints' part, stress,
    time, total charge and spin multiplicity if the structure has them, and which atoms are fixed (``move_mask``, from
    ``FixAtoms`` and ``FixCartesian``; ASE makes the constraints from it again). Frames of a committee have
    ``energy_spread`` (eV) and ``forces_spread`` (N, 3; eV/Angstrom), its standard deviations. ``foreign`` names the
    atoms' other arrays to write.
    """
    atoms = dynamics.atoms
    results = {
        "energy": atoms.get_potential_energy(apply_constraint=False),
        "forces": atoms.get_forces(apply_constraint=False),
    }
    if has_stress(atoms):
        results["stress"] = atoms.get_stress(apply_constraint=False)
    image = _image(atoms, foreign)
    image.info = {"step": dynamics.nsteps, "time_fs": time_fs(dynamics)}
    further = list(foreign)
    if has_spread(atoms.calc):
        image.arrays[_SPREAD] = np.array(atoms.calc.forces_spread)
        further.append(_SPREAD)
        if hasattr(atoms.calc, "energy_spread"):
            image.info["energy_spread"] = float(atoms.calc.energy_spread)
    # Under the names that our files give them: the structure may have them under others, or as arrays of one number.
    if charge := one_number(atoms.info.get("charge")):
        image.info["charge"] = charge
    if multiplicity := multiplicity_of(atoms.info, None, float(atoms.numbers.sum()) - (charge or 0.0)):
        image.info["spin_multiplicity"] = multiplicity
    image.calc = SinglePointCalculator(image, **results)
    return _text(image, further)


def row(dynamics: MolecularDynamics) -> dict[str, float]:
    """The observables of the step. Each key is the name of a column and ends in the unit.

    Volume and pressure (with the kinetic part) are there for systems that are periodic in three directions. The spread
    is there for committees: it is the largest standard deviation of a force vector over all atoms.
    """
    atoms = dynamics.atoms
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    found = {
        "step": dynamics.nsteps,
        "time_ps": time_fs(dynamics) / 1000,
        "potential_eV": potential,
        "kinetic_eV": kinetic,
        "total_eV": potential + kinetic,
        "temperature_K": temperature(dynamics),
    }
    if has_stress(atoms):
        found["volume_A3"] = atoms.get_volume()
        found["pressure_GPa"] = -atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa
    if has_spread(atoms.calc):
        found["spread_eV_per_A"] = np.linalg.norm(atoms.calc.forces_spread, axis=1).max()
    return found


def csv_line(values: Sequence[Any]) -> str:
    """One line of the table; floats keep all their digits."""
    return ",".join(map(str, values)) + "\n"


def time_fs(dynamics: MolecularDynamics) -> float:
    """Time in fs since step 0, rounded so that round-off does not fill the table with digits."""
    return round(dynamics.get_time() / units.fs, 9)


def _image(atoms: ase.Atoms, foreign: Sequence[str]) -> ase.Atoms:
    """A copy with nothing but what a frame holds."""
    image = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, momenta=atoms.get_momenta())
    for name in foreign:
        image.arrays[name] = atoms.arrays[name].copy()
    image.set_constraint([c.copy() for c in atoms.constraints if type(c) in (FixAtoms, FixCartesian)])
    return image


def _text(image: ase.Atoms, foreign: Sequence[str]) -> str:
    text = io.StringIO()
    columns = ["symbols", "positions", "move_mask", "momenta", "forces", *foreign]
    ase.io.write(text, image, format="extxyz", columns=columns)
    return text.getvalue()


def _comes_back(atoms: ase.Atoms, foreign: Sequence[str]) -> bool:
    """Whether a frame with these arrays can be read, and has them and the positions as they were."""
    image = _image(atoms, foreign)
    image.calc = SinglePointCalculator(image, energy=0.0, forces=np.zeros((len(atoms), 3)))
    try:
        text = _text(image, foreign)
        text.encode("ascii")  # in which encoding others will read the file is not ours to choose
        back = ase.io.read(io.StringIO(text), format="extxyz")
        return set(back.arrays) == set(image.arrays) and all(
            _equal(image.arrays[name], back.arrays[name]) for name in (*foreign, "positions", "momenta")
        )
    except Exception:  # whatever a foreign array makes ASE's writer and reader raise, it is left out
        return False


def _equal(before: NDArray[Any], after: NDArray[Any]) -> bool:
    """Whether an array is the same but for the format's rounding to eight decimals."""
    if before.shape != after.shape:
        return False
    if before.dtype.kind == "f":
        scale = np.abs(before[np.isfinite(before)]).max(initial=0.0)
        return bool(np.allclose(after, before, rtol=1e-7, atol=min(1e-8, 1e-4 * scale), equal_nan=True))
    if before.dtype.kind in "OSU":
        return [*map(repr, before.ravel().tolist())] == [*map(repr, after.ravel().tolist())]
    return before.dtype.kind == after.dtype.kind and bool((before == after).all())
