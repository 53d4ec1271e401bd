"""Remarks on labels that no potential can or should learn: net forces, overlaps, outliers."""

from collections.abc import Iterator

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from ase_nbody.data.labels import LabelledStructure
from ase_nbody.data.lint.remark import Frames, Remark, is_atom, warning, where
from ase_nbody.data.statistics import fit_isolated_energies
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.text import count_of

MAX_NET_FORCE = 0.02  # eV/Angstrom per atom; a converged calculation leaves less
MAX_TORQUE = 0.1  # eV per atom
MAX_FORCE = 50.0  # eV/Angstrom
# Allowed shortest distance of a frame, in units of the sum of the two covalent radii.
MIN_DISTANCE_RATIO, MAX_DISTANCE_RATIO = 0.6, 2.0
# In these units too. Bonds have about 1.0, and 1.9 if positions are in Bohr.
BOHR_DISTANCE_RATIOS, SHORTEST_IN_BOHR, MIN_FRAMES = (1.55, 2.0), 1.3, 3
NOBLE_GASES = (2, 10, 18, 36, 54, 86)  # their atoms touch without bonds
MAX_CRYSTAL_VOLUME = 30.0  # of a cell, in units of the volume of its atoms with their covalent radii; metals have 2
_NEIGHBOUR_RANGE = 6.0  # Angstrom: the shortest distance is looked for within this range
MAX_DEVIATION = 12.0  # median absolute deviations of the energy per atom from its median
_MIN_SPREAD = 1e-3  # eV/atom: smallest median absolute deviation, so that tiny ones make no outliers


def remarks(frames: Frames) -> Iterator[Remark]:
    """All remarks on the physics of the data."""
    yield from _net_forces(frames)
    yield from _distances(frames)
    yield from _outliers(frames)


def _net_forces(frames: Frames) -> Iterator[Remark]:
    """Frames with a net force, and molecules with a net torque."""
    net = np.array([np.linalg.norm(frame.forces.sum(axis=0)) / len(frame.structure) for frame in frames])
    if (net > MAX_NET_FORCE).any():
        yield warning(
            "net force",
            f"{_frames(net > MAX_NET_FORCE)} a net force above {MAX_NET_FORCE} eV/Angstrom per atom",
            f"(largest {np.nanmax(net):.3f}), which no potential can produce.",
            "Are they converged? Was there an external field?",
            frames=where(net > MAX_NET_FORCE),
        )
    torque = np.array([_torque(frame) for frame in frames])
    if (torque > MAX_TORQUE).any():
        yield warning(
            "torque",
            f"{_frames(torque > MAX_TORQUE)} a net torque above {MAX_TORQUE} eV per atom (largest",
            f"{np.nanmax(torque):.3f}). Are forces and positions in the same coordinate system?",
            frames=where(torque > MAX_TORQUE),
        )


def _torque(frame: LabelledStructure) -> float:
    """|sum r x F| / N in eV, with r relative to the mean position; 0 for periodic structures."""
    if frame.structure.pbc.any():
        return 0.0
    arms = frame.structure.positions - frame.structure.positions.mean(axis=0)
    return float(np.linalg.norm(np.cross(arms, frame.forces).sum(axis=0)) / len(arms))


