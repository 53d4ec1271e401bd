"""The earlier name of ``ase_nbody.files.archive``."""

import sys

from ase_nbody.files import archive

sys.modules[__name__] = archive
