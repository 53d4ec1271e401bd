"""Which network is trained: its shape, or the model whose weights and shape it starts from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ase_nbody.files.archive import default_head, find_model, load_members, read_card, shipped_models
from ase_nbody.files.heads import check_name
from ase_nbody.network.config import MAX_LEVELS, LevelConfig, NBodyConfig, Outputs, Width
from ase_nbody.network.electronic_states import Multiplicities, TotalCharges
from ase_nbody.network.types import LevelTypes
from ase_nbody.so3 import Type
from ase_nbody.training.config.paths import absolute_file
from ase_nbody.training.config.strict import ConfigError, Strict

AUTO = "auto"  # the general model where it suits, or nothing
_MOST_NUMBERS = 2**18  # in a state of one part: many times those of a large network, and 2 MB in float64
_DEFAULT_EMBEDDING = 8  # the most channels that a network chooses by itself


class FreezeConfig(Strict):
    """Weights that are frozen: the training does not change them.

    Attributes:
        levels: numbers of the frozen levels. Level 1 is the lowest. Heads of other outputs than the energy stay free.
        embedding: whether the species embedding is frozen too.
    """

    levels: tuple[Annotated[int, Field(ge=1)], ...] = ()
    embedding: bool = False


def _list_as_levels(given: Any) -> Any:
    """``[1, 2]`` is short for ``{levels: [1, 2]}``."""
    if not isinstance(given, list | tuple | dict | FreezeConfig):
        raise ValueError("should be a list of the numbers of levels, such as [1]")
    return {"levels": given} if isinstance(given, list | tuple) else given


def _name_of_head(name: str | None) -> str | None:
    return name if name is None else check_name(name)


def _none_as_nothing(given: Any) -> Any:
    """``none`` says what an entry without a value says."""
    return None if given == "none" else given


def _levels_that_count(levels: tuple[LevelConfig, ...]) -> tuple[LevelConfig, ...]:
    """Refuse levels whose weights change no energy, so that nothing could be learnt there."""
    if not levels[-1].read_out:
        raise ValueError(
            f"level {len(levels)} is the last one and is not read out, so it changes no energy: "
            "set read_out: true for it, or leave it out"
        )
    return levels


class ArchitectureConfig(Strict):
    """The network's shape. Its species and scales come from the data (see ``NBodyConfig``).

    Attributes:
        levels: the levels, the lowest first.
        embedding: channels of the species embedding; default: one for each species, but at most 8.
        repulsion: whether to add the ZBL repulsion of the nuclei.
        embedded_atom: whether the network stands on an embedded-atom potential, which is fitted to the data first. The
            network learns what this potential lacks.
        fading: whether states fade out where children are denser than in the data. Within the data it changes nothing.
        outputs: what the network predicts besides the energy: ``charges`` stands for the partial charges and the
            dipole moments of molecules. A network that starts from a model keeps the outputs of the model and gets new
            heads for all others.
        total_charges: total charges in e that the data have, such as ``[0]``. The model refuses all others. Default: it
            takes any charge, with a warning that it does not look at it; and if it starts from a model that refuses
            some, those of the data.
        multiplicities: spin multiplicities 2S + 1 that the data have, ``[1]`` for closed shells. The model refuses all
            others, and with ``[1]`` an odd number of electrons too. Default: as for ``total_charges``.
        start_from: a shipped model or a model file, whose weights and shape the network takes over; ``none``; or
            ``auto``: the general model that suits the data, if there is one (see ``training.start``). Species that the
            model lacks are added. In a committee, ``training.seed`` modulo the number of members selects the member.
        freeze: which weights of that model are frozen. A list such as ``[1]`` gives the numbers of levels.
        head: name of a head for another theory. The training teaches it alone, on the states of the model that
            ``start_from`` names, and writes that model with one more head.
    """

    levels: Annotated[
        tuple[LevelConfig, ...], Field(min_length=1, max_length=MAX_LEVELS), AfterValidator(_levels_that_count)
    ] = (LevelConfig(), LevelConfig(parts="heavy", children="heavy", l_out=0))
    embedding: Width | None = None
    repulsion: bool = True
    embedded_atom: bool = False
    fading: bool = True
    outputs: Outputs = ()
    total_charges: TotalCharges | None = None
    multiplicities: Multiplicities | None = None
    start_from: Annotated[str | None, BeforeValidator(_none_as_nothing)] = AUTO
    freeze: Annotated[FreezeConfig, BeforeValidator(_list_as_levels)] = FreezeConfig()
    head: Annotated[str | None, AfterValidator(_name_of_head)] = None

    @property
    def has_start(self) -> bool:
        """Whether the network starts from a model that is known."""
        return self.start_from not in (None, AUTO)

    @model_validator(mode="after")
    def _head_of_a_model(self) -> "ArchitectureConfig":
        """A head stands on the states of a model, which stay as they are."""
        if self.head is not None and not self.has_start:
            raise ValueError("head needs start_from, the model whose states it reads: name a model or a file")
        if self.head is not None and self.freeze != FreezeConfig():
            raise ValueError("head freezes all of the model but the read-outs of the energy: leave out freeze")
        return self

    @model_validator(mode="after")
    def _states_that_fit(self) -> "ArchitectureConfig":
        """Refuse states that would fill the memory with a few atoms, before data are read and anything is built."""
        below = Type.uniform(self.embedding or _DEFAULT_EMBEDDING, 0)
        for number, level in enumerate(self.levels, start=1):
            types = LevelTypes.of(below, level)
            largest = max(tau.components * tau.channels for tau in (types.gathered, types.state, types.products))
            if largest > _MOST_NUMBERS:
                raise ValueError(
                    f"each part of level {number} would have a state of {largest:,} numbers (allowed: "
                    f"{_MOST_NUMBERS:,}): lower its channels, n_basis, n_radial, message_channels or l_max"
                )
            below = types.handed_up
        return self


def with_shape_of_start(network: ArchitectureConfig, folder: Path) -> ArchitectureConfig:
    """The configuration with the shape of the model that it starts from, if it starts from one.

    Args:
        network: the configuration of the network.
        folder: the folder that a relative ``start_from`` is relative to.

    Raises:
        ConfigError: an entry differs from the shape of the model.
        FileNotFoundError, ModelFileError: there is no such model, or it cannot be read.
    """
    start = network.start_from
    if start is None or start == AUTO:
        return network
    start = start if start in shipped_models() else str(find_model(absolute_file(start, folder)))
    model, *others = load_members(start)  # the members of a committee have the same shape
    if network.head is not None:
        _check_head(network, start, model.config, is_committee=bool(others))
    compared = {
        "levels": (_without_statistics(network.levels), _without_statistics(model.config.levels)),
        "repulsion": (network.repulsion, model.config.repulsion),
        "embedded_atom": (network.embedded_atom, model.config.embedded_atom is not None),
        "fading": (network.fading, bool(model.config.densest)),
        "embedding": (network.embedding, model.embedding.tau_out.channels),
    }
    for name, (given, present) in compared.items():
        if name in network.model_fields_set and given not in (present, None):
            raise ConfigError(
                f"network.{name} differs from that of the model {start}, which network.start_from names: a model "
                "keeps its shape. Leave out levels, repulsion, embedded_atom, fading, embedding and preset, or train "
                "without start_from."
            )
    missing = sorted(set(model.config.outputs) - set(network.outputs))
    if "outputs" in network.model_fields_set and missing:
        raise ConfigError(
            f"network.outputs lacks {', '.join(missing)}, which the model {start} has: a model keeps its outputs. "
            "Name them or leave the list out."
        )
    shape = {
        "levels": model.config.levels,
        "repulsion": model.config.repulsion,
        "embedded_atom": model.config.embedded_atom is not None,
        "fading": bool(model.config.densest),
        "outputs": tuple(sorted({*model.config.outputs, *network.outputs})),
    }
    return network.model_copy(update={**shape, "start_from": start})


def _check_head(network: ArchitectureConfig, start: str, model: NBodyConfig, *, is_committee: bool) -> None:
    """Refuse a head that cannot stand on the states of the model."""
    if is_committee:
        raise ConfigError(f"{start} is a committee, and network.head stands on the states of one network: name another")
    if network.head == default_head(read_card(start)):
        raise ConfigError(
            f"network.head: {network.head} is the default head of {start}, which keeps its states and read-outs: give "
            "the new head another name"
        )
    if not set(network.outputs) <= set(model.outputs):
        raise ConfigError(f"network.head adds no outputs to {start}: leave out network.outputs, or network.head")
    for entry in ("total_charges", "multiplicities"):
        given = getattr(network, entry)
        if given not in (None, getattr(model, entry)):
            raise ConfigError(
                f"network.{entry} differs from that of the model {start}, and all heads of a model take the same "
                f"charges and spins: leave it out"
            )


def _without_statistics(levels: Sequence[LevelConfig]) -> list[dict[str, Any]]:
    """The entries of the levels, without the mean number of children, which comes from the data."""
    return [level.model_dump(exclude={"mean_children"}) for level in levels]
