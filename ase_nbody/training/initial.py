"""The network that a training begins with: a new one, or a trained one that is to learn from other data.

A trained network keeps its function: its architecture, scale and weights stay as they are. Its isolated-atom energies
move to the zero of the data, unless the configuration gives others. A species that it does not know gets a row of its
own in each table of species: the mean of the rows that are there. Its embedding also gets a random deviation, so that
several new species differ. The closest distance of each pair is the smaller one of the old and the
new data, and the network covers the surroundings of both. Outputs that the network lacks get new heads.
"""

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import ValidationError

from ase_nbody.data import DataStatistics, LabelledStructure, energies_of_isolated_atoms, measure
from ase_nbody.data.embedded_atom import fit_embedded_atom
from ase_nbody.data.statistics import highest_densities
from ase_nbody.files.archive import ModelFileError, load_members, load_model, read_card
from ase_nbody.files.room import require_room
from ase_nbody.network.config import LevelConfig, NBodyConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.training.config import ConfigError, FreezeConfig, TrainingConfig
from ase_nbody.training.electronic_states import states_of
from ase_nbody.training.isolated_atoms import (
    fitted_species,
    refuse_impossible_cohesion,
    refuse_other_zero,
    shift_to_data,
    takes_isolated_atoms,
)
from ase_nbody.training.splits import species_of, take
from ase_nbody.training.start import Frames, starts_from_pretraining
from ase_nbody.training.two_zeros import refuse_impossible_gap

_EMBEDDING_DEVIATION = 0.3  # of new species from the mean, relative to the size of the embeddings of a new network


