"""What a training starts from: nothing, the model that the configuration names, or the general model that suits it."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from ase.data import chemical_symbols

from ase_nbody.data import LabelledStructure
from ase_nbody.files.archive import read_stored, shipped_models
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.electronic_states import unlearnt_state
from ase_nbody.training.config import TrainingConfig, with_shape_of_start
from ase_nbody.training.config.architecture import AUTO
from ase_nbody.training.config.start import from_general_model, general_model, with_fine_tuning_defaults
from ase_nbody.training.folder import pretraining_folder
from ase_nbody.training.splits import species_of

Frames = Mapping[str, Sequence[LabelledStructure]]


def with_start(config: TrainingConfig, frames: Frames) -> tuple[TrainingConfig, str]:
    """Decide what a new run starts from, and with it the defaults of a fine-tuning.

    ``network.start_from: auto`` becomes the name of the general model if that one is shipped, no entry asks for a new
    network (see ``general_model``), all frames are free molecules of its elements, and it learnt their charges and
    spins. Otherwise it becomes none.

    Args:
        config: the configuration of the run.
        frames: all frames of the run, by set.

    Returns:
        The configuration, and a sentence on the choice; empty if there was none.
    """
    said = ""
    if config.network.start_from == AUTO:
        network, name = config.network.model_copy(update={"start_from": None}), general_model(config)
        if name is not None and name in shipped_models():
            fault = _unsuited(read_stored(name).config, frames)
            if fault is None:
                network = with_shape_of_start(from_general_model(config.network, name), Path(config.output))
            said = _said(name, fault)
        config = config.model_copy(update={"network": network})
    if config.network.has_start and not starts_from_pretraining(config):
        config = with_fine_tuning_defaults(config)
    return config, said


def starts_from_pretraining(config: TrainingConfig) -> bool:
    """Whether the network starts from the pretraining of the same run."""
    start = config.network.start_from
    return start is not None and Path(start).parent == pretraining_folder(Path(config.output))


def _unsuited(model: NBodyConfig, frames: Frames) -> str | None:
    """Why the general model is no start for the frames; None if it is one, empty if it has nothing to do with them."""
    known, present = {*model.species}, set[str]().union(*map(species_of, frames.values()))
    if not present & known:
        return ""
    if foreign := sorted(present - known, key=chemical_symbols.index):
        periodic = any(_is_periodic(frame, model) for frame in itertools.chain(*frames.values()))
        return "" if periodic else f"it does not know {', '.join(foreign)}"
    # A general model that says nothing of charges and spins learnt neutral closed shells.
    learnt = model.model_copy(
        update={"total_charges": model.total_charges or (0,), "multiplicities": model.multiplicities or (1,)}
    )
    for frame in itertools.chain(*frames.values()):
        if _is_periodic(frame, model):
            alone = "where a box holds one molecule alone, remove its pbc"
            return f"{frame.source or 'a frame'} is periodic, and it learnt free molecules ({alone})"
        if fault := unlearnt_state(frame.structure, [learnt]):
            return f"{frame.source or 'a frame'}: {fault.split('. ')[0]}"
    return None


def _is_periodic(frame: LabelledStructure, model: NBodyConfig) -> bool:
    """Whether the frame is no free molecule. Plane-wave codes put free atoms into a periodic box."""
    return bool(frame.structure.pbc.any()) and not frame.structure.is_isolated_atom(model.reach)


def _said(name: str, fault: str | None) -> str:
    if fault is None:
        return (
            f"The network starts from the model {name}, which knows all elements of the data (network.start_from: "
            "auto). For one that starts from nothing, set network.start_from: none."
        )
    return f"The network starts from nothing. The model {name} is no start for these data: {fault}." if fault else ""
