"""Total charge and spin of a structure, under the names that the calculators of ASE read them from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Entries of ``atoms.info``. "spin" is the multiplicity 2S + 1 for some programs (FAIRChem, MACE) and the number of
# unpaired electrons 2S for others (PySCF, xtb).
SPINS = ("spin", "total_spin")
MULTIPLICITIES = ("spin_multiplicity", "multiplicity", "mult")
UNPAIRED = ("unpaired_electrons", "n_unpaired", "unpaired", "uhf", "magmom", "total_magmom")
# All names in a data file that a spin is read from; ASE's readers call initial magnetic moments so.
SPIN_NAMES = {*SPINS, *MULTIPLICITIES, *UNPAIRED, "initial_magmoms"}
OTHER_CHARGES = ("total_charge", "net_charge", "tot_charge", "q_tot")  # "charge" is the one that is read
_ONE_ELECTRON = 0.5  # charges and moments are sums of numbers that were rounded; smaller sums mean none


def multiplicity_of(info: Mapping[str, Any], moments: Any, electrons: float) -> int | None:
    """The spin multiplicity 2S + 1 that is given, the highest if there are several; None if none is.

    A number s named ``spin`` is 2S if s and the number of electrons are both odd or both even, and 2S + 1 otherwise:
    the parity allows only one of the two. No spin, 0, stands for nothing where the number of electrons is odd.

    Args:
        info: ``atoms.info``. Values that are no number are passed over.
        moments: initial magnetic moments in Bohr magnetons, (N,) or (N, 3), or None. A moment on any atom is a spin,
            even if the moments sum to zero.
        electrons: number of electrons.
    """
    is_odd, found = bool(round(electrons) % 2), []
    for name in SPINS:
        if (value := _whole(info.get(name))) is not None and (value or not is_odd):
            found.append(abs(value) + 1 if bool(value % 2) == is_odd else abs(value))
    found += [abs(value) for name in MULTIPLICITIES if (value := _whole(info.get(name)))]
    found += [abs(value) + 1 for name in UNPAIRED if (value := _whole(info.get(name))) is not None]
    if moments is not None:
        lengths = np.abs(np.asarray(moments, dtype=np.float64)).reshape(len(moments), -1)
        total = float(np.sqrt((lengths**2).sum(1)).sum())
        found += [round(total) + 1] if _ONE_ELECTRON <= total < np.inf else []
    return max(found, default=None)


def lowest_multiplicity(electrons: float) -> int:
    """The lowest spin multiplicity of a number of electrons: a singlet if it is even, a doublet if it is odd."""
    return 1 + round(electrons) % 2


def other_charge(info: Mapping[str, Any], charges: Sequence[float] | None) -> tuple[str, float] | None:
    """A total charge in e that stands elsewhere than in ``atoms.info["charge"]``, and where; None if there is none.

    Args:
        info: ``atoms.info``. If it has a ``charge``, this one counts.
        charges: initial charges of the atoms in e, or None. Their sum is the total charge for xtb and tblite.
    """
    if info.get("charge") is not None:
        return None
    for name in OTHER_CHARGES:
        if value := _whole(info.get(name)):
            return f"atoms.info[{name!r}]", value
    total = None if charges is None else another_sum(charges, 0.0)
    return None if total is None else ("the initial charges of the atoms", total)


def another_sum(charges: Any, total: float) -> float | None:
    """The sum of the charges of atoms in e, if it differs from the total charge by half an electron or more.

    Args:
        charges: charges (N,) in e. None is returned for anything else, and if one of them is not finite.
        total: total charge in e.
    """
    values = np.asarray(charges)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        return None
    found = float(values.sum(dtype=np.float64))
    return found if _ONE_ELECTRON <= abs(found - total) < np.inf else None


def one_number(given: Any) -> float | None:
    """A finite number, or an array of one, as some readers give it; None for anything else."""
    if given is None:  # as a rule; this is asked for many names at every step of a run
        return None
    try:
        value = np.asarray(given)
    except Exception:  # a list of lists of different lengths; an object may raise anything
        return None
    if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
        return None
    return float(value.item())


def _whole(given: Any) -> int | None:
    """One number, rounded; None for anything else."""
    value = one_number(given)
    return None if value is None else round(value)
