"""What no potential could learn, or should: wrong units and signs, net forces, overlaps, outliers."""

from collections.abc import Iterator

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from ase_nbody.data.lint.consistency import explain_energy, explain_stress, slopes
from ase_nbody.data.lint.remark import Frames, Remark, error, is_atom, note, warning, where
from ase_nbody.data.reading import LabelledStructure
from ase_nbody.data.statistics import fit_isolated_energies
from ase_nbody.hierarchy.neighbours import find_pairs

NET_FORCE = 0.02  # eV/Angstrom per atom: more than self-consistency leaves
TORQUE = 0.1  # eV per atom
LARGE_FORCE = 50.0  # eV/Angstrom
OVERLAP, LONELY = 0.6, 2.0  # of the sum of the covalent radii
OUTLIER = 12.0  # median absolute deviations


def remarks(frames: Frames) -> Iterator[Remark]:
    """All remarks on the physics of the data."""
    yield from _units(frames)
    yield from _net_forces(frames)
    yield from _distances(frames)
    yield from _outliers(frames)


def _units(frames: Frames) -> Iterator[Remark]:
    energy, stress = slopes(frames)
    if energy is None or not energy.telling:
        yield note("units", "Unchecked: too few frames, or energies that a pair potential does not describe.")
    elif energy.plausible:
        yield note("units", f"Energies go with the forces: slope {energy.value:.2f}, and a third to three is right.")
    else:
        yield error(
            "units",
            f"Forces do not belong to the energies: slope {energy.value:.3g} instead of 1, as it would be for",
            f"{explain_energy(energy.value)}. Convert to eV and eV/Angstrom.",
        )
    if stress is not None and stress.telling and not stress.plausible:
        yield error(
            "stress",
            f"Stresses do not belong to the forces: slope {stress.value:.3g} instead of 1, as it would be for",
            f"{explain_stress(stress.value)}. Convert to eV/Angstrom^3, positive under tension.",
        )


def _net_forces(frames: Frames) -> Iterator[Remark]:
    net = np.array([np.linalg.norm(frame.forces.sum(axis=0)) / len(frame.structure) for frame in frames])
    if (net > NET_FORCE).any():
        yield warning(
            "net force",
            f"{np.sum(net > NET_FORCE)} frames have a net force above {NET_FORCE} eV/Angstrom per atom (largest",
            f"{np.nanmax(net):.3f}), which no potential can give. Not converged, or in a field?",
            frames=where(net > NET_FORCE),
        )
    torque = np.array([_torque(frame) for frame in frames])
    if (torque > TORQUE).any():
        yield warning(
            "torque",
            f"{np.sum(torque > TORQUE)} molecules have a net torque above {TORQUE} eV per atom (largest",
            f"{np.nanmax(torque):.3f}). Are forces and positions in the same frame of reference?",
            frames=where(torque > TORQUE),
        )


def _torque(frame: LabelledStructure) -> float:
    """|sum r x F| / N in eV; 0 where the structure is periodic."""
    if frame.structure.pbc.any():
        return 0.0
    arms = frame.structure.positions - frame.structure.positions.mean(axis=0)
    return float(np.linalg.norm(np.cross(arms, frame.forces).sum(axis=0)) / len(arms))


def _distances(frames: Frames) -> Iterator[Remark]:
    closest = np.array([_closest_ratio(frame) for frame in frames])
    if (closest < OVERLAP).any():
        yield warning(
            "distances",
            f"{np.sum(closest < OVERLAP)} frames have atoms closer than {OVERLAP} of the sum of their covalent radii",
            f"(closest: {closest.min():.2f}). Are positions in Angstrom?",
            frames=where(closest < OVERLAP),
        )
    lonely = (closest > LONELY) & np.array([not is_atom(frame) for frame in frames])
    if lonely.any():
        yield warning(
            "distances",
            f"{lonely.sum()} frames have no two atoms within {LONELY:.0f} times the sum of their covalent radii.",
            "Are positions in Angstrom, and pbc set?",
            frames=where(lonely),
        )


def _closest_ratio(frame: LabelledStructure) -> float:
    """Shortest distance in units of the sum of the covalent radii; infinite if all are beyond 6 Angstrom."""
    numbers, pairs = frame.structure.numbers, find_pairs(frame.structure, 6.0)
    contact = covalent_radii[numbers[pairs.first]] + covalent_radii[numbers[pairs.second]]
    return float(np.min(pairs.distance / contact, initial=np.inf))


def _outliers(frames: Frames) -> Iterator[Remark]:
    isolated = fit_isolated_energies(frames)
    fitted = [sum(isolated[chemical_symbols[number]] for number in frame.structure.numbers) for frame in frames]
    sizes = np.array([len(frame.structure) for frame in frames])
    bound = np.array([not is_atom(frame) for frame in frames])
    energy = np.where(bound, (np.array([frame.energy for frame in frames]) - fitted) / sizes, np.nan)
    far = np.abs(_deviations(energy)) > OUTLIER
    if far.any():
        worst = int(np.argmax(np.where(far, np.abs(energy - np.nanmedian(energy)), -1.0)))
        yield warning(
            "outliers",
            f"{far.sum()} energies per atom are far from all others, frame {worst} by",
            f"{energy[worst] - np.nanmedian(energy):+.3f} eV/atom. Another state, or other settings?",
            frames=where(far),
        )
    force = np.array([np.abs(frame.forces).max(initial=0.0) for frame in frames])
    if (force > LARGE_FORCE).any():
        yield warning(
            "outliers",
            f"{np.sum(force > LARGE_FORCE)} frames have forces above {LARGE_FORCE:.0f} eV/Angstrom (largest",
            f"{np.nanmax(force):.0f}): they would rule the loss. Remove what never occurs at your temperatures.",
            frames=where(force > LARGE_FORCE),
        )


def _deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from the median in median absolute deviations; zero where there is no spread, NaN stays NaN."""
    if not np.isfinite(values).any():
        return np.zeros_like(values)
    distance = values - np.nanmedian(values)
    return distance / max(float(np.nanmedian(np.abs(distance))), 1e-3)
