"""Slides that appear in folders while a run goes on, as a scanner drops them there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.sources import find_slides
from wsi_her2.errors import ConfigurationError


@dataclass(frozen=True)
class _Look:
    """A file as it was when it was first seen so: all of its parts, their bytes, the latest change."""

    state: tuple[int, int, int]
    since: float


class FolderWatch:
    """Tells of slides that are new or have changed, once they have stopped growing.

    Parameters
    ----------
    inputs : sequence of pathlib.Path
        Folders, and files. What is in them at the start is new too.
    settle_s : float
        For how long neither size nor time of change may have moved.
    clock : callable, optional
        Seconds; `time.monotonic`.
    """

    def __init__(
        self, inputs: Sequence[Path], settle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inputs = tuple(inputs)
        self._settle_s = settle_s
        self._clock = clock
        self._seen: dict[Path, _Look] = {}
        self._given: dict[Path, tuple[int, int, int]] = {}

    def arrivals(self) -> list[Path]:
        """Slides that have settled since the last call. A folder that cannot be read just now has none."""
        now = self._clock()
        settled = []
        for path in self._slides():
            state = _state(path)
            if state is None or state == self._given.get(path):
                continue
            look = self._seen.get(path)
            if look is None or look.state != state:
                look = self._seen[path] = _Look(state, now)
            if now - look.since >= self._settle_s:
                self._given[path] = state
                del self._seen[path]
                settled.append(path)
        return settled

    def _slides(self) -> list[Path]:
        found = []
        for given in self._inputs:
            try:
                found += [path for path in find_slides([given]) if isinstance(path, Path)]
            except ConfigurationError:
                continue
        return found


def _state(path: Path) -> tuple[int, int, int] | None:
    """Parts, bytes and latest change; None where the file has gone or is empty still.

    Some formats keep their pixels in a folder that is named like the file (MRXS), or beside it (VMS).
    """
    try:
        parts = [path]
        beside = path.with_suffix("")
        if beside.is_dir():
            parts += [part for part in beside.rglob("*") if part.is_file()]
        stats = [part.stat() for part in parts]
    except OSError:
        return None
    size = sum(stat.st_size for stat in stats)
    return (len(stats), size, max(stat.st_mtime_ns for stat in stats)) if stats[0].st_size else None
