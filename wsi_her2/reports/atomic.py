"""Write beside, then rename: a file under its final name is always whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def text_beside(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file that takes its place at `path` only once it was written without an error.

    Lines end as they are written, so that a file is the same on every system. Names of files that are not valid
    Unicode (POSIX allows them) are written with backslash escapes instead of failing.

    Parameters
    ----------
    path : pathlib.Path
    """
    beside = _beside(path)
    try:
        with beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            yield stream
        os.replace(beside, path)  # noqa: PTH105 - Path.replace is the same call; the name says what matters
    finally:
        beside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file beside `path`, then rename it."""
    beside = _beside(path)
    try:
        beside.write_bytes(content)
        os.replace(beside, path)  # noqa: PTH105
    finally:
        beside.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    # In the same folder, because a rename across file systems is a copy.
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
