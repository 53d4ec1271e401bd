"""What a training measures in its data: isolated-atom energies, scales, numbers of neighbours, closest distances."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from ase_nbody.data.labels import LABELS, DataError, LabelledStructure
from ase_nbody.data.parts import require_parts
from ase_nbody.hierarchy.build import build_hierarchy, members
from ase_nbody.hierarchy.neighbours import Pairs, find_pairs
from ase_nbody.network.config import LevelConfig
from ase_nbody.network.coverage import Coverage
from ase_nbody.network.surroundings import densities, pair_of
from ase_nbody.structure import ISOLATED_ATOM_ANGSTROM, Structure

_OUTLIER = 10.0  # median errors
_LEAST_ERROR_EV_PER_ATOM = 1e-3  # that counts as the median, where most structures are alike
_REWEIGHTINGS = 30


@dataclass(frozen=True)
class DataStatistics:
    """Numbers that scale the network.

    Attributes:
        species: chemical symbols that occur, in the order of their atomic numbers.
        isolated_atom_energies: energy of each isolated atom in eV, given or fitted.
        force_scale: root mean square of the force components in eV/Angstrom, 1 if all are zero. Those of frames that
            weigh less than the typical one count in proportion.
        mean_children: for each level, the mean number of children of a part, at least 1.
        closest_distances: closest distance in Angstrom of each pair of species that comes within the largest radius of
            the levels, ``{"H-O": 0.9}``.
        coverage: the surroundings of the atoms, with densities within the radius of the first level.
    """

    species: tuple[str, ...]
    isolated_atom_energies: dict[str, float]
    force_scale: float
    mean_children: tuple[float, ...]
    closest_distances: dict[str, float]
    coverage: Coverage


def measure(
    data: Sequence[LabelledStructure], levels: Sequence[LevelConfig], isolated: Mapping[str, float] | None = None
) -> DataStatistics:
    """Measure the training data; isolated-atom energies are fitted if they are not given.

    Raises:
        DataError: no frame has forces, ``isolated`` lacks a species of the data, or a frame lacks labels that the
            levels need.
    """
    require_parts(data, [level.layout for level in levels], "training data")
    numbers = np.unique(np.concatenate([frame.structure.numbers for frame in data]))
    forces = np.concatenate(
        [share * frame.forces.ravel() for share, frame in zip(shares_of_forces(data), data, strict=True)]
    )
    forces = forces[np.isfinite(forces)]
    if not len(forces):
        raise DataError("no frame has forces: a network cannot be trained on energies alone")
    reach = sum(level.radius for level in levels)
    energies = dict(isolated) if isolated else fit_isolated_energies(data, reach=reach)
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
        coverage=Coverage.of((frame.structure for frame in data), levels[0].radius),
    )


def shares_of_forces(data: Sequence[LabelledStructure]) -> NDArray[np.float64]:
    """How much the forces of each frame count in their scale: 1, and in proportion for one that weighs less than usual.

    So frames with forces beyond all others, which weigh little for this reason, do not rule the scale of the forces.
    """
    weights = np.array([frame.weights.forces for frame in data])
    return np.minimum(1.0, weights / (np.quantile(weights, 0.5, method="higher") or 1.0))


def highest_densities(structures: Iterable[Structure], levels: Sequence[LevelConfig]) -> tuple[dict[str, float], ...]:
    """The highest density of children around each species, for each level (see ``nn.density``).

    Labelled levels have none. A species whose parts never have children is missing.
    """
    layout = [level.layout for level in levels]
    highest = np.zeros((len(levels), len(chemical_symbols)))
    for structure in structures:
        numbers = structure.numbers
        pairs = find_pairs(structure, max(level.radius for level in layout))
        for index, chosen in enumerate(members(numbers, layout)):
            if not levels[index].is_labelled:
                edge = chosen.above[pairs.first] & chosen.children[pairs.second]
                near = Pairs(pairs.first[edge], pairs.second[edge], pairs.shift[edge], pairs.distance[edge])
                np.maximum.at(highest[index], numbers, densities(len(numbers), near, layout[index].radius))
    return tuple(
        {chemical_symbols[number]: float(np.ceil(1e3 * row[number]) / 1e3) for number in np.flatnonzero(row)}
        for row in highest
    )


def energies_of_isolated_atoms(
    data: Sequence[LabelledStructure], reach: float = ISOLATED_ATOM_ANGSTROM
) -> dict[str, float]:
    """Energy in eV of each species that the data have as a neutral isolated atom.

    Of several frames of one species the lowest energy counts, because it is that of the ground state. For energies with
    the weight 0, see ``with_energies_that_count``.

    Args:
        data: labelled structures.
        reach: distance in Angstrom beyond which images do not count (see ``Structure.is_isolated_atom``).
    """
    energies: dict[bool, dict[str, float]] = {True: {}, False: {}}  # by whether they have a weight
    some_count = False
    for frame in data:
        if not np.isfinite(frame.energy):
            continue
        counts = frame.weights.energy > 0.0
        some_count |= counts
        if frame.structure.is_isolated_atom(reach) and not frame.structure.charge:
            symbol, found = chemical_symbols[frame.structure.numbers[0]], energies[counts]
            found[symbol] = min(frame.energy, found.get(symbol, np.inf))
    return energies[some_count]


def with_energies_that_count(data: Sequence[LabelledStructure]) -> list[int]:
    """Indices of the frames with energies.

    Energies with the weight 0 do not count, unless all have it: people set it for energies that are wrong.
    """
    weights = [(index, frame.weights.energy) for index, frame in enumerate(data) if np.isfinite(frame.energy)]
    return [index for index, weight in weights if weight] or [index for index, _ in weights]


def frames_of_atoms(data: Sequence[LabelledStructure], reach: float = ISOLATED_ATOM_ANGSTROM) -> list[int]:
    """Indices of the frames with energies that count, without isolated ions of species that other ones have.

    Args:
        data: labelled structures.
        reach: distance in Angstrom beyond which images do not count (see ``Structure.is_isolated_atom``).
    """
    ions: dict[int, int] = {}  # the atomic number of each, by index
    species: set[int] = set()
    with_energy = with_energies_that_count(data)
    for index in with_energy:
        frame = data[index]
        numbers = frame.structure.numbers
        if frame.structure.charge and frame.structure.is_isolated_atom(reach):
            ions[index] = int(numbers[0])
        else:
            species.update(numbers.tolist())
    return [index for index in with_energy if ions.get(index) not in species]


def evenly_spaced(data: Sequence[LabelledStructure], step: int) -> list[int]:
    """Indices of one frame in ``step``, evenly chosen, in ascending order.

    Frames with different labels are counted apart. Otherwise a label that every second frame has might be left out.
    """
    if step == 1:
        return list(range(len(data)))
    labels = [tuple(bool(np.isfinite(getattr(frame, label.name)).all()) for label in LABELS) for frame in data]
    return sorted(sorted(range(len(data)), key=labels.__getitem__)[::step])


def fit_isolated_energies(
    data: Sequence[LabelledStructure],
    given: Mapping[str, float] | None = None,
    *,
    reach: float = ISOLATED_ATOM_ANGSTROM,
) -> dict[str, float]:
    """Fit the energy of each species in eV to the total energies: least squares on the compositions.

    Energies that are ``given`` stay fixed, and so do those of isolated atoms in the data, in a periodic box or not. If
    all frames have one composition, they determine only a sum of these energies. The fit then takes the solution of
    least norm: it serves the training, but its terms are not energies of atoms. The energy of an isolated ion is no
    energy of an atom, and is fitted only if no other frame has its species.

    Args:
        data: labelled structures.
        given: energies in eV that are known.
        reach: distance in Angstrom beyond which images do not count (see ``Structure.is_isolated_atom``).
    """
    known_energies = energies_of_isolated_atoms(data, reach) | dict(given or {})
    numbers = np.unique(np.concatenate([frame.structure.numbers for frame in data]))
    symbols = [chemical_symbols[number] for number in numbers]
    chosen = frames_of_atoms(data, reach)
    if not chosen:
        return {symbol: known_energies.get(symbol, 0.0) for symbol in symbols}
    counts = atom_counts((data[index] for index in chosen), numbers)
    energies = np.array([data[index].energy for index in chosen])
    known = np.array([symbol in known_energies for symbol in symbols])
    fixed = np.array([known_energies.get(symbol, 0.0) for symbol in symbols])
    fixed[~known], _ = energies_per_atom(counts[:, ~known], energies - counts @ fixed)
    return {symbol: float(energy) for symbol, energy in zip(symbols, fixed, strict=True)}


def energies_per_atom(counts: NDArray[np.float64], energies: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    """The constants for each atom of a species that explain energies best: another zero of energy.

    Two theories or programs differ by such constants, by electronvolts or hundreds of them. In structures f with n_fz
    atoms of species z and energies E_f, they are

        c = argmin |c|²  among all c that minimise  sum_f w_f (E_f - sum_z n_fz c_z)² .

    If all structures have one composition n, this is c = n (mean of E_f) / |n|²: the data determine only n . c. What
    energies E_f are, the caller says: total ones, or what a model's predictions lack. Matter that is pressed or torn
    apart may be off by any energy, and must not move the zero of all other. So w_f = 1 but for outliers, those with
    more than ten times the median error per atom: there w_f falls as the inverse of the error (Huber, Ann. Math. Stat.
    35, 73 (1964)).

    Args:
        counts: n_fz (structures, species).
        energies: E_f in eV (structures,).

    Returns:
        c_z in eV (species,), and whether the compositions determine each of them.
    """
    atoms, weights = np.maximum(counts.sum(axis=1), 1.0), np.ones(len(energies))
    for _ in range(_REWEIGHTINGS):
        root = np.sqrt(weights)
        constants, _, rank, _ = np.linalg.lstsq(counts * root[:, None], energies * root, rcond=None)
        errors = np.abs(energies - counts @ constants) / atoms
        largest = _OUTLIER * max(float(np.median(errors)), _LEAST_ERROR_EV_PER_ATOM)
        before, weights = weights, largest / np.maximum(errors, largest)
        if np.allclose(weights, before):
            break
    return np.asarray(constants, dtype=np.float64), bool(rank == counts.shape[1])


def atom_counts(frames: Iterable[LabelledStructure], numbers: ArrayLike) -> NDArray[np.float64]:
    """How many atoms of each of the atomic ``numbers`` (species,) each frame has (frames, species)."""
    wanted = np.asarray(numbers)
    return np.array([(frame.structure.numbers[:, None] == wanted).sum(0) for frame in frames], dtype=np.float64)


def _measure_pairs(
    data: Sequence[LabelledStructure], levels: Sequence[LevelConfig]
) -> tuple[tuple[float, ...], dict[str, float]]:
    """Mean number of children of a part on each level, and closest distance of each pair of species in Angstrom."""
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
        if any(level.is_labelled for level in layout):
            for index, level in enumerate(build_hierarchy(frame.structure, layout).levels):
                if level.labelled is not None:
                    edges[index] += int(level.mask.sum())
                    parts[index] += len(level.centre)
    found = np.argwhere(np.triu(np.isfinite(closest)))
    distances = {pair_of(i, j): round(float(closest[i, j]), 4) for i, j in found}
    return tuple(float(max(1.0, mean)) for mean in edges / np.maximum(parts, 1.0)), distances
