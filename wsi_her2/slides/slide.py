"""`Slide`: one whole-slide image, addressed in level-0 pixels and read at the scale that is asked for."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.errors import SlideReadError
from wsi_her2.slides.backends import RGB, Backend, MemoryBackend, Pixels, over_white
from wsi_her2.slides.location import SlideLocation, SlideUrl, locate
from wsi_her2.slides.opening import FILE_BACKENDS, decodes, not_readable, open_backend, open_first_that_reads
from wsi_her2.slides.resolution import MppSource, Resolution, resolve_mpp

_SOURCE_PX_PER_READ = 4096 * 4096
"""Largest area decoded at once; a read that spans more is cut up, so that memory does not follow the slide."""

_OVERVIEW_TILE_PX = 512
_OVERVIEW_SMALLEST_TILE_PX = 32
_OVERVIEW_MOST_SPLIT = 2000
"""Tiles of which the readable parts are sought. Where more cannot be decoded, hours could be spent on nothing."""


@dataclass(frozen=True)
class Box:
    """A rectangle in level-0 pixels: top-left corner and size."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Overview:
    """The whole slide, small.

    Attributes
    ----------
    rgb : uint8 H x W x 3
    unreadable : bool H x W
        Where the file could not be decoded; these pixels are white in `rgb`.
    mpp : float
        Microns per pixel of `rgb`.
    box : Box
        The part of the slide that is shown, in level-0 pixels.
    """

    rgb: RGB
    unreadable: npt.NDArray[np.bool_]
    mpp: float
    box: Box

    @property
    def downsample(self) -> float:
        """Level-0 pixels per pixel of the overview."""
        return self.box.width / int(self.rgb.shape[1])


