"""What a training says of its frames: before the first epoch, and of their stresses after the last."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ase_nbody.data import LabelledStructure
from ase_nbody.data.lint import frames_with_stress, remarks_by_model, wrong_bonds
from ase_nbody.data.statistics import evenly_spaced
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.runtime.parts_watch import REMEDY, said_of_part
from ase_nbody.text import count_of
from ase_nbody.training.evaluation import predict
from ase_nbody.training.isolated_atoms import undetermined
from ase_nbody.training.splits import take

Frames = Mapping[str, Sequence[LabelledStructure]]

_FRAMES_FOR_BONDS = 200  # of each file, evenly chosen
_FRAMES_FOR_STRESSES = 100  # of each set


def said_of_shared_frames(frames: Frames, *, one_file: bool) -> Iterator[str]:
    """Sentences on frames that serve both the training and the validation.

    Args:
        frames: ``training`` and ``validation``.
        one_file: whether the configuration names one file for both.
    """
    training = {_fingerprint(frame) for frame in frames["training"]}
    n_shared = sum(_fingerprint(frame) in training for frame in frames["validation"])
    if n_shared:
        remedy = "Name another file in data.validation, or leave it out." if one_file else "Remove copies (nbody lint)."
        yield (
            f"Warning: {count_of(n_shared, 'validation frame')} of {len(frames['validation'])} "
            f"{'is' if n_shared == 1 else 'are'} among the training frames, so the validation errors are too small. "
            f"{remedy}"
        )
    elif one_file:
        yield "One file serves the training and the validation, with different frames."


def _fingerprint(frame: LabelledStructure) -> int:
    """Equal for structures that no network tells apart: an ion is not the neutral molecule."""
    structure = frame.structure
    labels = None if structure.labels is None else structure.labels.tobytes()
    arrays = (structure.numbers, structure.positions, structure.cell, structure.pbc)
    return hash((*(array.tobytes() for array in arrays), structure.charge, labels))


def said_of_bonds(frames: Frames) -> Iterator[str]:
    """Sentences on files whose forces make bonds much too stiff or too soft, as forces in other units do.

    Args:
        frames: ``training``, ``validation`` and ``test``.
    """
    files: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, part in frames.items():
        for index, frame in enumerate(part):
            files["the data" if frame.source is None else frame.source.path].append((name, index))
    for path, places in files.items():
        chosen = places[:: -(-len(places) // _FRAMES_FOR_BONDS)]
        if (wrong := wrong_bonds([frames[name][index] for name, index in chosen])) is not None:
            yield f"Warning: in {path}, {wrong} Convert energies and forces to eV and eV/Angstrom (see nbody lint)."


def said_of_parts(frames: Frames) -> Iterator[str]:
    """A sentence on frames in which a labelled part has atoms of several molecules.

    Args:
        frames: the frames by the name of their set, for a network with labelled parts.
    """
    found: list[str] = []
    for name, part in frames.items():
        for index in range(0, len(part), max(1, -(-len(part) // _FRAMES_FOR_BONDS))):
            frame = part[index]  # which may be read from a disk
            if (sentence := said_of_part(frame.structure)) is not None:
                found.append(f"in {frame.source or f'frame {index} of the {name} frames'}, {sentence}")
    if found:
        more = f" So do {len(found) - 1} others of those that were looked at." if len(found) > 1 else ""
        yield f"Warning: {found[0]}.{more} {REMEDY}"


def said_of_fitted_energies(fitted: Sequence[str], species: Sequence[str], frames: Frames) -> Iterator[str]:
    """Sentences on isolated-atom energies that are fitted.

    Args:
        fitted: symbols of the species whose energies are fitted.
        species: symbols of all species.
        frames: ``training``, ``validation`` and ``test``.
    """
    if fitted and len(fitted) < len(species):
        yield (
            f"Warning: the isolated-atom energies of {', '.join(fitted)} are fitted, and the others are known. "
            "Fitted ones are no energies of atoms: give all in data.isolated_atom_energies."
        )
    for name in ("validation", "test"):
        if lost := undetermined(frames["training"], frames[name], fitted):
            yield (
                f"Warning: {count_of(lost, f'{name} frame', 'has a composition', 'have compositions')} whose energy "
                "the training frames do not determine, because the isolated-atom energies are fitted to other "
                "compositions. Errors of energies mean nothing there. Give all in data.isolated_atom_energies, or add "
                "single-atom frames."
            )


def said_of_stresses(network: NBodyNetwork, frames: Frames) -> Iterator[str]:
    """Sentences on stresses whose order, signs or unit are not those of the trained network's.

    Args:
        network: the trained network.
        frames: ``training`` and ``validation``.
    """
    chosen: list[LabelledStructure] = []
    for part in (frames["training"], frames["validation"]):
        step = max(1, -(-len(part) // _FRAMES_FOR_STRESSES))
        chosen += frames_with_stress(take(part, evenly_spaced(part, step)))
    for remark in remarks_by_model(chosen, predict(network, chosen)) if chosen else ():
        if remark.severity == "error":
            yield f"Warning: look at the stress labels. {remark.text}"
