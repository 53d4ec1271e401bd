"""The configuration of a whole training, and how it is read from a YAML file, checked and written."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from ase_nbody.data.file_names import data_file
from ase_nbody.text import printable
from ase_nbody.training.config.architecture import ArchitectureConfig, with_shape_of_start
from ase_nbody.training.config.bounded_yaml import MAX_CHARACTERS, YamlError, parse_yaml
from ase_nbody.training.config.data import FILES, DataConfig, SourceConfig
from ase_nbody.training.config.faults import misplaced_truth_values, sentences
from ase_nbody.training.config.optimisation import OptimisationConfig, PretrainingConfig
from ase_nbody.training.config.paths import absolute_file, absolute_folder, value_of
from ase_nbody.training.config.strict import ConfigError, Strict, override, with_preset

_YAML = (".yaml", ".yml")  # endings of configurations; all other files are data
_MAX_FAULTS = 20  # that an error shows


class TrainingConfig(Strict):
    """The configuration of a whole training.

    Attributes:
        preset: ``small``, ``medium``, ``large`` or ``kondor``, the paper's network (``docs/paper.md``). The entries of
            ``presets/*.yaml`` then replace the defaults; entries that the configuration itself gives take precedence.
        data: which structures the network learns from.
        network: which network is trained.
        training: how its weights are optimised.
        pretraining: a training on structures of a cheap method, before the training on the data; default: none. Lower
            learning rates suit a ``training`` that begins with pretrained weights.
        card: free text for the model card: theory, source, licence, ...
        report: whether to write ``report.html`` at the end.
        wandb: whether to send the curves to Weights & Biases too. This needs the package ``wandb``.
        output: output folder, for checkpoints, metrics, ``config.yaml`` and the finished ``model.nbody``.
    """

    preset: Literal["small", "medium", "large", "kondor"] | None = None
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
        """Read a configuration. Paths in it are relative to its folder. Paths in ``overrides`` are relative to the
        working directory. ``~`` is the home folder.

        Args:
            path: the YAML file, or a data file, for which all other entries have their defaults.
            overrides: entries such as ``training.epochs=50`` or ``network.levels.0.radius=4``, with values in YAML. A
                path is taken as it stands.

        Raises:
            FileNotFoundError: there is no such file.
            IsADirectoryError: the path is that of a folder.
            ConfigError: the file is not YAML, or has unknown entries or values that are not allowed. The message names
                all of them.
        """
        given, here = os.fspath(path), Path.cwd()
        name, index = data_file(given)
        path = Path(name)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a directory, not a configuration; give the YAML file in it")
        if path.exists() and not path.is_file():
            raise ConfigError(
                f"{printable(str(path))} is a pipe or a device, not a configuration or data: write a file"
            )
        if not path.is_file() or (path.suffix in _YAML and index != ":"):
            kind = "configuration" if path.suffix in (*_YAML, "") else "data"
            raise FileNotFoundError(f"no {kind} file {given!r}")

        def value(entry: str, text: str) -> Any:
            return value_of(entry, text, here)

        if path.suffix not in _YAML:
            train = {"path": absolute_file(name, here), "index": index}
            content: Any = {"data": {"train": train}, "output": absolute_folder(f"runs/{path.stem}", here)}
            return cls.from_dict(override(content, overrides, value, _default_levels()), path)
        try:
            with open(path, encoding="utf-8") as file:
                content = parse_yaml(file.read(MAX_CHARACTERS + 1))
        except (YamlError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid YAML: {error}") from error
        if not isinstance(content, dict):
            found = printable(repr(content), 100)
            raise ConfigError(f"{path} must hold entries such as 'data:' and 'output:', found {found}")
        return cls.from_dict(override(content, overrides, value, _default_levels()), path)

    @classmethod
    def from_dict(cls, content: dict[str, Any], path: Path) -> "TrainingConfig":
        """Check the content of the configuration file ``path``, add its preset and make its paths absolute.

        Raises:
            ConfigError: see ``from_yaml``.
        """
        content = with_preset(content)
        found = [*misplaced_truth_values(cls, content)]
        try:
            config = cls.model_validate(content)
        except ValidationError as error:
            found = sentences(cls, [dict(fault) for fault in error.errors()])
        if found:
            faults = "; ".join(found[:_MAX_FAULTS])
            faults += f"; and {len(found) - _MAX_FAULTS} more" if len(found) > _MAX_FAULTS else ""
            where = path if path.suffix in _YAML else "command line"  # data have no entries
            raise ConfigError(f"{where}: {faults}")
        folder = path.parent.resolve()
        sources = {}
        for name in FILES:
            given = getattr(config.data, name)
            if isinstance(given, tuple):
                sources[name] = tuple(_absolute_source(source, folder) for source in given)
        data = config.data.model_copy(update=sources)
        network = with_shape_of_start(config.network, folder)
        pretraining = config.pretraining
        if pretraining is not None:
            if network.has_start:
                raise ConfigError(
                    f"{path}: pretraining and network.start_from exclude each other; leave out one of them"
                )
            if pretraining.folder is not None:
                pretraining = pretraining.model_copy(update={"folder": absolute_folder(pretraining.folder, folder)})
        resolved = {"data": data, "network": network, "pretraining": pretraining}
        return config.model_copy(update=resolved | {"output": absolute_folder(config.output, folder)})

    @classmethod
    def as_written(cls, path: Path) -> "TrainingConfig":
        """Read what ``to_yaml`` wrote, as it stands there: files that it names may have been moved since.

        Raises:
            ConfigError: the file is missing or holds something else.
        """
        try:
            with open(path, encoding="utf-8") as file:
                return cls.model_validate(parse_yaml(file.read(MAX_CHARACTERS + 1)))
        except (OSError, ValueError) as error:  # YamlError is a ValueError
            raise ConfigError(
                f"{path} is not the configuration that a run wrote there, so the run cannot be resumed: put it back, "
                "or choose another 'output'"
            ) from error

    def to_yaml(self) -> str:
        """The whole configuration as YAML, including all defaults."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _default_levels() -> list[dict[str, Any]]:
    """The levels of a configuration that names none, as entries."""
    return [level.model_dump(mode="json", exclude_unset=True) for level in ArchitectureConfig().levels]


def _absolute_source(source: SourceConfig, folder: Path) -> SourceConfig:
    """The source with an absolute path, and with the index that stood in its name."""
    try:
        path, index = data_file(absolute_file(source.path, folder), source.index)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return source.model_copy(update={"path": path, "index": index})
