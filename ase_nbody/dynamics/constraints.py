"""Constraints that molecular dynamics can hold, so that the temperature counts what moves and nothing else.

ASE subtracts what each constraint removes from 3 N. The difference is right only if a constraint removes what it says,
and if no two remove the same motion. For each kind below, a test compares the projection of momenta with the count.
"""

from collections.abc import Callable
from typing import Any

import ase
import numpy as np
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixedLine,
    FixedPlane,
    FixScaled,
    Hookean,
)
from numpy.typing import NDArray

from ase_nbody.hierarchy.connected import connected_groups

# For each kind the atoms whose motion it takes away.
_HELD: dict[type, Callable[[Any, ase.Atoms], Any]] = {
    FixAtoms: lambda constraint, atoms: constraint.index,
    FixCartesian: lambda constraint, atoms: constraint.index,
    FixScaled: lambda constraint, atoms: constraint.index,
    FixedPlane: lambda constraint, atoms: constraint.index,
    FixedLine: lambda constraint, atoms: constraint.index,
    FixBondLengths: lambda constraint, atoms: np.unique(constraint.pairs),
    FixCom: lambda constraint, atoms: [],  # it commutes with fixed bonds; other kinds are refused below
    Hookean: lambda constraint, atoms: [],  # a spring, which takes nothing away
}
_AGREE_WITH_COM = (FixCom, FixBondLengths, Hookean)

_WHY_NOT = {
    "FixInternals": "ASE removes more from the momenta than it subtracts from the degrees of freedom; for bonds take "
    "FixBondLengths",
    "FixedMode": "ASE subtracts one degree of freedom for each atom, although it removes one in all",
    "FixSubsetCom": "ASE moves all atoms to hold the centre of mass of some",
    "FixLinearTriatomic": "this release does not hold it; fix the two bonds with FixBondLengths where they may bend",
    "ExternalForce": "ASE adds the force to the momenta too",
    "MirrorForce": "ASE applies it to the momenta too; it is meant for relaxations",
    "MirrorTorque": "ASE applies it to the momenta too; it is meant for relaxations",
    "FixSymmetry": "ASE does not say how many degrees of freedom it removes; it is meant for relaxations",
}


def check_constraints(atoms: ase.Atoms) -> None:
    """Refuse constraints that ASE's integrators do not hold, or whose degrees of freedom ASE does not count rightly.

    Raises:
        ValueError: a kind that molecular dynamics cannot hold, two constraints on one atom, fixed bonds that follow
            from each other, or nothing left that moves.
    """
    for constraint in atoms.constraints:
        _check_kind(constraint, atoms)
        if isinstance(constraint, FixBondLengths):
            _check_bonds(constraint, atoms)
    _check_overlaps(atoms)
    if len(atoms) and atoms.get_number_of_degrees_of_freedom() < 1:
        raise ValueError("nothing can move: the constraints hold all atoms. Release some of them.")


def conserve_momentum(atoms: ase.Atoms) -> bool:
    """Whether all constraints act between atoms, so that the total momentum is conserved, and the angular one too."""
    return all(
        isinstance(constraint, FixCom | FixBondLengths)
        or (isinstance(constraint, Hookean) and hasattr(constraint, "indices"))  # else the spring ends at a point
        for constraint in atoms.constraints
    )


def _check_kind(constraint: Any, atoms: ase.Atoms) -> None:
    name = type(constraint).__name__
    if type(constraint) not in _HELD:
        reason = _WHY_NOT.get(name, "this release does not know how many degrees of freedom it removes")
        kinds = ", ".join(kind.__name__ for kind in _HELD)
        raise ValueError(
            f"molecular dynamics with {name} would have a wrong temperature: {reason}. "
            f"Remove it, atoms.set_constraint(), or use one of {kinds}."
        )
    if isinstance(constraint, FixScaled) and not constraint.mask.all():
        metric = atoms.cell.array @ atoms.cell.array.T
        if not np.allclose(metric, np.diag(np.diag(metric)), atol=1e-8 * np.abs(metric).max()):
            raise ValueError(
                "molecular dynamics with FixScaled (selective dynamics of VASP along single lattice vectors) needs a "
                "cell with right angles, because ASE removes momenta along other directions than positions. Fix all "
                "three directions of these atoms, or use FixCartesian, FixedPlane or FixedLine."
            )


def _check_bonds(constraint: FixBondLengths, atoms: ase.Atoms) -> None:
    """Refuse bond lengths that follow from others, such as a bond that is listed twice: each would be subtracted.

    The gradients of independent lengths are independent: their matrix, a row for each bond, has full rank.
    """
    pairs = np.asarray(constraint.pairs).reshape(-1, 2) % len(atoms)
    groups = connected_groups(len(atoms), pairs[:, 0], pairs[:, 1])[pairs[:, 0]]
    order = np.argsort(groups, kind="stable")
    for bonds in np.split(pairs[order], np.flatnonzero(np.diff(groups[order])) + 1):
        if len(bonds) and np.linalg.matrix_rank(_gradients(bonds, atoms), tol=1e-6) < len(bonds):
            raise ValueError(
                f"the {len(bonds)} fixed bonds between atoms {np.unique(bonds).tolist()[:9]} depend on each other, so "
                "the degrees of freedom would be counted wrongly: leave out bonds that follow from others"
            )


def _gradients(bonds: NDArray[np.int64], atoms: ase.Atoms) -> NDArray[np.float64]:
    """The derivatives of the bond lengths by the positions (bonds, 3 atoms)."""
    members, ends = np.unique(bonds, return_inverse=True)
    ends = ends.reshape(-1, 2)
    rows = np.zeros((len(bonds), len(members), 3))
    for row, (first, second), (atom, other) in zip(rows, ends, bonds, strict=True):
        vector = atoms.get_distance(atom, other, mic=bool(atoms.pbc.any()), vector=True)
        length = np.linalg.norm(vector)
        unit = vector / length if length > 0 else vector
        row[first] += unit
        row[second] -= unit
    return rows.reshape(len(bonds), -1)


def _check_overlaps(atoms: ase.Atoms) -> None:
    """Refuse two constraints that hold one atom: both would be subtracted, and one may undo the other."""
    holder: dict[int, str] = {}
    for constraint in atoms.constraints:
        name = type(constraint).__name__
        for atom in np.unique(np.asarray(_HELD[type(constraint)](constraint, atoms), dtype=int) % max(len(atoms), 1)):
            if atom in holder:
                raise ValueError(
                    f"atom {atom} ({atoms.symbols[atom]}) is held by {holder[atom]} and by {name}, so its degrees of "
                    "freedom would be subtracted twice: let one constraint hold it"
                )
            holder[int(atom)] = name
    if sum(isinstance(constraint, FixCom) for constraint in atoms.constraints) > 1:
        raise ValueError("FixCom is there twice: its degrees of freedom would be subtracted twice. Keep one.")
    others = [type(c).__name__ for c in atoms.constraints if type(c) not in _AGREE_WITH_COM]
    if others and any(isinstance(constraint, FixCom) for constraint in atoms.constraints):
        raise ValueError(
            f"FixCom moves all atoms to hold the centre of mass, also those that {others[0]} holds: remove one of them"
        )
