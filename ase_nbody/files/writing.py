"""Write files that appear complete or not at all."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, payload: bytes) -> None:
    """Replace the file at ``path`` atomically. If the process is killed or the disk is full, the old file remains."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
