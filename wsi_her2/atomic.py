"""Write beside, then rename: a file under its final name is always whole."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
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


@contextmanager
def file_beside(path: Path) -> Iterator[Path]:
    """A path to write a file at; the file takes its place at `path` once the block has ended without an error."""
    partial = _beside(path)
    try:
        yield partial
        os.replace(partial, path)  # noqa: PTH105
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file beside `path`, then rename it."""
    with file_beside(path) as partial:
        partial.write_bytes(content)


def append_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Add rows to a CSV file in one write; the columns come first where it is new or empty.

    A last line that was cut off when its writer was killed is ended, so that it spoils no other.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    with path.open("a+b", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        if size == 0:
            writer.writerow(columns)
        else:
            stream.seek(size - 1)
            if stream.read(1) != b"\n":
                text.write("\n")
        writer.writerows(rows)
        whole = memoryview(text.getvalue().encode("utf-8"))
        # A disk that fills takes a part and says so only to the next write.
        while whole:
            whole = whole[stream.write(whole) :]


def _beside(path: Path) -> Path:
    # In the same folder, because a rename across file systems is a copy.
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
