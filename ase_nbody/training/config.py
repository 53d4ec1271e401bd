"""The configuration of a training: one YAML file, typed and strict, saved with the run."""

import copy
import difflib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_serializer

from ase_nbody.archive import find_model, load_model, shipped_models
from ase_nbody.loss import LossKind
from ase_nbody.network import LevelConfig


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the entry and what is allowed there."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class KeysConfig(_Strict):
    """Names of the labels in the files; those that are not given are looked for under all usual names."""

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None


class SourceConfig(_Strict):
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


class DataConfig(_Strict):
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


class FreezeConfig(_Strict):
    """Weights that the training leaves as they are.

    Attributes:
        levels: numbers of levels, from 1 below.
        embedding: also the species embedding.
    """

    levels: tuple[Annotated[int, Field(ge=1)], ...] = ()
    embedding: bool = False


def _levels_only(given: Any) -> Any:
    return {"levels": given} if isinstance(given, list | tuple) else given


class ArchitectureConfig(_Strict):
    """The network's shape; species and scales come from the data (see ``NBodyConfig``).

    Attributes:
        levels: the levels from below.
        embedding: channels of the species embedding; default: one per species, at most 8.
        repulsion: add the ZBL repulsion of the nuclei.
        start_from: a shipped model or a model file, whose weights and shape are taken; species that it lacks are added.
        freeze: which of its weights to leave as they are; a list stands for levels.
    """

    levels: tuple[LevelConfig, ...] = (LevelConfig(), LevelConfig(parts="heavy", children="heavy", l_out=0))
    embedding: int | None = None
    repulsion: bool = True
    start_from: str | None = None
    freeze: Annotated[FreezeConfig, BeforeValidator(_levels_only)] = FreezeConfig()


class SecondStage(_Strict):
    """The end of a training, with other weights in the loss.

    Attributes:
        start: fraction of the epochs after which it begins.
        energy_weight: weight of the energy from then on.
        stress_weight: likewise of the stress; default: as before.
    """

    start: float = Field(0.75, ge=0.0, lt=1.0)
    energy_weight: float = Field(ge=0.0)
    stress_weight: float | None = Field(None, ge=0.0)


class OptimisationConfig(_Strict):
    """How the weights are found.

    Attributes:
        epochs: passes over the training data; default: as many as make some 12,000 steps, between 20 and 500.
        batch_size: structures per step, over all processes.
        batch_atoms: atoms per step at the most, in place of ``batch_size``: for structures of many sizes.
        optimiser: ``muon``: Muon for the mixing matrices, Adam for all other weights; ``adamw``: AdamW for all.
        muon_rate: learning rate of the mixing matrices (Muon).
        adam_rate: learning rate of all other weights (Adam), or of all weights (AdamW).
        weight_decay: decoupled decay of the mixing matrices: they lose this, times the learning rate, each step.
        gradient_clip: largest norm of the gradient of all weights together; longer ones are shortened to it.
        warmup: steps over which the rates rise.
        schedule: how they fall: ``cosine``, to zero at the end; ``plateau``, whenever the validation error of the
            forces has not fallen for a while.
        plateau_factor: by what the rates are then multiplied.
        plateau_patience: for how many epochs.
        patience: stop after so many epochs without a lower validation loss; default: never.
        loss: ``norm``, ``mse``, ``mae`` or ``huber``, see ``ase_nbody.loss.loss``.
        huber_delta: where Huber's function turns from squares to absolute values, in eV/Angstrom.
        energy_weight: weight of the energy in the loss, per atom, beside 1 for the forces.
        stress_weight: likewise of the stress.
        second_stage: other weights for the last epochs.
        averaging: decay per step of the exponential moving average of the weights, which is validated and saved.
        compile: compile the training step for batches of recurring shapes (half a minute once, then about twice as
            fast).
        dtype: precision of the training.
        device: where to train; ``auto`` takes a GPU if there is one.
        seed: of the initial weights and the order of the batches.
    """

    epochs: int | None = Field(None, ge=1)
    batch_size: int = Field(5, ge=1)
    batch_atoms: int | None = Field(None, ge=1)
    optimiser: Literal["muon", "adamw"] = "muon"
    muon_rate: float = Field(0.005, gt=0.0)
    adam_rate: float = Field(0.005, gt=0.0)
    weight_decay: float = Field(0.0, ge=0.0)
    gradient_clip: float | None = Field(None, gt=0.0)
    warmup: int = Field(100, ge=0)
    schedule: Literal["cosine", "plateau"] = "cosine"
    plateau_factor: float = Field(0.5, gt=0.0, lt=1.0)
    plateau_patience: int = Field(10, ge=0)
    patience: int | None = Field(None, ge=1)
    loss: LossKind = "norm"
    huber_delta: float = Field(0.01, gt=0.0)
    energy_weight: float = Field(1.0, ge=0.0)
    stress_weight: float = Field(1.0, ge=0.0)
    second_stage: SecondStage | None = None
    averaging: float = Field(0.995, ge=0.0, lt=1.0)
    compile: bool = True
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "auto"
    seed: int = 0

    @property
    def keeps_best(self) -> bool:
        """Whether the model of the best epoch is saved, not that of the last."""
        return self.schedule == "plateau" or self.patience is not None

    def first_epoch_of_second_stage(self) -> int | None:
        """Epochs before the second stage, if there is one; ``epochs`` is set."""
        return None if self.second_stage is None else round(self.second_stage.start * (self.epochs or 0))

    def loss_weights(self, epoch: int) -> tuple[float, float]:
        """Weights of energy and stress in an epoch, which counts from 0."""
        first = self.first_epoch_of_second_stage()
        if self.second_stage is None or first is None or epoch < first:
            return self.energy_weight, self.stress_weight
        later = self.second_stage.stress_weight
        return self.second_stage.energy_weight, self.stress_weight if later is None else later


