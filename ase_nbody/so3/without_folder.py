"""e3nn's functions, imported without the folder of torch's compiler.

e3nn imports torch's compiler, which makes a folder at once: that of ``TORCHINDUCTOR_CACHE_DIR``, or else
``/tmp/torchinductor_USER``. Where it cannot, because a file of somebody else has that name for example, nothing that
needs e3nn could be imported. We need the folder only to compile, and choose it then (``runtime/torch_cache.py``).
"""

import os
import tempfile

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"

_before = os.environ.get(_VARIABLE)
with tempfile.TemporaryDirectory(prefix="ase-nbody-torch-") as _folder:
    os.environ[_VARIABLE] = _folder
    try:
        from e3nn import o3
    finally:
        del os.environ[_VARIABLE]
        if _before is not None:
            os.environ[_VARIABLE] = _before

__all__ = ["o3"]
