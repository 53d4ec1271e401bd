"""Which structures the network learns from, and what the labels are called in their files."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model, field_serializer

from ase_nbody.data.labels import USUAL_KEYS
from ase_nbody.data.reading import LARGEST_LABEL
from ase_nbody.training.config.strict import Strict

FILES = ("train", "validation", "test", "replay")  # entries of ``data`` that may name files


def _named(names: Iterable[str]) -> dict[str, Any]:
    """Optional entries of a configuration with these names, in the form that ``create_model`` takes."""
    return dict.fromkeys(names, (str | None, None))


class KeysConfig(create_model("Keys", __base__=Strict, **_named(USUAL_KEYS))):  # type: ignore[misc]
    """What the files call the labels: an entry for each label of ``data/labels.py`` and for the ``virial``.

    A label without an entry is looked for under all its usual names.
    """


class SourceConfig(create_model("Keys", __base__=Strict, **_named(f"{label}_key" for label in USUAL_KEYS))):  # type: ignore[misc]
    """One file with energies, forces and, optionally, further labels (their units are in ``data/labels.py``).

    ``energy_key``, ``forces_key``, ... give the names of the labels in this file, and are used instead of those in
    ``keys``.

    Attributes:
        path: the file, in any format that ASE reads. ``mine.extxyz@:50`` gives the ``index`` too.
        index: which frames of the file to use, written as a slice: ``":50"``, ``"-50:"``, ``"::10"``.
        weight: weight of the file's frames in the loss. It multiplies the weights that the frames themselves have.
    """

    path: str
    index: str = ":"
    weight: float = Field(1.0, ge=0.0)


def _as_sources(given: Any) -> Any:
    """A path, a source, or a list of such, turned into a list of sources."""
    if not isinstance(given, str | list | tuple | dict | SourceConfig):
        raise ValueError("should be a file or a list of files")
    entries = given if isinstance(given, list | tuple) else [given]
    return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]


# Without bounds, an energy of 1e308 would overflow in the loss.
Energy = Annotated[float, Field(gt=-LARGEST_LABEL, lt=LARGEST_LABEL)]

Sources = Annotated[tuple[SourceConfig, ...], BeforeValidator(_as_sources), Field(min_length=1)]


class DataConfig(Strict):
    """Which structures the network learns from.

    Attributes:
        train: a file or a list of files. Each is a path or a ``SourceConfig``.
        validation: files in the same form, or the number of frames of ``train`` that are held out at random; default:
            a tenth of the frames, but at most 50. Isolated atoms and the only frame of a species are not held out.
        test: files in the same form. The model is evaluated on them once, after the training, for the model card.
        replay: files of structures in the same form, for a network that starts from a model: some of them, labelled by
            that model, are learnt beside ``train``, so that the network forgets less (see ``training.replay``).
        replay_share: their share of all structures of an epoch.
        keys: names of the labels in all files.
        isolated_atom_energies: energy of the isolated atom of each species in eV; or ``fit``, the default, which takes
            those of isolated atoms in the data and fits the others to the energies. If the network starts from a model,
            they are the model's plus a correction, which is fitted (see ``ase_nbody.data.statistics``).
        seed: seed of the random split into training and validation frames.
        workers: number of processes that make neighbour tables. The result does not depend on it.
        memory: memory in GiB for structures and neighbour tables. Files that are too large are copied to the output
            folder and mapped from there; tables that are too large are made again for each batch.
    """

    train: Sources
    validation: Annotated[int, Field(strict=True)] | Sources | None = None
    test: Sources | None = None
    replay: Sources | None = None
    replay_share: float = Field(0.25, gt=0.0, lt=1.0)
    keys: KeysConfig = KeysConfig()
    isolated_atom_energies: dict[str, Energy] | Literal["fit"] | None = None
    seed: int = 0
    workers: int = Field(0, ge=0)
    memory: float = Field(4.0, ge=0.0)

    @field_serializer(*FILES)
    def _in_short_form(self, sources: tuple[SourceConfig, ...] | int | None) -> Any:
        """A source with nothing but a path is written as the path, and a list of one source as that source."""
        if not isinstance(sources, tuple):
            return sources
        entries = [source.model_dump(exclude_defaults=True) for source in sources]
        short = [entry["path"] if entry.keys() == {"path"} else entry for entry in entries]
        return short[0] if len(short) == 1 else short

    def keys_of(self, source: SourceConfig) -> dict[str, str]:
        """Names of the labels in a file, without the labels that have no name in the configuration."""
        names = {}
        for label in KeysConfig.model_fields:
            name = getattr(source, f"{label}_key") or getattr(self.keys, label)
            if name is not None:
                names[label] = name
        return names
