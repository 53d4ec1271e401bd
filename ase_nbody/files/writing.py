"""Write files that appear complete or not at all."""

import os
import secrets
import stat
from pathlib import Path


def write_whole(path: Path, payload: bytes) -> None:
    """Replace the file at ``path`` atomically. If the process is killed or the disk is full, the old file remains.

    A new file has the mode that the umask allows, as any file that ``open`` makes. An existing file keeps its mode.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    file = open(temporary, "xb")  # noqa: SIM115 (outside of try: a file of this name that exists is not ours to remove)
    try:
        with file:
            if path.is_file():  # before the contents, which others may not be allowed to read
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
