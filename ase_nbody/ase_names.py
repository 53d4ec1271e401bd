"""What ASE loads by itself, together with its file formats: the name ``nbody`` for its command line and databases.

ASE 3 finds calculators by their names only in its own table. Its file formats are plugins, which every program that
reads or writes structures loads. So this file adds the name to the table and the model files to the formats. It must
stay light: torch is imported only when a calculator is made.
"""

from typing import Any

from ase.calculators.calculator import external_calculators
from ase.utils.plugins import ExternalIOFormat

model_file = ExternalIOFormat(
    desc="N-body network: the example structure of its card", code="1S", module="ase_nbody.ase_plugin", ext="nbody"
)


class NBody:
    """``get_calculator_class("nbody")``: calling it makes an ``NBodyCalculator``."""

    nolabel = True

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        """The calculator; arguments as in ``NBodyCalculator``."""
        from ase_nbody.engines import NBodyCalculator

        return NBodyCalculator(*arguments, **keywords)


external_calculators.setdefault("nbody", NBody)
