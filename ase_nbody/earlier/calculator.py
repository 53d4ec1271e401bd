"""The earlier name of ``ase_nbody.engines.calculator``."""

import sys

from ase_nbody.engines import calculator

sys.modules[__name__] = calculator
