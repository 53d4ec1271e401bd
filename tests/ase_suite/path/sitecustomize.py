"""Puts the stand-in in EMT's place. Every Python process that starts with this folder on its path runs this file.

The exchange happens only when ``ase.calculators.emt`` is imported, so that processes without EMT do not wait for torch.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MODEL = "EMT_STAND_IN"  # environment variable with the path of a model file; without it EMT stays EMT


def stand_in() -> type:
    """The class that takes EMT's place: the calculator, with the model as a default because EMT takes no arguments."""
    from ase_nbody import NBodyCalculator

    class EMT(NBodyCalculator):
        made = 0  # number of calculators made in this process, which shows which tests use the calculator at all

        def __init__(self) -> None:
            super().__init__(os.environ[MODEL])
            EMT.made += 1

    EMT.__module__, EMT.__qualname__ = "ase.calculators.emt", "EMT"  # where pickle finds it
    return EMT


class SwapEMT:
    """An import hook that imports ``ase.calculators.emt`` as usual and then exchanges its class."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "ase.calculators.emt":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_swap(module: ModuleType) -> None:
            load(module)
            module.EMT = stand_in()

        spec.loader.exec_module = load_and_swap
        return spec


if MODEL in os.environ:
    sys.meta_path.insert(0, SwapEMT())
