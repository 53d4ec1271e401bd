"""What a data file was found to hold: labels and their names, labels that structures cannot have, charges and spins."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import covalent_radii, vdw_radii

from ase_nbody.data.labels import BY_NAME, LABELS, LabelledStructure
from ase_nbody.data.names import Names
from ase_nbody.data.units_of_database import factor_of
from ase_nbody.electrons import SPIN_NAMES, another_sum
from ase_nbody.network.config import NBodyConfig
from ase_nbody.structure import Structure
from ase_nbody.text import count_of, printable

_ALWAYS_SAID = ("energy", "forces", "stress")
_CANNOT_HAVE = {
    "crystal": "structures that are not periodic in three directions, and isolated atoms in boxes, have none",
    "molecule": "periodic structures have none",
}
# Names that tell of labels which are not read. They are only mentioned.
_LIKE = {
    "energy": re.compile(r"energ(?!ies)|^e$|^e_|_e$|^e(tot|pot|dft|scf)|toten|^u0?$", re.I),
    "forces": re.compile(r"forc|^f$|^f_|_f$|^f[xyz]$|grad", re.I),
    "stress": re.compile(r"stress(?!es)|virial(?!s$)", re.I),
}
_INITIAL_CHARGES = "initial_charges"  # their sum is the total charge for tblite and xtb
_GRADIENT = re.compile(r"grad", re.I)
_LEARNT_ON_REQUEST = (BY_NAME["charges"], BY_NAME["dipole"])
_NO_LABEL = re.compile(r"weight|_spread$|^kinetic|units?$", re.I)
_NAMES_UNIT = re.compile(r"(^|_)units?$", re.I)
_CONVERGED = re.compile(r"(^|_)converged$", re.I)
_MOST_NAMES = 5
_LONGEST_BOND, _LONGEST_CONTACT = 1.5, 1.2  # in units of the sum of the covalent and of the van der Waals radii
_TELLING_SHIFT = 0.5  # e Angstrom: smaller differences between dipole moments about two points tell nothing
_SAME_ENERGY_EV = 1e-5  # files round energies to about 1e-8 eV
_OTHER_CHARGES = re.compile(r"^((total|net|tot|q|mol|molecular|molecule|system|sys)_?)?charge$|^q_?tot(al)?$", re.I)
_SPINS = re.compile(r"^(total_|initial_)?(spin|magmom|magnetization)s?$|^(n_?)?unpaired(_electrons)?$", re.I)
_MULTIPLICITIES = re.compile(r"multiplicity$|^mult$", re.I)


@dataclass
class Found:
    """What was found in one file.

    Attributes:
        path: the file.
        names: under which names the labels were read.
        frames: number of frames.
        labels: number of frames with each label.
        dropped: number of frames with a label that such a structure cannot have, by label.
        charged: number of frames with a total charge that is not zero.
        lost_charges: number of rows of a database with a key-value pair ``charge``, whose value ASE does not give back.
        not_read: number of frames with a value under each name that says something of charge or spin and is not read.
        sums: number of frames in which the charges of the atoms sum to another total charge than that of the frame, by
            the name of these charges.
        first_sums: this sum and the total charge of the first such frame, in e.
        about_origin: number of ions whose dipole moment is much smaller if it is one about the origin, less those for
            which it is the other way round.
        present: all names of values that the frames have.
        free_energies: number of frames whose ``free_energy`` is not their ``energy``.
        lone: number of frames of one atom whose images are too far away for a bond and too near for an isolated atom.
        nearest_image: smallest distance of an atom to its images in these frames, in Angstrom.
        unconverged: number of calculations in the whole file whose self-consistency did not converge.
        first_unconverged: which frame of the file the first of them is, or None if that is not known.
        said_unconverged: number of frames with an entry such as ``converged`` that is false, by its name.
        units: entries that name a unit in which labels are not read, and the first such unit of each.
    """

    path: str
    names: Names
    frames: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    charged: int = 0
    lost_charges: int = 0
    not_read: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    first_sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    about_origin: int = 0
    present: set[str] = field(default_factory=set)
    free_energies: int = 0
    lone: int = 0
    nearest_image: float = math.inf
    unconverged: int = 0
    first_unconverged: int | None = None
    said_unconverged: Counter[str] = field(default_factory=Counter)
    units: dict[str, str] = field(default_factory=dict)

    def add(self, frame: LabelledStructure, values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Count a frame.

        Args:
            frame: the frame as it was read.
            values: all values that the file has for it, by name.
            given: its labels as the file has them, by label, or None.
        """
        self.frames += 1
        self.present.update(values)
        for label in LABELS:
            if np.isfinite(getattr(frame, label.name)).all():
                self.labels[label.name] += 1
            elif given[label.name] is not None and not label.is_defined(frame.structure):
                self.dropped[label.name] += 1
        self.free_energies += _have_other_free_energy(values)
        self.charged += frame.structure.charge != 0.0
        self.lost_charges += _has_lost_charge(values)
        if (distance := _lone_atom(frame.structure)) is not None:
            self.lone += 1
            self.nearest_image = min(self.nearest_image, distance)
        for name, value in values.items():
            if name != "charge" and _says_something(name, value):
                self.not_read[name] += 1
            if _CONVERGED.search(name) and np.asarray(value).dtype.kind in "bi" and not np.any(value):
                self.said_unconverged[name] += 1
            if isinstance(value, str) and _NAMES_UNIT.search(name) and factor_of(value) != 1.0:
                self.units.setdefault(name, value)
        self.about_origin += _seems_about_origin(frame)
        self._compare_sums(frame, values)

    def __str__(self) -> str:
        """In words: the labels and their names, then what is not used."""
        shown = [label for label in LABELS if self.labels[label.name] or label.name in _ALWAYS_SAID]
        sentences = [f"{printable(self.path)}: {_frames(self.frames)}: {', '.join(map(self._count, shown))}."]
        unused = [name for name in self.names.unused if name != "free_energy" or self._has_another_energy()]
        if unused:
            sentences.append(f"Not read, because labels of different names are never mixed: {_list(unused)}.")
            if not (self.labels["energy"] and self.labels["forces"]):
                sentences.append(
                    "If one calculation wrote energies and forces, name both: --key energy=NAME --key forces=NAME, or "
                    "data.keys."
                )
        if self.free_energies and self.names.used.get("energy") == "energy":
            sentences.append(
                f"The free energy is not the energy in {_frames(self.free_energies)}. Forces belong to the free "
                "energy: read it with data.keys or --key energy=free_energy."
            )
        for label in LABELS:
            if self.dropped[label.name]:
                count, reason = self.dropped[label.name], _CANNOT_HAVE[label.needs]
                sentences.append(f"Left out: the {label.name} of {_frames(count)}, because {reason}.")
        if self.lone:
            sentences.append(
                f"{_frames(self.lone)} of one atom in a box (nearest image: {self.nearest_image:.3g} Angstrom): a "
                "crystal for every network that looks farther, as the sum of its radii tells. If it is a free atom, "
                "set its pbc to False."
            )
        if self.unconverged:
            first = "" if self.first_unconverged is None else f" (the first one: frame {self.first_unconverged})"
            sentences.append(
                f"The self-consistency of {count_of(self.unconverged, 'calculation')} in this file did not "
                f"converge{first}: such energies and forces may be wrong by any amount. Leave these frames out."
            )
        for name, count in sorted(self.said_unconverged.items()):
            sentences.append(
                f"{_frames(count)} with {printable(name)} = False: if this is the self-consistency, leave them out."
            )
        for name, unit in sorted(self.units.items()):
            sentences.append(
                f"{printable(name)} = {printable(unit, 40)} is not looked at: labels are read in eV and Angstrom. "
                "Convert them if they are in this unit."
            )
        sentences += filter(None, (self._mention(label_name) for label_name in _LIKE))
        return " ".join(sentences)

    def ignored(self, model: NBodyConfig | None) -> str:
        """In words: the charges, dipole moments and spins that a model ignores, or an empty string.

        Args:
            model: the configuration of the model, or None for one that predicts no charges and takes any charge and
                spin. A model that learnt certain charges or spins alone refuses all others and ignores none.
        """
        sentences = []
        if self.lost_charges:
            sentences.append(
                f"{_frames(self.lost_charges)} with charge as a key-value pair, in whose place databases of ASE give "
                "the sum of the initial charges. Write the total charge with data={'charge': ...}."
            )
        predicts = bool(model and model.outputs)
        if self.charged and not predicts and not (model and model.total_charges):
            sentences.append(
                f"{_frames(self.charged)} with a total charge (charge): the model ignores it. It uses charges only "
                "with network.outputs: [charges]."
            )
        not_learnt = [f"{label.name} in {_frames(n)}" for label in _LEARNT_ON_REQUEST if (n := self.labels[label.name])]
        if not_learnt and not predicts:
            sentences.append(
                f"{' and '.join(not_learnt)}: the model ignores them. A network learns them with network.outputs: "
                "[charges]."
            )
        if predicts and self.about_origin > 0:
            sentences.append(
                "The dipole moments of ions are those about the origin, as far as their sizes tell, and networks learn "
                "those about the centre of mass R: subtract charge * R."
            )
        for name, count in sorted(self.not_read.items()):
            if name in SPIN_NAMES and model and model.multiplicities:
                continue
            remedy = " Name it charge if it is the total charge." if _OTHER_CHARGES.match(name) else ""
            sentences.append(f"{_frames(count)} with {printable(name)}: it is ignored.{remedy}")
        for name, count in sorted(self.sums.items()):
            total, charge = self.first_sums[name]
            sentences.append(
                f"The {printable(name)} of {_frames(count)} do not sum to the total charge (charge, 0 if absent): in "
                f"the first one to {total:+.3g} instead of {charge:+.3g} e. Set charge to the sum if that is the total "
                "charge."
            )
        return f"{printable(self.path)}: {' '.join(sentences)}" if sentences else ""

    def _compare_sums(self, frame: LabelledStructure, values: Mapping[str, Any]) -> None:
        """Compare the total charge with the sums of partial charges and, if it is not given, of initial charges."""
        summed = {self.names.used.get("charges", "charges"): frame.charges}
        if values.get("charge") is None and values.get(_INITIAL_CHARGES) is not None:
            summed[_INITIAL_CHARGES] = values[_INITIAL_CHARGES]
        for name, charges in summed.items():
            if (total := another_sum(charges, frame.structure.charge)) is not None:
                self.sums[name] += 1
                self.first_sums.setdefault(name, (total, frame.structure.charge))

    def _count(self, label: Any) -> str:
        names = [self.names.used[key] for key in (label.name, *_stands_for(label.name)) if key in self.names.used]
        shown = f" (named {_list(names)})" if names and self.labels[label.name] else ""
        return f"{self.labels[label.name]} with {label.name}{shown}"

    def _mention(self, label: str) -> str:
        """In words: the names that may mean this label and are not read, or an empty string."""
        read = {*self.names.used.values(), *self.names.unused}
        like = sorted(name for name in self.present - read if _LIKE[label].search(name) and not _NO_LABEL.search(name))
        if not like:
            return ""
        sign = ""
        if label == "forces" and any(map(_GRADIENT.search, like)):
            sign = " Forces are the negative of gradients: if it holds gradients, write forces instead."
        names, option = _list(like[:_MOST_NAMES]), f"data.keys or --key {label}={printable(like[0])}"
        if not self.labels[label]:
            return f"Is one of these the {label}: {names}? Then name it, with {option}.{sign}"
        return f"Not read: {names}. If this is the {label} of the reference, name it, with {option}.{sign}"

    def _has_another_energy(self) -> bool:
        """Whether a file has only the free energy, or one that differs from an energy that is not read either."""
        return "energy" not in self.present or bool(self.free_energies and self.names.used.get("energy") != "energy")


