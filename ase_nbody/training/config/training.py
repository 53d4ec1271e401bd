"""A whole training: its YAML file, read, checked and written."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from ase_nbody.training.config.architecture import ArchitectureConfig, with_shape_of_start
from ase_nbody.training.config.data import DataConfig
from ase_nbody.training.config.optimisation import OptimisationConfig, PretrainingConfig
from ase_nbody.training.config.strict import ConfigError, Strict, override, sentence, with_preset


class TrainingConfig(Strict):
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
            return cls.from_dict(override(content, overrides), path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{path} must hold entries such as 'data:' and 'output:', found {content!r}")
        return cls.from_dict(override(content, overrides), path)

    @classmethod
    def from_dict(cls, content: dict[str, Any], path: Path) -> "TrainingConfig":
        """Check the content of the configuration file ``path``, add its preset and resolve its paths."""
        try:
            config = cls.model_validate(with_preset(content))
        except ValidationError as error:
            faults = "; ".join(sentence(cls, dict(fault)) for fault in error.errors())
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
