"""The isolated-atom energies of a network that starts from a trained one, and checks of the data's zero of energy.

A trained network predicts E = sum_i E0(z_i) + E_interaction, and E_interaction holds the cohesive energy already. On
data of another theory, the constants E0 are therefore fitted to E_data - E_interaction. Fitted to E_data alone, they
would hold the cohesive energy too, and the training would have to unlearn that of the network.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from ase_nbody.data import DataError, LabelledStructure, energies_of_isolated_atoms
from ase_nbody.data.statistics import atom_counts, energies_per_atom, frames_of_atoms, with_energies_that_count
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.training.evaluation import predict
from ase_nbody.training.splits import species_of, take
from ase_nbody.training.two_zeros import refuse_two_zeros

_MAX_COHESION_EV_PER_ATOM = 15.0  # tungsten has 9
_MAX_OFFSET_EV_PER_ATOM = 0.2  # of the data from the predictions of the model; most other theories differ by more
_MAX_OFFSET_IF_GIVEN_EV_PER_ATOM = 2.0  # if the user gave the isolated-atom energies
_LEAST_COHESION_EV_PER_ATOM = 1.0  # of matter whose energies count from free atoms; organic molecules have 3 to 5
_LEAST_OFFSET_IN_DEVIATIONS = 3.0  # smaller offsets may be errors of the model
_LARGEST_MISFIT = 1e-6  # atoms
_MAX_FRAMES = 1000  # are evaluated to find the zero


def shift_to_data(network: NBodyNetwork, training: Sequence[LabelledStructure], free: Sequence[str]) -> None:
    """Move a trained network to the zero of the data, in place.

    The isolated-atom energies of the species that are ``free`` become E0_z + c_z. The correction c is what the data
    determine of E_data - E_model, the one of least norm (see ``energies_per_atom``). Species that are new to the
    network come first and alone: they lack total energies, where the others differ as two theories do.

    Args:
        network: the network, with all species of the data.
        training: the training frames.
        free: symbols of the species whose energies are fitted.
    """
    frames = _frames_that_tell(training, network.config.reach)
    if not (free and frames):
        return
    energies, differences = dict(network.config.isolated_atom_energies), _differences(frames, predict(network, frames))
    for species in filter(None, ([symbol for symbol in free if symbol not in energies], free)):
        counts = atom_counts(frames, [atomic_numbers[symbol] for symbol in species])
        correction, _ = energies_per_atom(counts, differences)
        differences = differences - counts @ correction
        for symbol, value in zip(species, correction, strict=True):
            energies[symbol] = energies.get(symbol, 0.0) + float(value)
    network.set_isolated_atom_energies(energies)


def takes_isolated_atoms(network: NBodyNetwork, training: Sequence[LabelledStructure]) -> bool:
    """Whether isolated atoms of the data can be the zero of a trained network's energies.

    Where its own training had none, the constants E0 were fitted to molecules and hold most of their cohesive energy.
    Then E_interaction is about zero, and an E0 of a free atom would lift every molecule by electronvolts an atom.

    Args:
        network: the trained network.
        training: the training frames, with the isolated atoms. Those with species that are new to it do not tell.
    """
    reach, species = network.config.reach, {*network.config.species}
    known = [
        frame
        for frame in _frames_that_tell(training, reach)
        if len(frame.structure) > 1 and species_of([frame]) <= species
    ]
    if not known:
        return True
    counted = network.config.isolated_atom_energies | energies_of_isolated_atoms(training, reach)
    bound = float(np.median([_interaction(frame, counted) for frame in known]))
    return bound > -_MAX_OFFSET_IF_GIVEN_EV_PER_ATOM or _counts_from_atoms(network, known)


def refuse_other_zero(
    network: NBodyNetwork,
    training: Sequence[LabelledStructure],
    name: str,
    given: Mapping[str, float] | None,
    of_data: Mapping[str, float] | None = None,
) -> None:
    """Refuse data whose energies have another zero than a trained network's: they would wipe out what it has learnt.

    Args:
        network: the network before its training.
        training: the training frames.
        name: name of the model that it starts from.
        given: isolated-atom energies in eV that the user gave; a larger difference is allowed then.
        of_data: those of isolated atoms in the data, if the network has taken them over; the same is allowed.

    Raises:
        DataError: the data differ from the predictions by the same energy per atom in most frames, or by two.
    """
    frames = [frame for frame in _frames_that_tell(training, network.config.reach) if len(frame.structure) > 1]
    if not frames:
        return
    predicted = predict(network, frames)
    refuse_two_zeros(frames, predicted, name)
    per_atom = _differences(frames, predicted) / np.array([len(frame.structure) for frame in frames])
    offset = float(np.median(per_atom))
    deviation = float(np.median(np.abs(per_atom - offset)))
    allowed = _MAX_OFFSET_IF_GIVEN_EV_PER_ATOM if given or of_data else _MAX_OFFSET_EV_PER_ATOM
    if abs(offset) > max(allowed, min(_LEAST_OFFSET_IN_DEVIATIONS * deviation, _MAX_COHESION_EV_PER_ATOM)):
        remedy = "Set data.isolated_atom_energies: fit, or give them."
        if given or of_data:
            remedy = (
                "Correct data.isolated_atom_energies or set it to fit."
                if given
                else "Correct the energies of the isolated atoms in the data, or remove these frames."
            )
        cause = "they come from another theory or have another unit"
        if given and offset < 0 and not _counts_from_atoms(network, frames):
            cause = f"{name} counts from constants that were fitted to molecules, not from free atoms"
            remedy = "Leave data.isolated_atom_energies out, or set network.start_from: none."
        raise DataError(
            f"the energies of the data differ by {offset:.4g} eV per atom from those that {name} predicts (allowed: "
            f"{allowed:g}): {cause}. {remedy}"
        )


def refuse_impossible_cohesion(
    isolated: Mapping[str, float], training: Sequence[LabelledStructure], *, given: bool, fitted: bool = False
) -> None:
    """Refuse isolated-atom energies in eV that cannot belong to the energies of the training frames.

    Args:
        isolated: energies by symbol, for all species.
        training: the training frames.
        given: whether the configuration gives the energies; otherwise they come from the data.
        fitted: whether all of them are fitted, because the data have no isolated atoms.

    Raises:
        DataError: the typical frame of several atoms is bound, or unbound, by more than any matter is.
    """
    cohesion = [
        _interaction(frame, isolated)
        for frame in training
        if np.isfinite(frame.energy) and frame.weights.energy and len(frame.structure) > 1
    ]
    if not cohesion:
        return
    typical = float(np.median(cohesion))
    if abs(typical) > _MAX_COHESION_EV_PER_ATOM and fitted:
        raise DataError(
            f"no energies of isolated atoms fit the energies of the data: these differ by {typical:.4g} eV per atom "
            f"from the fit (allowed: {_MAX_COHESION_EV_PER_ATOM:g}). Were files of two programs, theories or units "
            "joined? Convert the energies and forces of one part (see nbody lint), or leave it out."
        )
    if abs(typical) > _MAX_COHESION_EV_PER_ATOM:
        where = "data.isolated_atom_energies" if given else "the isolated atoms in the data"
        remedy = "Correct them, or leave them out." if given else "Correct their energies, or remove them."
        raise DataError(
            f"the energies of the data differ by {typical:.4g} eV per atom from those of {where} (allowed: "
            f"{_MAX_COHESION_EV_PER_ATOM:g}): the atoms come from another program, or have no energy. {remedy}"
        )


def fitted_species(
    training: Sequence[LabelledStructure],
    known: Mapping[str, float] | None,
    given: Mapping[str, float] | str | None,
    reach: float,
) -> list[str]:
    """Symbols of the species of the data whose isolated-atom energies are fitted, in the order of atomic numbers.

    Args:
        training: the training frames.
        known: isolated-atom energies of the model to start from; None for a new network.
        given: ``data.isolated_atom_energies``.
        reach: distance in Angstrom beyond which images of an atom do not count (see ``Structure.is_isolated_atom``).
    """
    there = {*energies_of_isolated_atoms(training, reach)}
    if given != "fit":
        there |= {*(known or ()), *(given or ())}
    return sorted(species_of(training) - there, key=chemical_symbols.index)


def undetermined(
    training: Sequence[LabelledStructure], others: Sequence[LabelledStructure], fitted: Sequence[str]
) -> int:
    """How many other frames have energies that the fitted isolated-atom energies cannot give.

    They can give those of compositions that are sums of the training's, with factors of either sign.

    Args:
        training: the training frames, to which the energies were fitted.
        others: frames of the same species.
        fitted: symbols of the species whose energies are fitted.
    """
    numbers = [atomic_numbers[symbol] for symbol in fitted]
    determining, judged = (
        atom_counts((one[index] for index in with_energies_that_count(one)), numbers) for one in (training, others)
    )
    if not (fitted and len(determining) and len(judged)):
        return 0
    known = np.unique(determining, axis=0)
    compositions, counts = np.unique(judged, axis=0, return_counts=True)
    rest = compositions - compositions @ np.linalg.pinv(known) @ known
    return int(counts[np.abs(rest).max(axis=1) > _LARGEST_MISFIT].sum())


def _frames_that_tell(training: Sequence[LabelledStructure], reach: float) -> Sequence[LabelledStructure]:
    """Frames with energies of atoms: evenly spaced ones, at most about a thousand, and the first of each species."""
    known = frames_of_atoms(training, reach)
    chosen, seen = set(known[:: max(1, len(known) // _MAX_FRAMES)]), set[int]()
    for index in known:
        numbers = set(training[index].structure.numbers.tolist())
        if not numbers <= seen:
            chosen.add(index)
            seen |= numbers
    return take(training, sorted(chosen))


def _counts_from_atoms(network: NBodyNetwork, frames: Sequence[LabelledStructure]) -> bool:
    """Whether a network's isolated-atom energies are those of free atoms: matter is bound against them."""
    isolated = network.config.isolated_atom_energies
    bound = [_interaction(model, isolated) for model in predict(network, frames)]
    return float(np.median(bound)) < -_LEAST_COHESION_EV_PER_ATOM


def _interaction(frame: LabelledStructure, isolated: Mapping[str, float]) -> float:
    """Energy of a frame without those of its isolated atoms, in eV/atom."""
    atoms = sum(isolated.get(chemical_symbols[number], 0.0) for number in frame.structure.numbers)
    return (frame.energy - atoms) / len(frame.structure)


def _differences(frames: Sequence[LabelledStructure], predicted: Sequence[LabelledStructure]) -> NDArray[np.float64]:
    """Energies of the frames minus those that a network predicts, in eV."""
    return np.array([frame.energy - model.energy for frame, model in zip(frames, predicted, strict=True)])
