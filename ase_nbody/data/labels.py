"""The quantities that a network can learn: one row each.

Reading, batches, the store on disk, errors, reports and the command line go through this table by name. A new quantity
needs a row here; an attribute of ``LabelledStructure`` and of ``Weights``; entries in ``KeysConfig``, ``SourceConfig``
and ``OptimisationConfig``; and the unit of its misfit in ``training/loss.py``. The network's value of it is an output
of that name in ``Prediction.outputs``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Label:
    """A quantity that files carry and networks predict.

    Attributes:
        name: its name everywhere: attributes, configuration, tables of errors.
        shape: of one structure's value, or of one atom's.
        per_atom: each atom has a value; otherwise the structure has one.
        unit: of values.
        error_unit: of errors as they are shown, a thousandth of ``unit``.
        keys: names under which files carry it, in the order in which they are tried. ASE's own name comes first.
        molecular: only structures without any periodic direction have it.
    """

    name: str
    shape: tuple[int, ...]
    per_atom: bool
    unit: str
    error_unit: str
    keys: tuple[str, ...]
    molecular: bool = False

    def full_shape(self, n_atoms: int) -> tuple[int, ...]:
        """Shape of the values of a structure with ``n_atoms`` atoms."""
        return (n_atoms, *self.shape) if self.per_atom else self.shape

    def missing(self, n_atoms: int) -> NDArray[np.float64]:
        """The values of a structure that lacks this label: NaN, float64."""
        return np.full(self.full_shape(n_atoms), np.nan)


LABELS = (
    Label("energy", (), False, "eV", "meV", ("energy", "REF_energy", "TotEnergy", "dft_energy")),
    Label("forces", (3,), True, "eV/Angstrom", "meV/Angstrom", ("forces", "REF_forces", "force", "dft_forces")),
    Label("stress", (3, 3), False, "eV/Angstrom^3", "meV/Angstrom^3", ("stress", "REF_stress", "dft_stress")),
    # Not ASE's "initial_charges": these are what a calculation begins with, often formal charges.
    Label("charges", (), True, "e", "me", ("charges", "REF_charges", "dft_charges"), molecular=True),
    Label("dipole", (3,), False, "e Angstrom", "me Angstrom", ("dipole", "REF_dipole", "dft_dipole"), molecular=True),
)
BY_NAME: Mapping[str, Label] = {label.name: label for label in LABELS}

# Names in files by what they name. A virial in eV stands for a stress: stress = -virial / volume.
USUAL_KEYS: Mapping[str, tuple[str, ...]] = {label.name: label.keys for label in LABELS} | {
    "virial": ("virial", "virials", "REF_virial", "REF_virials", "dft_virial")
}