def _distances(frames: Frames) -> Iterator[Remark]:
    """Frames whose atoms overlap, and frames whose atoms are too far apart to bind."""
    closest = np.array([_closest_ratio(frame) for frame in frames])
    if (closest < MIN_DISTANCE_RATIO).any():
        yield warning(
            "distances",
            f"{_frames(closest < MIN_DISTANCE_RATIO)} atoms closer than {MIN_DISTANCE_RATIO} times the sum",
            f"of their covalent radii (closest: {closest.min():.2f}). Are positions in Angstrom?",
            frames=where(closest < MIN_DISTANCE_RATIO),
        )
    scattered = (closest > MAX_DISTANCE_RATIO) & np.array([not is_atom(frame) for frame in frames])
    if scattered.any():
        yield warning(
            "distances",
            f"{_frames(scattered)} no two atoms within {MAX_DISTANCE_RATIO:.0f} times the sum of their",
            "covalent radii. Are positions in Angstrom, and is pbc set?",
            frames=where(scattered),
        )
    noble = np.array([bool(np.isin(frame.structure.numbers, NOBLE_GASES).any()) for frame in frames])
    bound = closest[np.isfinite(closest) & ~noble]
    low, high = BOHR_DISTANCE_RATIOS
    if len(bound) >= MIN_FRAMES and bound.min() > SHORTEST_IN_BOHR and low < np.median(bound) < high:
        yield warning(
            "distances",
            f"In most frames no two atoms are within {np.median(bound):.2f} times the sum of their covalent radii.",
            "Are positions in Bohr? Multiply positions and cells by 0.529177 to convert them to Angstrom.",
        )
    dense = np.array([_fills_its_cell(frame) for frame in frames])
    if dense.any():
        yield warning(
            "distances",
            f"{_frames(dense)} a cell that the atoms fill, but no periodic direction. Is pbc set?",
            frames=where(dense),
        )


def _frames(mask: NDArray[np.bool_]) -> str:
    return count_of(int(mask.sum()), "frame", "has", "have")


def _fills_its_cell(frame: LabelledStructure) -> bool:
    """Whether a structure without periodic directions has a cell that is about as full as a crystal's."""
    structure = frame.structure
    if structure.pbc.any() or not structure.has_volume:
        return False
    volume_of_atoms = 4.0 / 3.0 * np.pi * float((covalent_radii[structure.numbers] ** 3).sum())
    return bool(structure.volume < MAX_CRYSTAL_VOLUME * volume_of_atoms)


def _closest_ratio(frame: LabelledStructure) -> float:
    """Smallest distance in units of the sum of the covalent radii; infinite if no atoms are within 6 Angstrom."""
    numbers, pairs = frame.structure.numbers, find_pairs(frame.structure, _NEIGHBOUR_RANGE)
    contact = covalent_radii[numbers[pairs.first]] + covalent_radii[numbers[pairs.second]]
    return float(np.min(pairs.distance / contact, initial=np.inf))


def _outliers(frames: Frames) -> Iterator[Remark]:
    """Frames whose energy per atom or largest force is far from that of all others."""
    isolated = fit_isolated_energies(frames)
    fitted = [sum(isolated[chemical_symbols[number]] for number in frame.structure.numbers) for frame in frames]
    sizes = np.array([len(frame.structure) for frame in frames])
    has_bonds = np.array([not is_atom(frame) for frame in frames])
    energy = np.where(has_bonds, (np.array([frame.energy for frame in frames]) - fitted) / sizes, np.nan)
    far = np.abs(_deviations(energy)) > MAX_DEVIATION
    if far.any():
        worst = int(np.argmax(np.where(far, np.abs(energy - np.nanmedian(energy)), -1.0)))
        yield warning(
            "outliers",
            f"The energy per atom of {count_of(int(far.sum()), 'frame')} is far from the median, frame {worst} by",
            f"{energy[worst] - np.nanmedian(energy):+.3f} eV/atom. Is it another electronic state, or were the",
            "settings different?",
            frames=where(far),
        )
    force = np.array([np.abs(frame.forces).max(initial=0.0) for frame in frames])
    if (force > MAX_FORCE).any():
        yield warning(
            "outliers",
            f"{_frames(force > MAX_FORCE)} forces above {MAX_FORCE:.0f} eV/Angstrom (largest",
            f"{np.nanmax(force):.0f}): they would dominate the loss.",
            "Remove structures that never occur at your temperatures.",
            frames=where(force > MAX_FORCE),
        )


def _deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances from the median in median absolute deviations. NaN stays NaN; without any finite value all are zero."""
    if not np.isfinite(values).any():
        return np.zeros_like(values)
    distance = values - np.nanmedian(values)
    return distance / max(float(np.nanmedian(np.abs(distance))), _MIN_SPREAD)
