"""What a training on periodic matter does where the configuration leaves it open: one recipe for crystals and liquids.

    radius     twice the cube root of the median volume per atom v: a sphere that holds 32 pi / 3 = 33 atoms on average
    network    the levels of the preset ``small``; it stands on an embedded-atom potential if the energies of lone atoms
               are unknown, or if the potential explains most of the forces, as in metals. States fade out under
               pressure, and what is left then must lie above the crystal: the potential does, and so do lone atoms
    batches    as many frames as have some 64 atoms together
    epochs     so many that the network sees a given number of atoms, because the time of a step grows with its atoms
    compile    only for ``effort: thorough``: frames differ in their numbers of neighbours, and to compile the step for
               all these shapes takes as long as it saves in a quarter of an hour

No rule looks at the elements. ``docs/measurements.md`` has the measurements behind them.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ase_nbody.data import LabelledStructure, energies_of_isolated_atoms, measure
from ase_nbody.data.embedded_atom import fit_embedded_atom
from ase_nbody.data.statistics import evenly_spaced
from ase_nbody.network.config import LevelConfig
from ase_nbody.structure import Structure
from ase_nbody.training.config import TrainingConfig, levels_are_open
from ase_nbody.training.config.architecture import ArchitectureConfig
from ase_nbody.training.config.strict import preset_entries
from ase_nbody.training.splits import species_of, take
from ase_nbody.training.start import with_start

ATOMS_TO_SEE = 200_000  # by a new network; 15 minutes on one core of 2020
ATOMS_PER_BATCH = 64
SMALLEST_RADIUS, LARGEST_RADIUS = 4.0, 6.5  # Angstrom
_ATOMS_TO_JUDGE = 600  # with so many, the potential is fitted in seconds
_FREE_AMONG_BULK = (
    "Most of the data are periodic in three directions, but some frames are periodic in none: the defaults are those "
    "of molecules. Without these frames they are those of crystals (docs/training.md, Crystals and liquids)."
)
OPTIMISATION = {"energy_weight": 0.1, "stress_weight": 0.1}

Frames = Mapping[str, Sequence[LabelledStructure]]


def are_periodic(frames: Sequence[LabelledStructure]) -> bool:
    """Whether frames are those of a crystal or liquid: mostly bulk, and else slabs, wires and isolated atoms.

    Bulk is periodic in three directions. At least half of the frames are bulk, apart from isolated atoms, and none of
    them is free: a few surfaces make a metal no molecule.
    """
    return _mostly_bulk(frames) and all(structure.pbc.any() for structure in _matter(frames))


def _mostly_bulk(frames: Sequence[LabelledStructure]) -> bool:
    bulk = [bool(structure.pbc.all()) for structure in _matter(frames)]
    return any(bulk) and 2 * sum(bulk) >= len(bulk)


def _matter(frames: Sequence[LabelledStructure]) -> Iterator[Structure]:
    """All but the isolated atoms."""
    return (frame.structure for frame in frames if not frame.structure.is_isolated_atom())


def with_defaults_by_data(config: TrainingConfig, frames: Frames) -> tuple[TrainingConfig, list[str]]:
    """Decide all that the data decide of a new run: what it starts from, and the recipe of crystals.

    Returns:
        The configuration, and sentences on the choices.
    """
    config, of_start = with_start(config, frames)
    config, of_crystals = with_crystal_defaults(config, frames)
    return config, [said for said in (of_start, of_crystals) if said]


def with_crystal_defaults(config: TrainingConfig, frames: Frames) -> tuple[TrainingConfig, str]:
    """Fill what a configuration leaves open, if its network starts from nothing and its data are periodic.

    Args:
        config: the configuration of a run.
        frames: all frames of the run, by set.

    Returns:
        The configuration, and a sentence on the choice; empty if there was none.
    """
    training = frames.get("training", ())
    if config.network.has_start:
        return config, ""
    if not are_periodic(training):
        return config, _FREE_AMONG_BULK if _mostly_bulk(training) else ""
    chosen = _open_entries(config, training)
    network = config.network.model_copy(update=chosen)
    recipe: dict[str, float] = {**OPTIMISATION, "compile": config.training.effort == "thorough"}
    options = {name: value for name, value in recipe.items() if name not in config.training.model_fields_set}
    if not {"batch_size", "batch_atoms"} & config.training.model_fields_set:
        sizes = [len(frame.structure) for frame in training]
        options["batch_size"] = max(1, int(ATOMS_PER_BATCH // np.median(sizes)))
    said = ", ".join(f"{level.radius:g}" for level in network.levels)
    potential = "on an embedded-atom potential" if network.embedded_atom else "without an embedded-atom potential"
    return config.model_copy(
        update={"network": network, "training": config.training.model_copy(update=options)}
    ), f"The data are periodic: radii {said} Angstrom, {potential} (docs/training.md, Crystals and liquids)."


def _open_entries(config: TrainingConfig, training: Sequence[LabelledStructure]) -> dict[str, object]:
    """Levels and embedded-atom potential of the network, as far as the configuration leaves them open."""
    chosen: dict[str, object] = {}
    levels = config.network.levels
    if levels_are_open(config):
        if config.preset is None:
            levels = ArchitectureConfig.model_validate(preset_entries("small")["network"]).levels
        radius = usual_radius(training)
        levels = chosen["levels"] = tuple(level.model_copy(update={"radius": radius}) for level in levels)
    if "embedded_atom" not in config.network.model_fields_set:
        chosen["embedded_atom"] = _needs_potential(config, levels, training)
    return chosen


def usual_radius(training: Sequence[LabelledStructure]) -> float:
    """Twice the cube root of the median volume per atom of what is periodic in three directions, in Angstrom."""
    bulk = (structure for structure in _matter(training) if structure.pbc.all())
    volume = float(np.median([abs(np.linalg.det(structure.cell)) / len(structure) for structure in bulk]))
    return float(np.clip(round(2.0 * volume ** (1 / 3), 1), SMALLEST_RADIUS, LARGEST_RADIUS))


def _needs_potential(
    config: TrainingConfig, levels: Sequence[LevelConfig], training: Sequence[LabelledStructure]
) -> bool:
    """Whether the energy of a lone atom is unknown, or an embedded-atom potential explains most of the forces."""
    if not levels[0].parts == levels[0].children == "all":
        return False
    given, reach = config.data.isolated_atom_energies, sum(level.radius for level in levels)
    known = given if isinstance(given, dict) else energies_of_isolated_atoms(training, reach)
    if species_of(training) - known.keys():
        return True
    size = sum(len(frame.structure) for frame in training)
    some = take(training, evenly_spaced(training, max(1, round(size / _ATOMS_TO_JUDGE))))
    if not any(frame.weights.forces and np.isfinite(frame.forces).any() for frame in some):
        return False
    lengths = measure(some, levels, dict.fromkeys(species_of(some), 0.0)).closest_distances
    return fit_embedded_atom(some, lengths, levels[0].radius, known).is_of_use
