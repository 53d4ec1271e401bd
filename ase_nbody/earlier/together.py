"""The earlier name of ``ase_nbody.engines.side_by_side``."""

import sys

from ase_nbody.engines import side_by_side

sys.modules[__name__] = side_by_side