class PretrainingConfig(_Strict):
    """A training on structures that a cheap method labels, before that on the data; for neutral molecules.

    Attributes:
        method: of tight binding, by tblite.
        frames: how many structures.
        temperatures: in K; each of the runs of molecular dynamics that give them has one in this range.
        steps_apart: steps of 1 fs between structures.
        seed: of these runs.
        folder: where the structures are kept, so that several trainings on the same data can share them; default: in
            ``pretraining`` of the output folder.
        epochs: of the training on them.
        batch_size: of that training.
        muon_rate: likewise.
        adam_rate: likewise.
        energy_weight: likewise.
    """

    method: Literal["GFN2-xTB", "GFN1-xTB"] = "GFN2-xTB"
    frames: int = Field(6000, ge=100)
    temperatures: tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]] = (300.0, 1200.0)
    steps_apart: int = Field(5, ge=1)
    seed: int = Field(0, ge=0)
    folder: str | None = None
    epochs: int = Field(12, ge=1)
    batch_size: int = Field(10, ge=1)
    muon_rate: float = Field(0.005, gt=0.0)
    adam_rate: float = Field(0.005, gt=0.0)
    energy_weight: float = Field(0.01, ge=0.0)

    def __str__(self) -> str:
        low, high = self.temperatures
        return (
            f"up to {self.frames} structures of molecular dynamics at {low:g} to {high:g} K by {self.method}, "
            f"{self.steps_apart} fs apart, seed {self.seed}"
        )


