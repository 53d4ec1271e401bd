"""What is there and what is missing: labels, elements, isolated atoms; what is there twice."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from ase.data import chemical_symbols

from ase_nbody.data.lint.fingerprint import equal_structures
from ase_nbody.data.lint.remark import Frames, Remark, error, is_atom, note, warning, where
from ase_nbody.data.reading import LabelledStructure

FEW = 10  # frames with an element, below which little can be learnt of it
SAME_ENERGY = 1e-3  # eV/atom
SAME_FORCE = 1e-2  # eV/Angstrom: labels of one structure that differ by more contradict each other


def remarks(frames: Frames) -> Iterator[Remark]:
    """All remarks on the contents of the data."""
    yield from _labels(frames)
    yield from _elements(frames)
    yield from _isolated_atoms(frames)
    yield from _duplicates(frames)


def _labels(frames: Frames) -> Iterator[Remark]:
    energies = np.array([np.isfinite(frame.energy) for frame in frames])
    forces = np.array([np.isfinite(frame.forces).all() for frame in frames])
    stresses = sum(bool(np.isfinite(frame.stress).all()) for frame in frames)
    atoms = [len(frame.structure) for frame in frames]
    yield note(
        "labels",
        f"{len(frames)} frames of {min(atoms)} to {max(atoms)} atoms:",
        f"{energies.sum()} with energy, {forces.sum()} with forces, {stresses} with stress.",
    )
    if not forces.any():
        yield error("labels", "No frame has forces, and a network is not trained on energies alone. Add them.")
    if not energies.any():
        yield error("labels", "No frame has an energy, so energies would be undetermined by a constant. Add some.")
    for name, present in (("energy", energies), ("forces", forces)):
        if present.any() and not present.all():
            missing = where(~present)
            yield warning("labels", f"{len(missing)} frames have no {name}; the loss leaves it out.", frames=missing)


def _elements(frames: Frames) -> Iterator[Remark]:
    counts = Counter(number for frame in frames for number in set(frame.structure.numbers.tolist()))
    by_symbol = {chemical_symbols[number]: counts[number] for number in sorted(counts)}
    yield note("elements", ", ".join(f"{symbol} in {count}" for symbol, count in by_symbol.items()), "frames.")
    rare = [symbol for symbol, count in by_symbol.items() if count < min(FEW, len(frames))]
    if rare:
        yield warning(
            "elements",
            f"{', '.join(rare)} occur in fewer than {FEW} frames: the model will know little of them.",
            "Add such frames.",
        )


def _isolated_atoms(frames: Frames) -> Iterator[Remark]:
    species = {number for frame in frames for number in frame.structure.numbers.tolist()}
    alone = {int(frame.structure.numbers[0]) for frame in frames if is_atom(frame)}
    compositions = {tuple(np.bincount(frame.structure.numbers, minlength=119)) for frame in frames}
    rank = np.linalg.matrix_rank(np.array(sorted(compositions), float))
    if species <= alone:
        yield note("isolated atoms", "Single-atom frames of every element are there, and will be used.")
    elif rank >= len(species):
        yield note("isolated atoms", "Their energies will be fitted, as the compositions determine them.")
    else:
        yield warning(
            "isolated atoms",
            f"{len(compositions)} compositions do not determine the energies of {len(species)} elements:",
            "fitted ones serve these compositions only, not dissociation.",
            "Give data.isolated_atom_energies, or single-atom frames, if you have them.",
        )


def _duplicates(frames: Frames) -> Iterator[Remark]:
    pairs = equal_structures([frame.structure for frame in frames])
    contradicting = [pair for pair in pairs if _contradict(frames[pair[0]], frames[pair[1]])]
    if contradicting:
        i, j = contradicting[0]
        yield error(
            "contradictions",
            f"{len(contradicting)} pairs of frames are the same structure with different labels: frames {i} and {j}",
            f"have {frames[i].energy:.4f} and {frames[j].energy:.4f} eV. Were settings changed? Keep one of each.",
            frames=sorted({index for pair in contradicting for index in pair}),
        )
    again = sorted({j for _, j in pairs})
    if again:
        yield warning(
            "duplicates",
            f"{len(again)} frames repeat an earlier one up to rotation, order of the atoms and choice of the cell.",
            "They count double, and a random split puts copies on both sides.",
            frames=again,
        )


def leakage(frames: Frames, test: Frames) -> Iterator[Remark]:
    """Test frames that are in the training data."""
    pairs = equal_structures([frame.structure for frame in frames], [frame.structure for frame in test])
    leaked = sorted({j for _, j in pairs})
    if leaked:
        yield error(
            "leakage",
            f"{len(leaked)} of {len(test)} test frames are in the training data: test errors would flatter.",
            "Remove them from one of the two.",
            frames=leaked,
        )


def _contradict(a: LabelledStructure, b: LabelledStructure) -> bool:
    """Whether two frames of one structure have different labels; a missing label differs from nothing."""
    energies = [frame.energy / len(frame.structure) for frame in (a, b)]
    largest = [np.linalg.norm(frame.forces, axis=1).max() for frame in (a, b)]
    return bool(abs(energies[0] - energies[1]) > SAME_ENERGY or abs(largest[0] - largest[1]) > SAME_FORCE)
