"""Units that a database of ASE names in its metadata, as those of SchNetPack do. ASE reads past them."""

import math
import re
from collections.abc import Mapping
from typing import Any

import ase
import numpy as np
from ase import units

from ase_nbody.text import printable

_FACTORS = {
    **dict.fromkeys(("ev", "e", "a", "ang", "angstrom", "å", "1", ""), 1.0),
    **dict.fromkeys(("hartree", "ha", "eh"), units.Hartree),
    **dict.fromkeys(("rydberg", "ry"), units.Rydberg),
    **dict.fromkeys(("bohr", "a0"), units.Bohr),
    **{"kcal": units.kcal, "kj": units.kJ, "mol": units.mol, "debye": units.Debye, "d": units.Debye},
    **{"mev": 1e-3, "gpa": units.GPa, "kbar": 0.1 * units.GPa, "nm": units.nm},
}
_FACTOR = re.compile(r"([^\W\d_]*|a0|1)(?:(?:\^|\*\*)(\d))?")


def factor_of(unit: str) -> float:
    """What a number in this unit is multiplied with to be in eV, Angstrom and e; NaN if the unit is not known.

    >>> factor_of("eV / Ang")
    1.0
    """
    factor = 1.0
    top, *bottom = re.sub(r"\s", "", unit.lower()).replace("**", "^").split("/")
    for part, sign in [(top, 1), *((text, -1) for text in bottom)]:
        for word in part.split("*"):
            match = _FACTOR.fullmatch(word)
            known = _FACTORS.get(match[1], math.nan) if match else math.nan
            factor *= known ** (sign * int(match[2] or 1) if match else 1)
    return factor


class UnitsOfDatabase:
    """Brings structures of a database, and what it keeps in ``data``, into eV, Angstrom and e.

    Args:
        metadata: of the database. Without units there, nothing changes.

    Raises:
        ValueError: the unit of length is not known.
    """

    def __init__(self, metadata: Any) -> None:
        given = metadata if isinstance(metadata, Mapping) else {}
        length, properties = given.get("_distance_unit"), given.get("_property_unit_dict")
        self._length = factor_of(length) if isinstance(length, str) else 1.0
        if math.isnan(self._length):
            raise ValueError(f"its metadata give the unit of length as {printable(length, 40)!r}, which is not known")
        named = properties if isinstance(properties, Mapping) else {}
        self._units = {name: unit for name, unit in named.items() if isinstance(unit, str)}

    def convert(self, atoms: ase.Atoms) -> None:
        """Convert a structure in place. Of an entry in an unknown unit only the unit is kept: it is no label."""
        if self._length != 1.0:
            atoms.set_cell(atoms.cell * self._length)
            atoms.positions *= self._length
        data = atoms.info.get("data")
        if not isinstance(data, dict):
            return
        for name in self._units.keys() & data.keys():
            factor, values = factor_of(self._units[name]), np.asarray(data[name])
            if math.isnan(factor):
                data[name] = f"in {self._units[name]}, an unknown unit"
            elif factor != 1.0 and values.dtype.kind in "iuf":
                data[name] = values * factor
