"""N-body networks (Kondor 2018) as an ASE calculator: covariant, hierarchical interatomic potentials."""

import sys

from ase_nbody.dynamics import NBodyMonitor
from ase_nbody.engines import NBodyCalculator, calculator, side_by_side
from ase_nbody.files import archive
from ase_nbody.files.archive import load_model, save_model
from ase_nbody.network import LevelConfig, NBodyConfig, NBodyNetwork
from ase_nbody.runtime import extrapolation
from ase_nbody.runtime.evaluator import Evaluator
from ase_nbody.runtime.extrapolation import ExtrapolationWarning

__all__ = [
    "Evaluator",
    "ExtrapolationWarning",
    "LevelConfig",
    "NBodyCalculator",
    "NBodyConfig",
    "NBodyMonitor",
    "NBodyNetwork",
    "load_model",
    "save_model",
]

# Names of modules that earlier versions documented and that scripts still import.
_EARLIER_NAMES = {
    "archive": archive,
    "calculator": calculator,
    "extrapolation": extrapolation,
    "together": side_by_side,
}
sys.modules.update({f"{__name__}.{name}": module for name, module in _EARLIER_NAMES.items()})
