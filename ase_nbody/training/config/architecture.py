"""Which network to train, from new weights or from those of a model."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ase_nbody.files.archive import find_model, load_members, shipped_models
from ase_nbody.network.config import LevelConfig, Outputs
from ase_nbody.training.config.strict import ConfigError, Strict


class FreezeConfig(Strict):
    """Weights that the training leaves as they are.

    Attributes:
        levels: numbers of levels, from 1 below. Heads of their outputs, other than the energy, stay free.
        embedding: also the species embedding.
    """

    levels: tuple[Annotated[int, Field(ge=1)], ...] = ()
    embedding: bool = False


def _levels_only(given: Any) -> Any:
    return {"levels": given} if isinstance(given, list | tuple) else given


class ArchitectureConfig(Strict):
    """The network's shape; species and scales come from the data (see ``NBodyConfig``).

    Attributes:
        levels: the levels from below.
        embedding: channels of the species embedding; default: one per species, at most 8.
        repulsion: add the ZBL repulsion of the nuclei.
        outputs: what the network gives beside the energy: ``charges``, partial charges and dipole moments of molecules.
            A model to start from keeps its own and gets new heads for others.
        start_from: a shipped model or a model file, whose weights and shape are taken; species that it lacks are added.
            Of a committee, ``training.seed`` chooses the member: number seed modulo the size.
        freeze: which of its weights to leave as they are; a list stands for levels.
    """

    levels: tuple[LevelConfig, ...] = (LevelConfig(), LevelConfig(parts="heavy", children="heavy", l_out=0))
    embedding: int | None = None
    repulsion: bool = True
    outputs: Outputs = ()
    start_from: str | None = None
    freeze: Annotated[FreezeConfig, BeforeValidator(_levels_only)] = FreezeConfig()


def with_shape_of_start(network: ArchitectureConfig, folder: Path) -> ArchitectureConfig:
    """The network with the shape of the model that it starts from, if any, which nothing given may contradict."""
    if network.start_from is None:
        return network
    start = network.start_from
    start = start if start in shipped_models() else str(find_model(folder.joinpath(start).resolve()))
    model, *_ = load_members(start)  # a committee's members share their shape
    shape = {
        "levels": model.config.levels,
        "repulsion": model.config.repulsion,
        "outputs": tuple(sorted({*model.config.outputs, *network.outputs})),
    }

    def measured(levels: Any) -> Any:
        return [level.model_dump(exclude={"mean_children"}) for level in levels]

    differing = [
        name
        for name, given, present in (
            ("levels", measured(network.levels), measured(model.config.levels)),
            ("repulsion", network.repulsion, model.config.repulsion),
            ("embedding", network.embedding, model.embedding.tau_out.channels),
        )
        if name in network.model_fields_set and given not in (present, None)
    ]
    if differing:
        raise ConfigError(
            f"network.{differing[0]} differs from that of the model {start}, which network.start_from names: a model "
            "keeps its shape. Leave out levels, repulsion, embedding and preset, or train without start_from."
        )
    if "outputs" in network.model_fields_set and not set(model.config.outputs) <= set(network.outputs):
        raise ConfigError(
            f"network.outputs lacks {', '.join(sorted(set(model.config.outputs) - set(network.outputs)))}, which the "
            f"model {start} has: a model keeps its outputs. Name them or leave the list out."
        )
    return network.model_copy(update={**shape, "start_from": start})
