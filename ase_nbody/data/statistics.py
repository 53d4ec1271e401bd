"""What the data say about themselves: isolated-atom energies, scales, numbers of neighbours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from ase_nbody.data.reading import DataError, LabelledStructure
from ase_nbody.hierarchy.build import members
from ase_nbody.hierarchy.neighbours import find_pairs
from ase_nbody.network.config import LevelConfig


@dataclass(frozen=True)
class DataStatistics:
    """Numbers by which the network is scaled.

    Attributes:
        species: chemical symbols that occur, by atomic number.
        isolated_atom_energies: eV, given or fitted.
        force_scale: root mean square of the force components in eV/Angstrom.
        mean_children: for each level, the mean number of children of a part.
        closest_distances: in Angstrom, by pair of species, ``{"H-O": 0.9}``; pairs beyond all radii are left out.
    """

    species: tuple[str, ...]
    isolated_atom_energies: dict[str, float]
    force_scale: float
    mean_children: tuple[float, ...]
    closest_distances: dict[str, float]


def measure(
    data: Sequence[LabelledStructure], levels: Sequence[LevelConfig], isolated: Mapping[str, float] | None = None
) -> DataStatistics:
    """Statistics of the training data; isolated-atom energies are fitted where they are not given."""
    numbers = np.unique(np.concatenate([frame.structure.numbers for frame in data]))
    forces = np.concatenate([frame.forces.ravel() for frame in data])
    forces = forces[np.isfinite(forces)]
    if not len(forces):
        raise DataError("no frame has forces: a network is not trained on energies alone")
    energies = dict(isolated) if isolated else fit_isolated_energies(data)
    species = tuple(chemical_symbols[number] for number in numbers)
    missing = [symbol for symbol in species if symbol not in energies]
    if missing:
        raise DataError(f"isolated_atom_energies lacks {', '.join(missing)}: give all species, or none to fit them")
    mean_children, closest_distances = _measure_pairs(data, levels)
    return DataStatistics(
        species=species,
        isolated_atom_energies={symbol: float(energies[symbol]) for symbol in species},
        force_scale=float(np.sqrt(np.mean(forces**2))) or 1.0,
        mean_children=mean_children,
        closest_distances=closest_distances,
    )


def fit_isolated_energies(
    data: Sequence[LabelledStructure], given: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Energy per species in eV by least squares of the total energies on the compositions.

    Single-atom frames, where there are any, are taken as they are; energies that are ``given`` go before them. For data
    of one composition only the sum is determined: then the solution of least norm is taken, which serves the training
    but is no atomic energy.
    """
    alone = {
        chemical_symbols[frame.structure.numbers[0]]: frame.energy
        for frame in data
        if len(frame.structure) == 1 and not frame.structure.pbc.any() and np.isfinite(frame.energy)
    } | dict(given or {})
    numbers = np.unique(np.concatenate([frame.structure.numbers for frame in data]))
    symbols = [chemical_symbols[number] for number in numbers]
    frames = [frame for frame in data if np.isfinite(frame.energy)]
    if not frames:
        return {symbol: alone.get(symbol, 0.0) for symbol in symbols}
    counts = np.array([[np.sum(frame.structure.numbers == number) for number in numbers] for frame in frames], float)
    energies = np.array([frame.energy for frame in frames])
    known = np.array([symbol in alone for symbol in symbols])
    fixed = np.array([alone.get(symbol, 0.0) for symbol in symbols])
    fitted = np.linalg.lstsq(counts[:, ~known], energies - counts @ fixed, rcond=None)[0]
    fixed[~known] = fitted
    return {symbol: float(energy) for symbol, energy in zip(symbols, fixed, strict=True)}


def _measure_pairs(
    data: Sequence[LabelledStructure], levels: Sequence[LevelConfig]
) -> tuple[tuple[float, ...], dict[str, float]]:
    """Mean number of children per part and level; closest distance of each pair of species."""
    edges, parts = np.zeros(len(levels)), np.zeros(len(levels))
    closest = np.full((len(chemical_symbols), len(chemical_symbols)), np.inf)
    layout = [level.layout for level in levels]
    for frame in data:
        numbers = frame.structure.numbers
        pairs = find_pairs(frame.structure, max(level.radius for level in layout))
        np.minimum.at(closest, (numbers[pairs.first], numbers[pairs.second]), pairs.distance)
        for index, chosen in enumerate(members(numbers, layout)):
            near = pairs.distance <= layout[index].radius
            edges[index] += np.sum(chosen.above[pairs.first] & chosen.children[pairs.second] & near)
            parts[index] += chosen.above.sum()
    found = np.argwhere(np.triu(np.isfinite(closest)))
    distances = {f"{chemical_symbols[i]}-{chemical_symbols[j]}": round(float(closest[i, j]), 4) for i, j in found}
    return tuple(float(max(1.0, mean)) for mean in edges / np.maximum(parts, 1.0)), distances
