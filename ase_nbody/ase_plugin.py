"""What ASE knows of this package: the calculator ``nbody``, and the structures in model files.

The entry point ``ase.plugins`` names this file. The entry point ``ase.ioformats`` names ``ase_names``.
"""

import ase
from ase._4.plugins.plugin import CalculatorPlugin

from ase_nbody.files.archive import read_card
from ase_nbody.files.example import example_structure

__ase_plugins__ = {
    CalculatorPlugin(
        name="nbody",
        citation="R. Kondor, N-body networks, arXiv:1803.01588 (2018)",
        implementation="ase_nbody.engines.calculator.NBodyCalculator",
    )
}


def read_nbody(filename: str) -> ase.Atoms:
    """The example structure of a model file, for ``ase.io.read("model.nbody")`` and ``ase gui model.nbody``.

    Raises:
        ModelFileError: the file is not a model.
        ValueError: its card has no example.
    """
    structure = example_structure(read_card(filename)["card"])
    if structure is None:
        raise ValueError(f"{filename} is a model without an example structure in its card")
    return structure.to_atoms()
