"""Remarks on frames that cannot come from one potential: joined from two programs, units, signs or zeros of energy.

Units are judged by all frames together (``agreement.py``), so a part with other units hides among the rest. Single
frames and pairs show it:

- Between two similar frames the energy changes by the work of forces and stresses (``similar.py``). On right data of
  molecules and crystals the rest is below half of the terms of this sum in nearly all pairs. If it is ten times as
  large as them in a few pairs, or not small in many, the labels of the two frames do not belong together.
- The bonds of each single frame have a stiffness (``stiffness.py``), within a factor of two of the expected one.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ase_nbody.data.lint.remark import Frames, Remark, error, where
from ase_nbody.data.lint.similar import Changes
from ase_nbody.data.lint.slopes import Slope
from ase_nbody.data.lint.units import explain_energy
from ase_nbody.text import count_of

Array = NDArray[np.float64]

MIN_FRAMES, MIN_PAIRS = 3, 16
JUMP = 10.0  # energy that nothing explains, in units of the work of forces and stresses
DISAGREEMENT, MAX_SHARE = 0.5, 0.1  # in these units, and the share of pairs that may have it, for very many pairs
_LEAST_WORK = 1e-3  # eV/atom: energies below this may be noise
_LEAST_WORK_STRAINED = 0.05  # eV/atom: where the stresses are not known, 0.1 of strain changes the energy by less
_STRAINED = 1e-4
NORMAL, ODD = 4.0, 5.0  # the stiffness of a frame is at most this factor off, and is off by at least this one
WIDEST = 2.0  # largest ratio of the quartiles of the normal ones
NARROW, NARROW_RELATIVE = 0.2, 0.6  # largest distance of the quartiles of the odd ones, absolute or relative
APART = 3.0  # two groups of energies: their distance, in units of the range of the wider one


def remarks(frames: Frames, changes: Changes, alpha: Slope, beta: Slope, stiffness: Array) -> Iterator[Remark]:
    """All remarks on frames whose labels do not belong together.

    Args:
        frames: all frames.
        changes: pairs of similar frames.
        alpha: slope of the energies of these pairs over the work of the forces: a wrong unit of all frames.
        beta: slope over the work of the stresses.
        stiffness: that of the bonds of each frame (frames,), NaN if unknown.
    """
    yield from _pairs(frames, changes, alpha, beta)
    yield from _bonds(stiffness)


def _pairs(frames: Frames, changes: Changes, alpha: Slope, beta: Slope) -> Iterator[Remark]:
    """Whether the energies of similar frames belong together."""
    unexplained, explained, judged = _work(frames, changes, alpha, beta)
    known = np.isfinite(unexplained / explained)
    ratio = np.where(known, unexplained / explained, 0.0)
    jumps = ratio > JUMP
    judged &= known
    if jumps.sum() >= MIN_FRAMES:
        worst = int(np.argmax(np.where(jumps, unexplained, -1.0)))
        a, b = int(changes.first[worst]), int(changes.second[worst])
        yield error(
            "contradictions",
            f"Energies of similar frames differ by much more than their forces and stresses allow: frames {a} and {b}",
            f"have {frames[a].energy:.4f} and {frames[b].energy:.4f} eV. Were files of two programs, theories, units",
            "or zeros of energy joined? Convert the energies and forces of one part, or train on the other alone. Or",
            "are all energies in another unit than eV?",
            frames=_other_part(frames, where(_named(changes, jumps, len(frames)))),
        )
        return
    disagree = judged & (ratio > DISAGREEMENT)
    count = int(judged.sum())
    if count >= MIN_PAIRS and disagree.sum() > (MAX_SHARE + 1.0 / np.sqrt(count)) * count:
        yield error(
            "contradictions",
            f"In {disagree.sum() / count:.0%} of {count} pairs of similar frames, the energy does not follow from the",
            "forces. Do the labels belong to these frames and to this order of the atoms? Do all frames have the same",
            "units, signs, axes and electronic state?",
            frames=where(_named(changes, disagree, len(frames))),
        )


def _work(frames: Frames, changes: Changes, alpha: Slope, beta: Slope) -> tuple[Array, Array, NDArray[np.bool_]]:
    """For each pair, in eV: the energy that nothing explains, the size of what explains; and whether that is all.

    If all frames have the same wrong unit, the slopes take the work into this unit.
    """
    n_atoms = np.array([len(frames[index].structure) for index in changes.first])
    factors = alpha.value if alpha.is_wrong else 1.0, beta.value if beta.is_wrong else 1.0
    of_stress = factors[1] * (changes.volume_stress * changes.strain).sum(axis=1)
    its_change = factors[1] * (changes.volume_stress_change * changes.strain).sum(axis=1)
    strained = np.abs(changes.strain).max(axis=1, initial=0.0) > _STRAINED
    known = strained & np.isfinite(of_stress) & beta.is_clear
    of_stress, its_change = (np.where(known, work, 0.0) for work in (of_stress, its_change))
    of_forces = factors[0] * changes.force_work
    explained = np.abs(of_forces) + np.abs(factors[0] * changes.force_work_change)
    explained += np.abs(of_stress) + 0.5 * np.abs(its_change)
    explained += np.where(strained, _LEAST_WORK_STRAINED, _LEAST_WORK) * max(1.0, abs(factors[0])) * n_atoms
    return np.abs(changes.energy - of_forces - of_stress), explained, ~strained


def _named(changes: Changes, pairs: NDArray[np.bool_], n_frames: int) -> NDArray[np.bool_]:
    """The frames (n_frames,) that belong to these pairs."""
    found = np.zeros(n_frames, np.bool_)
    found[changes.first[pairs]] = found[changes.second[pairs]] = True
    return found


def _other_part(frames: Frames, named: Sequence[int]) -> list[int]:
    """Of the frames of contradicting pairs, those of the smaller part, if their energies fall into two parts."""
    by_atoms: defaultdict[bytes, list[int]] = defaultdict(list)
    for index in named:
        by_atoms[frames[index].structure.numbers.tobytes()].append(index)
    smaller: list[int] = []
    for group in by_atoms.values():
        order = sorted(group, key=lambda index: frames[index].energy)
        energies = np.array([frames[index].energy for index in order])
        cut = int(np.argmax(np.diff(energies, append=energies[-1]))) + 1
        parts = order[:cut], order[cut:]
        widest = max(float(np.ptp(part)) if len(part) else 0.0 for part in (energies[:cut], energies[cut:]))
        if not parts[1] or energies[cut] - energies[cut - 1] < APART * widest:
            return list(named)
        smaller += parts[len(parts[1]) < len(parts[0])]
    return sorted(smaller)


def _bonds(stiffness: Array) -> Iterator[Remark]:
    """Whether the bonds of some frames have another stiffness than those of the others."""
    normal = (stiffness > 1.0 / NORMAL) & (stiffness < NORMAL)
    odd = np.isfinite(stiffness) & ~((stiffness > 1.0 / ODD) & (stiffness < ODD))
    if normal.sum() < MIN_FRAMES or odd.sum() < MIN_FRAMES:
        return
    low, usual, high = np.percentile(stiffness[normal], [25, 50, 75])
    lowest, typical, highest = (float(value) for value in np.percentile(stiffness[odd], [25, 50, 75]))
    if high > WIDEST * low or highest - lowest > max(NARROW, NARROW_RELATIVE * abs(typical)):
        return  # there are no two parts, but labels without meaning
    yield error(
        "contradictions",
        f"By their forces, bonds are {typical:.2g} times as stiff as they should be in",
        f"{count_of(int(odd.sum()), 'frame')}, and {usual:.2g} times in the others. This would fit",
        f"{explain_energy(None, typical)}. Were files of different units or signs joined?",
        "Convert the energies and forces of these frames.",
        frames=where(odd),
    )