class TrainingConfig(_Strict):
    """A whole training.

    Attributes:
        preset: ``small``, ``medium`` or ``large``: entries of ``presets/*.yaml``, under those that are given here.
        data: what to learn from.
        network: what to train.
        training: how.
        pretraining: what to learn first, from structures that the project's own runs of a cheap method give; default:
            nothing. The ``training`` then begins with these weights, for which lower rates are right.
        card: free text for the model card: theory, source, licence, ...
        report: write ``report.html`` at the end.
        wandb: send the curves to Weights & Biases too, which must be installed.
        output: folder of the run: checkpoints, metrics, ``config.yaml`` and the finished ``model.nbody``.
    """

    preset: Literal["small", "medium", "large"] | None = None
    data: DataConfig
    network: ArchitectureConfig = ArchitectureConfig()
    training: OptimisationConfig = OptimisationConfig()
    pretraining: PretrainingConfig | None = None
    card: dict[str, str] = Field(default_factory=dict)
    report: bool = True
    wandb: bool = False
    output: str = "runs/nbody"

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> "TrainingConfig":
        """Read a configuration; paths in it are relative to its folder.

        Args:
            path: the YAML file, or a data file: then everything else has its default.
            overrides: entries such as ``training.epochs=50`` or ``network.levels.0.radius=4``, values in YAML.

        Raises:
            FileNotFoundError: no such file.
            ConfigError: not YAML, an unknown key, or a value that is not allowed; all faults at once.
        """
        path = Path(path)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a directory, not a configuration; give the YAML file in it")
        if not path.is_file():
            raise FileNotFoundError(f"no configuration file {str(path)!r}")
        if path.suffix not in (".yaml", ".yml"):
            content: Any = {"data": {"train": path.name}, "output": os.path.abspath(f"runs/{path.stem}")}
            return cls.from_dict(_override(content, overrides), path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{path} must hold entries such as 'data:' and 'output:', found {content!r}")
        return cls.from_dict(_override(content, overrides), path)

    @classmethod
    def from_dict(cls, content: dict[str, Any], path: Path) -> "TrainingConfig":
        """Check the content of the configuration file ``path``, add its preset and resolve its paths."""
        try:
            config = cls.model_validate(_with_preset(content))
        except ValidationError as error:
            faults = "; ".join(_sentence(cls, dict(fault)) for fault in error.errors())
            raise ConfigError(f"{path}: {faults}") from error
        folder = path.resolve().parent

        def beside(name: str) -> str:
            return str((folder / name).resolve())

        sources = {name: getattr(config.data, name) for name in ("train", "validation", "test")}
        found = {
            name: tuple(source.model_copy(update={"path": beside(source.path)}) for source in several)
            for name, several in sources.items()
            if isinstance(several, tuple)
        }
        data = config.data.model_copy(update=found)
        network = with_shape_of_start(config.network, folder)
        pretraining = config.pretraining
        if pretraining is not None:
            if network.start_from is not None:
                raise ConfigError(
                    f"{path}: pretraining and network.start_from exclude each other; leave out one of them"
                )
            if pretraining.folder is not None:
                pretraining = pretraining.model_copy(update={"folder": beside(pretraining.folder)})
        resolved = {"data": data, "network": network, "pretraining": pretraining, "output": beside(config.output)}
        return config.model_copy(update=resolved)

    def continues(self, begun: "TrainingConfig") -> bool:
        """Whether a run that was begun so can go on with this configuration: all that sets the result is equal."""
        same = {name: getattr(begun.data, name) for name in ("workers", "memory")}
        return self.model_copy(update={"data": self.data.model_copy(update=same)}) == begun

    def to_yaml(self) -> str:
        """The whole configuration, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def with_shape_of_start(network: ArchitectureConfig, folder: Path) -> ArchitectureConfig:
    """The network with the shape of the model that it starts from, if any, which nothing given may contradict."""
    if network.start_from is None:
        return network
    start = network.start_from
    start = start if start in shipped_models() else str(find_model(folder.joinpath(start).resolve()))
    model = load_model(start)
    shape = {"levels": model.config.levels, "repulsion": model.config.repulsion}

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
    return network.model_copy(update={**shape, "start_from": start})


def _with_preset(content: dict[str, Any]) -> dict[str, Any]:
    """The content over that of its preset, if it names one that there is."""
    file = resources.files("ase_nbody.training") / "presets" / f"{content.get('preset')}.yaml"
    return _merge(yaml.safe_load(file.read_text()), content) if file.is_file() else content


def _merge(below: Any, above: Any) -> Any:
    """``above`` over ``below``, entry by entry; lists and values are replaced as a whole."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _merge(below[key], value) if key in below else value for key, value in above.items()}}


def _override(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The content with single entries replaced, its preset written out so that they find their place."""
    if not overrides:
        return content
    pairs = [override.partition("=") for override in overrides]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise ConfigError(f"an override is written as entry.of.the.config=value, got {name!r}")
    early = {name: yaml.safe_load(value) for name, _, value in pairs if name == "preset"}
    content = copy.deepcopy(_with_preset(content | early))
    for name, _, value in pairs:
        *parents, last = [int(step) if step.isdigit() else step for step in name.split(".")]
        place: Any = content
        try:
            for step in parents:
                place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
            place[last] = yaml.safe_load(value)
        except (TypeError, IndexError, AttributeError, yaml.YAMLError) as error:
            raise ConfigError(f"{name}={value} cannot be set: the configuration has no such place") from error
    return content


def _sentence(model: type[BaseModel], fault: dict[str, Any]) -> str:
    """One fault that pydantic found: the entry by its full path, what is wrong with it, and what would be right."""
    *parents, key = fault["loc"]
    name = ".".join(str(step) for step in fault["loc"] if "[" not in str(step))  # pydantic's names of alternatives
    if fault["type"] == "missing":
        return f"{name} is missing"
    if fault["type"] == "extra_forbidden":
        allowed = _keys(model, parents)
        near = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(allowed)}"
        return f"{name} is not an entry; {hint}"
    given = "" if isinstance(fault["input"], dict | list) else f", got {fault['input']!r}"
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}{given}"


def _keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The entries that a configuration may have at a path within ``model``."""
    if not path:
        return list(model.model_fields)
    head, *rest = path
    inner = next(kind for kind in _kinds(model.model_fields[str(head)].annotation) if isinstance(kind, type(BaseModel)))
    return _keys(inner, [step for step in rest if isinstance(step, str) and "[" not in step])


def _kinds(annotation: Any) -> list[Any]:
    """All types that occur in an annotation."""
    return [annotation, *(kind for part in get_args(annotation) for kind in _kinds(part))]
