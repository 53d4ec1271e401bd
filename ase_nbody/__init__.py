"""N-body networks (Kondor 2018) as an ASE calculator: covariant, hierarchical interatomic potentials.

Each name below is imported from its module when it is first used, so that ``nbody --help`` need not wait for torch.
"""

from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase_nbody.runtime.sources  # noqa: F401  # first: it remembers the sources as they are now

if TYPE_CHECKING:
    from ase_nbody.dynamics import NBodyMonitor
    from ase_nbody.engines import NBodyCalculator, label_molecules
    from ase_nbody.files.archive import load_model, save_model
    from ase_nbody.network import LevelConfig, NBodyConfig, NBodyNetwork
    from ase_nbody.runtime.charge_watch import ChargeWarning
    from ase_nbody.runtime.evaluator import Evaluator
    from ase_nbody.runtime.extrapolation import ExtrapolationWarning
    from ase_nbody.runtime.parts_watch import PartsWarning

__all__ = [
    "ChargeWarning",
    "Evaluator",
    "ExtrapolationWarning",
    "LevelConfig",
    "NBodyCalculator",
    "NBodyConfig",
    "NBodyMonitor",
    "NBodyNetwork",
    "PartsWarning",
    "__version__",
    "label_molecules",
    "load_model",
    "save_model",
]

# The module that defines each name above.
_MODULE_OF = {
    "Evaluator": "runtime.evaluator",
    "ChargeWarning": "runtime.charge_watch",
    "ExtrapolationWarning": "runtime.extrapolation",
    "LevelConfig": "network",
    "NBodyCalculator": "engines",
    "NBodyConfig": "network",
    "NBodyMonitor": "dynamics",
    "NBodyNetwork": "network",
    "PartsWarning": "runtime.parts_watch",
    "label_molecules": "engines",
    "load_model": "files.archive",
    "save_model": "files.archive",
}

# ``ase_nbody.archive`` and other earlier names of modules are found in this folder.
__path__.append(str(Path(__file__).parent / "earlier"))


def __getattr__(name: str) -> Any:
    """Import a public name from its module, or a module of the package (PEP 562).

    Raises:
        AttributeError: the package offers no such name.
    """
    if name == "__version__":
        return metadata.version("ase-nbody")
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    if name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
