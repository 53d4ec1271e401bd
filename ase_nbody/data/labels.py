"""The table ``LABELS``: one row for each quantity that a network can learn.

Reading, batches, the store on disk, the loss, errors, reports, configurations and the command line find quantities in
this table by name. A new quantity needs a row, an attribute of ``LabelledStructure`` and one of ``Weights`` here, and
its weight in ``OptimisationConfig``. ``Prediction.outputs`` holds what a network predicts for it, under the same name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_nbody.structure import Structure


@dataclass(frozen=True)
class MisfitUnit:
    """The size that an error must have to count as 1 in the loss.

    Attributes:
        size: the size, in the unit of the label, or as a multiple of the typical force if ``relative``.
        relative: whether the typical force sets the unit (with 1 Angstrom as the unit of length).
        grows: whether this size grows with the square root of the number of atoms, as a sum of independent errors does.
    """

    size: float
    relative: bool = False
    grows: bool = False


@dataclass(frozen=True)
class Label:
    """A quantity that files carry and networks predict.

    Attributes:
        name: its name everywhere: in attributes, the configuration and tables of errors.
        shape: shape of the value of one structure, or of one atom if ``per_atom``.
        per_atom: whether each atom has a value; otherwise the structure has one.
        unit: unit of the values.
        error_unit: unit in which errors are shown, a thousandth of ``unit``.
        misfit: size that an error must have to count as 1 in the loss.
        keys: names under which files carry it, in the order in which they are tried. ASE's own name comes first.
        molecular: whether only structures without periodic directions have it.
    """

    name: str
    shape: tuple[int, ...]
    per_atom: bool
    unit: str
    error_unit: str
    misfit: MisfitUnit
    keys: tuple[str, ...]
    molecular: bool = False

    def full_shape(self, n_atoms: int) -> tuple[int, ...]:
        """Shape of the values of a structure with ``n_atoms`` atoms."""
        return (n_atoms, *self.shape) if self.per_atom else self.shape

    def missing(self, n_atoms: int) -> NDArray[np.float64]:
        """The values of a structure that lacks this label: NaN, float64."""
        return np.full(self.full_shape(n_atoms), np.nan)


LABELS = (
    Label(
        name="energy",
        shape=(),
        per_atom=False,
        unit="eV",
        error_unit="meV",
        misfit=MisfitUnit(1.0, relative=True, grows=True),
        keys=("energy", "REF_energy", "TotEnergy", "dft_energy"),
    ),
    Label(
        name="forces",
        shape=(3,),
        per_atom=True,
        unit="eV/Angstrom",
        error_unit="meV/Angstrom",
        misfit=MisfitUnit(1.0, relative=True),
        keys=("forces", "REF_forces", "force", "dft_forces"),
    ),
    Label(
        name="stress",
        shape=(3, 3),
        per_atom=False,
        unit="eV/Angstrom^3",
        error_unit="meV/Angstrom^3",
        misfit=MisfitUnit(0.01, relative=True),
        keys=("stress", "REF_stress", "dft_stress"),
    ),
    Label(
        name="charges",
        shape=(),
        per_atom=True,
        unit="e",
        error_unit="me",
        misfit=MisfitUnit(0.1),
        # Not ASE's "initial_charges": they are what a calculation begins with, and often formal charges.
        keys=("charges", "REF_charges", "dft_charges"),
        molecular=True,
    ),
    Label(
        name="dipole",
        shape=(3,),
        per_atom=False,
        unit="e Angstrom",
        error_unit="me Angstrom",
        misfit=MisfitUnit(0.1, grows=True),
        keys=("dipole", "REF_dipole", "dft_dipole"),
        molecular=True,
    ),
)
BY_NAME: Mapping[str, Label] = {label.name: label for label in LABELS}

# For each label, the names that files use for it. A virial in eV may replace a stress: stress = -virial / volume.
USUAL_KEYS: Mapping[str, tuple[str, ...]] = {label.name: label.keys for label in LABELS} | {
    "virial": ("virial", "virials", "REF_virial", "REF_virials", "dft_virial")
}


class Weights(NamedTuple):
    """How much each label of a frame counts in the loss."""

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 1.0
    charges: float = 1.0
    dipole: float = 1.0


EQUAL = Weights()


@dataclass(frozen=True)
class LabelledStructure:
    """A structure and its reference values.

    Attributes:
        structure: the system.
        energy: total energy in eV, NaN if missing.
        forces: forces (N, 3) in eV/Angstrom, NaN where missing.
        stress: stress (3, 3) in eV/Angstrom^3 with ASE's sign, NaN if missing.
        weights: how much each label counts in the loss.
        charges: partial charges (N,) in e, NaN where missing.
        dipole: dipole moment (3,) in e Angstrom, NaN if missing; of an ion about its centre of mass.
    """

    structure: Structure
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    weights: Weights = EQUAL
    charges: NDArray[np.float64] = None  # type: ignore[assignment]  # becomes NaN
    dipole: NDArray[np.float64] = None  # type: ignore[assignment]  # becomes NaN

    def __post_init__(self) -> None:
        for label in LABELS:
            if getattr(self, label.name) is None:
                object.__setattr__(self, label.name, label.missing(len(self.structure)))
