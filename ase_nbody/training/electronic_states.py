"""The total charges and spins that a trained model will know, and the refusal of frames that have others."""

from collections.abc import Mapping, Sequence
from typing import Any

from ase_nbody.data import DataError, LabelledStructure
from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.electronic_states import unlearnt_state
from ase_nbody.training.config import ArchitectureConfig


def states_of(
    network: ArchitectureConfig, before: NBodyConfig | None, training: Sequence[LabelledStructure]
) -> dict[str, Any]:
    """``total_charges`` and ``multiplicities`` of the network to train, for its ``NBodyConfig``.

    They are those of the configuration. If it gives none and the network starts from a model that has them, they are
    those of the training frames: what that model learnt of other states is not kept.

    Args:
        network: the configuration of the network.
        before: the configuration of the model that it starts from, or None.
        training: the training frames.
    """
    charges, multiplicities = network.total_charges, network.multiplicities
    if before is not None and (before.total_charges, before.multiplicities) != (None, None):
        several = (frame.structure for frame in training if not frame.structure.is_isolated_atom())
        found = {(round(structure.charge), structure.spin_multiplicity) for structure in several}
        if charges is None and before.total_charges is not None:
            charges = tuple({charge for charge, _ in found}) or before.total_charges
        if multiplicities is None and before.multiplicities is not None:
            multiplicities = tuple({multiplicity for _, multiplicity in found}) or before.multiplicities
    return {"total_charges": charges, "multiplicities": multiplicities}


def require_learnt_states(network: NBodyConfig, frames: Mapping[str, Sequence[LabelledStructure]]) -> None:
    """Refuse frames whose total charge or spin is not among those of the network.

    Args:
        network: the configuration of the network.
        frames: frames by the name of their set, which the message gives.

    Raises:
        DataError: the first such frame, with its file and number.
    """
    if network.total_charges is None and network.multiplicities is None:
        return
    for name, several in frames.items():
        for number, frame in enumerate(several):
            if fault := unlearnt_state(frame.structure, [network]):
                raise DataError(f"{frame.source or f'frame {number} of the {name} data'}: {fault}")
