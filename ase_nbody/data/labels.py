"""The table ``LABELS``: one row for each quantity that a network can learn.

Reading, batches, the store on disk, the loss, errors, reports, configurations and the command line find quantities in
this table by name. A new quantity needs a row, an attribute of ``LabelledStructure`` and one of ``Weights`` here, and
its weight in ``OptimisationConfig``. ``Prediction.outputs`` holds what a network predicts for it, under the same name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_nbody.structure import Structure


class DataError(ValueError):
    """Data that a network cannot be trained or tested on; the message names the file, the frame and the remedy."""


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
        keys: names under which files carry it, ASE's own name first. Each may have a prefix of ``PREFIXES``.
        needs: what a structure must be to have it. A ``molecule`` has no periodic direction. A ``crystal`` has three,
            and thus a volume.
    """

    name: str
    shape: tuple[int, ...]
    per_atom: bool
    unit: str
    error_unit: str
    misfit: MisfitUnit
    keys: tuple[str, ...]
    needs: Literal["anything", "molecule", "crystal"] = "anything"

    def is_defined(self, structure: Structure) -> bool:
        """Whether the structure can have this label. Reading, training and evaluation all ask here.

        A stress, or a virial, is learnt for crystals alone. Programs write zeros for molecules, wires, slabs and atoms
        in boxes, and the stress of a slab depends on how much vacuum the volume counts. Charges and dipole moments are
        learnt for structures in which nothing is periodic, and for atoms in boxes.
        """
        if self.needs == "anything":
            return True
        molecule = not structure.pbc.any() or structure.is_isolated_atom()
        if self.needs == "molecule":
            return molecule
        return bool(structure.pbc.all()) and structure.has_volume and not molecule

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
        keys=("energy", "TotEnergy", "free_energy"),
    ),
    Label(
        name="forces",
        shape=(3,),
        per_atom=True,
        unit="eV/Angstrom",
        error_unit="meV/Angstrom",
        misfit=MisfitUnit(1.0, relative=True),
        keys=("forces", "force"),
    ),
    Label(
        name="stress",
        shape=(3, 3),
        per_atom=False,
        unit="eV/Angstrom^3",
        error_unit="meV/Angstrom^3",
        misfit=MisfitUnit(0.01, relative=True),
        keys=("stress",),
        needs="crystal",
    ),
    Label(
        name="charges",
        shape=(),
        per_atom=True,
        unit="e",
        error_unit="me",
        misfit=MisfitUnit(0.1),
        # Not ASE's "initial_charges": they are what a calculation begins with, and often formal charges.
        keys=("charges",),
        needs="molecule",
    ),
    Label(
        name="dipole",
        shape=(3,),
        per_atom=False,
        unit="e Angstrom",
        error_unit="me Angstrom",
        misfit=MisfitUnit(0.1, grows=True),
        keys=("dipole",),
        needs="molecule",
    ),
)
BY_NAME: Mapping[str, Label] = {label.name: label for label in LABELS}

# For each label, the names that files use for it. A virial in eV may replace a stress: stress = -virial / volume.
USUAL_KEYS: Mapping[str, tuple[str, ...]] = {label.name: label.keys for label in LABELS} | {
    "virial": ("virial", "virials")
}
# Names with one prefix come from one calculation and are a set. The sets, in the order in which they are tried: the
# names of a reference come before ASE's own, which a model may have written over.
PREFIXES = ("REF_", "ref_", "Ref_", "dft_", "DFT_", "Dft_", "")


class Weights(NamedTuple):
    """How much each label of a frame counts in the loss."""

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 1.0
    charges: float = 1.0
    dipole: float = 1.0


EQUAL = Weights()


class Source(NamedTuple):
    """Where a structure comes from: ``ase.io.read(path, frame)`` reads it again."""

    path: str
    frame: int

    def __str__(self) -> str:
        return f"{self.path}, frame {self.frame}"


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
        source: the file and the frame that it was read from, if any.

    A label that the structure cannot have (see ``Label.is_defined``) is missing, whatever was given.
    """

    structure: Structure
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    weights: Weights = EQUAL
    charges: NDArray[np.float64] = None  # type: ignore[assignment]  # becomes NaN
    dipole: NDArray[np.float64] = None  # type: ignore[assignment]  # becomes NaN
    source: Source | None = None

    def __post_init__(self) -> None:
        for label in LABELS:
            if getattr(self, label.name) is None or not label.is_defined(self.structure):
                object.__setattr__(self, label.name, label.missing(len(self.structure)))
