"""Which structures to learn from, and what their labels are called."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_serializer

from ase_nbody.training.config.strict import Strict


class KeysConfig(Strict):
    """Names of the labels in the files; those that are not given are looked for under all usual names."""

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None


class SourceConfig(Strict):
    """One file with energies (eV), forces (eV/Angstrom) and, where there are any, stresses (eV/Angstrom^3).

    Attributes:
        path: the file; anything that ASE reads.
        index: which of its frames, as ASE writes slices: ``":50"``, ``"-50:"``, ``"::10"``.
        weight: of its frames in the loss, times those that they carry themselves.
        energy_key: name of the energies in this file, before that in ``keys``; likewise the others.
    """

    path: str
    index: str = ":"
    weight: float = Field(1.0, ge=0.0)
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None


def _listed(given: Any) -> Any:
    """One path or source as a list, each path as a source."""
    several = given if isinstance(given, list | tuple) else [given]
    return [{"path": one} if isinstance(one, str) else one for one in several]


Sources = Annotated[tuple[SourceConfig, ...], BeforeValidator(_listed), Field(min_length=1)]


class DataConfig(Strict):
    """Which structures to learn from.

    Attributes:
        train: a file or a list of files; a ``SourceConfig`` may stand for each path.
        validation: likewise, or how many frames of ``train`` are split off at random; default: a tenth, at most 50.
        test: likewise; evaluated once, after the training, for the model card.
        keys: names of the labels in all files.
        isolated_atom_energies: eV of each species alone. Default, and ``fit``: fitted to the data; but those of the
            model that is started from are kept if neither given nor ``fit``.
        seed: of the split.
        workers: processes that make neighbour tables; the result does not depend on their number.
        memory: GiB for structures and neighbour tables. Larger files are copied to the output folder and mapped into
            memory, larger tables are made anew for each batch.
    """

    train: Sources
    validation: Annotated[int, Field(strict=True)] | Sources | None = None
    test: Sources | None = None
    keys: KeysConfig = KeysConfig()
    isolated_atom_energies: dict[str, float] | Literal["fit"] | None = None
    seed: int = 0
    workers: int = Field(0, ge=0)
    memory: float = Field(4.0, ge=0.0)

    @field_serializer("train", "validation", "test")
    def _short(self, sources: tuple[SourceConfig, ...] | int | None) -> Any:
        if not isinstance(sources, tuple):
            return sources
        shown = [source.model_dump(exclude_defaults=True) for source in sources]
        brief = [source["path"] if source.keys() == {"path"} else source for source in shown]
        return brief[0] if len(brief) == 1 else brief

    def keys_of(self, source: SourceConfig) -> dict[str, str]:
        """Names of the labels in a file, where they are given."""
        named = {
            label: getattr(source, f"{label}_key") or getattr(self.keys, label) for label in KeysConfig.model_fields
        }
        return {label: key for label, key in named.items() if key is not None}
