"""The earlier name of ``ase_nbody.runtime.extrapolation``."""

import sys

from ase_nbody.runtime import extrapolation

sys.modules[__name__] = extrapolation