def _stands_for(label: str) -> tuple[str, ...]:
    return ("virial",) if label == "stress" else ()


def _says_something(name: str, value: Any) -> bool:
    """Whether an entry of a frame is a charge or a spin that is not zero (a multiplicity: not one)."""
    nothing = 1 if _MULTIPLICITIES.search(name) else 0
    if name not in SPIN_NAMES and not any(like.search(name) for like in (_SPINS, _MULTIPLICITIES, _OTHER_CHARGES)):
        return False
    array = np.asarray(value)
    return array.dtype.kind in "iuf" and bool((array != nothing).any())


def _has_lost_charge(values: Mapping[str, Any]) -> bool:
    """Whether a row of a database has its charge in a key-value pair alone, which ASE overwrites when it reads."""
    pairs, data = (values.get(name) for name in ("key_value_pairs", "data"))
    return isinstance(pairs, dict) and "charge" in pairs and not (isinstance(data, dict) and "charge" in data)


def _lone_atom(structure: Structure) -> float | None:
    """The distance in Angstrom of one atom to its images, if it is neither that of a bond nor that of a free atom."""
    if len(structure) != 1 or structure.is_isolated_atom():
        return None
    number, short = int(structure.numbers[0]), structure.with_short_lattice_vectors()[0]
    distance = float(np.linalg.norm(short.cell[short.pbc], axis=1).min())
    # Atoms of noble gases touch each other without a bond.
    contact = np.fmax(_LONGEST_BOND * covalent_radii[number], _LONGEST_CONTACT * vdw_radii[number])
    return distance if distance > 2.0 * contact else None


def _seems_about_origin(frame: LabelledStructure) -> int:
    """1 if the dipole moment of an ion is one about the origin, -1 if about its centre of mass, 0 if it does not tell.

    The two differ by the charge times the centre of mass. The right one is the smaller one, as a rule by far.
    """
    structure, masses = frame.structure, frame.structure.masses
    shift = structure.charge * (masses @ structure.positions) / masses.sum()
    if not np.linalg.norm(shift) > _TELLING_SHIFT:
        return 0
    given, moved = np.linalg.norm(frame.dipole), np.linalg.norm(frame.dipole - shift)  # NaN if there is none
    return int(moved < 0.5 * given) - int(given < 0.5 * moved)


def _have_other_free_energy(values: Mapping[str, Any]) -> bool:
    """Whether a frame has an energy and another free energy."""
    pair = [np.asarray(values.get(name)) for name in ("energy", "free_energy")]
    if any(value.shape != () or value.dtype.kind not in "iuf" for value in pair):
        return False
    return bool(abs(pair[0] - pair[1]) > _SAME_ENERGY_EV)


def _frames(count: int) -> str:
    return count_of(count, "frame")


def _list(names: Any) -> str:
    return ", ".join(map(printable, names))
