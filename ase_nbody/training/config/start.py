"""Which model a training starts from if the configuration leaves it open, and what else a start decides."""

from ase_nbody.training.config.architecture import AUTO, ArchitectureConfig
from ase_nbody.training.config.strict import Strict, preset_entries
from ase_nbody.training.config.training import TrainingConfig

# The shipped model that ``auto`` stands for, by preset.
GENERAL_MODELS = {None: "organic", "small": "organic-small"}
# Entries of ``network`` that describe another network than that of the general model.
_OF_A_NEW_NETWORK = ("levels", "embedding", "repulsion", "embedded_atom", "fading", "freeze")
# Entries of ``network`` that a start decides.
_SHAPE = ("levels", "repulsion", "embedded_atom", "fading")
# Entries of ``training`` with another default where the network starts from a model. Lower rates forget less.
FINE_TUNING = {"muon_rate": 0.002, "adam_rate": 0.002}
# Entries of ``training`` that depend on the data where they are left open (see ``training.crystals``).
_BY_DATA = ("batch_size", "energy_weight", "stress_weight", "compile")


def general_model(config: TrainingConfig) -> str | None:
    """Name of the model that ``start_from: auto`` stands for, shipped or not; None if an entry asks for a new network.

    These entries are ``levels``, ``embedding``, ``repulsion``, ``embedded_atom``, ``fading``, ``freeze``,
    ``pretraining`` and any preset but ``small``.
    """
    network = config.network
    if network.start_from != AUTO or config.pretraining is not None or config.preset not in GENERAL_MODELS:
        return None
    preset = ArchitectureConfig.model_validate(preset_entries(config.preset).get("network", {}))
    named = network.model_fields_set.intersection(_OF_A_NEW_NETWORK)
    if any(name not in preset.model_fields_set or getattr(network, name) != getattr(preset, name) for name in named):
        return None
    return GENERAL_MODELS[config.preset]


def levels_are_open(config: TrainingConfig) -> bool:
    """Whether the configuration leaves the levels open, or leaves them to its preset."""
    if "levels" not in config.network.model_fields_set:
        return True
    preset = preset_entries(config.preset).get("network", {})
    return "levels" in preset and config.network.levels == ArchitectureConfig.model_validate(preset).levels


def from_general_model(network: ArchitectureConfig, name: str) -> ArchitectureConfig:
    """The configuration of a network that starts from a model, without the entries of its preset."""
    kept = network.model_fields_set - {*_OF_A_NEW_NETWORK}
    return ArchitectureConfig(**{entry: getattr(network, entry) for entry in kept} | {"start_from": name})


def with_fine_tuning_defaults(config: TrainingConfig) -> TrainingConfig:
    """The configuration of a training that starts from a model, with the entries that it leaves open."""
    left = {name: value for name, value in FINE_TUNING.items() if name not in config.training.model_fields_set}
    changed: dict[str, Strict] = {"training": config.training.model_copy(update=left)}
    if config.data.isolated_atom_energies is None:
        changed["data"] = config.data.model_copy(update={"isolated_atom_energies": "fit"})
    return config.model_copy(update=changed)


def as_begun(config: TrainingConfig, begun: TrainingConfig) -> TrainingConfig:
    """The configuration of a run that is resumed: what it leaves open is what the run began with.

    Defaults may differ between releases, and so may the models that are shipped.

    Args:
        config: the configuration with which the run is to go on.
        begun: the one that the run wrote.
    """
    network, training, data = config.network, config.training, config.data
    start = begun.network.start_from
    if start is None:
        entries = [name for name in ("embedded_atom", "fading") if name not in network.model_fields_set]
        entries += ["levels"] if levels_are_open(config) else []
        network = network.model_copy(update={name: getattr(begun.network, name) for name in entries})
    left = [name for name in _BY_DATA if name not in training.model_fields_set]
    training = training.model_copy(update={name: getattr(begun.training, name) for name in left})
    if network.start_from == AUTO and (start is None or start in GENERAL_MODELS.values()):
        shape = ("start_from", *(() if start is None else _SHAPE))
        network = network.model_copy(update={name: getattr(begun.network, name) for name in shape})
    if network.has_start:
        left = [name for name in FINE_TUNING if name not in training.model_fields_set]
        training = training.model_copy(update={name: getattr(begun.training, name) for name in left})
        if data.isolated_atom_energies is None and begun.data.isolated_atom_energies == "fit":
            data = data.model_copy(update={"isolated_atom_energies": "fit"})
    return config.model_copy(update={"network": network, "training": training, "data": data})
