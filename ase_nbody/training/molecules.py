"""The molecules of the data for tight binding: which ones it can do, their charges, and the zero of their energies.

An ion has the charge of its frame. A molecule with an odd number of electrons is a doublet and any other a singlet,
because files have no common name for the spin.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from ase.data import chemical_symbols

from ase_nbody.data import DataError, LabelledStructure
from ase_nbody.data.statistics import with_energies_that_count
from ase_nbody.structure import ISOLATED_ATOM_ANGSTROM, LABEL_ARRAYS, Structure

_LAST_ELEMENT = 86  # radon: GFN1-xTB and GFN2-xTB have parameters up to it
_MAX_FRAMES_FOR_SHIFT = 200  # about this number of frames of the data determine the shift of the energies


def find_molecules(data: Sequence[LabelledStructure], reach: float = ISOLATED_ATOM_ANGSTROM) -> list[int]:
    """Indices of all frames but isolated atoms.

    Args:
        data: labelled structures.
        reach: distance in Angstrom beyond which images of an atom do not count (see ``Structure.is_isolated_atom``).

    Raises:
        DataError: a frame is periodic, has an element that the methods lack, or a charge that is not a whole number of
            electrons; or all frames are isolated atoms.
    """
    chosen = [index for index, frame in enumerate(data) if not frame.structure.is_isolated_atom(reach)]
    for index in chosen:
        _require_molecule(data[index].structure, index)
    if not chosen:
        raise DataError("pretraining needs molecules, but the data are isolated atoms: add frames of molecules")
    return chosen


def _require_molecule(structure: Structure, index: int) -> None:
    heaviest, remedy = int(structure.numbers.max()), "leave out the entry 'pretraining'"
    if structure.pbc.any():
        raise DataError(f"pretraining is for molecules, but frame {index} of the data is periodic: {remedy}")
    if not 0 < structure.numbers.min() <= heaviest <= _LAST_ELEMENT:
        raise DataError(
            f"frame {index} of the data has the elements {Atoms(structure.numbers).symbols}, but tight binding knows "
            f"only H to {chemical_symbols[_LAST_ELEMENT]}: {remedy}"
        )
    if not structure.charge.is_integer() or abs(structure.charge) >= structure.numbers.sum():
        raise DataError(
            f"frame {index} of the data has the charge {structure.charge:g} e, but tight binding needs a whole number "
            f"of electrons: correct atoms.info['charge'], or {remedy}"
        )


def describe_ions(molecules: Sequence[LabelledStructure]) -> str:
    """How many molecules have which charge, in words; empty if all are neutral."""
    charges = Counter(frame.structure.charge for frame in molecules)
    return ", ".join(f"{count} of charge {charge:+g}" for charge, count in sorted(charges.items()) if charge)


def count_radicals(molecules: Sequence[LabelledStructure]) -> int:
    """Number of molecules with an odd number of electrons."""
    return sum(int(frame.structure.numbers.sum() - frame.structure.charge) % 2 for frame in molecules)


def free_molecule(structure: Structure) -> Atoms:
    """The molecule for the calculator, with its charge in ``info`` and as the sum of the initial charges.

    tblite takes the number of electrons from the sum of the initial charges, and makes an odd number a doublet.
    """
    atoms = Atoms(structure.numbers, structure.positions)
    if structure.labels is not None:
        atoms.set_array(LABEL_ARRAYS[0], structure.labels)
    if structure.charge:
        atoms.info["charge"] = int(structure.charge)
        atoms.set_initial_charges([structure.charge, *[0.0] * (len(structure) - 1)])
    return atoms


@dataclass(frozen=True)
class EnergyShift:
    """What is added to the energies of tight binding, so that they match those of the data.

    Attributes:
        elements: c_z in eV for each atom of element z, by atomic number.
        charge: c_q in eV for each elementary charge. GFN-xTB gives all ionisation energies and electron affinities
            about 5 eV too high.
    """

    elements: dict[int, float]
    charge: float = 0.0

    def of(self, structure: Structure) -> float:
        """The shift of a structure in eV: sum_z n_z c_z + q c_q."""
        return sum(self.elements[number] for number in structure.numbers.tolist()) + self.charge * structure.charge


def energy_shift(molecules: Sequence[LabelledStructure], calculator: Calculator) -> EnergyShift:
    """The shift by which the calculator's energies match the data's.

    The c_z and c_q solve sum_z n_z(frame) c_z + q(frame) c_q = E(frame) - E_calculator(frame) by least squares, where
    n_z counts the atoms of element z and q is the charge. If the frames do not determine them, the solution of least
    norm is taken. Without ions, c_q is 0.

    Args:
        molecules: molecules with energies in eV; frames without an energy are left out.
        calculator: the calculator whose energies are shifted.

    Returns:
        The shift; zeros if no energies can be compared.
    """
    elements = sorted({number for frame in molecules for number in frame.structure.numbers.tolist()})
    rows, differences = [], []
    for frame in _representatives(molecules):
        atoms = free_molecule(frame.structure)
        atoms.calc = calculator
        try:
            energy = atoms.get_potential_energy()
        except CalculatorError:
            continue
        rows.append([*(atoms.numbers[:, None] == elements).sum(0).tolist(), frame.structure.charge])
        differences.append(frame.energy - energy)
    if not differences:
        return EnergyShift(dict.fromkeys(elements, 0.0))
    # Without ions the column of charges is zero, and so is its coefficient in the solution of least norm.
    *shifts, charge = np.linalg.lstsq(np.array(rows), np.array(differences), rcond=None)[0].tolist()
    return EnergyShift(dict(zip(elements, shifts, strict=True)), charge)


def _representatives(molecules: Sequence[LabelledStructure]) -> list[LabelledStructure]:
    """Frames from all over the data whose energies count, and the first ones of each element and of each charge."""
    with_energy = with_energies_that_count(molecules)
    chosen = set(with_energy[:: -(-len(with_energy) // _MAX_FRAMES_FOR_SHIFT) or 1])
    seen: set[tuple[str, float]] = set()
    for index in with_energy:
        structure = molecules[index].structure
        kinds = {("charge", structure.charge), *(("element", number) for number in structure.numbers.tolist())}
        if kinds - seen:
            chosen.add(index)
        seen |= kinds
    return [molecules[index] for index in sorted(chosen)]