class Slide:
    """A whole-slide image.

    Small and picklable: it holds where the file is and what is known of it, and opens the file when pixels
    are first asked for, once in each thread of each process. Get one from `open_slide`.

    Attributes
    ----------
    name : str
        File name, or the name given to an in-memory slide.
    path : pathlib.Path, SlideUrl or None
        Where the slide lies, None for a slide in memory.
    backend : {'tiled-jpeg', 'openslide', 'tiffslide', 'memory'}
        What reads the file.
    backend_requested : str
        What was asked for: 'auto' or a backend's name.
    mpp : float
        Microns per level-0 pixel.
    mpp_source : {'user', 'vendor', 'tiff-tags', 'objective-power'}
    dimensions : tuple of int
        Width and height of level 0 in pixels.
    levels : tuple of Level
        Those of the file.
    bounds : Box
        The scanned part of level 0; the whole level unless the file says otherwise.
    properties : mapping of str to str
        What the file says of itself, under OpenSlide's names.
    """

    def __init__(
        self, opened: Backend, resolution: Resolution, *, path: SlideLocation | None, name: str, requested: str
    ):
        self.name = name
        self.path = path
        self.backend = opened.name
        self.backend_requested = requested
        self.mpp = resolution.mpp
        self.mpp_source: MppSource = resolution.source
        self.levels = tuple(level for level in opened.levels if level.stored)
        self._readable = opened.levels
        self.dimensions = (opened.levels[0].width, opened.levels[0].height)
        self.properties: Mapping[str, str] = opened.properties
        self.bounds = _bounds(opened.properties, self.dimensions)
        self._in_memory = opened if isinstance(opened, MemoryBackend) else None
        self._per_thread = threading.local()
        self._per_thread.backend = opened

    def __repr__(self) -> str:
        width, height = self.dimensions
        return f"Slide({self.name!r}, {width} x {height} px, {self.mpp:g} um/px, {self.backend})"

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_per_thread"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._per_thread = threading.local()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of this thread's handle; the next read opens another."""
        backend = getattr(self._per_thread, "backend", None)
        if backend is not None:
            backend.close()
            del self._per_thread.backend

    def read(self, x: int, y: int, width: int, height: int, mpp: float | None = None) -> RGB:
        """Read a region at a scale.

        Parameters
        ----------
        x, y : int
            Top-left corner in level-0 pixels; it may lie outside the slide.
        width, height : int
            Size of the result in pixels at `mpp`.
        mpp : float, optional
            Scale of the result in um/px; the slide's own by default. The coarsest level that is fine enough is
            read, shrunk as it is decoded where the backend can, and resampled by area averaging (cubic where it
            has to be enlarged).

        Returns
        -------
        uint8 height x width x 3
            RGB; white where the slide is transparent or ends.

        Raises
        ------
        SlideReadError
            Pixels of the region cannot be decoded.
        ValueError
            The size or the scale is not positive.
        """
        if width < 1 or height < 1:
            raise ValueError(f"a region needs at least one pixel, not {width} x {height}")
        if mpp is not None and not 0 < mpp < math.inf:
            raise ValueError(f"mpp must be a positive number, not {mpp}")
        downsample = (mpp or self.mpp) / self.mpp
        index = self._level_for(downsample)
        per_tile = max(1, int(_SOURCE_PX_PER_READ**0.5 * self._readable[index].downsample / downsample))
        if width <= per_tile and height <= per_tile:
            return self._read_at_once(index, x, y, width, height, downsample)
        region = np.empty((height, width, 3), np.uint8)
        for tile in _tiles(width, height, per_tile):
            region[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = self._read_at_once(
                index,
                x + round(tile.x * downsample),
                y + round(tile.y * downsample),
                tile.width,
                tile.height,
                downsample,
            )
        return region

    def overview(self, mpp: float) -> Overview:
        """Read the scanned part of the slide at a coarse scale, passing over what cannot be decoded.

        Parameters
        ----------
        mpp : float
            Scale in um/px.
        """
        downsample = max(1.0, mpp / self.mpp)
        width = max(1, round(self.bounds.width / downsample))
        height = max(1, round(self.bounds.height / downsample))
        # What the rounded size amounts to, so that the overview spans the bounds exactly.
        downsample = self.bounds.width / width
        height = max(1, int(self.bounds.height / downsample))
        rgb = np.full((height, width, 3), 255, np.uint8)
        unreadable = np.zeros((height, width), bool)
        # Large tiles first, so that what may be split is spent evenly.
        pending = deque(_tiles(width, height, _OVERVIEW_TILE_PX))
        split = 0
        while pending:
            tile = pending.popleft()
            window = np.s_[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
            try:
                rgb[window] = self.read(
                    self.bounds.x + round(tile.x * downsample),
                    self.bounds.y + round(tile.y * downsample),
                    tile.width,
                    tile.height,
                    self.mpp * downsample,
                )
            except SlideReadError:
                if max(tile.width, tile.height) > _OVERVIEW_SMALLEST_TILE_PX and split < _OVERVIEW_MOST_SPLIT:
                    split += 1
                    pending.extend(_quarters(tile))
                else:
                    unreadable[window] = True
        return Overview(rgb, unreadable, self.mpp * downsample, self.bounds)

    def _level_for(self, downsample: float) -> int:
        fitting = [i for i, level in enumerate(self._readable) if level.downsample <= downsample * 1.01]
        return max(fitting, key=lambda i: self._readable[i].downsample, default=0)

    def _read_at_once(self, index: int, x: int, y: int, width: int, height: int, downsample: float) -> RGB:
        level = self._readable[index]
        left, source_width = _span(x, width * downsample, level.downsample, level.width)
        top, source_height = _span(y, height * downsample, level.downsample, level.height)
        source = self._read_level(index, left, top, source_width, source_height)
        if (source_width, source_height) == (width, height):
            return source
        shrinks = source_width >= width and source_height >= height
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(source, (width, height), interpolation=interpolation), np.uint8)

    def _read_level(self, index: int, left: int, top: int, width: int, height: int) -> RGB:
        """Pixels of a level, white beyond its edge."""
        level = self._readable[index]
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(level.width, left + width), min(level.height, top + height)
        whole = (x0, y0, x1, y1) == (left, top, left + width, top + height)
        region = None if whole else np.full((height, width, 3), 255, np.uint8)
        if x1 <= x0 or y1 <= y0:
            return np.full((height, width, 3), 255, np.uint8)
        pixels = over_white(self._decode(index, x0, y0, x1 - x0, y1 - y0))
        if region is None:
            return pixels
        region[y0 - top : y1 - top, x0 - left : x1 - left] = pixels
        return region

    def _decode(self, index: int, x: int, y: int, width: int, height: int) -> Pixels:
        try:
            return self._backend().read(index, x, y, width, height)
        except SlideReadError as error:
            raise SlideReadError(
                f"{self.name}: level {index} at ({x}, {y}), {width} x {height} px: {error}"
            ) from error

    def _backend(self) -> Backend:
        if self._in_memory is not None:
            return self._in_memory
        backend: Backend | None = getattr(self._per_thread, "backend", None)
        if backend is None:
            if self.path is None:
                raise SlideReadError(f"{self.name}: the slide has neither a file nor pixels")
            backend = self._per_thread.backend = open_backend(self.path, self.backend)
        return backend


def open_slide(path: str | Path | SlideUrl, mpp: float | None = None, backend: str = "auto") -> Slide:
    """Open a slide.

    Parameters
    ----------
    path : str, pathlib.Path or SlideUrl
        A file, or as text a URL that fsspec can read in parts: `https://...`, `s3://...`.
    mpp : float, optional
        Microns per level-0 pixel. Overrides what the file says.
    backend : {'auto', 'tiled-jpeg', 'openslide', 'tiffslide'}
        'auto' tries the others in this order, once. Behind a URL only tiffslide reads.

    Raises
    ------
    SlideNotFound, UnsupportedSlide, MissingResolution, ImplausibleResolution
    SlideUnreachable, SlideForbidden, MissingExtra
        Behind a URL: the connection failed, access is refused, or a package for its protocol is missing.
    """
    path = locate(path)
    if backend == "auto":
        opened = open_first_that_reads(path)
    elif backend in FILE_BACKENDS:
        opened = open_backend(path, backend)
    else:
        raise ValueError(f"backend is 'auto' or one of {', '.join(FILE_BACKENDS)}, not {backend!r}")
    try:
        resolution = resolve_mpp(opened.properties, user_mpp=mpp, name=path.name)
    except ValueError as error:
        # A file that shows no pixels either is not a slide of unknown scale; it is no slide.
        readable = decodes(opened)
        opened.close()
        if not readable:
            raise not_readable(path, f"{opened.name} opens it but decodes no pixels") from error
        raise
    return Slide(opened, resolution, path=path, name=path.name, requested=backend)


def slide_from_array(rgb: RGB, mpp: float, name: str = "array") -> Slide:
    """Wrap an RGB array as a slide.

    Parameters
    ----------
    rgb : uint8 H x W x 3 or 4
        With four channels the last is opacity.
    mpp : float
        Microns per pixel.
    name : str
    """
    opened = MemoryBackend(rgb)
    resolution = resolve_mpp({}, user_mpp=mpp, name=name)
    return Slide(opened, resolution, path=None, name=name, requested="memory")


def _bounds(properties: Mapping[str, str], dimensions: tuple[int, int]) -> Box:
    width, height = dimensions
    try:
        x, y, w, h = (int(properties[f"openslide.bounds-{key}"]) for key in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return Box(0, 0, width, height)
    x, y = min(max(0, x), width - 1), min(max(0, y), height - 1)
    return Box(x, y, min(max(1, w), width - x), min(max(1, h), height - y))


def _span(start: int, length: float, downsample: float, size: int) -> tuple[int, int]:
    """First pixel of a level and number of its pixels for a span of level 0; both ends to the nearest pixel."""
    first = math.floor(start / downsample + 0.5)
    last = math.floor((start + length) / downsample + 0.5)
    if downsample > 1 and last == size + 1:
        # The rounding of a level's size, not ground beyond the slide.
        last = size
    return first, max(1, last - first)


def _tiles(width: int, height: int, size: int) -> Iterator[Box]:
    for y in range(0, height, size):
        for x in range(0, width, size):
            yield Box(x, y, min(size, width - x), min(size, height - y))


def _quarters(tile: Box) -> Iterator[Box]:
    half = (max(tile.width, tile.height) + 1) // 2
    for part in _tiles(tile.width, tile.height, half):
        yield Box(tile.x + part.x, tile.y + part.y, part.width, part.height)
