"""Reading a whole file that somebody else wrote: only if it is a file, and only up to a size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file.

    A name can stand for a pipe, on which a reader waits for ever, or for a device without end; and a file can grow
    between a look at its size and its reading.

    Parameters
    ----------
    path : pathlib.Path
    max_bytes : int

    Raises
    ------
    OSError
        It cannot be read, is no regular file, or holds more than `max_bytes`; `strerror` says which.
    """
    # Without O_NONBLOCK already the opening of a pipe waits for somebody to write into it.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as stream:
        kept = os.fstat(stream.fileno())
        if not stat.S_ISREG(kept.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if kept.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes", str(path))
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes", str(path))
    return content