def build_network(config: TrainingConfig, training: Sequence[LabelledStructure], members: int = 1) -> NBodyNetwork:
    """The network of a configuration before its training. Frozen weights require no gradient.

    Args:
        config: the configuration of the training.
        training: the training frames.
        members: number of networks that the model file of this network's committee will hold.

    Raises:
        ConfigError: the model could not be written (see ``require_room``), the model to start from cannot take the
            species of the data, ``network.freeze`` names a level that does not exist, stands without a model, or
            leaves nothing to train.
        DataError: the data lack forces, or their energies have another zero than the isolated atoms, or than the model
            to start from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        if config.network.head is not None:
            network = _network_with_new_head(config, training, members)
        elif config.network.has_start:
            network = _network_from_model(config, training, members)
        else:
            network = _new_network(config, training, members)
    network = network.to(getattr(torch, config.training.dtype)).requires_grad_(True)
    return _freeze_for_head(network) if config.network.head is not None else _freeze(network, config.network.freeze)


def _new_network(config: TrainingConfig, training: Sequence[LabelledStructure], members: int) -> NBodyNetwork:
    """A network with random weights, and with species and scales from the training data."""
    if config.network.freeze != FreezeConfig():
        raise ConfigError(
            "network.freeze holds weights of a model, and this network starts from nothing, so they would stay random: "
            "name the model in network.start_from, or leave out freeze"
        )
    refuse_impossible_gap(training)
    given = config.data.isolated_atom_energies
    statistics = measure(training, config.network.levels, given if isinstance(given, dict) else None)
    levels = tuple(
        level.model_copy(update={"mean_children": mean})
        for level, mean in zip(config.network.levels, statistics.mean_children, strict=True)
    )
    isolated, scale, potential = statistics.isolated_atom_energies, statistics.force_scale, None
    if config.network.embedded_atom:
        known = given if isinstance(given, dict) else energies_of_isolated_atoms(training, _reach(config))
        radius = config.network.levels[0].radius
        fit = fit_embedded_atom(training, statistics.closest_distances, radius, known)
        isolated, scale, potential = fit.isolated_atom_energies, fit.force_scale, fit.config
    try:
        found = NBodyConfig(
            species=statistics.species,
            levels=levels,
            embedding=config.network.embedding,
            isolated_atom_energies=isolated,
            energy_scale=scale,
            repulsion=config.network.repulsion,
            closest_distances=statistics.closest_distances,
            outputs=config.network.outputs,
            coverage=statistics.coverage,
            densest=_densest(config.network.fading, training, config.network.levels),
            embedded_atom=potential,
            **states_of(config.network, None, training),
        )
    except ValidationError as error:
        raise ConfigError(f"the network cannot be that of the configuration: {_reason(error)}") from error
    _require_room(config, found, members)
    fitted = not isinstance(given, dict) and not energies_of_isolated_atoms(training, _reach(config))
    refuse_impossible_cohesion(found.isolated_atom_energies, training, given=isinstance(given, dict), fitted=fitted)
    return NBodyNetwork(found)


def _reach(config: TrainingConfig) -> float:
    """The distance in Angstrom beyond which an atom is alone for the network."""
    return sum(level.radius for level in config.network.levels)


def _require_room(config: TrainingConfig, network: NBodyConfig, number: int) -> None:
    """Refuse networks that are too large for a model file, before they are built."""
    try:
        require_room(network, number, getattr(torch, config.training.dtype), config.card)
    except ModelFileError as error:
        raise ConfigError(f"the model of this training could not be written: {error}") from error


def _network_from_model(
    config: TrainingConfig, training: Sequence[LabelledStructure], number_of_members: int
) -> NBodyNetwork:
    """The model to start from, with the species of the data added. The seed selects the member of a committee."""
    members = load_members(str(config.network.start_from))
    before = members[config.training.seed % len(members)]
    _require_shared_species(config, before.config, training)
    given, reach = config.data.isolated_atom_energies, before.config.reach
    of_data, of_model = energies_of_isolated_atoms(training, reach), before.config.isolated_atom_energies
    # A pretraining took the isolated atoms from the data. Any other model may be of another theory.
    known = of_data | of_model if given is None else of_model | of_data
    known |= given if isinstance(given, dict) else {}
    statistics = measure(training, before.config.levels, dict.fromkeys(species_of(training), 0.0))
    species = {*before.config.species, *statistics.species}
    content = before.config.model_dump() | {
        "species": tuple(species),
        "embedding": before.embedding.tau_out.channels,
        "isolated_atom_energies": {symbol: energy for symbol, energy in known.items() if symbol in species},
        "closest_distances": _closest_distances(before.config, statistics),
        "outputs": (*before.config.outputs, *config.network.outputs),
        "coverage": before.config.coverage and before.config.coverage | statistics.coverage,
        "densest": _denser(
            before.config.densest, _densest(bool(before.config.densest), training, before.config.levels)
        ),
        **states_of(config.network, before.config, training),
    }
    try:
        found = NBodyConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            f"{config.network.start_from} cannot take all species of the data: {_reason(error)}"
        ) from error
    _require_room(config, found, number_of_members)
    after = NBodyNetwork(found)
    transfer(before, after)
    shift_to_data(after, training, fitted_species(training, before.config.isolated_atom_energies, given, reach))
    if isinstance(given, dict):
        refuse_impossible_cohesion(after.config.isolated_atom_energies, training, given=True)
    if not starts_from_pretraining(config):
        name = str(config.network.start_from)
        given_energies = given if isinstance(given, dict) else None
        refuse_other_zero(after, training, name, given_energies, of_data if given is not None else None)
    return after


def without_foreign_atoms(config: TrainingConfig, frames: Frames) -> tuple[Frames, list[str]]:
    """The frames without isolated atoms that the model to start from cannot count from (``takes_isolated_atoms``).

    Returns:
        The frames, and a sentence if some were left out. Test frames and energies that are given stay.
    """
    start, given = config.network.start_from, config.data.isolated_atom_energies
    if start is None or isinstance(given, dict) or starts_from_pretraining(config):
        return frames, []
    members = load_members(str(start))
    network = members[config.training.seed % len(members)]
    reach, species = network.config.reach, {*network.config.species}

    def kept(several: Sequence[LabelledStructure]) -> list[int]:
        return [
            index
            for index, frame in enumerate(several)
            if not (frame.structure.is_isolated_atom(reach) and species_of([frame]) <= species)
        ]

    indices = kept(frames["training"])
    if len(indices) == len(frames["training"]) or takes_isolated_atoms(network, frames["training"]):
        return frames, []
    left = {"training": take(frames["training"], indices)}
    if "validation" in frames:
        left["validation"] = take(frames["validation"], kept(frames["validation"]))
    return {**frames, **left}, [
        f"The isolated atoms of the data are not used: {start} counts from constants that were fitted to molecules, "
        "not from free atoms. For a network that counts from free atoms, set network.start_from: none."
    ]


def _network_with_new_head(
    config: TrainingConfig, training: Sequence[LabelledStructure], number_of_members: int
) -> NBodyNetwork:
    """The model whose states the head reads. Its read-outs begin as those of the head of this name, or the default."""
    start, head = str(config.network.start_from), config.network.head
    if number_of_members > 1:
        raise ConfigError("a head is trained for one network: leave out --seeds, or network.head")
    present = read_card(start).get("heads", {}).get("others", {})
    network = load_model(start, head if head in present else None)
    if foreign := sorted(species_of(training) - {*network.config.species}):
        raise ConfigError(
            f"the data have {', '.join(foreign)}, which {start} does not know, and a head reads its states as they are"
        )
    given, known = config.data.isolated_atom_energies, network.config.isolated_atom_energies
    reach = network.config.reach
    own = energies_of_isolated_atoms(training, reach) | (given if isinstance(given, dict) else {})
    network.set_isolated_atom_energies(known | {symbol: energy for symbol, energy in own.items() if symbol in known})
    shift_to_data(network, training, fitted_species(training, known, given, reach))
    refuse_other_zero(network, training, start, given if isinstance(given, dict) else None, own)
    return network


def _require_shared_species(config: TrainingConfig, before: NBodyConfig, training: Sequence[LabelledStructure]) -> None:
    """Refuse a model that knows no species of the data: nothing that it has learnt would serve them."""
    if not species_of(training) & {*before.species}:
        raise ConfigError(
            f"{config.network.start_from} knows {', '.join(before.species)}, and none of them is in the data: choose "
            "another network.start_from, or leave it out"
        )


def species_with_fitted_energies(config: TrainingConfig, training: Sequence[LabelledStructure]) -> list[str]:
    """Symbols of the species whose isolated-atom energies are fitted to the training frames."""
    if not config.network.has_start:
        known, reach = None, sum(level.radius for level in config.network.levels)
    else:
        before = load_members(str(config.network.start_from))[0].config
        known, reach = before.isolated_atom_energies, before.reach
    return fitted_species(training, known, config.data.isolated_atom_energies, reach)


def _reason(error: ValidationError) -> str:
    """What is wrong, as a configuration of a network says it."""
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def _closest_distances(before: NBodyConfig, statistics: DataStatistics) -> dict[str, float]:
    """The smaller distance of model and data for each pair, in Angstrom. A model without distances gets none."""
    old, new = before.closest_distances, statistics.closest_distances
    pairs = [*old, *(pair for pair in new if pair not in old)] if old else []
    return {pair: min(old.get(pair, np.inf), new.get(pair, np.inf)) for pair in pairs}


def _densest(
    fading: bool, training: Sequence[LabelledStructure], levels: Sequence[LevelConfig]
) -> tuple[dict[str, float], ...]:
    """The highest densities in the data, for each level, where states are to fade beyond them."""
    return highest_densities((frame.structure for frame in training), levels) if fading else ()


def _denser(one: tuple[dict[str, float], ...], other: tuple[dict[str, float], ...]) -> tuple[dict[str, float], ...]:
    """The larger density of model and data for each level and species."""
    pairs = zip(one, other, strict=False)
    return tuple(
        {symbol: max(old.get(symbol, 0.0), new.get(symbol, 0.0)) for symbol in old | new} for old, new in pairs
    )


@torch.no_grad()
def transfer(before: NBodyNetwork, after: NBodyNetwork) -> None:
    """Copy the weights of a network to another of the same shape that may know more species or have more outputs.

    Tables of species differ in size: old species keep their rows, and each new species gets the mean of these rows.
    Heads of new outputs keep the weights that were drawn for them.
    """
    rows = torch.tensor([after.config.species.index(symbol) for symbol in before.config.species])
    new = [index for index, symbol in enumerate(after.config.species) if symbol not in before.config.species]
    old_weights, embedding = before.state_dict(), after.embedding.weight
    for name, weight in after.state_dict().items():
        if name not in old_weights:
            continue
        old = old_weights[name].to(weight)
        if weight.shape == old.shape:
            weight.copy_(old)
            continue
        (axis,) = (axis for axis in range(weight.dim()) if weight.shape[axis] != old.shape[axis])
        weight.copy_(old.mean(axis, keepdim=True).expand_as(weight))
        weight.index_copy_(axis, rows, old)
    embedding[new] += _EMBEDDING_DEVIATION * torch.randn_like(embedding[new]) / embedding.shape[1] ** 0.5


def _freeze(network: NBodyNetwork, freeze: FreezeConfig) -> NBodyNetwork:
    """Mark frozen weights, so that they require no gradient, and return the network."""
    for number in freeze.levels:
        if number > len(network.levels):
            raise ConfigError(f"network.freeze names level {number}, but there are {len(network.levels)} levels")
        network.levels[number - 1].requires_grad_(False)
    if freeze.embedding:
        network.embedding.requires_grad_(False)
    if not any(weight.requires_grad for weight in network.parameters()):
        raise ConfigError("network.freeze leaves nothing to train: free a level")
    return network


def _freeze_for_head(network: NBodyNetwork) -> NBodyNetwork:
    """Mark all weights but those of the read-outs as frozen, and return the network."""
    network.requires_grad_(False)
    for name in NBodyNetwork.declared_read_outs(network.config):
        network.get_parameter(name).requires_grad_(True)
    return network
