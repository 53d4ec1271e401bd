"""Remarks on what the data contain: labels, elements and isolated atoms, duplicates, and leaked test frames."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from ase.data import chemical_symbols

from ase_nbody.data.labels import LABELS, LabelledStructure
from ase_nbody.data.lint.fingerprint import equal_structures
from ase_nbody.data.lint.remark import Frames, Remark, error, is_atom, note, warning, where
from ase_nbody.data.statistics import energies_of_isolated_atoms, frames_of_atoms
from ase_nbody.text import count_of

MIN_FRAMES_OF_ELEMENT = 10  # from fewer frames, a network learns little about an element
# Labels of equal structures that differ by more than these contradict each other.
ENERGY_TOLERANCE = 1e-3  # eV/atom
FORCE_TOLERANCE = 1e-2  # eV/Angstrom
CHARGE_TOLERANCE = 1e-3  # e


def remarks(frames: Frames) -> Iterator[Remark]:
    """All remarks on the contents of the data."""
    yield from _labels(frames)
    yield from _elements(frames)
    yield from _isolated_atoms(frames)
    yield from _duplicates(frames)


def _labels(frames: Frames) -> Iterator[Remark]:
    """How many frames have energies, forces, stresses and other labels, and which ones lack energies or forces."""
    energies = np.array([np.isfinite(frame.energy) for frame in frames])
    forces = np.array([np.isfinite(frame.forces).all() for frame in frames])
    names = [label.name for label in LABELS]
    counts = {name: sum(bool(np.isfinite(getattr(frame, name)).all()) for frame in frames) for name in names}
    shown = [name for name, count in counts.items() if count or name in ("energy", "forces", "stress")]
    atoms = [len(frame.structure) for frame in frames]
    yield note(
        "labels",
        f"{count_of(len(frames), 'frame')} of {_range(atoms)}:",
        ", ".join(f"{counts[name]} with {name}" for name in shown) + ".",
    )
    if not forces.any():
        yield error("labels", "No frame has forces. A network cannot be trained on energies alone: add forces.")
    if not energies.any():
        yield error(
            "labels", "No frame has an energy, so the model's energies would have an arbitrary zero: add energies."
        )
    forces |= np.array(atoms) == 1  # a lone atom has no forces to give: they are zero by symmetry, in a crystal too
    for name, present in (("energy", energies), ("forces", forces)):
        if present.any() and not present.all():
            missing = where(~present)
            lack = count_of(len(missing), "frame", "has", "have")
            yield warning("labels", f"{lack} no {name}; the loss leaves that label out.", frames=missing)


def _range(sizes: list[int]) -> str:
    """How many atoms the frames have, in words."""
    smallest, largest = min(sizes), max(sizes)
    return f"{smallest} to {largest} atoms" if smallest < largest else count_of(largest, "atom")


def _elements(frames: Frames) -> Iterator[Remark]:
    """How many frames contain each element."""
    counts = Counter(number for frame in frames for number in set(frame.structure.numbers.tolist()))
    by_symbol = {chemical_symbols[number]: counts[number] for number in sorted(counts)}
    frames_of = ", ".join(f"{symbol} in {count}" for symbol, count in by_symbol.items())
    yield note("elements", frames_of, "frame." if frames_of.endswith(" in 1") else "frames.")
    rare = [symbol for symbol, count in by_symbol.items() if count < min(MIN_FRAMES_OF_ELEMENT, len(frames))]
    if rare:
        yield warning(
            "elements",
            f"Few frames (fewer than {MIN_FRAMES_OF_ELEMENT} each) contain {', '.join(rare)}:",
            "the model will learn little about these elements. Add frames with them.",
        )


def _isolated_atoms(frames: Frames) -> Iterator[Remark]:
    """Whether the data determine the energies of isolated atoms."""
    with_energy = [frames[index] for index in frames_of_atoms(frames)]
    if not with_energy:
        return  # the remark on labels says it
    species = {chemical_symbols[number] for frame in frames for number in frame.structure.numbers.tolist()}
    compositions = {tuple(np.bincount(frame.structure.numbers, minlength=119)) for frame in with_energy}
    rank = np.linalg.matrix_rank(np.array(sorted(compositions), float))
    if species <= energies_of_isolated_atoms(frames).keys():
        yield note("isolated atoms", "Single-atom frames give the energy of every element.")
    elif rank >= len(species):
        yield note("isolated atoms", "Their energies will be fitted: the compositions of the frames determine them.")
    else:
        yield warning(
            "isolated atoms",
            f"{count_of(len(compositions), 'composition', 'does', 'do')} not determine the energies of",
            f"{count_of(len(species), 'element')}: fitted energies will be right for such compositions, but not for",
            "dissociation.",
            "Give data.isolated_atom_energies or single-atom frames if you have them.",
        )


def _duplicates(frames: Frames) -> Iterator[Remark]:
    """Frames of equal structures, and those among them whose labels differ."""
    equal = equal_structures([frame.structure for frame in frames])
    of_one_charge = [(i, j) for i, j in equal if _have_same_charge(frames[i], frames[j])]
    pairs = [(i, j) for i, j in of_one_charge if _spin(frames[i]) == _spin(frames[j])]
    # Isolated ions stay out of the isolated-atom energies, so they may lie beside atoms.
    charged = [(i, j) for i, j in equal if not _have_same_charge(frames[i], frames[j]) and not is_atom(frames[i])]
    if charged:
        i, j = charged[0]
        yield warning(
            "contradictions",
            f"{count_of(len(charged), 'pair')} of frames with the same structure and different total charges:",
            f"frames {i} and {j} have {frames[i].structure.charge:+g} and {frames[j].structure.charge:+g} e. Only a",
            "network with network.outputs: [charges] sees the charge; for any other, their labels contradict each",
            "other: train on one charge.",
            frames=sorted({index for pair in charged for index in pair}),
        )
    spins = [  # of isolated atoms the lowest energy counts
        (i, j)
        for i, j in of_one_charge
        if _spin(frames[i]) != _spin(frames[j]) and not is_atom(frames[i]) and _contradict(frames[i], frames[j])
    ]
    if spins:
        i, j = spins[0]
        yield error(
            "contradictions",
            f"{count_of(len(spins), 'pair')} of frames with the same structure and different spins: frames {i} and {j}",
            f"have the multiplicities {_spin(frames[i])} and {_spin(frames[j])}. No network sees the spin, so their",
            "labels contradict each other: train on one spin.",
            frames=sorted({index for pair in spins for index in pair}),
        )
    contradicting = [pair for pair in pairs if _contradict(frames[pair[0]], frames[pair[1]])]
    if contradicting:
        i, j = contradicting[0]
        yield error(
            "contradictions",
            f"{count_of(len(contradicting), 'pair')} of frames with the same structure and different labels:",
            f"frames {i} and {j} have {_different_labels(frames[i], frames[j])}.",
            "Did the settings of the calculation change?",
            "Keep one frame of each pair.",
            frames=sorted({index for pair in contradicting for index in pair}),
        )
    repeated = sorted({j for _, j in pairs})
    if repeated:
        yield warning(
            "duplicates",
            f"{count_of(len(repeated), 'frame', 'repeats', 'repeat')} an earlier frame up to rotation, order of the",
            "atoms and choice of the cell. Copies count twice in the loss, and a random split puts them into both",
            "training and validation.",
            frames=repeated,
        )


def leakage(frames: Frames, test: Frames) -> Iterator[Remark]:
    """A remark on the test frames that are also training frames, if there are any."""
    pairs = equal_structures([frame.structure for frame in frames], [frame.structure for frame in test])
    leaked = sorted({j for i, j in pairs if _have_same_charge(frames[i], test[j])})
    if leaked:
        yield error(
            "leakage",
            f"Of {count_of(len(test), 'test frame')}, {len(leaked)} {'is' if len(leaked) == 1 else 'are'} in the",
            "training data: the test errors would be too low.",
            "Remove what they share from one of the two.",
            frames=leaked,
        )


def _have_same_charge(a: LabelledStructure, b: LabelledStructure) -> bool:
    return abs(a.structure.charge - b.structure.charge) < CHARGE_TOLERANCE


def _spin(frame: LabelledStructure) -> int:
    return frame.structure.spin_multiplicity


def _contradict(a: LabelledStructure, b: LabelledStructure) -> bool:
    """Whether two frames of the same structure have different labels. A missing label contradicts no other label."""
    return _have_different_energies(a, b) or bool(abs(_largest_force(a) - _largest_force(b)) > FORCE_TOLERANCE)


def _different_labels(a: LabelledStructure, b: LabelledStructure) -> str:
    """In words: what contradicts each other in two such frames."""
    if _have_different_energies(a, b):
        return f"{a.energy:.4f} and {b.energy:.4f} eV"
    return f"largest forces of {_largest_force(a):.3g} and {_largest_force(b):.3g} eV/Angstrom"


def _have_different_energies(a: LabelledStructure, b: LabelledStructure) -> bool:
    return bool(abs(a.energy / len(a.structure) - b.energy / len(b.structure)) > ENERGY_TOLERANCE)


def _largest_force(frame: LabelledStructure) -> float:
    return float(np.linalg.norm(frame.forces, axis=1).max())
