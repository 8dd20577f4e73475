"""Tiles of a slide for the viewer: cut at the scale of a level, encoded as JPEG, from the slide file itself.

Levels are DeepZoom's: the last is the slide at full size, each one before it half as large, rounded up, down to a
single pixel. Tiles do not overlap.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np

from wsi_her2.errors import SlideReadError
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.slide import Overview, Slide

_T = TypeVar("_T")

TILE_PX = 512
"""Side of a tile; `docs/review_speed.md` has the figures for others."""

_QUALITY, _CHROMA = 90, "422"
"""Half a grey level from the pixels on average, colours included."""

_MAX_SOURCE_PX = 4096 * 4096
"""Of the slide, decoded for one tile. Coarser tiles of slides without a pyramid come from the kept overview."""

_SMALLEST_PART_PX = 64
"""Of a tile that cannot be decoded as a whole."""

_HATCHING = (150, 205)
"""Grey levels of the stripes over what cannot be decoded; 8 px wide, in level with the tile's corner."""

_CACHE_BYTES = 64 * 2**20
_OPEN_SLIDES = 4
"""Of each thread."""

_IDLE_S = 60.0
"""After which a thread lets go of the files that it holds."""

_PATIENCE_S = 5.0


@dataclass(frozen=True)
class TileGrid:
    """Where the tiles of a slide lie.

    Attributes
    ----------
    width, height : int
        Of level 0 of the slide, that is of the last level here, pixels.
    tile_px : int
        Side of a tile.
    """

    width: int
    height: int
    tile_px: int = TILE_PX

    @property
    def max_level(self) -> int:
        """Number of the level at full size."""
        longest: int = max(self.width, self.height)
        return (longest - 1).bit_length()

    def downsample(self, level: int) -> int:
        """Pixels of the slide along a pixel of a level."""
        return 1 << self.max_level - level

    def place(self, level: int, column: int, row: int) -> TilePlace | None:
        """Where a tile lies; None where there is no such tile."""
        if not 0 <= level <= self.max_level or column < 0 or row < 0:
            return None
        scale = self.downsample(level)
        width, height = -(-self.width // scale), -(-self.height // scale)
        left, top = column * self.tile_px, row * self.tile_px
        if left >= width or top >= height:
            return None
        return TilePlace(
            left * scale, top * scale, min(self.tile_px, width - left), min(self.tile_px, height - top), scale
        )


@dataclass(frozen=True)
class TilePlace:
    """A tile: its corner in pixels of the slide, its size in its own, and how many of those make one of these."""

    x: int
    y: int
    width: int
    height: int
    downsample: int


def cut_tile(
    slide: Slide, place: TilePlace, overview: Callable[[], Overview | None] = lambda: None
) -> tuple[bytes, bool]:
    """A tile as JPEG.

    Parameters
    ----------
    slide : Slide
    place : TilePlace
    overview : callable
        Gives the overview that was kept of the slide, which stands in where the tile would take much of the slide
        to decode.

    Returns
    -------
    tuple of bytes and bool
        And whether all of it could be decoded; what could not is hatched in grey.
    """
    source = _source_downsample(slide, place.downsample)
    if place.width * place.height * (place.downsample / source) ** 2 > _MAX_SOURCE_PX:
        kept = overview()
        if kept is not None and kept.downsample <= 1.5 * place.downsample:
            return encode(_from_overview(kept, place)), True
    rgb = np.empty((place.height, place.width, 3), np.uint8)
    whole = _read_into(rgb, slide, place)
    return encode(rgb), whole


def _read_into(rgb: RGB, slide: Slide, place: TilePlace) -> bool:
    """Read a tile, and where that fails its quarters, down to small ones, so that damage stays where it is."""
    try:
        rgb[:] = slide.read(place.x, place.y, place.width, place.height, slide.mpp * place.downsample)
        return True
    except SlideReadError:
        pass
    if max(place.width, place.height) <= _SMALLEST_PART_PX:
        rows, columns = np.mgrid[0 : place.height, 0 : place.width]
        rgb[:] = np.where((rows + columns) // 8 % 4 == 0, *_HATCHING)[..., None]
        return False
    half_x, half_y = -(-place.width // 2), -(-place.height // 2)
    for left, top in ((0, 0), (half_x, 0), (0, half_y), (half_x, half_y)):
        width, height = min(half_x, place.width - left), min(half_y, place.height - top)
        if width > 0 and height > 0:
            scale = place.downsample
            part = TilePlace(place.x + left * scale, place.y + top * scale, width, height, scale)
            _read_into(rgb[top : top + height, left : left + width], slide, part)
    return False


def encode(rgb: RGB) -> bytes:
    """An image as JPEG."""
    import simplejpeg

    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), _QUALITY, "RGB", _CHROMA)
    return encoded


def _source_downsample(slide: Slide, downsample: float) -> float:
    """Of the level of the file that is read for a scale."""
    return max((level.downsample for level in slide.levels if level.downsample <= downsample * 1.01), default=1.0)


def _from_overview(overview: Overview, place: TilePlace) -> RGB:
    """A tile cut from an overview, white where that does not reach."""
    scale = place.downsample / overview.downsample
    left, top = (place.x - overview.box.x) / overview.downsample, (place.y - overview.box.y) / overview.downsample
    if scale > 1:
        return _shrunk(overview.rgb, left, top, place, scale)
    # From pixels of the tile to those of the overview, by their centres.
    matrix = np.array([[scale, 0, left + scale / 2 - 0.5], [0, scale, top + scale / 2 - 0.5]])
    return np.asarray(
        cv2.warpAffine(
            overview.rgb,
            matrix,
            (place.width, place.height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(255, 255, 255),
        ),
        np.uint8,
    )


def _shrunk(rgb: RGB, left: float, top: float, place: TilePlace, scale: float) -> RGB:
    """A part of an image, shrunk by area averaging."""
    x0, y0 = round(left), round(top)
    x1, y1 = round(left + place.width * scale), round(top + place.height * scale)
    part = np.full((max(1, y1 - y0), max(1, x1 - x0), 3), 255, np.uint8)
    height, width = rgb.shape[:2]
    inside = np.s_[max(0, y0) : max(0, min(height, y1)), max(0, x0) : max(0, min(width, x1))]
    found = rgb[inside]
    if found.size:
        part[max(0, -y0) : max(0, -y0) + found.shape[0], max(0, -x0) : max(0, -x0) + found.shape[1]] = found
    return np.asarray(cv2.resize(part, (place.width, place.height), interpolation=cv2.INTER_AREA), np.uint8)


class ByteCache:
    """The most recently used of some encoded things, up to a number of bytes; for many threads."""

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[Any, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object) -> bytes | None:
        """What was kept under a key."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def put(self, key: object, content: bytes) -> None:
        """Keep something, and let go of what was not used for longest."""
        with self._lock:
            self._bytes += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._kept.popitem(last=False)[1])


class SlideReaders:
    """Threads that read slides, each with handles of its own, because a handle is good for one thread only.

    A thread keeps the few slides open that it read last, and none after a minute without work, so that a file that
    nobody looks at can be moved or its share be taken away.

    Parameters
    ----------
    open_slide : callable
        Opens the slide of a key in the calling thread.
    threads : int
    idle_s : float
        After so many seconds without work a thread closes what it holds.
    """

    def __init__(self, open_slide: Callable[[Any], Slide], threads: int, idle_s: float = _IDLE_S) -> None:
        self._open, self._idle_s = open_slide, idle_s
        self._work: queue.SimpleQueue[tuple[Future[Any], Any, Callable[[Slide], Any]] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"slide-reader-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, key: object, read: Callable[[Slide], _T]) -> Future[_T]:
        """Have a slide read in one of the threads."""
        future: Future[_T] = Future()
        self._work.put((future, key, read))
        return future

    def open_ahead(self, key: object) -> None:
        """Have a slide opened in as many threads as have nothing else to do."""
        for _ in self._threads:
            self.submit(key, lambda _: None)

    def close(self) -> None:
        """End the threads and close all slides."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            # One that waits for a share that has gone must not keep the program.
            thread.join(_PATIENCE_S)

    def _run(self) -> None:
        held: OrderedDict[Any, tuple[Slide, float]] = OrderedDict()
        while True:
            try:
                task = self._work.get(timeout=self._idle_s if held else None)
            except queue.Empty:
                _let_go(held, 0)
                continue
            if task is None:
                _let_go(held, 0)
                return
            future, key, read = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                slide = held.pop(key, (None, 0.0))[0] or self._open(key)
                held[key] = slide, time.monotonic()
                _let_go(held, _OPEN_SLIDES)
                future.set_result(read(slide))
            except BaseException as error:  # noqa: BLE001 - whoever asked gets it
                future.set_exception(error)
            self._drop_idle(held)

    def _drop_idle(self, held: OrderedDict[Any, tuple[Slide, float]]) -> None:
        since = time.monotonic() - self._idle_s
        idle = sum(used < since for _, used in held.values())
        _let_go(held, len(held) - idle)


def _let_go(held: OrderedDict[Any, tuple[Slide, float]], kept: int) -> None:
    while len(held) > kept:
        held.popitem(last=False)[1][0].close()
