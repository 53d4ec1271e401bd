"""Training: from labelled structures and a configuration to a model file, and the errors of a finished model.

Training needs the extra ``train`` (lightning, tensorboard, matplotlib). Configurations, evaluation and predictions do
not, so each name below is imported from its module only when it is first used.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_nbody.training.callbacks import CheckpointError
    from ase_nbody.training.config import ConfigError, TrainingConfig
    from ase_nbody.training.evaluation import errors_table, evaluate_model, predict
    from ase_nbody.training.loss import unit_of
    from ase_nbody.training.pretraining import train_in_stages
    from ase_nbody.training.recovery import TrainingDiverged
    from ase_nbody.training.report import write_report
    from ase_nbody.training.run import train
    from ase_nbody.training.seeds import train_committee
    from ase_nbody.training.splits import read_sources, read_splits
    from ase_nbody.training.termination import Terminated

__all__ = [
    "CheckpointError",
    "ConfigError",
    "Terminated",
    "TrainingConfig",
    "TrainingDiverged",
    "errors_table",
    "evaluate_model",
    "predict",
    "read_sources",
    "read_splits",
    "train",
    "train_committee",
    "train_in_stages",
    "unit_of",
    "write_report",
]

# The module of this folder that defines each name above.
_MODULE_OF = {
    "CheckpointError": "callbacks",
    "ConfigError": "config",
    "Terminated": "termination",
    "TrainingConfig": "config",
    "TrainingDiverged": "recovery",
    "errors_table": "evaluation",
    "evaluate_model": "evaluation",
    "predict": "evaluation",
    "read_sources": "splits",
    "read_splits": "splits",
    "train": "run",
    "train_committee": "seeds",
    "train_in_stages": "pretraining",
    "unit_of": "loss",
    "write_report": "report",
}
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # variables of launchers


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562).

    Raises:
        AttributeError: this folder offers no such name.
        ModuleNotFoundError: the name needs lightning, which is not installed.
    """
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        with _without_foreign_ranks():
            return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "lightning":
            raise
        raise ModuleNotFoundError(
            "training needs lightning, which is not installed: pip install lightning tensorboard matplotlib",
            name=error.name,
        ) from error


@contextlib.contextmanager
def _without_foreign_ranks() -> Iterator[None]:
    """Hide variables that lightning, when it is imported, takes for the number of a process, where they are none."""
    hidden = {name: value for name in _RANKS if not re.fullmatch("[0-9]{1,9}", value := os.environ.get(name, "0"))}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
