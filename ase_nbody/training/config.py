"""The configuration of a training: one YAML file, typed and strict, saved with the run."""

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ase_nbody.network import LevelConfig


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the entry and what is allowed there."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Strict):
    """Which structures to learn from.

    Attributes:
        train: file with energies (eV), forces (eV/Angstrom) and, where there are any, stresses (eV/Angstrom^3).
        validation: another file, or how many frames of ``train`` are split off at random.
        test: file that is evaluated once, after the training, for the model card.
        isolated_atom_energies: eV of each species alone; fitted to the data if not given.
        seed: of the split.
    """

    train: str
    validation: str | int = 50
    test: str | None = None
    isolated_atom_energies: dict[str, float] | None = None
    seed: int = 0


class ArchitectureConfig(_Strict):
    """The network's shape; species and scales come from the data (see ``NBodyConfig``)."""

    levels: tuple[LevelConfig, ...] = (LevelConfig(), LevelConfig(parts="heavy", children="heavy", l_out=0))
    embedding: int | None = None
    repulsion: bool = True


class OptimisationConfig(_Strict):
    """How the weights are found.

    Attributes:
        epochs: passes over the training data.
        batch_size: structures per step.
        muon_rate: learning rate of the mixing matrices (Muon).
        adam_rate: learning rate of all other weights (Adam).
        warmup: steps over which the rates rise; then they fall to zero along a cosine.
        energy_weight: weight of the energy in the loss, per atom, beside 1 for the forces.
        stress_weight: likewise of the stress.
        averaging: decay per step of the exponential moving average of the weights, which is validated and saved.
        compile: compile the training step for batches of recurring shapes (half a minute once, then about twice as
            fast).
        dtype: precision of the training.
        device: where to train; ``auto`` takes a GPU if there is one.
        seed: of the initial weights and the order of the batches.
    """

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(5, ge=1)
    muon_rate: float = Field(0.01, gt=0.0)
    adam_rate: float = Field(0.005, gt=0.0)
    warmup: int = Field(100, ge=0)
    energy_weight: float = Field(1.0, ge=0.0)
    stress_weight: float = Field(1.0, ge=0.0)
    averaging: float = Field(0.995, ge=0.0, lt=1.0)
    compile: bool = True
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "auto"
    seed: int = 0


class TrainingConfig(_Strict):
    """A whole training.

    Attributes:
        data: what to learn from.
        network: what to train.
        training: how.
        card: free text for the model card: theory, source, licence, ...
        output: folder of the run: checkpoints, metrics, ``config.yaml`` and the finished ``model.nbody``.
    """

    data: DataConfig
    network: ArchitectureConfig = ArchitectureConfig()
    training: OptimisationConfig = OptimisationConfig()
    card: dict[str, str] = Field(default_factory=dict)
    output: str = "runs/nbody"

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> "TrainingConfig":
        """Read a configuration; paths in it are relative to its folder.

        Raises:
            FileNotFoundError: no such file.
            ConfigError: not YAML, an unknown key, or a value that is not allowed; all faults at once.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no configuration file {str(path)!r}")
        try:
            content = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not valid YAML: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{path} must hold entries such as 'data:' and 'output:', found {content!r}")
        return cls.from_dict(content, path)

    @classmethod
    def from_dict(cls, content: dict[str, Any], path: Path) -> "TrainingConfig":
        """Check the content of the configuration file ``path`` and resolve its paths."""
        try:
            config = cls.model_validate(content)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise ConfigError(f"{path}: {faults}") from error
        folder = path.resolve().parent

        def beside(name: str) -> str:
            return str((folder / name).resolve())

        files = {name: getattr(config.data, name) for name in ("train", "validation", "test")}
        found = {name: beside(file) for name, file in files.items() if isinstance(file, str)}
        return config.model_copy(update={"data": config.data.model_copy(update=found)})

    def to_yaml(self) -> str:
        """The whole configuration, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
