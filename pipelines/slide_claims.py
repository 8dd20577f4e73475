"""Which run works on which slide, where several write into one folder."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

CLAIMS_FILE = ".claims"

_TABLES = 0
_TABLES_WAIT_S = 60.0

log = logging.getLogger(__name__)


class Claims:
    """The slides that this run holds; a context manager.

    A claim is a lock on one byte of a file in the output folder, at a place that belongs to the slide. The system
    gives it up when the process ends, however it ends, so that no claim outlives its run. Where a file system has
    no locks, every claim is granted: then only one run at a time may use the folder.

    Parameters
    ----------
    output : pathlib.Path
        Folder of the run.
    """

    def __init__(self, output: Path) -> None:
        self._path = output / CLAIMS_FILE
        self._file = -1
        self._works = True

    def __enter__(self) -> Claims:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def take(self, slide_id: str) -> bool:
        """Claim a slide; False where another run holds it."""
        return self._locked(_place(slide_id))

    def give_back(self, slide_id: str) -> None:
        """Let other runs have a slide."""
        if self._works:
            _unlock(self._file, _place(slide_id))

    @contextmanager
    def tables(self) -> Iterator[None]:
        """Hold what all runs in the folder write to: the tables and the names of slides.

        It is held for moments only. Where another run does not let go, which can only be a fault of the file
        system, this one goes on without.
        """
        until = time.monotonic() + _TABLES_WAIT_S
        while not (held := self._locked(_TABLES)) and time.monotonic() < until:
            time.sleep(0.02)
        try:
            yield
        finally:
            if held and self._works:
                _unlock(self._file, _TABLES)

    def _locked(self, place: int) -> bool:
        if not self._works:
            return True
        try:
            _lock(self._file, place)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                return False
            log.warning("%s: no locks on this file system (%s): use it from one run at a time", self._path, error)
            self._works = False
        return True


def _place(slide_id: str) -> int:
    # Two slides on one byte would only wait for each other; with 2**48 places that does not happen.
    return 1 + int.from_bytes(hashlib.sha256(slide_id.encode()).digest()[:6], "big")


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, place: int) -> None:
        os.lseek(file, place, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _unlock(file: int, place: int) -> None:
        os.lseek(file, place, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(file: int, place: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)

    def _unlock(file: int, place: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, place)
