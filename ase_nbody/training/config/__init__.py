"""The configuration of a training: a YAML file, checked strictly, and saved with the run with all defaults."""

from ase_nbody.training.config.architecture import ArchitectureConfig, FreezeConfig, with_shape_of_start
from ase_nbody.training.config.data import DataConfig, KeysConfig, SourceConfig
from ase_nbody.training.config.differences import differences
from ase_nbody.training.config.optimisation import OptimisationConfig, PretrainingConfig, SecondStage
from ase_nbody.training.config.start import as_begun, levels_are_open
from ase_nbody.training.config.strict import ConfigError
from ase_nbody.training.config.training import TrainingConfig

__all__ = [
    "ArchitectureConfig",
    "ConfigError",
    "DataConfig",
    "FreezeConfig",
    "KeysConfig",
    "OptimisationConfig",
    "PretrainingConfig",
    "SecondStage",
    "SourceConfig",
    "TrainingConfig",
    "as_begun",
    "differences",
    "levels_are_open",
    "with_shape_of_start",
]
