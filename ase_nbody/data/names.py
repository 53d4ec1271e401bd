"""Which name each label has in a file, decided once for the whole file."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from ase_nbody.data.labels import PREFIXES, USUAL_KEYS

_DECIDING = ("energy", "forces")  # a file has a set if it has one of these with the prefix of the set


@dataclass(frozen=True)
class Names:
    """The names under which the labels of a file are read.

    Attributes:
        used: for each label, or the ``virial``, its name in the file. A label without an entry is not read.
        unused: usual names of labels that the file has too, but that are not read.
    """

    used: Mapping[str, str]
    unused: tuple[str, ...]


def usual_names(label: str, prefix: str) -> tuple[str, ...]:
    """The names of a label, or of the ``virial``, in one set."""
    return tuple(prefix + key for key in USUAL_KEYS[label])


def all_usual_names() -> set[str]:
    """The names of all labels in all sets."""
    return {name for prefix in PREFIXES for label in USUAL_KEYS for name in usual_names(label, prefix)}


def choose_names(present: Set[str], keys: Mapping[str, str]) -> Names:
    """Decide under which names the labels of a file are read.

    A label in ``keys`` has the name that is given there. All other labels come from one set of names with a common
    prefix, and each has one name in all frames: values of a model are never mixed with those of its reference.

    Args:
        present: names that the file has.
        keys: names that the user gave, by label.
    """
    prefix = _prefix(present, keys)
    used = dict(keys)
    left = [] if prefix is None else [label for label in USUAL_KEYS if label not in keys]
    if "stress" in keys or "virial" in keys:
        left = [label for label in left if label not in ("stress", "virial")]
    for label in left:
        found = [name for name in usual_names(label, prefix or "") if name in present]
        if found:
            used[label] = found[0]
    return Names(used, tuple(sorted((all_usual_names() & present) - set(used.values()))))


def _prefix(present: Set[str], keys: Mapping[str, str]) -> str | None:
    """The prefix of the set from which the labels without a key come; None if they come from none."""
    for label in USUAL_KEYS:  # a key that is a usual name decides
        for prefix in PREFIXES:
            if keys.get(label) in usual_names(label, prefix):
                return prefix
    free = [label for label in _DECIDING if label not in keys]
    for prefix in PREFIXES:
        if _has(present, prefix, free):
            return prefix
    for prefix in PREFIXES:
        # With names of the user's own for energies and forces, a set that has both too is another calculation.
        if _has(present, prefix, set(USUAL_KEYS) - set(keys)) and not _has(present, prefix, _DECIDING):
            return prefix
    return None


def _has(present: Set[str], prefix: str, labels: Iterable[str]) -> bool:
    return any(name in present for label in labels for name in usual_names(label, prefix))
